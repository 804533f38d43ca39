variable "environment" {
  description = "Key of the environment, for the messages."
  type        = string
}

variable "warehouse" {
  description = "Type, settings and identity, as the root module takes them."
  type = object({
    type     = string
    settings = map(string)
    identity = map(string)
    profile  = string
  })
}

variable "audit_bucket" {
  description = "Name of the audit bucket, where no warehouse may be."
  type        = string
}

variable "local" {
  description = "Whether this is the local stack, whose containers are processes of one machine."
  type        = bool
}
