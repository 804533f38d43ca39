resource "aws_dynamodb_table" "this" {
  name                        = var.table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.audit.deletion_protection

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  # Nodes and outcomes carry the time at which they may go, where audit.items_retention_days says so.
  dynamic "ttl" {
    for_each = var.audit.items_retention_days > 0 ? ["expires_at"] : []

    content {
      attribute_name = ttl.value
      enabled        = true
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }

  tags = var.tags
}

resource "aws_s3_bucket" "this" {
  bucket              = var.bucket
  force_destroy       = var.audit.force_destroy
  object_lock_enabled = var.audit.object_lock != null
  tags                = var.tags
}

# Nobody, in COMPLIANCE mode not even the account's root user, deletes a version before its time.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
resource "aws_s3_bucket_object_lock_configuration" "this" {
  count = var.audit.object_lock == null ? 0 : 1

  bucket     = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    default_retention {
      mode = var.audit.object_lock.mode
      days = var.audit.object_lock.days
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

# S3 takes a minute to confirm a lifecycle: nothing waits for it.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  count = anytrue([for days in [local.runs_days, local.rows_days, local.noncurrent_days, local.cache_days, local.results_days, local.upload_days] : days > 0]) ? 1 : 0

  bucket     = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_versioning.this]

  dynamic "rule" {
    for_each = local.runs_days > 0 ? [local.runs_days] : []

    content {
      id     = "expire-runs"
      status = "Enabled"

      filter {
        prefix = "runs/"
      }

      expiration {
        days = rule.value
      }
    }
  }

  dynamic "rule" {
    for_each = local.cache_days > 0 ? [local.cache_days] : []

    content {
      id     = "expire-cache"
      status = "Enabled"

      filter {
        prefix = "cache/"
      }

      expiration {
        days = rule.value
      }
    }
  }

  dynamic "rule" {
    for_each = local.rows_days > 0 ? [local.rows_days] : []

    content {
      id     = "expire-audit"
      status = "Enabled"

      filter {
        prefix = "audit/"
      }

      expiration {
        days = rule.value
      }
    }
  }

  # Results of queries; what they were made of stays.
  dynamic "rule" {
    for_each = local.results_days > 0 ? [local.results_days] : []

    content {
      id     = "expire-query-results"
      status = "Enabled"

      filter {
        prefix = "athena/"
      }

      expiration {
        days = rule.value
      }
    }
  }

  dynamic "rule" {
    for_each = local.noncurrent_days > 0 ? [local.noncurrent_days] : []

    content {
      id     = "expire-noncurrent"
      status = "Enabled"

      filter {}

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }

      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  dynamic "rule" {
    for_each = local.upload_days > 0 ? [local.upload_days] : []

    content {
      id     = "abort-incomplete-uploads"
      status = "Enabled"

      filter {}

      abort_incomplete_multipart_upload {
        days_after_initiation = rule.value
      }
    }
  }
}

locals {
  runs_days       = var.audit.runs_retention_days
  rows_days       = var.audit.rows_retention_days
  noncurrent_days = var.audit.noncurrent_retention_days
  cache_days      = var.audit.cache_retention_days
  results_days    = var.audit.athena ? var.audit.cache_retention_days : 0
  upload_days     = var.audit.incomplete_upload_days
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

data "aws_iam_policy_document" "bucket" {
  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html
  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = ["arn:${var.partition}:s3:::${var.bucket}", "arn:${var.partition}:s3:::${var.bucket}/*"]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = data.aws_iam_policy_document.bucket.json
}
