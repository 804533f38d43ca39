output "role_arns" {
  description = "The roles that people (operator) and CI (deployer) assume with their tokens."
  value       = { for role in ["deployer", "operator"] : role => module.dbt.environments["prod"].role_arns[role] }
}

output "cli" {
  value = module.dbt.cli
}
