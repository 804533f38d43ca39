output "table" {
  description = "Name of the table."
  value       = aws_dynamodb_table.this.name
}

output "bucket" {
  description = "Name of the bucket, once it is encrypted, private and versioned."
  value       = aws_s3_bucket.this.bucket

  depends_on = [
    aws_s3_bucket_ownership_controls.this,
    aws_s3_bucket_policy.this,
    aws_s3_bucket_public_access_block.this,
    aws_s3_bucket_server_side_encryption_configuration.this,
    aws_s3_bucket_versioning.this,
  ]
}
