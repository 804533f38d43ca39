variable "id" {
  description = "<name>-<environment>: the roles' names begin with it."
  type        = string
}

variable "environment" {
  description = "Key of the environment."
  type        = string
}

variable "location" {
  description = "Where the module is applied."
  type        = object({ partition = string, dns_suffix = string, region = string, account = string })
}

variable "arns" {
  description = "ARNs that the resources of this environment have or will have."
  type = object({
    table          = string
    bucket         = string
    topic          = string
    chat_topic     = string
    cluster        = string
    tasks          = string
    task_family    = string
    function       = string
    function_logs  = string
    runner_logs    = string
    state_machine  = string
    executions     = string
    finalize       = string
    announce       = string
    event_bus      = string
    finalize_rule  = string
    schedule_group = string
  })
}

variable "chat" {
  description = "Whether there is a topic for chat channels."
  type        = bool
}

variable "namespace" {
  description = "Of the metrics, and the source of the events."
  type        = string
}

variable "warehouse" {
  description = "Type, settings and identity, as in the root module."
  type = object({
    type     = string
    settings = map(string)
    identity = map(string)
  })
}

variable "function" {
  description = "Where the Lambda function's network is; null where there is no function."
  type = object({
    vpc                = bool
    subnet_ids         = list(string)
    security_group_ids = list(string)
  })
}

variable "image" {
  description = "The runner's image, by digest. One in ECR gets a statement for its repository."
  type        = string
}

variable "secrets" {
  description = "Environment variables by the ARN of their secret or parameter."
  type        = map(string)
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
  description = "Key of table, bucket, topic and secrets; null gives no KMS statement, because the keys that AWS manages need none."
  type        = string
}

variable "tags" {
  type = map(string)
}
