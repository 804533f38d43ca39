output "url" {
  description = "The repository as docker names it. An image is <url>@<digest>: the module's `image`."
  value       = aws_ecr_repository.this.repository_url
  depends_on  = [aws_ecr_repository_policy.this]
}

output "arn" {
  description = "ARN of the repository."
  value       = aws_ecr_repository.this.arn
}

output "push_policy" {
  description = "Policy document (JSON) for the role that pushes images."
  value       = data.aws_iam_policy_document.push.json
}
