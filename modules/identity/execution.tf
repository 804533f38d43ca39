# The ECS agent: starts the container and sees nothing of what runs in it.

locals {
  # <account>.dkr.ecr.<region>.<suffix>/<repository>@<digest>; null for any other registry.
  ecr = try(regex("^(?P<account>\\d{12})\\.dkr\\.ecr(?:-fips)?\\.(?P<region>[a-z0-9-]+)\\.[a-z.]+/(?P<repository>[^@]+)@", var.image), null)

  ecr_repositories = local.ecr == null ? [] : [
    "arn:${var.location.partition}:ecr:${local.ecr.region}:${local.ecr.account}:repository/${local.ecr.repository}",
  ]
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

  # Those of the first policy.
  source_policy_documents = slice(data.aws_iam_policy_document.execution_secrets[*].json, 0, min(1, length(local.secret_policies)))
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

  # What moves into a managed policy is granted there before it is no longer granted here.
  depends_on = [aws_iam_role_policy_attachment.managed]
}
