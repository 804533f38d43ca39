locals {
  id        = "${var.name}-${var.environment}"
  alias     = "live"
  alias_arn = "${var.arns.state_machine}:${local.alias}"

  # Scalars only: the files are valid JSON before rendering, too. What must be a number is merged in.
  scalars = {
    partition   = var.location.partition
    table       = var.table
    bucket      = var.bucket
    environment = var.environment
    topic       = var.arns.topic
    chat_topic  = var.arns.chat_topic
    chat        = var.chat ? "on" : "off"
    announce    = var.arns.announce
    namespace   = var.namespace
  }

  dbt_run  = merge(jsondecode(templatefile("${path.module}/../../asl/dbt_run.asl.json", local.scalars)), { TimeoutSeconds = var.settings.timeout_seconds })
  finalize = jsondecode(templatefile("${path.module}/../../asl/finalize.asl.json", local.scalars))
  announce = jsondecode(templatefile("${path.module}/../../asl/announce.asl.json", local.scalars))
}

# One run of dbt

# Under this prefix CloudWatch needs no entry in its resource policy for each log group, whose size is limited.
# https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html
resource "aws_cloudwatch_log_group" "dbt_run" {
  name              = "/aws/vendedlogs/states/${local.id}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_sfn_state_machine" "dbt_run" {
  name       = local.id
  role_arn   = var.roles.states
  type       = "STANDARD"
  definition = jsonencode(local.dbt_run)
  publish    = true

  # Every transition, but no data: what a run was asked and how it went is in the audit store, behind its own permissions.
  logging_configuration {
    level                  = "ALL"
    include_execution_data = false
    log_destination        = "${aws_cloudwatch_log_group.dbt_run.arn}:*"
  }

  tracing_configuration {
    enabled = true
  }

  tags = var.tags
}

resource "aws_sfn_alias" "live" {
  name        = local.alias
  description = "What schedules, the command line and CI start"

  routing_configuration {
    state_machine_version_arn = aws_sfn_state_machine.dbt_run.state_machine_version_arn
    weight                    = 100
  }
}

# What closes a run that could not close itself

resource "aws_cloudwatch_log_group" "finalize" {
  name              = "/aws/vendedlogs/states/${local.id}-finalize"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_sfn_state_machine" "finalize" {
  name       = "${local.id}-finalize"
  role_arn   = var.roles.states
  type       = "STANDARD"
  definition = jsonencode(local.finalize)

  logging_configuration {
    level                  = "ALL"
    include_execution_data = false
    log_destination        = "${aws_cloudwatch_log_group.finalize.arn}:*"
  }

  tracing_configuration {
    enabled = true
  }

  tags = var.tags
}

# What tells of a run that has ended

resource "aws_cloudwatch_log_group" "announce" {
  name              = "/aws/vendedlogs/states/${local.id}-announce"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_sfn_state_machine" "announce" {
  name       = "${local.id}-announce"
  role_arn   = var.roles.states
  type       = "STANDARD"
  definition = jsonencode(local.announce)

  logging_configuration {
    level                  = "ALL"
    include_execution_data = false
    log_destination        = "${aws_cloudwatch_log_group.announce.arn}:*"
  }

  tracing_configuration {
    enabled = true
  }

  tags = var.tags
}

# What starts finalize

resource "aws_cloudwatch_event_rule" "finalize" {
  name        = "${local.id}-finalize"
  description = "Runs of ${local.id} that ended badly"

  # Callers start the alias. Whether the event then names the machine alone or with the alias or version behind it is not documented.
  # Not every ARN that begins alike: the machines -finalize and -announce do, too.
  event_pattern = jsonencode({
    source      = ["aws.states"]
    detail-type = ["Step Functions Execution Status Change"]
    detail = {
      status          = ["ABORTED", "FAILED", "TIMED_OUT"]
      stateMachineArn = [var.arns.state_machine, { prefix = "${var.arns.state_machine}:" }]
    }
  })

  tags = var.tags
}

resource "aws_cloudwatch_event_target" "finalize" {
  rule      = aws_cloudwatch_event_rule.finalize.name
  target_id = "finalize"
  arn       = aws_sfn_state_machine.finalize.arn
  role_arn  = var.roles.events
}
