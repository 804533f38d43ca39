variable "endpoint" {
  description = "URL of the emulator, for example http://127.0.0.1:5000."
  type        = string
}

variable "warehouse_path" {
  description = "DuckDB file of the default environment."
  type        = string
}

variable "region" {
  description = "Region that the emulator plays."
  type        = string
  default     = "us-east-1"
}

variable "name" {
  description = "Name of the deployment."
  type        = string
  default     = "dbt"
}

variable "compute" {
  description = "Where the steps and the health check of the default environment run: fargate or lambda."
  type        = string
  default     = "fargate"
}

variable "env_vars" {
  description = "Environment variables of the default environment's dbt, as `dbt-runner local run --env` gives them."
  type        = map(string)
  default     = {}
}

variable "environments" {
  description = "Environments as in the root module, instead of the default one, `local`."
  type        = any
  default     = null
}
