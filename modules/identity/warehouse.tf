# What the team's SQL, Jinja and Python run as: the warehouse and nothing else.

locals {
  settings = var.warehouse.settings
  identity = var.warehouse.identity

  # What the role needs, by what the warehouse is; each null or empty where it is another one.

  rds_user = var.warehouse.type != "postgres" || try(local.identity.method, null) != "rds_iam" ? null : join("", [
    "arn:${var.location.partition}:rds-db:${var.location.region}:${var.location.account}:",
    "dbuser:${local.identity.resource_id}/${local.settings.user}",
  ])

  redshift = var.warehouse.type != "redshift" ? null : "${local.settings.region}:${var.location.account}"
  redshift_workgroup = local.redshift == null || !can(local.settings.serverless_work_group) ? null : join("", [
    "arn:${var.location.partition}:redshift-serverless:${local.redshift}:workgroup/${local.identity.workgroup_id}",
  ])
  redshift_database = local.redshift == null || !can(local.settings.cluster_id) ? null : join("", [
    "arn:${var.location.partition}:redshift:${local.redshift}:dbname:${local.settings.cluster_id}/${local.settings.dbname}",
  ])
  # Tags of the session that say who the role is in the database, and what they may say. No tag, no choice.
  redshift_tags = var.warehouse.type != "redshift" ? {} : {
    RedshiftDbUser  = try(local.identity.db_user, null)
    RedshiftDbRoles = try(local.identity.db_roles, null)
  }

  # For whom the role may have a token of AWS's OIDC issuer. Snowflake's connector asks for its own without tags; Google's is the
  # supervisor's, and names the run.
  token_audiences = {
    snowflake = try(local.identity.method, null) == "aws_token" ? ["snowflakecomputing.com"] : []
    bigquery  = compact([try(local.identity.audience, null)])
  }
  token_audience = try(local.token_audiences[var.warehouse.type], [])

  # With which the broker signs who it is, for Okta.
  okta_key = try(local.identity.method, null) == "okta" ? local.identity.kms_key_arn : null

  athena = var.warehouse.type != "athena" ? null : {
    workgroup = "arn:${var.location.partition}:athena:${local.settings.region_name}:${var.location.account}:workgroup/${local.settings.work_group}"
    glue      = "arn:${var.location.partition}:glue:${local.settings.region_name}:${var.location.account}"
    written   = distinct(concat([local.settings.schema], try(split(",", local.identity.databases), [])))
    read      = try(split(",", local.identity.read_databases), [])
    # <bucket>/<prefix>, the prefix empty or with a slash at its end
    write_locations = distinct([for key in ["s3_staging_dir", "s3_data_dir", "s3_tmp_table_dir"] : trimprefix(local.settings[key], "s3://") if can(local.settings[key])])
    read_locations  = distinct([for location in try(split(",", local.identity.read_locations), []) : trimprefix(location, "s3://")])
  }

  athenas   = local.athena == null ? [] : [local.athena]
  locations = flatten([for athena in local.athenas : distinct(concat(athena.write_locations, athena.read_locations))])

  # By policy, the databases that it is about: as many as fit into the inline one, the others in managed ones. A database takes two ARNs.
  databases = flatten([for athena in local.athenas : [for kind in ["written", "read"] : [for name in athena[kind] : {
    kind       = kind
    name       = name
    characters = 2 * (length("${athena.glue}:database/${name}") + 3)
  }]]])
  databases_before = [for n in range(length(local.databases)) : sum(concat([0], slice(local.databases, 0, n)[*].characters))]
  databases_place = [
    for characters in local.databases_before : characters < local.inline_databases ? 0 : 1 + floor((characters - local.inline_databases) / local.managed_databases)
  ]
  databases_policies = [
    for place in distinct(local.databases_place) : {
      for kind in ["written", "read"] : kind => [for n, database in local.databases : database.name if database.kind == kind && local.databases_place[n] == place]
    }
  ]

  # Characters of databases in the inline policy, which has more to hold, and in a managed one.
  inline_databases  = 2000
  managed_databases = 4200
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

    # https://docs.aws.amazon.com/redshift/latest/mgmt/redshift-iam-access-control-native-idp.html
    dynamic "condition" {
      for_each = local.redshift_tags

      content {
        test     = condition.value == null ? "Null" : "StringEquals"
        variable = "aws:RequestTag/${condition.key}"
        values   = [condition.value == null ? "true" : condition.value]
      }
    }
  }
}

