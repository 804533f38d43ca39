variable "id" {
  description = "<name>-<environment>, which names begin with."
  type        = string
}

variable "environment" {
  description = "Key of the environment."
  type        = string
}

variable "location" {
  description = "Partition, region and account."
  type        = object({ partition = string, region = string, account = string })
}

variable "namespace" {
  description = "Of the environment's metrics."
  type        = string
}

variable "jobs" {
  description = "Jobs, and within how many minutes each promises fresh data; null where it promises nothing."
  type        = map(object({ fresh_within_minutes = number }))
}

variable "arns" {
  description = "ARNs of the environment's state machines."
  type        = object({ finalize = string, announce = string })
}

variable "log_groups" {
  description = "Names of the log groups by what writes to them: runner, dbt_run."
  type        = map(string)
}

variable "observability" {
  description = "What to make, as the root module has it."
  type        = object({ alarms = bool, dashboard = bool, saved_queries = bool, alarm_actions = list(string) })
}

variable "emails" {
  description = "Addresses to subscribe to the alarms."
  type        = list(string)
}

variable "kms_key_arn" {
  description = "Key of the alarms' topic; null leaves it unencrypted, because CloudWatch cannot use the key that AWS manages for SNS."
  type        = string
}

variable "tags" {
  type = map(string)
}
