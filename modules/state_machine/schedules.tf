resource "aws_scheduler_schedule_group" "this" {
  name = local.id
  tags = var.tags
}

resource "aws_scheduler_schedule" "job" {
  for_each = { for job, j in var.settings.jobs : job => j if j.schedule != null }

  name                         = each.key
  group_name                   = aws_scheduler_schedule_group.this.name
  description                  = "Job ${each.key} of ${local.id}"
  schedule_expression          = each.value.schedule
  schedule_expression_timezone = each.value.timezone
  state                        = each.value.enabled ? "ENABLED" : "DISABLED"

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = aws_sfn_alias.live.arn
    role_arn = var.roles.scheduler
    input    = jsonencode({ job = each.key, trigger = "schedule" })

    # A start that AWS throttles is tried again for an hour, then given up: the next one is due by then.
    retry_policy {
      maximum_retry_attempts       = 10
      maximum_event_age_in_seconds = 3600
    }
  }

  # A run reads CONFIG first.
  depends_on = [aws_dynamodb_table_item.config]
}
