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

# What Step Functions carries of it has 262,144 bytes at most, and a run that meets more fails as States.DataLimitExceeded, which nothing
# catches. https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html#service-limits-task-executions

locals {
  payload_bytes = 262144

  # The answer of LoadEnvironment is CONFIG as text within JSON, beside the release pointer, which has the reason of a promotion.
  config_bytes_at_most = local.payload_bytes - 16384

  # ARNs that are known only after apply are as long as these. base64 has four characters for three bytes.
  config_at_most = merge(local.config, {
    ecs    = merge(var.ecs, { cluster = local.longest_arn, task_definition = local.longest_arn })
    lambda = var.function == null ? null : merge(var.function, { function = local.longest_arn })
  })
  longest_arn  = join("", [for n in range(200) : "x"])
  config_bytes = floor(length(base64encode(jsonencode({ S = jsonencode(local.config_at_most) }))) / 4) * 3

  # A run's record has its job written out, again as text within JSON, and the state machine has the steps themselves beside it. The other
  # half of the payload is for what the run adds: results of up to 50 steps, and vars of the caller.
  job_bytes_at_most = floor(local.payload_bytes / 2)
  job_bytes = {
    for job, j in var.settings.jobs : job => floor(length(base64encode(jsonencode({
      steps   = j.steps
      request = { S = jsonencode({ job = job, steps = j.steps, job_vars = j.vars }) }
    }))) / 4) * 3
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

  lifecycle {
    precondition {
      condition     = local.config_bytes <= local.config_bytes_at_most
      error_message = "Limit \"payload of a state\" of Step Functions: CONFIG of ${local.id} has ${local.config_bytes} of ${local.config_bytes_at_most} bytes, with its JSON, and no run could read it. Jobs are most of it: name fewer or shorter commands (selectors.yml of the project gives a long selection a name), move vars into the project, or give some of the jobs to another environment (docs/limits.md)."
    }

    precondition {
      condition = alltrue([for job, bytes in local.job_bytes : bytes <= local.job_bytes_at_most])
      error_message = "Limit \"payload of a job\" of Step Functions: the steps and vars of a job may have ${local.job_bytes_at_most} bytes in a run's record. Name fewer or shorter commands (selectors.yml of the project gives a long selection a name), or make two jobs of ${join(", ", [
        for job, bytes in local.job_bytes : "${local.id}.jobs.${job} (${bytes})" if bytes > local.job_bytes_at_most
      ])} (docs/limits.md)."
    }
  }

  # Written when what it names is there.
  depends_on = [aws_sfn_alias.live, aws_sfn_state_machine.announce, aws_cloudwatch_event_target.finalize]
}
