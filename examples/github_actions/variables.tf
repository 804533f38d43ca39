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
  description = "The database, with IAM authentication enabled, and its DbiResourceId (db-...). Its users are dbt_staging, dbt_prod and dbt_ci."
  type        = object({ host = string, name = string, resource_id = string })
}

variable "repository" {
  description = "The dbt project's repository on GitHub: <owner>/<name>."
  type        = string
}

variable "github_provider_arn" {
  description = "The account's provider for GitHub Actions, if it has one; null creates it."
  type        = string
  default     = null
}
