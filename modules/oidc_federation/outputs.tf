output "provider_arns" {
  description = "ARNs of the identity providers, created and adopted."
  value       = local.provider_arns
  depends_on  = [aws_iam_openid_connect_provider.this]
}

output "roles" {
  description = "ARNs of the roles, by environment and role word, once they hold their policies."
  value = {
    for env in keys(var.environments) : env => {
      for role in ["deployer", "operator"] : role => local.role_arns["${env}/${role}"] if contains(keys(local.grants), "${env}/${role}")
    }
  }
  depends_on = [aws_iam_role_policy.deployer, aws_iam_role_policy.operator]
}
