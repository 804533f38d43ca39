output "table" {
  value = module.dbt.table
}

output "bucket" {
  value = module.dbt.bucket
}

output "environments" {
  value = module.dbt.environments
}

output "cli" {
  value = module.dbt.cli
}
