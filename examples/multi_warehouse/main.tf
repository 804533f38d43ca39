# One environment for each warehouse that the module knows, to show settings and identities side by side. A deployment has one or two.
# What each warehouse has to be told first: docs/warehouses.

provider "aws" {
  region = var.region
}

locals {
  nightly = { nightly = { schedule = "cron(0 3 * * ? *)", steps = [{ name = "build", commands = ["build"] }] } }
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
    # PostgreSQL on RDS or Aurora: a token of 15 minutes as the password.
    postgres = {
      warehouse = {
        type     = "postgres"
        settings = { host = "db.example.com", user = "dbt", dbname = "analytics", schema = "analytics", sslmode = "require" }
        identity = { method = "rds_iam", resource_id = "db-ABCDEFGHIJKL01234" }
      }
      jobs = local.nightly
    }

    # Snowflake: the warehouse role signs a request that Snowflake sends to AWS.
    snowflake = {
      warehouse = {
        type     = "snowflake"
        settings = { account = "acme-prod", role = "TRANSFORMER", warehouse = "TRANSFORMING", database = "ANALYTICS", schema = "PUBLIC" }
      }
      jobs = local.nightly
    }

    # Snowflake: the warehouse role gets a token of AWS's own OIDC issuer.
    snowflake_token = {
      warehouse = {
        type     = "snowflake"
        settings = { account = "acme-prod", role = "TRANSFORMER", warehouse = "TRANSFORMING", database = "ANALYTICS", schema = "PUBLIC" }
        identity = { method = "aws_token" }
      }
      jobs = local.nightly
    }

    # Snowflake by External OAuth: an application of Okta, whose key is in KMS and which the warehouse role signs with.
    snowflake_okta = {
      warehouse = {
        type     = "snowflake"
        settings = { account = "acme-prod", role = "TRANSFORMER", warehouse = "TRANSFORMING", database = "ANALYTICS", schema = "PUBLIC" }
        identity = {
          method      = "okta"
          issuer      = "https://acme.okta.com/oauth2/aus1"
          client_id   = "0oaDbtProd"
          kms_key_arn = "arn:aws:kms:${var.region}:123456789012:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
        }
      }
      jobs = local.nightly
    }

    # Redshift Serverless: a password of the workgroup, for the database user that the session's tags name.
    redshift_serverless = {
      warehouse = {
        type = "redshift"
        settings = {
          host                  = "analytics.123456789012.${var.region}.redshift-serverless.amazonaws.com"
          region                = var.region
          dbname                = "analytics"
          serverless_work_group = "analytics"
        }
        identity = { workgroup_id = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f", db_user = "dbt_prod", db_roles = "transformer" }
      }
      jobs = local.nightly
    }

    # Redshift, provisioned.
    redshift_cluster = {
      warehouse = {
        type = "redshift"
        settings = {
          host       = "analytics.abcdefgh.${var.region}.redshift.amazonaws.com"
          region     = var.region
          dbname     = "analytics"
          cluster_id = "analytics"
        }
      }
      jobs = local.nightly
    }

    # BigQuery: Google exchanges a token of the warehouse role for one of the service account.
    bigquery = {
      warehouse = {
        type     = "bigquery"
        settings = { project = "acme-data", dataset = "analytics", location = "EU" }
        identity = {
          audience        = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/aws/providers/dbt"
          service_account = "dbt-prod@acme-data.iam.gserviceaccount.com"
        }
      }
      jobs = local.nightly
    }

    # Athena: the warehouse role itself, on this workgroup, these databases and these prefixes.
    athena = {
      warehouse = {
        type = "athena"
        settings = {
          region_name    = var.region
          work_group     = "analytics"
          schema         = "analytics"
          s3_staging_dir = "s3://acme-lake/athena/"
          s3_data_dir    = "s3://acme-lake/analytics/"
        }
        identity = { databases = "analytics_marts", read_databases = "raw", read_locations = "s3://acme-raw/exports/" }
      }
      jobs = local.nightly
    }
  }
}