data "aws_iam_policy_document" "warehouse" {
  # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
  dynamic "statement" {
    for_each = local.rds_user == null ? [] : [local.rds_user]

    content {
      sid       = "ConnectToDatabase"
      actions   = ["rds-db:connect"]
      resources = [statement.value]
    }
  }

  # https://docs.aws.amazon.com/redshift-serverless/latest/APIReference/API_GetCredentials.html
  dynamic "statement" {
    for_each = local.redshift_workgroup == null ? [] : [local.redshift_workgroup]

    content {
      sid       = "LogInToWorkgroup"
      actions   = ["redshift-serverless:GetCredentials"]
      resources = [statement.value]
    }
  }

  # The user is the role's own, so the database is all that can be named.
  # https://docs.aws.amazon.com/redshift/latest/APIReference/API_GetClusterCredentialsWithIAM.html
  dynamic "statement" {
    for_each = local.redshift_database == null ? [] : [local.redshift_database]

    content {
      sid       = "LogInToCluster"
      actions   = ["redshift:GetClusterCredentialsWithIAM"]
      resources = [statement.value]
    }
  }

  # These actions know no resource: the audience is the fence. ForAllValues is true where the key is absent, hence the Null beside it.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_policies.html
  dynamic "statement" {
    for_each = length(local.token_audience) > 0 ? [local.token_audience] : []

    content {
      sid       = "GetTokenForWarehouse"
      actions   = ["sts:GetWebIdentityToken"]
      resources = ["*"]

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "sts:IdentityTokenAudience"
        values   = statement.value
      }

      condition {
        test     = "Null"
        variable = "sts:IdentityTokenAudience"
        values   = ["false"]
      }

      # Five minutes are what a call gets that asks for nothing.
      condition {
        test     = "NumericLessThanEqualsIfExists"
        variable = "sts:DurationSeconds"
        values   = ["300"]
      }
    }
  }

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_policies.html
  dynamic "statement" {
    for_each = var.warehouse.type == "bigquery" ? [["environment", "run"]] : []

    content {
      sid       = "NameRunInToken"
      actions   = ["sts:TagGetWebIdentityToken"]
      resources = ["*"]

      condition {
        test     = "ForAllValues:StringEquals"
        variable = "aws:TagKeys"
        values   = statement.value
      }
    }
  }

  # Of this kind only: nothing else that the key signs would be a proof for Okta.
  # https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-signing-algorithm
  dynamic "statement" {
    for_each = local.okta_key == null ? [] : [local.okta_key]

    content {
      sid       = "SignForOkta"
      actions   = ["kms:Sign"]
      resources = [statement.value]

      condition {
        test     = "StringEquals"
        variable = "kms:SigningAlgorithm"
        values   = ["RSASSA_PKCS1_V1_5_SHA_256"]
      }
    }
  }

  # https://docs.aws.amazon.com/athena/latest/ug/example-policies-workgroup.html
  dynamic "statement" {
    for_each = local.athenas

    content {
      sid       = "RunQueries"
      actions   = ["athena:GetQueryExecution", "athena:GetQueryResults", "athena:GetWorkGroup", "athena:StartQueryExecution", "athena:StopQueryExecution"]
      resources = [statement.value.workgroup]
    }
  }

  # dbt lists all schemas before a run, and Glue lists all or none. Names and descriptions, no tables.
  # https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
  dynamic "statement" {
    for_each = local.athenas

    content {
      sid       = "ListDatabases"
      actions   = ["glue:GetDatabases"]
      resources = ["${statement.value.glue}:catalog", "${statement.value.glue}:database/*"]
    }
  }

  # https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html
  dynamic "statement" {
    for_each = local.athenas

    content {
      sid       = "WriteData"
      actions   = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
      resources = [for location in statement.value.write_locations : "arn:${var.location.partition}:s3:::${location}*"]
    }
  }

  # https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html
  dynamic "statement" {
    for_each = [for athena in local.athenas : athena if length(athena.read_locations) > 0]

    content {
      sid       = "ReadData"
      actions   = ["s3:GetObject"]
      resources = [for location in statement.value.read_locations : "arn:${var.location.partition}:s3:::${location}*"]
    }
  }

  # https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html
  dynamic "statement" {
    for_each = length(local.locations) > 0 ? [local.locations] : []

    content {
      sid       = "FindBuckets"
      actions   = ["s3:GetBucketLocation"]
      resources = distinct([for location in statement.value : "arn:${var.location.partition}:s3:::${split("/", location)[0]}"])
    }
  }

  # One statement a bucket, for all of its locations: a prefix of one bucket is none of another.
  # https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html
  dynamic "statement" {
    for_each = distinct([for location in local.locations : split("/", location)[0]])

    content {
      sid       = "ListData${statement.key}"
      actions   = ["s3:ListBucket"]
      resources = ["arn:${var.location.partition}:s3:::${statement.value}"]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = [for location in local.locations : "${trimprefix(location, "${statement.value}/")}*" if startswith(location, "${statement.value}/")]
      }
    }
  }

  # Those of the first policy.
  source_policy_documents = slice(data.aws_iam_policy_document.databases[*].json, 0, min(1, length(local.databases_policies)))
}

