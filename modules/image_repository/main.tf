# Where the runner's image lives. What was pushed once stays what it is, is scanned, and can be pulled by those who run it and no others.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id

  # Composed, so that a plan shows every policy in full.
  arn = "arn:${local.partition}:ecr:${data.aws_region.current.id}:${local.account}:repository/${var.name}"

  pulling = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]

  # The accounts of the roles, this one or others: a repository's policy is all that lets another account in.
  pull_accounts = sort(distinct([for arn in var.pull_role_arns : split(":", arn)[4]]))

  # AWS's own scanners read images by roles that only AWS can assume.
  # https://docs.aws.amazon.com/inspector/latest/user/using-service-linked-roles.html
  service_roles = "arn:${local.partition}:iam::${local.account}:role/aws-service-role/*"
}

resource "aws_ecr_repository" "this" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = var.force_delete

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = var.kms_key_arn == null ? "AES256" : "KMS"
    kms_key         = var.kms_key_arn
  }

  tags = var.tags
}

# An image that a task definition names by its digest must still be there at the next start: images with a tag are counted, not aged.
# https://docs.aws.amazon.com/AmazonECR/latest/userguide/lifecycle_policy_parameters.html
resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Parts of pushes that were not finished"
        selection    = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = var.untagged_days }
        action       = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "All but the newest"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = var.keep_images }
        action       = { type = "expire" }
      },
    ]
  })
}

data "aws_iam_policy_document" "repository" {
  # By the role's ARN as a condition, because a role that does not exist yet can be no principal: the first image is there before them.
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/repository-policies.html
  statement {
    sid     = "Pull"
    actions = local.pulling

    principals {
      type        = "AWS"
      identifiers = [for account in local.pull_accounts : "arn:${local.partition}:iam::${account}:root"]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:PrincipalArn"
      values   = var.pull_role_arns
    }
  }

  # Administrators of this account, too, may otherwise pull with what their own policies allow. A service has no such ARN.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-principalisawsservice
  statement {
    sid     = "PullByNobodyElse"
    effect  = "Deny"
    actions = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "ArnNotLike"
      variable = "aws:PrincipalArn"
      values   = concat(var.pull_role_arns, var.push_role_arns, [local.service_roles])
    }

    condition {
      test     = "Bool"
      variable = "aws:PrincipalIsAWSService"
      values   = ["false"]
    }
  }

  # Lambda pulls by itself, not as the function's role.
  # https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#gettingstarted-images-permissions
  dynamic "statement" {
    for_each = length(var.function_arns) > 0 ? [var.function_arns] : []

    content {
      sid     = "PullForFunctions"
      actions = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]

      principals {
        type        = "Service"
        identifiers = ["lambda.amazonaws.com"]
      }

      condition {
        test     = "ArnLike"
        variable = "aws:SourceArn"
        values   = statement.value
      }

      # Lambda's page shows aws:sourceArn alone; the account is in there.
      condition {
        test     = "StringEqualsIfExists"
        variable = "aws:SourceAccount"
        values   = sort(distinct([for arn in statement.value : split(":", arn)[4]]))
      }
    }
  }
}

resource "aws_ecr_repository_policy" "this" {
  repository = aws_ecr_repository.this.name
  policy     = data.aws_iam_policy_document.repository.json
}

# For the role that pushes: what `docker push` calls, on this repository.
data "aws_iam_policy_document" "push" {
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
  statement {
    sid       = "PushImage"
    actions   = concat(local.pulling, ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"])
    resources = [local.arn]
  }

  # To find out whether a version is there already, and what the scan of it found.
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-scanning-basic.html
  statement {
    sid       = "ReadScan"
    actions   = ["ecr:DescribeImages", "ecr:DescribeImageScanFindings"]
    resources = [local.arn]
  }

  # This action knows no resource.
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-push-iam.html
  statement {
    sid       = "LogInToEcr"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
}
