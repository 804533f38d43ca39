# A stack of another team, which starts its own state machine when a dbt job has fresh data. It knows the deployment by a string, and
# needs no permission on anything of it.

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "current" {}

resource "aws_cloudwatch_event_rule" "fresh" {
  name        = "${local.name}-fresh"
  description = "Job ${var.job} of ${var.event_source} succeeded"

  event_pattern = jsonencode({
    source      = [var.event_source]
    detail-type = ["dbt.run"]
    detail      = { job = [var.job], status = ["SUCCEEDED"] }
  })
}

locals {
  name = replace("${var.event_source}-${var.job}", "/", "-")
}

resource "aws_cloudwatch_event_target" "start" {
  rule     = aws_cloudwatch_event_rule.fresh.name
  arn      = var.state_machine_arn
  role_arn = aws_iam_role.start.arn

  retry_policy {
    maximum_event_age_in_seconds = 3600
    maximum_retry_attempts       = 10
  }

  # What could not be started is kept, not lost.
  dead_letter_config {
    arn = aws_sqs_queue.not_started.arn
  }
}

resource "aws_sqs_queue" "not_started" {
  name                      = "${local.name}-not-started"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

data "aws_iam_policy_document" "not_started" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.not_started.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.fresh.arn]
    }
  }
}

resource "aws_sqs_queue_policy" "not_started" {
  queue_url = aws_sqs_queue.not_started.url
  policy    = data.aws_iam_policy_document.not_started.json
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.fresh.arn]
    }
  }
}

data "aws_iam_policy_document" "start" {
  statement {
    actions   = ["states:StartExecution"]
    resources = [var.state_machine_arn]
  }
}

resource "aws_iam_role" "start" {
  name_prefix        = "start-on-fresh-"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy" "start" {
  role   = aws_iam_role.start.name
  policy = data.aws_iam_policy_document.start.json
}
