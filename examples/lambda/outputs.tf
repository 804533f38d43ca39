output "environments" {
  value = module.dbt.environments
}

output "cli" {
  value = module.dbt.cli
}
