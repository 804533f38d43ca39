output "not_started_queue_url" {
  description = "Where events wait that could not start the state machine within an hour."
  value       = aws_sqs_queue.not_started.url
}
