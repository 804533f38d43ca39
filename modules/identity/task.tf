# The runner's supervisor: releases in, records and artifacts out. It never touches the warehouse under this role.

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
      values   = ["ENV#${var.environment}", "RELEASE#*"]
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
      values   = ["releases/*", "cache/${var.environment}/*"]
    }
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "WriteArtifacts"
    actions   = ["s3:PutObject"]
    resources = ["${var.arns.bucket}/runs/${var.environment}/*"]
  }

  # The long-term audit of attempts and nodes, and the project's documentation.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid     = "ArchiveAndPublish"
    actions = ["s3:PutObject"]
    resources = [
      "${var.arns.bucket}/audit/attempts/env=${var.environment}/*",
      "${var.arns.bucket}/audit/nodes/env=${var.environment}/*",
      "${var.arns.bucket}/docs/${var.environment}/*",
    ]
  }

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_permissions-required
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html
  statement {
    sid       = "BecomeWarehouse"
    actions   = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    resources = [local.role_arns.warehouse]
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
          var.arns.bucket, "${var.arns.bucket}/releases/*", "${var.arns.bucket}/runs/${var.environment}/*",
          "${var.arns.bucket}/audit/attempts/env=${var.environment}/*", "${var.arns.bucket}/audit/nodes/env=${var.environment}/*",
          "${var.arns.bucket}/docs/${var.environment}/*",
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
}
