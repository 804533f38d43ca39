# The root module on an emulator that listens on var.endpoint, with whatever puts a statement into a policy: secrets, a function in the
# VPC, topics for chat and owners, CI and people, and a key of one's own.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7.0"
    }
  }
}

variable "endpoint" {
  description = "URL of the emulator."
  type        = string
}

variable "home" {
  description = "Folder of the warehouses."
  type        = string
}

variable "kms_key_arn" {
  description = "The customer managed key."
  type        = string
}

variable "secrets" {
  description = "References to the secrets that the models read."
  type        = map(string)
}

variable "control" {
  description = "Value of the variable that the models read."
  type        = string
}

variable "largest" {
  description = "The environment that is as large as docs/limits.md says, by its name."
  type        = any
}

variable "region" {
  description = "Region that the emulator plays."
  type        = string
}

provider "aws" {
  region     = var.region
  access_key = "test"
  secret_key = "test"

  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  s3_use_path_style           = true
  max_retries                 = 2

  endpoints {
    cloudwatch = var.endpoint
    dynamodb   = var.endpoint
    ec2        = var.endpoint
    ecs        = var.endpoint
    events     = var.endpoint
    iam        = var.endpoint
    kms        = var.endpoint
    lambda     = var.endpoint
    logs       = var.endpoint
    s3         = var.endpoint
    scheduler  = var.endpoint
    sfn        = var.endpoint
    sns        = var.endpoint
    sts        = var.endpoint
  }
}

data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
}

data "aws_security_group" "default" {
  vpc_id = data.aws_vpc.default.id
  name   = "default"
}

locals {
  # One for each policy on overlap; the names of two begin alike, because a prefix is no fence. `queue` has a function.
  environments = {
    prod   = { overlap = "skip", health_check = { compute = "fargate" }, compute = { spot = true } }
    prod-2 = { overlap = "queue", health_check = { compute = "lambda" }, compute = { spot = false, lambda = { vpc = true } } }
    busy   = { overlap = "fail", health_check = { enabled = false }, compute = { spot = false } }
  }

  # Runs nothing: its warehouse role has the most statements, and more databases than its inline policy holds.
  lake = {
    warehouse = {
      type     = "athena"
      settings = { region_name = var.region, work_group = "primary", schema = "marts", s3_staging_dir = "s3://lake/staging/", s3_data_dir = "s3://lake/marts/" }
      identity = { databases = join(",", [for n in range(16) : format("analytics_production_marts_%03d", n)]), read_databases = "raw", read_locations = "s3://lake/raw/" }
    }
    jobs = {}
  }
}

module "dbt" {
  source = "../../.."

  name = "dbt"
  # No image is pulled: tasks and functions run as local processes.
  image = "000000000000.dkr.ecr.${var.region}.amazonaws.com/local/dbt-runner@sha256:${sha256("no image is pulled")}"

  network = {
    subnet_ids         = slice(data.aws_subnets.default.ids, 0, 1)
    security_group_ids = [data.aws_security_group.default.id]
  }

  environments = merge({ lake = local.lake }, var.largest, {
    for name, environment in local.environments : name => {
      warehouse       = { type = "duckdb", settings = { path = "${var.home}/${name}.duckdb", threads = "4" } }
      compute         = merge(environment.compute, { sizes = [{ cpu = 1024, memory = 4096 }, { cpu = 2048, memory = 8192 }] })
      health_check    = environment.health_check
      overlap         = environment.overlap
      slim_ci         = { schema_suffixes = "pr_[0-9]+" }
      retry           = { max_attempts = 3, interval_seconds = 1, backoff_rate = 1 }
      timeout_seconds = 1800
      env_vars        = { CONTROL = var.control }
      secrets         = var.secrets
      jobs = {
        nightly = { schedule = "cron(0 3 1 1 ? 2099)", steps = [{ name = "fast", commands = ["run --select fast"] }] }
      }
    }
  })

  oidc = {
    providers = {
      github = { url = "https://token.actions.githubusercontent.com", audiences = ["sts.amazonaws.com"] }
      okta   = { url = "https://acme.okta.com/oauth2/aus1", audiences = ["0oaOperators"] }
    }
    environments = {
      for name in ["prod", "prod-2"] : name => {
        deployer = { github = { subjects = ["repo:acme/analytics:environment:${name}", "repo:acme/analytics:ref:refs/tags/${name}-*"] } }
        operator = { okta = { subjects = ["00uAda-${name}"] } }
      }
    }
  }

  notifications = { emails = ["team@example.com"], owners = { finance = ["finance@example.com"] }, chat = true }
  observability = { saved_queries = false }
  iam           = { path = "/data/", name_prefix = "x-" }
  kms_key_arn   = var.kms_key_arn

  # Nothing to keep. Without a rule there is no lifecycle, for which the provider would wait a minute.
  audit = { force_destroy = true, deletion_protection = false, cache_retention_days = 0, incomplete_upload_days = 0, log_retention_days = 1, athena = false }
}

output "cli" {
  value = module.dbt.cli
}

output "table" {
  value = module.dbt.table
}

output "bucket" {
  value = module.dbt.bucket
}
