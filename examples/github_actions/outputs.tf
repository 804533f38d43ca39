output "deployer_role_arns" {
  description = "For role-to-assume of aws-actions/configure-aws-credentials, by environment."
  value       = { for env, e in module.dbt.environments : env => e.role_arns.deployer }
}

output "cli" {
  value = module.dbt.cli
}
