# The same image as a function, for what is light. It is there where an environment runs anything on it.

locals {
  # base64 has four characters for three bytes.
  function_bytes = floor(length(base64encode(jsonencode(local.env_vars))) / 4) * 3

  image_region = try(regex("^\\d{12}\\.dkr\\.ecr(?:-fips)?\\.([a-z0-9-]+)\\.", var.image)[0], null)
}

# The name that Lambda expects: with it, no function needs the right to make log groups.
resource "aws_cloudwatch_log_group" "function" {
  count = var.function == null ? 0 : 1

  name              = "/aws/lambda/${var.id}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_lambda_function" "this" {
  count = var.function == null ? 0 : 1

  function_name = var.id
  description   = "Light steps and health checks of ${var.id}"
  role          = var.task_role_arn
  package_type  = "Image"
  image_uri     = var.image
  architectures = [{ ARM64 = "arm64", X86_64 = "x86_64" }[var.compute.architecture]]

  memory_size                    = var.function.memory
  timeout                        = var.function.timeout_seconds
  reserved_concurrent_executions = var.function.reserved_concurrency == null ? -1 : var.function.reserved_concurrency

  # A run that goes on while this changes has read the old version's ARN.
  publish = true

  # https://docs.aws.amazon.com/lambda/latest/dg/images-parms.html
  image_config {
    entry_point       = concat(local.python, ["-m", "awslambdaric"])
    command           = ["dbt_runner.lambda_handler.handler"]
    working_directory = local.working_directory
  }

  ephemeral_storage {
    size = var.function.ephemeral_storage
  }

  environment {
    variables = local.env_vars
  }

  dynamic "vpc_config" {
    for_each = var.function.vpc ? [var.function] : []

    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  tags = var.tags

  lifecycle {
    precondition {
      condition     = local.image_region == var.region
      error_message = "image is in the ECR of ${coalesce(local.image_region, "no region")}, but Lambda takes images from its own region (${var.region}) only: replicate it there, or leave compute on fargate."
    }

    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    precondition {
      condition     = local.function_bytes <= 4096
      error_message = "Limit \"environment of a function\" of Lambda: env_vars and the ARNs of secrets of ${var.id} have ${local.function_bytes} of 4096 bytes. Shorten them, keep several values in one secret, or leave compute on fargate (docs/limits.md)."
    }

    # https://docs.aws.amazon.com/lambda/latest/api/API_Environment.html
    precondition {
      condition     = alltrue([for key in keys(var.env_vars) : can(regex("^[A-Za-z][A-Za-z0-9_]+$", key))])
      error_message = "Lambda takes names of environment variables that begin with a letter and have at least two characters only: ${join(", ", [for key in keys(var.env_vars) : key if !can(regex("^[A-Za-z][A-Za-z0-9_]+$", key))])}."
    }
  }

  depends_on = [aws_cloudwatch_log_group.function]
}
