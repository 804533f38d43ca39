# EventBridge Scheduler, for this environment's schedules.

data "aws_iam_policy_document" "scheduler_trust" {
  # https://docs.aws.amazon.com/scheduler/latest/UserGuide/cross-service-confused-deputy-prevention.html
  statement {
    sid     = "Schedules"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["scheduler.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.location.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.arns.schedule_group]
    }
  }
}

data "aws_iam_policy_document" "scheduler" {
  # https://docs.aws.amazon.com/step-functions/latest/dg/auth-version-alias.html
  statement {
    sid       = "StartRuns"
    actions   = ["states:StartExecution"]
    resources = [var.arns.state_machine, "${var.arns.state_machine}:live"]

    condition {
      test     = "StringEquals"
      variable = "states:StateMachineQualifier"
      values   = ["live"]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name                 = local.roles.scheduler
  description          = "Schedules of ${var.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.scheduler_trust.json
  tags                 = var.tags
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "scheduler"
  role   = aws_iam_role.scheduler.name
  policy = data.aws_iam_policy_document.scheduler.json
}
