# Where the inline policies of a role are full: what a team names as often as it likes, secrets and databases, goes on in managed policies.
# Each belongs to one role, like the inline ones.

locals {
  # Characters that IAM counts, which are those of the policy without white space.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
  inline_characters  = 10240
  managed_characters = 6144

  # How many a role may have attached; an account can have it raised, the module does not count on that.
  managed_policies = 10

  # Behind the sids of a policy: a sid is said once in a role. The first is the inline one.
  numbers = concat([""], range(2, 200))

  documents = {
    execution = slice(data.aws_iam_policy_document.execution_secrets, min(1, length(local.secret_policies)), length(local.secret_policies))
    task      = slice(data.aws_iam_policy_document.task_secrets, min(1, length(data.aws_iam_policy_document.task_secrets)), length(data.aws_iam_policy_document.task_secrets))
    warehouse = slice(data.aws_iam_policy_document.databases, min(1, length(local.databases_policies)), length(local.databases_policies))
  }

  managed = merge([for role, documents in local.documents : { for n, document in documents : "${role}-${n + 2}" => { role = role, document = document } }]...)

  # What to do about a policy that is too long, or about too many.
  managed_advice = {
    execution = "Shorten the names of secrets, or keep several values in one secret"
    task      = "Shorten the names of secrets, or keep several values in one secret"
    warehouse = "Name fewer databases in databases and read_databases of warehouse.identity"
  }
}

resource "aws_iam_policy" "managed" {
  for_each = local.managed

  name        = "${var.iam.name_prefix}${var.id}-${each.key}"
  description = "More of what the ${each.value.role} role of ${var.id} may"
  path        = var.iam.path
  policy      = each.value.document.json
  tags        = var.tags

  lifecycle {
    precondition {
      condition     = length(each.value.document.minified_json) <= local.managed_characters
      error_message = "Limit \"managed policy\" of IAM: ${each.key} of ${var.id} has ${length(each.value.document.minified_json)} of ${local.managed_characters} characters. ${local.managed_advice[each.value.role]} (docs/limits.md)."
    }

    precondition {
      condition     = length(local.documents[each.value.role]) <= local.managed_policies
      error_message = "Limit \"managed policies of a role\" of IAM: ${local.roles[each.value.role]} would have ${length(local.documents[each.value.role])} of ${local.managed_policies}. ${local.managed_advice[each.value.role]} (docs/limits.md)."
    }
  }
}

resource "aws_iam_role_policy_attachment" "managed" {
  for_each = local.managed

  role       = { execution = aws_iam_role.execution, task = aws_iam_role.task, warehouse = aws_iam_role.warehouse }[each.value.role].name
  policy_arn = aws_iam_policy.managed[each.key].arn
}
