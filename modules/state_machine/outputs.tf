output "alias_arn" {
  description = "ARN of the alias that callers start, once its configuration is written."
  value       = local.alias_arn
  depends_on  = [aws_dynamodb_table_item.config]
}

output "finalize_arn" {
  description = "ARN of the state machine that closes runs."
  value       = aws_sfn_state_machine.finalize.arn
}

output "announce_arn" {
  description = "ARN of the state machine that tells of runs."
  value       = aws_sfn_state_machine.announce.arn
}

output "log_groups" {
  description = "Names of the state machines' log groups."
  value = {
    dbt_run  = aws_cloudwatch_log_group.dbt_run.name
    finalize = aws_cloudwatch_log_group.finalize.name
    announce = aws_cloudwatch_log_group.announce.name
  }
}

output "bytes" {
  description = "How many bytes of a state's payload CONFIG takes and each job does in a run's record, and how many they may."
  value       = { config = local.config_bytes, config_at_most = local.config_bytes_at_most, jobs = local.job_bytes, job_at_most = local.job_bytes_at_most }
}
