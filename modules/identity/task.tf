# The runner's supervisor: releases in, records and artifacts out. It never touches the warehouse under this role.

locals {
  ec2 = "arn:${var.location.partition}:ec2:${var.location.region}:${var.location.account}"
}

data "aws_iam_policy_document" "task_trust" {
  # ECS can't be held to one cluster here.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html
  statement {
    sid     = "Tasks"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.location.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${var.location.partition}:ecs:${var.location.region}:${var.location.account}:*"]
    }
  }

  # The runner is the same on Lambda, and so is its role.
  # https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
  dynamic "statement" {
    for_each = local.functions

    content {
      sid     = "Functions"
      actions = ["sts:AssumeRole"]

      principals {
        type        = "Service"
        identifiers = ["lambda.amazonaws.com"]
      }

      # Only this account's own functions can be given this role. Whether Lambda names its account here is not documented.
      condition {
        test     = "StringEqualsIfExists"
        variable = "aws:SourceAccount"
        values   = [var.location.account]
      }
    }
  }
}

data "aws_iam_policy_document" "task" {
  # ForAllValues is true where the key is absent, hence the Null condition beside it.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "ReadEnvironmentAndReleases"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
    resources = [var.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["ENV#${var.environment}", "POINTER#${var.environment}", "RELEASE#*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid = "RecordRuns"
    actions = [
      "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
    ]
    resources = [var.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["RUN#${var.environment}#*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadReleases"
    actions   = ["s3:GetObject"]
    resources = ["${var.arns.bucket}/releases/*"]
  }

  # What each version means in this environment: read at each run, and written at the first. New objects only: no role changes a pin.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadPins"
    actions   = ["s3:GetObject"]
    resources = ["${var.arns.bucket}/pins/${var.environment}/*"]
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  statement {
    sid       = "PinVersions"
    actions   = ["s3:PutObject"]
    resources = ["${var.arns.bucket}/pins/${var.environment}/*"]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }

  # What dbt made of a release in this environment, for the next run of it. It can be made again at any time.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ParseCache"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${var.arns.bucket}/cache/${var.environment}/*"]
  }

  # Without it S3 answers 403 for an object that is missing, and a missing release could not be told from a missing right.
  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
  statement {
    sid       = "SeeMissingReleases"
    actions   = ["s3:ListBucket"]
    resources = [var.arns.bucket]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["releases/*", "pins/${var.environment}/*", "cache/${var.environment}/*"]
    }
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "WriteArtifacts"
    actions   = ["s3:PutObject"]
    resources = ["${var.arns.bucket}/runs/${var.environment}/*"]
  }

  # The one artifact of an earlier step that the run's report shows.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadFreshness"
    actions   = ["s3:GetObject"]
    resources = ["${var.arns.bucket}/runs/${var.environment}/*/sources.json"]
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "PublishDocumentation"
    actions   = ["s3:PutObject"]
    resources = ["${var.arns.bucket}/docs/${var.environment}/*"]
  }

  # Rows of the long-term audit. New objects only: the request must carry If-None-Match, so that no task rewrites what another one said.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  statement {
    sid       = "ArchiveAttempts"
    actions   = ["s3:PutObject"]
    resources = [for table in ["attempts", "nodes"] : "${var.arns.bucket}/audit/${table}/env=${var.environment}/*"]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_permissions-required
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html
  statement {
    sid       = "BecomeWarehouse"
    actions   = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    resources = [local.role_arns.warehouse]
  }

  # On Lambda the runner has to do itself what the ECS agent does for a task under the execution role: logs, and secrets (secrets.tf).
  # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html
  dynamic "statement" {
    for_each = local.functions

    content {
      sid       = "WriteFunctionLogs"
      actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      resources = ["${var.arns.function_logs}:*"]
    }
  }

  # Lambda itself makes the function's network interfaces under this role, in these subnets and with these security groups.
  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
  dynamic "statement" {
    for_each = local.vpc_functions

    content {
      sid     = "CreateInterfaces"
      actions = ["ec2:CreateNetworkInterface"]
      resources = concat(
        ["${local.ec2}:network-interface/*"],
        [for id in statement.value.subnet_ids : "${local.ec2}:subnet/${id}"],
        [for id in statement.value.security_group_ids : "${local.ec2}:security-group/${id}"],
      )
    }
  }

  # Lambda refuses a role that may do this with some interfaces only: it asks for all resources of the account.
  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
  dynamic "statement" {
    for_each = local.vpc_functions

    content {
      sid       = "ManageInterfaces"
      actions   = ["ec2:AssignPrivateIpAddresses", "ec2:DeleteNetworkInterface", "ec2:UnassignPrivateIpAddresses"]
      resources = ["${local.ec2}:*/*"]
    }
  }

  # These actions know no resource.
  # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
  dynamic "statement" {
    for_each = local.vpc_functions

    content {
      sid       = "SeeInterfaces"
      actions   = ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"]
      resources = ["*"]
    }
  }

  # What Lambda may do with interfaces, the function's code may not.
  # https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
  dynamic "statement" {
    for_each = local.vpc_functions

    content {
      sid       = "NoInterfacesFromCode"
      effect    = "Deny"
      actions   = ["ec2:*"]
      resources = ["*"]

      condition {
        test     = "ArnLike"
        variable = "lambda:SourceFunctionArn"
        values   = [var.arns.function, "${var.arns.function}:*"]
      }
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "TableKey"
      actions   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.dynamodb]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:aws:dynamodb:tableName"
        values   = [split("/", var.arns.table)[1]]
      }
    }
  }

  # With a bucket key the context is the bucket, without it is the object.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html#encryption-context
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "BucketKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.s3]
      }

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values = [
          for path in [
            "", "/releases/*", "/pins/${var.environment}/*", "/cache/${var.environment}/*", "/runs/${var.environment}/*", "/docs/${var.environment}/*",
            "/audit/attempts/env=${var.environment}/*", "/audit/nodes/env=${var.environment}/*",
          ] : "${var.arns.bucket}${path}"
        ]
      }
    }
  }

  # Knows no encryption context.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "DescribeKey"
      actions   = ["kms:DescribeKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.dynamodb, local.via.s3]
      }
    }
  }

  # On Lambda the runner reads the secrets itself. Those of the first policy.
  source_policy_documents = slice(data.aws_iam_policy_document.task_secrets[*].json, 0, min(1, length(data.aws_iam_policy_document.task_secrets)))
}

resource "aws_iam_role" "task" {
  name                 = local.roles.task
  description          = "The runner of ${var.id}: releases, records, artifacts"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.task_trust.json
  tags                 = var.tags
}

resource "aws_iam_role_policy" "task" {
  name   = "task"
  role   = aws_iam_role.task.name
  policy = data.aws_iam_policy_document.task.json

  # What moves into a managed policy is granted there before it is no longer granted here.
  depends_on = [aws_iam_role_policy_attachment.managed]

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_policy_document.task.minified_json) <= local.inline_characters
      error_message = "Limit \"inline policies of a role\" of IAM: that of ${local.roles.task} has ${length(data.aws_iam_policy_document.task.minified_json)} of ${local.inline_characters} characters. ${local.managed_advice.task} (docs/limits.md)."
    }
  }
}
