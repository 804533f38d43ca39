# Step Functions, for this environment's three state machines.

data "aws_iam_policy_document" "states_trust" {
  # https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html#prevent-cross-service-confused-deputy
  statement {
    sid     = "StateMachines"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["states.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.location.account]
    }

    # An execution of a version or an alias may carry its qualifier.
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = [var.arns.state_machine, "${var.arns.state_machine}:*", var.arns.finalize, "${var.arns.finalize}:*", var.arns.announce, "${var.arns.announce}:*"]
    }
  }
}

data "aws_iam_policy_document" "states" {
  # https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html#ecs-iam
  statement {
    sid       = "RunTask"
    actions   = ["ecs:RunTask"]
    resources = ["${var.arns.task_family}:*"]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [var.arns.cluster]
    }
  }

  # https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html#ecs-iam
  statement {
    sid       = "FollowAndStopTasks"
    actions   = ["ecs:DescribeTasks", "ecs:StopTask"]
    resources = [var.arns.tasks]

    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [var.arns.cluster]
    }
  }

  # Exactly this function, as one of its versions.
  # https://docs.aws.amazon.com/step-functions/latest/dg/connect-lambda.html
  dynamic "statement" {
    for_each = local.functions

    content {
      sid       = "InvokeFunction"
      actions   = ["lambda:InvokeFunction"]
      resources = ["${var.arns.function}:*"]
    }
  }

  # Tasks are tagged with their run as they start; nothing else is tagged.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/supported-iam-actions-tagging.html
  statement {
    sid       = "TagNewTasks"
    actions   = ["ecs:TagResource"]
    resources = [var.arns.tasks]

    condition {
      test     = "StringEquals"
      variable = "ecs:CreateAction"
      values   = ["RunTask"]
    }
  }

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html
  statement {
    sid       = "PassTaskRoles"
    actions   = ["iam:PassRole"]
    resources = [local.role_arns.execution, local.role_arns.task]

    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }

  # The rule by which Step Functions learns that a task of a .sync state ended; it makes the rule itself, once per account and region.
  # https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html#connect-iam-sync-async
  statement {
    sid       = "SyncRule"
    actions   = ["events:DescribeRule", "events:PutRule", "events:PutTargets"]
    resources = ["arn:${var.location.partition}:events:${var.location.region}:${var.location.account}:rule/StepFunctionsGetEventsForECSTaskRule"]
  }

  # The configuration and the release pointer in one read, and so in one statement: IAM holds all keys of a batch against each statement.
  # The pointer is the deployer's to write. ForAllValues is true where the key is absent, hence the Null condition beside it.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "LoadEnvironment"
    actions   = ["dynamodb:BatchGetItem"]
    resources = [var.arns.table]

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = ["ENV#${var.environment}", "POINTER#${var.environment}"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "EnvironmentItems"
    actions   = ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"]
    resources = [var.arns.table]

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:LeadingKeys"
      values   = ["ENV#${var.environment}"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:LeadingKeys"
      values   = ["false"]
    }
  }

  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "ReadOutcomes"
    actions   = ["dynamodb:GetItem"]
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

  # That no container begins any more, and nothing else: neither a claim nor an outcome can be written.
  # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
  statement {
    sid       = "CloseClaims"
    actions   = ["dynamodb:UpdateItem"]
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

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "dynamodb:Attributes"
      values   = ["pk", "sk", "closed_up_to"]
    }

    condition {
      test     = "Null"
      variable = "dynamodb:Attributes"
      values   = ["false"]
    }
  }

  # Whether the execution that holds the lock still runs.
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
  statement {
    sid       = "LookUpLockHolder"
    actions   = ["states:DescribeExecution"]
    resources = [var.arns.executions]
  }

  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsstepfunctions.html
  statement {
    sid       = "StartAnnounce"
    actions   = ["states:StartExecution"]
    resources = [var.arns.announce]
  }

  # This action knows no resource.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/iam-cw-condition-keys-namespace.html
  statement {
    sid       = "Measure"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [var.namespace]
    }
  }

  # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-conditions.html
  statement {
    sid       = "PublishEvents"
    actions   = ["events:PutEvents"]
    resources = [var.arns.event_bus]

    condition {
      test     = "StringEquals"
      variable = "events:source"
      values   = [var.namespace]
    }
  }

  # The closing record of each run, for the long-term audit. What has been written can be overwritten, never deleted, and each version stays.
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
  statement {
    sid       = "ArchiveRuns"
    actions   = ["s3:PutObject"]
    resources = ["${var.arns.bucket}/audit/runs/env=${var.environment}/*"]
  }

  # https://docs.aws.amazon.com/step-functions/latest/dg/connect-sns.html#sns-iam
  statement {
    sid       = "Notify"
    actions   = ["sns:Publish"]
    resources = local.topics
  }

  # These actions know no resource.
  # https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html#cloudwatch-iam-policy
  statement {
    sid = "LogDelivery"
    actions = [
      "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:GetLogDelivery",
      "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery",
    ]
    resources = ["*"]
  }

  # These actions know no resource.
  # https://docs.aws.amazon.com/step-functions/latest/dg/xray-iam.html
  statement {
    sid       = "Tracing"
    actions   = ["xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords", "xray:PutTraceSegments"]
    resources = ["*"]
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
      sid       = "ArchiveKey"
      actions   = ["kms:GenerateDataKey"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.s3]
      }

      condition {
        test     = "StringLike"
        variable = "kms:EncryptionContext:aws:s3:arn"
        values   = [var.arns.bucket, "${var.arns.bucket}/audit/runs/env=${var.environment}/*"]
      }
    }
  }

  # https://docs.aws.amazon.com/sns/latest/dg/sns-server-side-encryption.html
  dynamic "statement" {
    for_each = local.kms_keys

    content {
      sid       = "TopicKey"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.sns]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:aws:sns:topicArn"
        values   = local.topics
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
        values   = [local.via.dynamodb, local.via.sns]
      }
    }
  }
}

resource "aws_iam_role" "states" {
  name                 = local.roles.states
  description          = "Step Functions of ${var.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.states_trust.json
  tags                 = var.tags
}

resource "aws_iam_role_policy" "states" {
  name   = "states"
  role   = aws_iam_role.states.name
  policy = data.aws_iam_policy_document.states.json
}
