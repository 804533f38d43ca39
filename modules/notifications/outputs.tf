output "topic_arn" {
  description = "ARN of the topic."
  value       = aws_sns_topic.this.arn
  depends_on  = [aws_sns_topic_policy.this]
}
