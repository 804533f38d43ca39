variable "id" {
  description = "<name>-<environment>: the cluster and the task definition's family."
  type        = string
}

variable "environment" {
  description = "Key of the environment."
  type        = string
}

variable "region" {
  description = "Region of the log group."
  type        = string
}

variable "log_group" {
  description = "Name of the log group."
  type        = string
}

variable "log_retention_days" {
  description = "Days to keep logs, 0 for ever."
  type        = number
}

variable "image" {
  description = "The runner's image, by digest."
  type        = string
}

variable "compute" {
  description = "Sizes and architecture. The task definition has the first size; the state machine overrides it for the others."
  type = object({
    sizes        = list(object({ cpu = number, memory = number }))
    architecture = string
  })
}

variable "function" {
  description = "The Lambda function's memory and storage (MiB), timeout, reserved concurrency and network; null makes none."
  type = object({
    memory               = number
    timeout_seconds      = number
    ephemeral_storage    = number
    reserved_concurrency = number
    vpc                  = bool
    subnet_ids           = list(string)
    security_group_ids   = list(string)
  })
}

variable "table" {
  description = "Name of the audit table."
  type        = string
}

variable "bucket" {
  description = "Name of the audit bucket."
  type        = string
}

variable "env_vars" {
  description = "The team's plain environment variables."
  type        = map(string)
}

variable "secrets" {
  description = "The team's secret environment variables: ARNs of secrets or parameters."
  type        = map(string)
}

variable "task_role_arn" {
  type = string
}

variable "execution_role_arn" {
  type = string
}

variable "kms_key_arn" {
  description = "Key of the log group; null uses CloudWatch's own encryption."
  type        = string
}

variable "tags" {
  type = map(string)
}
