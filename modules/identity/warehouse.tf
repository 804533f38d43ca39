# What the team's SQL, Jinja and Python run as: the warehouse and nothing else.

locals {
  # The database user that this role may be, where the warehouse is PostgreSQL on RDS with IAM authentication.
  rds_users = try(var.warehouse.identity.method, null) == "rds_iam" ? [join("", [
    "arn:${var.location.partition}:rds-db:${var.location.region}:${var.location.account}:",
    "dbuser:${var.warehouse.identity.resource_id}/${var.warehouse.settings.user}",
  ])] : []
}

data "aws_iam_policy_document" "warehouse_trust" {
  # Only the runner, only for this environment, and only with its name on the session, so that CloudTrail tells the run.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_permissions-required
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html
  statement {
    sid     = "Runner"
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]

    principals {
      type        = "AWS"
      identifiers = [local.role_arns.task]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/environment"
      values   = [var.environment]
    }

    condition {
      test     = "Null"
      variable = "sts:SourceIdentity"
      values   = ["false"]
    }
  }
}

data "aws_iam_policy_document" "warehouse_rds" {
  count = length(local.rds_users) > 0 ? 1 : 0

  # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
  statement {
    sid       = "ConnectToDatabase"
    actions   = ["rds-db:connect"]
    resources = local.rds_users
  }
}

resource "aws_iam_role" "warehouse" {
  name                 = local.roles.warehouse
  description          = "The warehouse connection of ${var.id}"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = data.aws_iam_policy_document.warehouse_trust.json
  tags                 = var.tags

  # A trust policy can't name a role that doesn't exist yet.
  depends_on = [aws_iam_role.task]
}

resource "aws_iam_role_policy" "warehouse_rds" {
  count = length(local.rds_users) > 0 ? 1 : 0

  name   = "warehouse"
  role   = aws_iam_role.warehouse.name
  policy = data.aws_iam_policy_document.warehouse_rds[0].json
}
