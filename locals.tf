data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  location = {
    partition  = data.aws_partition.current.partition
    dns_suffix = data.aws_partition.current.dns_suffix
    region     = data.aws_region.current.id
    account    = data.aws_caller_identity.current.account_id
  }

  # ARNs are composed from names, here and nowhere else, so that a plan shows every policy in full before anything exists.
  regional = "${local.location.region}:${local.location.account}"
  arn      = "arn:${local.location.partition}"

  table  = "${var.name}-audit"
  bucket = "${var.name}-audit-${local.location.account}-${local.location.region}"

  # Services that the policy of a key of the caller's own must admit, less those that it is said to admit.
  kms_key_missing = var.kms_key_arn == null ? [] : sort(tolist(setsubtract(
    concat(["logs.${local.location.region}.${local.location.dns_suffix}"], var.observability.alarms ? ["cloudwatch.amazonaws.com"] : []),
    var.kms_key_services,
  )))

  environments = {
    for env, e in var.environments : env => merge(e, {
      id = "${var.name}-${env}"

      # Of the environment's metrics, and the source of its events: what IAM can hold a role to.
      namespace = "dbt/${var.name}/${env}"

      arns = {
        event_bus      = "${local.arn}:events:${local.regional}:event-bus/default"
        table          = "${local.arn}:dynamodb:${local.regional}:table/${local.table}"
        bucket         = "${local.arn}:s3:::${local.bucket}"
        topic          = "${local.arn}:sns:${local.regional}:${var.name}-${env}"
        chat_topic     = "${local.arn}:sns:${local.regional}:${var.name}-${env}-chat"
        cluster        = "${local.arn}:ecs:${local.regional}:cluster/${var.name}-${env}"
        tasks          = "${local.arn}:ecs:${local.regional}:task/${var.name}-${env}/*"
        task_family    = "${local.arn}:ecs:${local.regional}:task-definition/${var.name}-${env}"
        function       = "${local.arn}:lambda:${local.regional}:function:${var.name}-${env}"
        function_logs  = "${local.arn}:logs:${local.regional}:log-group:/aws/lambda/${var.name}-${env}"
        runner_logs    = "${local.arn}:logs:${local.regional}:log-group:/${var.name}/${env}/runner"
        state_machine  = "${local.arn}:states:${local.regional}:stateMachine:${var.name}-${env}"
        executions     = "${local.arn}:states:${local.regional}:execution:${var.name}-${env}:*"
        finalize       = "${local.arn}:states:${local.regional}:stateMachine:${var.name}-${env}-finalize"
        announce       = "${local.arn}:states:${local.regional}:stateMachine:${var.name}-${env}-announce"
        finalize_rule  = "${local.arn}:events:${local.regional}:rule/${var.name}-${env}-finalize"
        schedule_group = "${local.arn}:scheduler:${local.regional}:schedule-group/${var.name}-${env}"
      }

      warehouse = module.warehouse[env].warehouse

      # A null in a map says "not set", as it does everywhere else.
      env_vars = { for key, value in e.env_vars : key => value if value != null }

      jobs = {
        for job, j in e.jobs : job => merge(j, {
          steps = [for s in j.steps : merge(s, {
            timeout_seconds = coalesce(s.timeout_seconds, min(3600, e.timeout_seconds - 60))
            compute         = coalesce(s.compute, e.compute.type)
            on_timeout      = coalesce(s.on_timeout, e.compute.on_timeout)
          })]
        })
      }

      # The function is made where anything runs on it.
      function = anytrue(concat(
        [e.compute.type == "lambda", e.health_check.compute == "lambda"],
        flatten([for j in e.jobs : [for s in j.steps : coalesce(s.compute, e.compute.type) == "lambda"]])
        )) ? merge(e.compute.lambda, {
        subnet_ids         = e.compute.lambda.vpc ? var.network.subnet_ids : []
        security_group_ids = e.compute.lambda.vpc ? var.network.security_group_ids : []
      }) : null
    })
  }

  # Environments that CI deploys to or people operate.
  federated = {
    for env, grants in var.oidc.environments : env => {
      id = local.environments[env].id
      arns = merge(local.environments[env].arns, {
        logs = concat(
          [local.environments[env].arns.runner_logs],
          local.environments[env].function == null ? [] : [local.environments[env].arns.function_logs],
        )
      })
      deployer = grants.deployer
      operator = grants.operator
      # What compares with another environment's tables makes none that anybody else runs.
      pull_requests = var.environments[env].slim_ci.state_target != null
    }
  }
}
