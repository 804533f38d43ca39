output "alarm_topic_arn" {
  description = "ARN of the alarms' topic; null without alarms."
  value       = one(aws_sns_topic.alarms[*].arn)
  depends_on  = [aws_sns_topic_policy.alarms]
}
