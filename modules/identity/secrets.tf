# Who reads the secrets: the ECS agent under the execution role, and on Lambda the runner itself under the task role. They are as many as
# the team names, and their ARNs may be known only after apply: so many to a policy, whatever their length.

locals {
  # A reference to a secret may name a JSON key, a stage and a version after the seven fields of its ARN.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
  secret_policies = [
    for policy, keys in local.secret_keys : {
      secrets    = distinct([for key in keys : join(":", slice(split(":", var.secrets[key]), 0, 7)) if strcontains(var.secrets[key], ":secretsmanager:")])
      parameters = distinct([for key in keys : var.secrets[key] if strcontains(var.secrets[key], ":ssm:")])
    }
  ]
  secret_keys = concat(
    length(var.secrets) == 0 ? [] : [slice(keys(var.secrets), 0, min(local.inline_secrets, length(var.secrets)))],
    chunklist(slice(keys(var.secrets), min(local.inline_secrets, length(var.secrets)), length(var.secrets)), local.managed_secrets),
  )

  # In the inline policy, which has more to hold, and in a managed one.
  inline_secrets  = 4
  managed_secrets = 8
}

data "aws_iam_policy_document" "execution_secrets" {
  count = length(local.secret_policies)

  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
  dynamic "statement" {
    for_each = [for arns in [local.secret_policies[count.index].secrets] : arns if length(arns) > 0]

    content {
      sid       = "ReadSecrets${local.numbers[count.index]}"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }

  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-ssm-paramstore.html
  dynamic "statement" {
    for_each = [for arns in [local.secret_policies[count.index].parameters] : arns if length(arns) > 0]

    content {
      sid       = "ReadParameters${local.numbers[count.index]}"
      actions   = ["ssm:GetParameters"]
      resources = statement.value
    }
  }

  source_policy_documents = [data.aws_iam_policy_document.secrets_key[count.index].json]
}

data "aws_iam_policy_document" "task_secrets" {
  count = length(local.functions) == 0 ? 0 : length(local.secret_policies)

  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/auth-and-access_iam-policies.html
  dynamic "statement" {
    for_each = [for arns in [local.secret_policies[count.index].secrets] : arns if length(arns) > 0]

    content {
      sid       = "ReadSecrets${local.numbers[count.index]}"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = statement.value
    }
  }

  # https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html
  dynamic "statement" {
    for_each = [for arns in [local.secret_policies[count.index].parameters] : arns if length(arns) > 0]

    content {
      sid       = "ReadParameters${local.numbers[count.index]}"
      actions   = ["ssm:GetParameter"]
      resources = statement.value
    }
  }

  source_policy_documents = [data.aws_iam_policy_document.secrets_key[count.index].json]
}

# The key, for whichever of the two roles reads them.
data "aws_iam_policy_document" "secrets_key" {
  count = length(local.secret_policies)

  # https://docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html#security-encryption-encryption-context
  dynamic "statement" {
    for_each = length(local.secret_policies[count.index].secrets) > 0 ? local.kms_keys : []

    content {
      sid       = "DecryptSecrets${local.numbers[count.index]}"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.secretsmanager]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:SecretARN"
        values   = local.secret_policies[count.index].secrets
      }
    }
  }

  # https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html
  dynamic "statement" {
    for_each = length(local.secret_policies[count.index].parameters) > 0 ? local.kms_keys : []

    content {
      sid       = "DecryptParameters${local.numbers[count.index]}"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:ViaService"
        values   = [local.via.ssm]
      }

      condition {
        test     = "StringEquals"
        variable = "kms:EncryptionContext:PARAMETER_ARN"
        values   = local.secret_policies[count.index].parameters
      }
    }
  }
}