# The databases, which are as many as the team names: a document for each policy that they fill.
data "aws_iam_policy_document" "databases" {
  count = length(local.databases_policies)

  # https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
  dynamic "statement" {
    for_each = [for names in [local.databases_policies[count.index].written] : names if length(names) > 0]

    content {
      sid = "BuildTables${local.numbers[count.index]}"
      actions = [
        "glue:BatchCreatePartition", "glue:BatchDeletePartition", "glue:BatchGetPartition", "glue:CreateDatabase", "glue:CreatePartition",
        "glue:CreateTable", "glue:DeletePartition", "glue:DeleteTable", "glue:DeleteTableVersion", "glue:GetDatabase", "glue:GetPartition",
        "glue:GetPartitions", "glue:GetTable", "glue:GetTableVersions", "glue:GetTables", "glue:UpdatePartition", "glue:UpdateTable",
      ]
      resources = concat(
        ["${local.athena.glue}:catalog"],
        [for name in statement.value : "${local.athena.glue}:database/${name}"],
        [for name in statement.value : "${local.athena.glue}:table/${name}/*"],
      )
    }
  }

  # https://docs.aws.amazon.com/athena/latest/ug/fine-grained-access-to-glue-resources.html
  dynamic "statement" {
    for_each = [for names in [local.databases_policies[count.index].read] : names if length(names) > 0]

    content {
      sid     = "ReadTables${local.numbers[count.index]}"
      actions = ["glue:BatchGetPartition", "glue:GetDatabase", "glue:GetPartition", "glue:GetPartitions", "glue:GetTable", "glue:GetTables"]
      resources = concat(
        ["${local.athena.glue}:catalog"],
        [for name in statement.value : "${local.athena.glue}:database/${name}"],
        [for name in statement.value : "${local.athena.glue}:table/${name}/*"],
      )
    }
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

# One name for it whatever the warehouse is: without this the old policy would be deleted after the new one of the same name is made.
moved {
  from = aws_iam_role_policy.warehouse_rds
  to   = aws_iam_role_policy.warehouse
}

resource "aws_iam_role_policy" "warehouse" {
  # A role may also be all that is needed: Snowflake trusts its signature, a database in the VPC may ask for none.
  count = local.rds_user != null || local.redshift != null || length(local.token_audience) > 0 || local.okta_key != null || local.athena != null ? 1 : 0

  name   = "warehouse"
  role   = aws_iam_role.warehouse.name
  policy = data.aws_iam_policy_document.warehouse.json

  # What moves into a managed policy is granted there before it is no longer granted here.
  depends_on = [aws_iam_role_policy_attachment.managed]

  lifecycle {
    precondition {
      condition     = length(data.aws_iam_policy_document.warehouse.minified_json) <= local.inline_characters
      error_message = "Limit \"inline policies of a role\" of IAM: that of ${local.roles.warehouse} has ${length(data.aws_iam_policy_document.warehouse.minified_json)} of ${local.inline_characters} characters. Name fewer or shorter locations in read_locations of warehouse.identity: one prefix above several does for all of them (docs/limits.md)."
    }
  }
}
