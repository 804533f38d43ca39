# Two environments that GitHub Actions deploys to without a stored key: staging from the main branch, prod from a protected GitHub
# environment. Each workflow becomes the deployer of its own environment and no other.

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
    for env in ["staging", "prod"] : env => {
      warehouse = {
        type     = "postgres"
        settings = { host = var.database.host, user = "dbt_${env}", dbname = var.database.name, schema = "analytics_${env}" }
        identity = { method = "rds_iam", resource_id = var.database.resource_id }
      }

      jobs = {
        hourly = {
          schedule = env == "prod" ? "rate(1 hour)" : null
          steps    = [{ name = "build", commands = ["build"] }]
        }
      }
    }
  }

  oidc = {
    providers = {
      github = merge(
        { audiences = ["sts.amazonaws.com"] },
        var.github_provider_arn == null ? { url = "https://token.actions.githubusercontent.com" } : { arn = var.github_provider_arn },
      )
    }

    environments = {
      staging = { deployer = { github = { subjects = ["repo:${var.repository}:ref:refs/heads/main"] } } }
      prod    = { deployer = { github = { subjects = ["repo:${var.repository}:environment:prod"] } } }
    }
  }
}
