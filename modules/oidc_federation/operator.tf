# People: start, stop and read the runs of their environment, and read the releases. They publish and promote nothing.

data "aws_iam_policy_document" "operator" {
  for_each = local.operators

  # By the alias only: without a qualifier, or with a version, it would be another definition.
  # https://docs.aws.amazon.com/step-functions/latest/dg/auth-version-alias.html
  statement {
    sid       = "StartRuns"
    actions   = ["states:StartExecution"]
    resources = [each.value.arns.state_machine, "${each.value.arns.state_machine}:live"]

    condition {
      test     = "StringEquals"
      variable = "states:StateMachineQualifier"
      values   = ["live"]
    }
  }

  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
  statement {
    sid       = "FollowAndStopRuns"
    actions   = ["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"]
    resources = [each.value.arns.executions]
  }

  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
  statement {
    sid       = "ListRuns"
    actions   = ["states:ListExecutions"]
    resources = [each.value.arns.state_machine]
  }

  # ForAllValues is true where the key is absent, hence the Null condition beside it.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "ReadEnvironmentAndRuns"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
    resources = [each.value.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["ENV#${each.key}", "POINTER#${each.key}", "RUN#${each.key}#*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # What was published, and what differs from one release to another.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "ReadReleases"
    actions   = ["dynamodb:GetItem"]
    resources = [each.value.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["RELEASE#*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # What the containers and the function wrote.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/permissions-reference-cwl.html
  statement {
    sid       = "ReadLogs"
    actions   = ["logs:FilterLogEvents"]
    resources = [for group in each.value.arns.logs : "${group}:*"]
  }

  # Artifacts and reports, documentation, the rows of the long-term audit, and the releases and pins that these are held against.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadArtifacts"
    actions   = ["s3:GetObject"]
    resources = [for folder in local.trail[each.key] : "${each.value.arns.bucket}/${folder}/*"]
  }

  # Without it S3 answers 403 for an artifact that has expired, as if the right were missing.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
  statement {
    sid       = "ListArtifacts"
    actions   = ["s3:ListBucket"]
    resources = [each.value.arns.bucket]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for folder in local.trail[each.key] : "${folder}/*"]
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "TableKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.dynamodb]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:aws:dynamodb:tableName"
        values   = [var.table]
      }
    }
  }

  # With a bucket key the context is the bucket, without it is the object.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html#encryption-context
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "BucketKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.s3]
      }

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values   = concat([each.value.arns.bucket], [for folder in local.trail[each.key] : "${each.value.arns.bucket}/${folder}/*"])
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

resource "aws_iam_role" "operator" {
  for_each = local.operators

  name                 = local.role_names["${each.key}/operator"]
  description          = "People: runs of ${each.value.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  max_session_duration = var.max_session_seconds
  assume_role_policy   = data.aws_iam_policy_document.trust["${each.key}/operator"].json
  tags                 = var.tags

  # A trust policy can't name a provider that doesn't exist yet.
  depends_on = [aws_iam_openid_connect_provider.this]

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_policy_document.trust["${each.key}/operator"].minified_json) <= var.trust_characters
      error_message = "Limit \"trust policy of a role\" of IAM: that of ${local.role_names["${each.key}/operator"]} has ${length(data.aws_iam_policy_document.trust["${each.key}/operator"].minified_json)} of ${var.trust_characters} characters. Name fewer subjects (one with a wildcard behind its full owner does for several), or have the account's quota for role trust policies raised and say so in oidc.trust_characters (docs/limits.md)."
    }
  }
}

resource "aws_iam_role_policy" "operator" {
  for_each = local.operators

  name   = "operator"
  role   = aws_iam_role.operator[each.key].name
  policy = data.aws_iam_policy_document.operator[each.key].json
}
