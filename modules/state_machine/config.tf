# The one source for the state machine, the runner and the command line: docs/architecture.md, "CONFIG".

locals {
  config = {
    schema        = 2
    name          = var.name
    environment   = var.environment
    region        = var.location.region
    account       = var.location.account
    table         = var.table
    bucket        = var.bucket
    state_machine = local.alias_arn
    finalize      = var.arns.finalize
    topic         = var.arns.topic

    warehouse       = var.settings.warehouse
    compute         = var.settings.compute
    health_check    = var.settings.health_check
    retry           = var.settings.retry
    overlap         = var.settings.overlap
    timeout_seconds = var.settings.timeout_seconds
    slim_ci         = var.settings.slim_ci
    requests        = var.settings.requests
    jobs            = var.settings.jobs
    env_vars        = var.settings.env_vars
    audit           = { items_retention_days = var.items_retention_days }

    roles = {
      states    = var.roles.states
      task      = var.roles.task
      warehouse = var.roles.warehouse
      execution = var.roles.execution
    }

    ecs    = var.ecs
    lambda = var.function
  }
}

resource "aws_dynamodb_table_item" "config" {
  table_name = var.table
  hash_key   = "pk"
  range_key  = "sk"

  item = jsonencode({
    pk     = { S = "ENV#${var.environment}" }
    sk     = { S = "CONFIG" }
    config = { S = jsonencode(local.config) }
  })

  # Written when what it names is there.
  depends_on = [aws_sfn_alias.live, aws_sfn_state_machine.announce, aws_cloudwatch_event_target.finalize]
}
