output "repository" {
  description = "The workflow's input `repository`."
  value       = module.image_repository.url
}

output "role" {
  description = "The workflow's input `role`."
  value       = aws_iam_role.publisher.arn
}
