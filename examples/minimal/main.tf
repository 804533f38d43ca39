# The smallest real deployment: PostgreSQL on RDS with IAM authentication, one environment, one job every hour.

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

      jobs = {
        hourly = {
          schedule = "rate(1 hour)"
          steps    = [{ name = "build", commands = ["build"] }]
        }
      }
    }
  }

  notifications = { emails = var.emails }
}
