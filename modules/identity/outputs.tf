output "roles" {
  description = "ARNs of the roles, by role word, once they hold their policies."
  value       = local.role_arns

  depends_on = [
    aws_iam_role_policy.events,
    aws_iam_role_policy.execution,
    aws_iam_role_policy.scheduler,
    aws_iam_role_policy.states,
    aws_iam_role_policy.task,
    aws_iam_role_policy.warehouse,
    aws_iam_role_policy_attachment.managed,
    aws_iam_role.warehouse,
  ]
}
