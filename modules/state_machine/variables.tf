variable "name" {
  description = "Name of the deployment."
  type        = string
}

variable "environment" {
  description = "Key of the environment."
  type        = string
}

variable "location" {
  description = "Where the module is applied."
  type        = object({ partition = string, region = string, account = string })
}

variable "arns" {
  description = "ARNs that the resources of this environment have or will have."
  type = object({
    topic         = string
    chat_topic    = string
    state_machine = string
    finalize      = string
    announce      = string
  })
}

variable "chat" {
  description = "Whether there is a topic for chat channels, which announce writes to."
  type        = bool
}

variable "namespace" {
  description = "Of the metrics, and the source of the events."
  type        = string
}

variable "table" {
  description = "Name of the audit table, which gets the CONFIG item."
  type        = string
}

variable "bucket" {
  description = "Name of the audit bucket."
  type        = string
}

variable "roles" {
  description = "ARNs of the environment's roles, by role word."
  type = object({
    states    = string
    task      = string
    warehouse = string
    execution = string
    scheduler = string
    events    = string
  })
}

variable "settings" {
  description = "What the root module's environments say, every default filled in. It goes to CONFIG as it is."
  type = object({
    warehouse = object({
      type     = string
      settings = map(string)
      identity = map(string)
      profile  = string
    })
    compute = object({
      type         = string
      sizes        = list(object({ cpu = number, memory = number }))
      spot         = bool
      architecture = string
      on_timeout   = string
      lambda = object({
        memory               = number
        timeout_seconds      = number
        ephemeral_storage    = number
        reserved_concurrency = number
        vpc                  = bool
      })
    })
    health_check = object({
      enabled         = bool
      compute         = string
      timeout_seconds = number
    })
    retry = object({
      max_attempts     = number
      interval_seconds = number
      backoff_rate     = number
    })
    overlap         = string
    timeout_seconds = number
    slim_ci = object({
      state_target    = string
      schema_suffixes = string
    })
    requests = object({
      steps      = bool
      inline     = bool
      operations = list(string)
      overrides  = bool
    })
    jobs = map(object({
      schedule     = string
      timezone     = string
      enabled      = bool
      vars         = string
      full_refresh = bool
      steps = list(object({
        name            = string
        commands        = list(string)
        on_failure      = string
        timeout_seconds = number
        compute         = string
        on_timeout      = string
      }))
    }))
  })
}

variable "ecs" {
  description = "Where and how a task runs. It goes to CONFIG as it is."
  type = object({
    cluster          = string
    task_definition  = string
    container        = string
    subnets          = list(string)
    security_groups  = list(string)
    assign_public_ip = string
    log_group        = string
  })
}

variable "function" {
  description = "The Lambda function, with its version, and its limits; null where there is none. It goes to CONFIG as it is, as `lambda`."
  type = object({
    function        = string
    timeout_seconds = number
    memory          = number
    log_group       = string
  })
}

variable "log_retention_days" {
  description = "Days to keep logs, 0 for ever."
  type        = number
}

variable "kms_key_arn" {
  description = "Key of the log groups; null uses CloudWatch's own encryption."
  type        = string
}

variable "tags" {
  type = map(string)
}

variable "items_retention_days" {
  description = "Days after which outcomes and nodes leave the table; 0 keeps them."
  type        = number
}
