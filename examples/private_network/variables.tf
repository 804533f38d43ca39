variable "region" {
  description = "AWS region."
  type        = string
}

variable "name" {
  description = "Name of the deployment, and of its network."
  type        = string
  default     = "analytics"
}

variable "image" {
  description = "The runner's image by digest, in the ECR of this region: the only repository that can be reached from here."
  type        = string

  validation {
    condition     = can(regex("^\\d{12}\\.dkr\\.ecr\\.${var.region}\\.[a-z.]+/[^@]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must be in the ECR of this region, by digest: without a way to the internet no other registry can be reached."
  }
}

variable "cidr" {
  description = "Addresses of the VPC. Each subnet gets a sixteenth of it, and each task takes one address."
  type        = string
  default     = "10.20.0.0/20"

  validation {
    condition     = can(cidrsubnet(var.cidr, 4, 15)) && try(tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "cidr must be a block of /24 or larger, so that a sixteenth of it is a subnet that AWS allows (/28)."
  }
}

variable "availability_zones" {
  description = "Where the subnets are; an interface endpoint costs by zone. Fargate Spot finds capacity more easily in two or more."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) > 0 && length(var.availability_zones) <= 16
    error_message = "availability_zones must name 1 to 16 zones."
  }
}

variable "warehouses" {
  description = "Types of the warehouses: athena, postgres, redshift, snowflake. BigQuery cannot be reached without a way out (docs/network.md)."
  type        = set(string)

  validation {
    condition     = length(setsubtract(var.warehouses, ["athena", "postgres", "redshift", "snowflake"])) == 0
    error_message = "warehouses must be of athena, postgres, redshift and snowflake. BigQuery's APIs are on the internet: give the runner a NAT gateway or a proxy instead of this example."
  }
}

variable "warehouse_targets" {
  description = "Databases that the runner connects to: a port, and either a security group in this VPC or an address range. They have to let the group of the output `network` in."
  type = map(object({
    port              = number
    cidr              = optional(string)
    security_group_id = optional(string)
  }))
  default = {}

  validation {
    condition = alltrue([
      for target in var.warehouse_targets : (target.cidr == null) != (target.security_group_id == null) && try(!endswith(target.cidr, "/0"), true)
    ])
    error_message = "Each of warehouse_targets needs either a cidr, and not the whole internet, or a security_group_id."
  }
}

variable "database" {
  description = "The PostgreSQL database of the deployment, with IAM authentication: host, name, user and DbiResourceId."
  type        = object({ host = string, name = string, user = optional(string, "dbt"), resource_id = string })
}

variable "bucket_arns" {
  description = "Buckets that may be reached beside the deployment's own: of Athena, and Snowflake's internal stage (SYSTEM$GET_PRIVATELINK_CONFIG names it)."
  type        = list(string)
  default     = []
}

variable "secret_arns" {
  description = "The secrets and parameters of `secrets` in the environments."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secret_arns : can(regex("^arn:[a-z-]+:(secretsmanager|ssm):", arn))])
    error_message = "secret_arns must be ARNs of Secrets Manager's secrets or of SSM parameters."
  }
}

variable "snowflake" {
  description = "Snowflake by PrivateLink, from SYSTEM$GET_PRIVATELINK_CONFIG: privatelink-vpce-id, and the names privatelink-account-url, regionless-privatelink-account-url and privatelink_ocsp-url."
  type = object({
    service_name = string
    hosts        = list(string)
  })
  default = null

  validation {
    condition = var.snowflake == null ? true : (
      can(regex("^com\\.amazonaws\\.vpce\\.[a-z0-9-]+\\.vpce-svc-[0-9a-f]+$", var.snowflake.service_name)) &&
      length(var.snowflake.hosts) > 0 && alltrue([for host in var.snowflake.hosts : endswith(host, ".privatelink.snowflakecomputing.com")])
    )
    error_message = "snowflake must have the service_name com.amazonaws.vpce.<region>.vpce-svc-... and hosts that end with .privatelink.snowflakecomputing.com."
  }
}
