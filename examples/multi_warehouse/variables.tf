variable "region" {
  description = "AWS region, of the deployment and of its warehouses."
  type        = string
}

variable "image" {
  description = "The runner's image by digest, built with the adapters of all these warehouses."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets that reach the warehouses and AWS's APIs."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups of the containers."
  type        = list(string)
}
