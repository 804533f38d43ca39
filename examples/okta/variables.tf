variable "region" {
  description = "AWS region."
  type        = string
}

variable "image" {
  description = "The runner's image by digest."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets that reach the database and AWS's APIs."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups of the containers; the database must let them in."
  type        = list(string)
}

variable "database" {
  description = "The database, with IAM authentication enabled, and its DbiResourceId (db-...)."
  type        = object({ host = string, name = string, resource_id = string })
}

variable "okta" {
  description = <<-EOT
    The custom authorization server and its applications.

    domain                such as acme.okta.com.
    authorization_server  its id, the last part of its issuer (aus...).
    audience              the audience of its access tokens.
    people, people_client the operators' ids (00u...) and the client id of the native application that they sign in with.
    ci_client             the client id of CI's service application.
  EOT
  type = object({
    domain               = string
    authorization_server = string
    audience             = string
    people               = list(string)
    people_client        = string
    ci_client            = string
  })
}
