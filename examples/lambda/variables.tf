variable "region" {
  description = "AWS region."
  type        = string
}

variable "image" {
  description = "The runner's image by digest, for example <account>.dkr.ecr.<region>.amazonaws.com/dbt-runner@sha256:..."
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
  description = "The database, with IAM authentication enabled, and a user to whom rds_iam was granted. resource_id is its DbiResourceId (db-...)."
  type = object({
    host        = string
    name        = string
    user        = string
    resource_id = string
  })
}

variable "emails" {
  description = "Who is told about failed runs."
  type        = list(string)
  default     = []
}
