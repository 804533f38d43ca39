# CI: publishes releases, moves the pointer of its environment, starts runs there and sees how they end, with their logs and artifacts. In an
# environment for pull requests the deployers of the others move the pointer.

data "aws_iam_policy_document" "deployer" {
  for_each = local.deployers

  # New objects only: the request must carry If-None-Match, so that a published file is never overwritten. Where only pull requests are
  # checked, only releases of pull requests.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  statement {
    sid       = "PublishNewFiles"
    actions   = ["s3:PutObject"]
    resources = ["${each.value.arns.bucket}/releases/${each.value.pull_requests ? "ci-" : ""}*"]

    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["false"]
    }
  }

  # A row of the long-term audit for each move of the pointer; new objects only, as above.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  dynamic "statement" {
    for_each = length(local.moves[each.key]) > 0 ? [local.moves[each.key]] : []

    content {
      sid       = "ArchivePromotions"
      actions   = ["s3:PutObject"]
      resources = [for env in statement.value : "${each.value.arns.bucket}/audit/promotions/env=${env}/*"]

      condition {
        test     = "Null"
        variable = "s3:if-none-match"
        values   = ["false"]
      }
    }
  }

  # What a version means in this environment, once for each; new objects only, as above.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
  dynamic "statement" {
    for_each = length(local.moves[each.key]) > 0 ? [local.moves[each.key]] : []

    content {
      sid       = "PinVersions"
      actions   = ["s3:PutObject"]
      resources = [for env in statement.value : "${each.value.arns.bucket}/pins/${env}/*"]

      condition {
        test     = "Null"
        variable = "s3:if-none-match"
        values   = ["false"]
      }
    }
  }

  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadReleaseFiles"
    actions   = ["s3:GetObject"]
    resources = [for path in concat(["releases"], local.pins[each.key]) : "${each.value.arns.bucket}/${path}/*"]
  }

  # The list of releases; and without it S3 answers 403 for an object that is missing.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
  statement {
    sid       = "ListReleases"
    actions   = ["s3:ListBucket"]
    resources = [each.value.arns.bucket]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [for path in concat(["releases"], local.pins[each.key]) : "${path}/*"]
    }
  }

  # ForAllValues is true where the key is absent, hence the Null condition beside it, here and below.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "RecordReleases"
    actions   = ["dynamodb:PutItem"]
    resources = [each.value.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values   = ["RELEASE#${each.value.pull_requests ? "ci-" : ""}*"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # Also in the transaction that moves the pointer: only to a release that is there, and not on its way out.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html
  statement {
    sid       = "FindReleases"
    actions   = ["dynamodb:ConditionCheckItem", "dynamodb:GetItem"]
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

  # The pointers and the record of their moves. Their partition is their own, because the partition key is all that IAM sees of an item's
  # place: CONFIG, the lock and run records are out of reach.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  dynamic "statement" {
    for_each = length(local.moves[each.key]) > 0 ? [local.moves[each.key]] : []

    content {
      sid       = "MovePointer"
      actions   = ["dynamodb:PutItem"]
      resources = [each.value.arns.table]

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "dynamodb:LeadingKeys"
        values   = [for env in statement.value : "POINTER#${env}"]
      }

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "dynamodb:Attributes"
        values   = ["pk", "sk", "version", "digest", "manifest_digest", "project", "previous", "promoted_at", "promoted_by", "reason"]
      }

      condition {
        test     = "Null"
        variable = "dynamodb:LeadingKeys"
        values   = ["false"]
      }

      condition {
        test     = "Null"
        variable = "dynamodb:Attributes"
        values   = ["false"]
      }
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "ReadEnvironmentAndRuns"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"]
    resources = [each.value.arns.table]

    condition {
      test     = "ForAllValues:StringLike"
      variable = "dynamodb:LeadingKeys"
      values = concat(
        ["ENV#${each.key}", "POINTER#${each.key}", "RUN#${each.key}#*"],
        flatten([for env in local.moves[each.key] : ["ENV#${env}", "POINTER#${env}"] if env != each.key]),
      )
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

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
    sid       = "FollowRuns"
    actions   = ["states:DescribeExecution"]
    resources = [each.value.arns.executions]
  }

  # The log of a run, which a pipeline shows when the run has failed.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/permissions-reference-cwl.html
  statement {
    sid       = "ReadLogs"
    actions   = ["logs:FilterLogEvents"]
    resources = [for group in each.value.arns.logs : "${group}:*"]
  }

  # The report of a run, which a pipeline keeps, and what it is made of where the run has published none.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ReadArtifacts"
    actions   = ["s3:GetObject"]
    resources = ["${each.value.arns.bucket}/runs/${each.key}/*"]
  }

  # Without it S3 answers 403 for an artifact that is missing, as if the right were.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html
  statement {
    sid       = "ListArtifacts"
    actions   = ["s3:ListBucket"]
    resources = [each.value.arns.bucket]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["runs/${each.key}/*"]
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
          for path in concat(
            ["", "/releases/*", "/runs/${each.key}/*"],
            [for path in local.pins[each.key] : "/${path}/*"],
            [for env in local.moves[each.key] : "/audit/promotions/env=${env}/*"],
          ) : "${each.value.arns.bucket}${path}"
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

resource "aws_iam_role" "deployer" {
  for_each = local.deployers

  name                 = local.role_names["${each.key}/deployer"]
  description          = "CI: releases and runs of ${each.value.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  max_session_duration = var.max_session_seconds
  assume_role_policy   = data.aws_iam_policy_document.trust["${each.key}/deployer"].json
  tags                 = var.tags

  # A trust policy can't name a provider that doesn't exist yet.
  depends_on = [aws_iam_openid_connect_provider.this]

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_policy_document.trust["${each.key}/deployer"].minified_json) <= var.trust_characters
      error_message = "Limit \"trust policy of a role\" of IAM: that of ${local.role_names["${each.key}/deployer"]} has ${length(data.aws_iam_policy_document.trust["${each.key}/deployer"].minified_json)} of ${var.trust_characters} characters. Name fewer subjects (one with a wildcard behind its full owner does for several), or have the account's quota for role trust policies raised and say so in oidc.trust_characters (docs/limits.md)."
    }
  }
}

resource "aws_iam_role_policy" "deployer" {
  for_each = local.deployers

  name   = "deployer"
  role   = aws_iam_role.deployer[each.key].name
  policy = data.aws_iam_policy_document.deployer[each.key].json

  lifecycle {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
    precondition {
      condition     = length(data.aws_iam_policy_document.deployer[each.key].minified_json) <= 10240
      error_message = "Limit \"inline policies of a role\" of IAM: that of ${local.role_names["${each.key}/deployer"]} has ${length(data.aws_iam_policy_document.deployer[each.key].minified_json)} of 10240 characters, because it may move the pointers of ${length(local.checked)} environments for pull requests. Check pull requests in fewer environments: those with slim_ci.state_target in a deployment that has deployers (docs/limits.md)."
    }
  }
}
