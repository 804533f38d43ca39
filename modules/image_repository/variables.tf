locals {
  # Of a role, with * allowed in its path and name, but not in its account.
  role_pattern     = "^arn:[a-z-]+:iam::\\d{12}:role/\\S+$"
  function_pattern = "^arn:[a-z-]+:lambda:[a-z0-9-]+:\\d{12}:function:\\S+$"
}

variable "name" {
  description = "Name of the repository."
  type        = string
  nullable    = false
  default     = "dbt-runner"

  # https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_CreateRepository.html
  validation {
    condition     = can(regex("^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", var.name)) && length(var.name) >= 2 && length(var.name) <= 256
    error_message = "name must be 2 to 256 characters of a-z, 0-9, dot, hyphen, underscore and slash, as ECR takes them, for example data/dbt-runner."
  }
}

variable "pull_role_arns" {
  description = <<-EOT
    The roles that run the image: the execution roles of the deployments (role_arns.execution of each environment), in this account or in
    others. They need not exist yet. * may stand in the path and the name: arn:aws:iam::111122223333:role/analytics-*-execution.
    Nobody else can pull, administrators included; for functions in another account, name the role that creates them, too.
  EOT
  type        = list(string)
  nullable    = false

  validation {
    condition = length(var.pull_role_arns) > 0 && alltrue([for arn in var.pull_role_arns : can(regex(local.role_pattern, arn))])
    error_message = "pull_role_arns must name at least one role, each by an ARN with its account (arn:aws:iam::<account>:role/...): ${join(", ", [
      for arn in var.pull_role_arns : arn if !can(regex(local.role_pattern, arn))
    ])}."
  }
}

variable "push_role_arns" {
  description = "The roles of this account that push images, which the pushing engine also has to read. They get their permissions from the output push_policy."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition = alltrue([for arn in var.push_role_arns : can(regex(local.role_pattern, arn))])
    error_message = "push_role_arns must be ARNs of roles with their account (arn:aws:iam::<account>:role/...): ${join(", ", [
      for arn in var.push_role_arns : arn if !can(regex(local.role_pattern, arn))
    ])}."
  }
}

variable "function_arns" {
  description = "Lambda functions that are made of the image, in this region; * may stand in the name: arn:aws:lambda:eu-central-1:111122223333:function:analytics-*."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition = alltrue([for arn in var.function_arns : can(regex(local.function_pattern, arn))])
    error_message = "function_arns must be ARNs of functions with their region and account (arn:aws:lambda:<region>:<account>:function:...): ${join(", ", [
      for arn in var.function_arns : arn if !can(regex(local.function_pattern, arn))
    ])}."
  }
}

variable "keep_images" {
  description = "How many images with a tag are kept. It has to be more than are pushed between two applies of the slowest deployment: what a task definition names must still be there."
  type        = number
  nullable    = false
  default     = 100

  validation {
    condition     = var.keep_images >= 10 && floor(var.keep_images) == var.keep_images
    error_message = "keep_images must be a whole number, at least 10: fewer could remove an image that a deployment still runs."
  }
}

variable "untagged_days" {
  description = "Images without a tag, which are left of pushes that were not finished, expire after these days. Push with a tag, deploy by digest."
  type        = number
  nullable    = false
  default     = 14

  validation {
    condition     = var.untagged_days >= 1 && floor(var.untagged_days) == var.untagged_days
    error_message = "untagged_days must be a whole number of days, at least 1."
  }
}

variable "kms_key_arn" {
  description = "A KMS key of your own for the images; null uses ECR's. It cannot be changed later."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:\\d{12}:key/\\S+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:<region>:<account>:key/...), not an alias or an id."
  }
}

variable "force_delete" {
  description = "Whether destroying the repository also deletes its images."
  type        = bool
  nullable    = false
  default     = false
}

variable "tags" {
  description = "Tags of the repository."
  type        = map(string)
  nullable    = false
  default     = {}
}
