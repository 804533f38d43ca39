# The ECS agent: starts the container and sees nothing of what runs in it.

locals {
  # <account>.dkr.ecr.<region>.<suffix>/<repository>@<digest>; null for any other registry.
  ecr = try(regex("^(?P<account>\\d{12})\\.dkr\\.ecr(?:-fips)?\\.(?P<region>[a-z0-9-]+)\\.[a-z.]+/(?P<repository>[^@]+)@", var.image), null)

  ecr_repositories = local.ecr == null ? [] : [
    "arn:${var.location.partition}:ecr:${local.ecr.region}:${local.ecr.account}:repository/${local.ecr.repository}",
  ]

  # A reference to a secret may name a JSON key, a stage and a version after the seven fields of its ARN.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
  secret_arns    = distinct([for arn in values(var.secrets) : join(":", slice(split(":", arn), 0, 7)) if strcontains(arn, ":secretsmanager:")])
  parameter_arns = distinct([for arn in values(var.secrets) : arn if strcontains(arn, ":ssm:")])
}

data "aws_iam_policy_document" "execution_trust" {
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
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

data "aws_iam_policy_document" "execution" {
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_execution_IAM_role.html
  statement {
    sid       = "WriteLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${var.arns.runner_logs}:*"]
  }

  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html
  dynamic "statement" {
    for_each = local.ecr_repositories

    content {
      sid       = "PullImage"
      actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      resources = [statement.value]
    }
  }

  # This action knows no resource.
  # https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-pull-iam.html
  dynamic "statement" {
    for_each = local.ecr_repositories

    content {
      sid       = "LogInToEcr"
      actions   = ["ecr:GetAuthorizationToken"]
      resources = ["*"]
    }
  }

  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
  dynamic "statement" {
    for_each = length(local.secret_arns) > 0 ? [local.secret_arns] : []

    content {
      sid       = "ReadSecrets"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }

  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html
  dynamic "statement" {
    for_each = length(local.parameter_arns) > 0 ? [local.parameter_arns] : []

    content {
      sid       = "ReadParameters"
      actions   = ["ssm:GetParameters"]
      resources = statement.value
    }
  }

  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html#security-encryption-encryption-context
  dynamic "statement" {
    for_each = length(local.secret_arns) > 0 ? local.kms_keys : []

    content {
      sid       = "DecryptSecrets"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.secretsmanager]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = local.secret_arns
      }
    }
  }

  # https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
  dynamic "statement" {
    for_each = length(local.parameter_arns) > 0 ? local.kms_keys : []

    content {
      sid       = "DecryptParameters"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.ssm]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:PARAMETER_ARN"
        values   = local.parameter_arns
      }
    }
  }
}

resource "aws_iam_role" "execution" {
  name                 = local.roles.execution
  description          = "Starts the containers of ${var.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.execution_trust.json
  tags                 = var.tags
}

resource "aws_iam_role_policy" "execution" {
  name   = "execution"
  role   = aws_iam_role.execution.name
  policy = data.aws_iam_policy_document.execution.json
}
