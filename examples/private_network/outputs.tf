output "network" {
  description = "What the module takes as `network`, for further deployments in these subnets."
  value = {
    subnet_ids         = [for subnet in aws_subnet.private : subnet.id]
    security_group_ids = [aws_security_group.runner.id]
  }
}

output "endpoints" {
  description = "Names of the services that can be reached by interface endpoints."
  value       = sort(local.interfaces)
}

output "cli" {
  value = module.dbt.cli
}
