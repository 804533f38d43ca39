# People as operators and CI as deployer, both by tokens of one custom authorization server of Okta.

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
        settings = { host = var.database.host, user = "dbt", dbname = var.database.name, schema = "analytics" }
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

  oidc = {
    providers = {
      okta = {
        url       = "https://${var.okta.domain}/oauth2/${var.okta.authorization_server}"
        audiences = [var.okta.people_client, var.okta.audience]
      }
    }

    environments = {
      prod = {
        # ID tokens of the native application: aud is its client id, sub the person's id.
        operator = { okta = { subjects = var.okta.people, audiences = [var.okta.people_client] } }

        # Access tokens of the service application: aud is the authorization server's, sub the application's client id.
        deployer = { okta = { subjects = [var.okta.ci_client], audiences = [var.okta.audience] } }
      }
    }

    # A working day: people follow runs for longer than an hour.
    max_session_seconds = 28800
  }
}
