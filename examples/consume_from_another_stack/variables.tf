variable "region" {
  description = "Region of the deployment, whose default event bus has the events."
  type        = string
  default     = "eu-central-1"
}

variable "event_source" {
  description = "Output environments[<environment>].event_source of the deployment, such as dbt/analytics/prod."
  type        = string
}

variable "job" {
  description = "The job whose fresh data this stack waits for."
  type        = string
}

variable "state_machine_arn" {
  description = "State machine to start with the event as its input."
  type        = string
}

