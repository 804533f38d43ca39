# Three environments that GitHub Actions deploys to without a stored key: staging, prod, and ci, in which pull requests are checked beside
# prod. Each is trusted to the jobs of GitHub's environment of the same name and to no other.

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
    for env, schema in { staging = "analytics_staging", prod = "analytics", ci = "analytics" } : env => {
      warehouse = {
        type     = "postgres"
        settings = { host = var.database.host, user = "dbt_${env}", dbname = var.database.name, schema = schema }
        identity = { method = "rds_iam", resource_id = var.database.resource_id }
      }

      # Pull requests do not skip each other, build only into schemas of their own, and read what prod has built.
      overlap = env == "ci" ? "queue" : "skip"
      slim_ci = {
        state_target    = env == "ci" ? "prod" : null
        schema_suffixes = env == "ci" ? "pr_[0-9]+" : null
      }

      # The macro that drops the schemas of a pull request when it is closed.
      requests = { operations = env == "ci" ? ["drop_schemas"] : [] }

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
      for env in ["staging", "prod", "ci"] : env => {
        deployer = { github = { subjects = ["repo:${var.repository}:environment:${env}"] } }
      }
    }
  }
}
