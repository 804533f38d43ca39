# The roles of one environment, a file for each, in the order in which a run meets them:
#
#   scheduler -> states -> execution -> task -> warehouse,  and events -> finalize when a run ended badly
#
# Policies are inline: each belongs to one role, is never attached elsewhere and goes with it.

locals {
  roles = {
    for role in ["states", "task", "warehouse", "execution", "scheduler", "events"] :
    role => "${var.iam.name_prefix}${var.id}-${role}"
  }

  role_arns = {
    for role, name in local.roles :
    role => "arn:${var.location.partition}:iam::${var.location.account}:role${var.iam.path}${name}"
  }

  # What a principal needs of a customer managed key that a service uses for data at rest.
  kms_actions = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
  kms_keys    = var.kms_key_arn == null ? [] : [var.kms_key_arn]
  via         = { for service in ["dynamodb", "s3", "secretsmanager", "sns", "ssm"] : service => "${service}.${var.location.region}.${var.location.dns_suffix}" }
}
