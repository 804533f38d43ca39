# Light work on Lambda, the build on Fargate: a check of the warehouse and of the sources every quarter of an hour, a build every night.

provider "aws" {
  region = var.region
}

module "dbt" {
  source = "../.."

  name  = "analytics"
  image = var.image

  network = {
    subnet_ids         = var.subnet_ids
    security_group_ids = var.security_group_ids
  }

  environments = {
    prod = {
      warehouse = {
        type     = "postgres"
        settings = { host = var.database.host, port = 5432, user = var.database.user, dbname = var.database.name, schema = "analytics" }
        identity = { method = "rds_iam", resource_id = var.database.resource_id }
      }

      # A light step that once takes longer than Lambda allows does the rest on Fargate, with each node once.
      compute = {
        on_timeout = "fargate"
        lambda     = { memory = 2048, reserved_concurrency = 2 }
      }

      health_check = { compute = "lambda" }

      jobs = {
        fresh = {
          schedule = "rate(15 minutes)"
          steps = [
            { name = "freshness", commands = ["source freshness"], compute = "lambda", on_failure = "continue" },
            { name = "staging", commands = ["build --select tag:light"], compute = "lambda" },
          ]
        }
        nightly = {
          schedule = "cron(0 3 * * ? *)"
          steps    = [{ name = "build", commands = ["build"] }]
        }
      }
    }
  }

  notifications = { emails = var.emails }
}
