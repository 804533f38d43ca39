variable "location" {
  description = "Where the module is applied."
  type        = object({ partition = string, dns_suffix = string, region = string, account = string })
}

variable "table" {
  description = "Name of the audit table."
  type        = string
}

variable "identity_providers" {
  description = "Identity providers, as in the root module's oidc.providers: url creates one, arn adopts one that exists."
  type = map(object({
    url         = string
    arn         = string
    audiences   = list(string)
    thumbprints = list(string)
  }))
}

variable "environments" {
  description = <<-EOT
    The environments that somebody may deploy to or operate, by key.

    id                  <name>-<environment>: the roles' names begin with it.
    deployer, operator  who may become the role: by provider, the subjects of their tokens.
    pull_requests       only pull requests are checked there: its deployer publishes their releases (ci-*) and no others, and moves no pointer;
                        the deployers of the other environments move that one, too.
  EOT
  type = map(object({
    id            = string
    arns          = object({ table = string, bucket = string, state_machine = string, executions = string, logs = list(string) })
    deployer      = map(object({ subjects = list(string), audiences = list(string) }))
    operator      = map(object({ subjects = list(string), audiences = list(string) }))
    pull_requests = bool
  }))
}

variable "max_session_seconds" {
  description = "How long a session of these roles may last."
  type        = number
}

variable "trust_characters" {
  description = "IAM's quota for the trust policy of a role, as the account has it."
  type        = number
}

variable "iam" {
  description = "Path, permissions boundary and name prefix of every role."
  type = object({
    path                 = string
    permissions_boundary = string
    name_prefix          = string
  })
}

variable "kms_key_arn" {
  description = "Key of table and bucket; null gives no KMS statement, because the keys that AWS manages need none."
  type        = string
}

variable "tags" {
  type = map(string)
}
