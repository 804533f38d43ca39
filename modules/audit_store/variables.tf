variable "name" {
  description = "The deployment's name."
  type        = string
}

variable "environments" {
  description = "The environments, whose rows the tables hold."
  type        = list(string)
}

variable "table" {
  description = "Name of the table."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket."
  type        = string
}

variable "partition" {
  description = "AWS partition, for the bucket's policy."
  type        = string
}

variable "audit" {
  description = "Protection and retention, as in the root module; days of 0 keep for ever."
  type = object({
    force_destroy             = bool
    deletion_protection       = bool
    runs_retention_days       = number
    noncurrent_retention_days = number
    cache_retention_days      = number
    incomplete_upload_days    = number
    rows_retention_days       = number
    items_retention_days      = number
    athena                    = bool
    former_environments       = list(string)
    object_lock               = object({ mode = string, days = number })
  })
}

variable "kms_key_arn" {
  description = "Key of table and bucket; null uses the keys that AWS manages."
  type        = string
}

variable "tags" {
  type = map(string)
}
