output "table" {
  description = "Name of the audit table."
  value       = module.audit_store.table
}

output "bucket" {
  description = "Name of the bucket of releases and artifacts."
  value       = module.audit_store.bucket
}

output "environments" {
  description = "What other stacks and people need of each environment. Start runs through state_machine_arn, the alias."
  value = {
    for env in keys(var.environments) : env => {
      state_machine_arn   = module.state_machine[env].alias_arn
      finalize_arn        = module.state_machine[env].finalize_arn
      announce_arn        = module.state_machine[env].announce_arn
      role_arns           = merge(module.identity[env].roles, lookup(module.oidc_federation.roles, env, {}))
      cluster_arn         = module.runner[env].cluster_arn
      task_definition_arn = module.runner[env].task_definition_arn
      function_arn        = try(module.runner[env].function.function, null)
      topic_arn           = module.notifications[env].topic_arn
      chat_topic_arn      = module.notifications[env].chat_topic_arn
      alarm_topic_arn     = module.observability[env].alarm_topic_arn
      event_source        = local.environments[env].namespace
      log_groups = merge(module.state_machine[env].log_groups, { runner = module.runner[env].log_group },
      local.environments[env].function == null ? {} : { function = module.runner[env].function.log_group })
    }
  }
}

output "oidc_provider_arns" {
  description = "ARNs of the identity providers of CI and people, by their keys in oidc.providers."
  value       = module.oidc_federation.provider_arns
}

output "cli" {
  description = "Environment variables that the command line needs."
  value       = { DBT_RUNNER_TABLE = module.audit_store.table, DBT_RUNNER_BUCKET = module.audit_store.bucket }
}

output "limits" {
  description = "How much of a payload of Step Functions an environment's CONFIG and its largest job take, and of how much, in bytes: docs/limits.md."
  value = {
    for env in keys(var.environments) : env => {
      config            = module.state_machine[env].bytes.config
      config_at_most    = module.state_machine[env].bytes.config_at_most
      largest_job       = max(0, values(module.state_machine[env].bytes.jobs)...)
      every_job_at_most = module.state_machine[env].bytes.job_at_most
    }
  }
}
