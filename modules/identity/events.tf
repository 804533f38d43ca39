# EventBridge, for the rule that sees runs end badly.

data "aws_iam_policy_document" "events_trust" {
  # https://docs.aws.amazon.com/eventbridge/latest/userguide/cross-service-confused-deputy-prevention.html
  statement {
    sid     = "Rule"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.location.account]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [var.arns.finalize_rule]
    }
  }
}

data "aws_iam_policy_document" "events" {
  # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-identity-based.html
  statement {
    sid       = "StartFinalize"
    actions   = ["states:StartExecution"]
    resources = [var.arns.finalize]
  }
}

resource "aws_iam_role" "events" {
  name                 = local.roles.events
  description          = "Closes the records of runs of ${var.id} that ended badly"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.events_trust.json
  tags                 = var.tags
}

resource "aws_iam_role_policy" "events" {
  name   = "events"
  role   = aws_iam_role.events.name
  policy = data.aws_iam_policy_document.events.json
}
