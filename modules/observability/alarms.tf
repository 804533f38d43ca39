# What should wake somebody: a run that failed, a job that is late or slow, and whatever would keep a failure from being told.

locals {
  alarms  = var.observability.alarms ? 1 : 0
  topic   = "arn:${var.location.partition}:sns:${var.location.region}:${var.location.account}:${var.id}-alarms"
  actions = concat([local.topic], var.observability.alarm_actions)

  promises = { for job, j in var.jobs : job => j.fresh_within_minutes if var.observability.alarms && j.fresh_within_minutes != null }

  # An alarm looks back one day at most with periods under an hour, and seven with longer ones.
  # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
  stale = {
    for job, minutes in local.promises : job => minutes <= 1440 ? { period = 300, periods = ceil(minutes / 5) } : { period = 3600, periods = ceil(minutes / 60) }
  }
}

# A topic of its own: announce's messages name what failed and are encrypted with the key of SNS, which CloudWatch cannot use.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html
resource "aws_sns_topic" "alarms" {
  count = local.alarms

  name              = "${var.id}-alarms"
  kms_master_key_id = var.kms_key_arn
  tags              = var.tags
}

data "aws_iam_policy_document" "alarms" {
  count = local.alarms

  # https://docs.aws.amazon.com/sns/latest/dg/sns-access-policy-use-cases.html
  statement {
    sid       = "Alarms"
    actions   = ["sns:Publish"]
    resources = [local.topic]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [var.location.account]
    }

    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["arn:${var.location.partition}:cloudwatch:${var.location.region}:${var.location.account}:alarm:${var.id}-*"]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  count = local.alarms

  arn    = aws_sns_topic.alarms[0].arn
  policy = data.aws_iam_policy_document.alarms[0].json
}

resource "aws_sns_topic_subscription" "alarms" {
  for_each = toset(var.observability.alarms ? var.emails : [])

  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "failed" {
  count = local.alarms

  alarm_name          = "${var.id}-failed"
  alarm_description   = "A run of ${var.id} failed, was aborted or ran out of time: dbt-runner list --environment ${var.environment} --status failed"
  namespace           = var.namespace
  metric_name         = "RunsFailed"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags
}

# The worst failure is the one that nothing reports: a schedule that was switched off, a job that is skipped each time.
resource "aws_cloudwatch_metric_alarm" "stale" {
  for_each = local.stale

  alarm_name          = "${var.id}-${each.key}-stale"
  alarm_description   = "Job ${each.key} of ${var.id} has not succeeded for ${local.promises[each.key]} minutes: dbt-runner list --environment ${var.environment} --job ${each.key}"
  namespace           = var.namespace
  metric_name         = "RunsSucceeded"
  dimensions          = { Job = each.key }
  statistic           = "Sum"
  period              = each.value.period
  evaluation_periods  = each.value.periods
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags
}

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Anomaly_Detection.html
resource "aws_cloudwatch_metric_alarm" "slow" {
  for_each = var.observability.alarms ? var.jobs : {}

  alarm_name          = "${var.id}-${each.key}-slow"
  alarm_description   = "Job ${each.key} of ${var.id} takes longer than its own history lets expect: dbt-runner history, or the report of the run"
  evaluation_periods  = 1
  comparison_operator = "GreaterThanUpperThreshold"
  threshold_metric_id = "expected"
  treat_missing_data  = "ignore"
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags

  metric_query {
    id          = "seconds"
    return_data = true

    metric {
      namespace   = var.namespace
      metric_name = "RunSeconds"
      dimensions  = { Job = each.key }
      stat        = "Maximum"
      period      = 3600
    }
  }

  # Three standard deviations of what the model expects.
  metric_query {
    id          = "expected"
    expression  = "ANOMALY_DETECTION_BAND(seconds, 3)"
    label       = "RunSeconds (expected)"
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "untold" {
  count = local.alarms

  alarm_name          = "${var.id}-untold"
  alarm_description   = "A run of ${var.id} could not be closed or told of: look at the failed executions of ${var.id}-finalize and ${var.id}-announce"
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags

  metric_query {
    id          = "untold"
    expression  = "SUM(METRICS())"
    label       = "Executions that ended badly"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = {
      for pair in setproduct(["finalize", "announce"], ["ExecutionsFailed", "ExecutionsTimedOut"]) : lower("${pair[0]}_${pair[1]}") => { machine = pair[0], metric = pair[1] }
    }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/States"
        metric_name = metric_query.value.metric
        dimensions  = { StateMachineArn = var.arns[metric_query.value.machine] }
        stat        = "Sum"
        period      = 300
      }
    }
  }
}

# https://docs.aws.amazon.com/scheduler/latest/UserGuide/monitoring-cloudwatch.html
resource "aws_cloudwatch_metric_alarm" "not_started" {
  count = local.alarms

  alarm_name          = "${var.id}-not-started"
  alarm_description   = "A schedule of ${var.id} gave up starting its run: the permissions of ${var.id}-scheduler, the alias live, or throttling"
  namespace           = "AWS/Scheduler"
  metric_name         = "InvocationDroppedCount"
  dimensions          = { ScheduleGroup = var.id }
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = local.actions
  ok_actions          = local.actions
  tags                = var.tags
}
