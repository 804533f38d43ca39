# The roles of one environment, a file for each, in the order in which a run meets them:
#
#   scheduler -> states -> execution -> task -> warehouse,  and events -> finalize when a run ended badly
#
# Policies are inline, each of one role, never attached elsewhere and gone with it; what outgrows them is in managed ones (managed.tf).

locals {
  functions     = var.function == null ? [] : [var.function]
  vpc_functions = [for f in local.functions : f if f.vpc]

  roles = {
    for role in ["states", "task", "warehouse", "execution", "scheduler", "events"] :
    role => "${var.iam.name_prefix}${var.id}-${role}"
  }

  role_arns = {
    for role, name in local.roles :
    role => "arn:${var.location.partition}:iam::${var.location.account}:role${var.iam.path}${name}"
  }

  # What announce publishes to.
  topics = concat([var.arns.topic], var.chat ? [var.arns.chat_topic] : [])

  # A customer managed key is used through a service only, and only for what the service says that it encrypts.
  kms_keys = var.kms_key_arn == null ? [] : [var.kms_key_arn]
  via      = { for service in ["dynamodb", "s3", "secretsmanager", "sns", "ssm"] : service => "${service}.${var.location.region}.${var.location.dns_suffix}" }
}
