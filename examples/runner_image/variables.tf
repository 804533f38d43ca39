variable "region" {
  description = "AWS region of the deployments: Lambda takes images from its own region only."
  type        = string
}

variable "repository" {
  description = "The repository on GitHub that builds the image, owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "repository must be <owner>/<name>, as GitHub writes it."
  }
}

variable "github_environment" {
  description = "The environment on GitHub that a job which pushes runs in. Protect it: who meets its rules decides what runs with the warehouse's data."
  type        = string
  default     = "runner-image"
}

variable "github_provider_arn" {
  description = "The account's provider for GitHub Actions, where it has one already."
  type        = string
  default     = null
}

variable "deployments" {
  description = "`name` of the deployments in this account that run the image."
  type        = list(string)
  default     = ["analytics"]
}
