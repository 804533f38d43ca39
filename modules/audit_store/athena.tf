# The long-term audit as tables: JSON lines that the state machines, the runner and the command line write, found by projection, so that
# no crawler and no partition has to be kept. https://docs.aws.amazon.com/athena/latest/ug/partition-projection.html

locals {
  athena = var.audit.athena ? jsondecode(file("${path.module}/athena/tables.json")) : {}

  # The first line of each file says what the query is for.
  queries = var.audit.athena ? {
    for file in fileset("${path.module}/athena", "*.sql") : trimsuffix(file, ".sql") => file("${path.module}/athena/${file}")
  } : {}

  # Glue's names know no hyphen.
  database = "${replace(var.name, "-", "_")}_audit"
}

resource "aws_glue_catalog_database" "this" {
  count = var.audit.athena ? 1 : 0

  name        = local.database
  description = "Runs, attempts, nodes and promotions of ${var.name}"
  tags        = var.tags
}

resource "aws_glue_catalog_table" "this" {
  for_each = local.athena

  name          = each.key
  database_name = aws_glue_catalog_database.this[0].name
  description   = each.value.description
  table_type    = "EXTERNAL_TABLE"

  parameters = {
    "classification"            = "json"
    "projection.enabled"        = "true"
    "projection.env.type"       = "enum"
    "projection.env.values"     = join(",", distinct(concat(var.environments, var.audit.former_environments)))
    "projection.date.type"      = "date"
    "projection.date.format"    = "yyyy-MM-dd"
    "projection.date.range"     = "2026-01-01,NOW"
    "storage.location.template" = "s3://${aws_s3_bucket.this.bucket}/audit/${each.key}/env=$${env}/date=$${date}/"
  }

  partition_keys {
    name = "env"
    type = "string"
  }

  partition_keys {
    name = "date"
    type = "string"
  }

  storage_descriptor {
    location      = "s3://${aws_s3_bucket.this.bucket}/audit/${each.key}/"
    input_format  = "org.apache.hadoop.mapred.TextInputFormat"
    output_format = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat"

    ser_de_info {
      serialization_library = "org.openx.data.jsonserde.JsonSerDe"
    }

    dynamic "columns" {
      for_each = each.value.columns

      content {
        name = columns.key
        type = columns.value
      }
    }
  }
}

resource "aws_athena_workgroup" "this" {
  count = var.audit.athena ? 1 : 0

  name          = "${var.name}-audit"
  description   = "Questions to the audit of ${var.name}"
  force_destroy = var.audit.force_destroy
  tags          = var.tags

  # Where everything in the bucket is locked, results would be kept as long as what they were made of: whoever asks names a place of their own.
  configuration {
    enforce_workgroup_configuration    = var.audit.object_lock == null
    publish_cloudwatch_metrics_enabled = false

    dynamic "result_configuration" {
      for_each = var.audit.object_lock == null ? ["athena"] : []

      content {
        output_location = "s3://${aws_s3_bucket.this.bucket}/${result_configuration.value}/"

        encryption_configuration {
          encryption_option = var.kms_key_arn == null ? "SSE_S3" : "SSE_KMS"
          kms_key_arn       = var.kms_key_arn
        }
      }
    }
  }
}

resource "aws_athena_named_query" "this" {
  for_each = local.queries

  name        = each.key
  description = trimprefix(split("\n", each.value)[0], "-- ")
  workgroup   = aws_athena_workgroup.this[0].name
  database    = aws_glue_catalog_database.this[0].name
  query       = each.value
}
