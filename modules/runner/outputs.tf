output "cluster_arn" {
  description = "ARN of the cluster, once it has its capacity providers."
  value       = aws_ecs_cluster.this.arn
  depends_on  = [aws_ecs_cluster_capacity_providers.this]
}

output "task_definition_arn" {
  description = "ARN of the task definition, with its revision."
  value       = aws_ecs_task_definition.this.arn
}

output "container" {
  description = "Name of the container in the task definition."
  value       = local.container
}

output "log_group" {
  description = "Name of the log group."
  value       = aws_cloudwatch_log_group.this.name
}

output "function" {
  description = "The function as CONFIG has it: ARN with version, limits, log group; null where there is none."
  value = var.function == null ? null : {
    function        = aws_lambda_function.this[0].qualified_arn
    timeout_seconds = var.function.timeout_seconds
    memory          = var.function.memory
    log_group       = aws_cloudwatch_log_group.function[0].name
  }
}
