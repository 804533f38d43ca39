# Which endpoints, by what the deployment uses (endpoints.json, explained in docs/network.md), and what may pass through each.

locals {
  needed = jsondecode(file("${path.module}/endpoints.json"))

  secret_services = toset([for arn in var.secret_arns : split(":", arn)[2]])

  interfaces = toset(concat(
    local.needed.interface,
    flatten([for service in local.secret_services : local.needed.secrets[service]]),
    flatten([for warehouse in var.warehouses : local.needed.warehouses[warehouse]]),
  ))

  # The bucket in which ECR keeps the layers of all images. Its objects are had by signed links, which are no principal's of this account.
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html#ecr-minimum-s3-perms
  layers = "${local.arn}:s3:::prod-${var.region}-starport-layer-bucket"

  audit_bucket = "${local.arn}:s3:::${var.name}-audit-${local.account}-${var.region}"
  audit_table  = "${local.arn}:dynamodb:${local.regional}:table/${var.name}-audit"

  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html
  image      = regex("^(?P<account>\\d{12})\\.dkr\\.ecr\\.[a-z0-9.-]+/(?P<repository>[^@]+)@", var.image)
  repository = "${local.arn}:ecr:${var.region}:${local.image.account}:repository/${local.image.repository}"

  interface_policies = merge(
    { for service in local.interfaces : service => data.aws_iam_policy_document.this_account.json },
    { for service in ["ecr.api", "ecr.dkr"] : service => data.aws_iam_policy_document.image.json },
    { for service in local.secret_services : service => data.aws_iam_policy_document.secrets.json },
  )
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = {
    s3       = data.aws_iam_policy_document.buckets.json
    dynamodb = data.aws_iam_policy_document.table.json
  }

  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${var.region}.${each.key}"
  route_table_ids   = [aws_route_table.private.id]
  policy            = each.value
  tags              = { Name = "${var.name}-${each.key}" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interfaces

  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  private_dns_enabled = true
  subnet_ids          = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids  = [aws_security_group.endpoints.id]
  policy              = local.interface_policies[each.key]
  tags                = { Name = "${var.name}-${each.key}" }
}

# What a policy of an endpoint allows, the roles' own policies have to allow as well: it only takes away. With it, credentials of somebody
# else's account lead nowhere from here, and neither do ours to a bucket that is not named.

# https://docs.aws.amazon.com/vpc/latest/privatelink/vpc-endpoints-access.html
data "aws_iam_policy_document" "this_account" {
  statement {
    sid       = "ThisAccount"
    actions   = ["*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

# https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html
data "aws_iam_policy_document" "image" {
  statement {
    sid       = "PullImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = [local.repository]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }

  statement {
    sid       = "LogInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

# https://docs.aws.amazon.com/secretsmanager/latest/userguide/vpc-endpoint-overview.html
data "aws_iam_policy_document" "secrets" {
  statement {
    sid       = "ReadSecrets"
    actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    resources = var.secret_arns

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/vpc-endpoints-dynamodb.html
data "aws_iam_policy_document" "table" {
  statement {
    sid       = "AuditTable"
    actions   = ["dynamodb:*"]
    resources = [local.audit_table]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }
}

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/example-bucket-policies-vpc-endpoint.html
data "aws_iam_policy_document" "buckets" {
  statement {
    sid       = "AuditBucket"
    actions   = ["s3:*"]
    resources = [local.audit_bucket, "${local.audit_bucket}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:PrincipalAccount"
      values   = [local.account]
    }
  }

  # Athena's are had by the warehouse role; Snowflake's stage by links that Snowflake has signed.
  dynamic "statement" {
    for_each = length(var.bucket_arns) > 0 ? [var.bucket_arns] : []

    content {
      sid       = "WarehouseBuckets"
      actions   = ["s3:*"]
      resources = flatten([for bucket in statement.value : [bucket, "${bucket}/*"]])

      principals {
        type        = "AWS"
        identifiers = ["*"]
      }
    }
  }

  statement {
    sid       = "ImageLayers"
    actions   = ["s3:GetObject"]
    resources = ["${local.layers}/*"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}
