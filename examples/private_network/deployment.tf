# A deployment in this network: PostgreSQL, as in the example `minimal`.

module "dbt" {
  source = "../.."

  name  = var.name
  image = var.image

  network = {
    subnet_ids         = [for subnet in aws_subnet.private : subnet.id]
    security_group_ids = [aws_security_group.runner.id]
  }

  environments = {
    prod = {
      warehouse = {
        type     = "postgres"
        settings = { host = var.database.host, user = var.database.user, dbname = var.database.name, schema = "analytics" }
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
}
