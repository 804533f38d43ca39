output "topic_arn" {
  description = "ARN of the topic."
  value       = aws_sns_topic.this.arn
  depends_on  = [aws_sns_topic_policy.this]
}

output "chat_topic_arn" {
  description = "ARN of the topic for chat channels; null where there is none."
  value       = one(values(aws_sns_topic.chat)[*].arn)
  depends_on  = [aws_sns_topic_policy.chat]
}
