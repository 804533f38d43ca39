# What the local stack applies: the root module as it is, against an AWS that listens on var.endpoint.

provider "aws" {
  region     = var.region
  access_key = "test"
  secret_key = "test"

  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  s3_use_path_style           = true

  # An emulator that answers with a server error once does so always.
  max_retries = 2

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
  default_environments = {
    local = {
      warehouse       = { type = "duckdb", settings = { path = var.warehouse_path, threads = 4 } }
      compute         = { type = var.compute, sizes = [{ cpu = 1024, memory = 4096 }, { cpu = 2048, memory = 8192 }] }
      health_check    = { compute = var.compute }
      retry           = { max_attempts = 3, interval_seconds = 1, backoff_rate = 1 }
      timeout_seconds = 1800
      env_vars        = var.env_vars

      # A file of its own, because `dbt-runner local run` reads it too: a job that does not exist is refused before anything starts.
      jobs = jsondecode(file("${path.module}/jobs.json"))
    }
  }
}

module "dbt" {
  source = "../.."

  name = var.name
  # No image is pulled: tasks and functions run as local processes. The name is one that Lambda would take, of an account that is nobody's.
  image = "000000000000.dkr.ecr.${var.region}.amazonaws.com/local/dbt-runner@sha256:${sha256("no image is pulled")}"

  network = {
    subnet_ids         = data.aws_subnets.default.ids
    security_group_ids = [data.aws_security_group.default.id]
  }

  # A conditional wants one type of both branches, which two sets of environments never have; as JSON they do.
  environments = jsondecode(var.environments == null ? jsonencode(local.default_environments) : jsonencode(var.environments))

  # They are for AWS's console, which the emulator does not have.
  observability = { saved_queries = false }

  # Nothing to keep. Without a rule there is no lifecycle, for which the provider would wait a minute.
  audit = { force_destroy = true, deletion_protection = false, cache_retention_days = 0, incomplete_upload_days = 0, log_retention_days = 1, athena = false }
}
