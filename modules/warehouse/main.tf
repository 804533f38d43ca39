# What an environment's warehouse may be. No resources: the list of problems is what the output's precondition shows, and whoever
# uses the output waits for that, so that a mistake is found before anything is planned.

locals {
  # What the runner knows of each adapter; a test holds this table against the runner's own.
  warehouses = jsondecode(file("${path.module}/warehouses.json"))

  warehouse_value_patterns = {
    "string"        = "^[^\n\r]+$"
    "whole number"  = "^[0-9]+$"
    "number"        = "^[0-9]+(\\.[0-9]+)?$"
    "true or false" = "^(true|false)$"
  }

  # What becomes a part of an ARN: a wildcard in it, or a policy variable (after a $), would let the runner in elsewhere.
  # https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonredshiftserverless.html
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonredshift.html
  # https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonathena.html
  arn_patterns = {
    rds_resource = "^(db|cluster|prx)-[A-Za-z0-9]+$"
    rds_user     = "^[^*?/$\\s]+$"
    region       = "^[a-z]{2}(-[a-z]+)+-[0-9]+$"
    workgroup_id = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
    name         = "^[A-Za-z0-9_.-]+$"
    names        = "^[A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*$"
    location     = "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([A-Za-z0-9!_.()=-]+/)*$"
    locations    = "^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([A-Za-z0-9!_.()=-]+/)*(,s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([A-Za-z0-9!_.()=-]+/)*)*$"
  }

  # What becomes a tag of the session; a colon stands between roles.
  # https://docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html
  redshift_patterns = {
    db_user  = "^[\\p{L}\\p{N}_.=+@ -]{1,128}$"
    db_roles = "^[\\p{L}\\p{N}_.=+@ -]+(:[\\p{L}\\p{N}_.=+@ -]+)*$"
  }

  # https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers
  gcp_audience_pattern    = "^//iam\\.googleapis\\.com/projects/\\d+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+$"
  service_account_pattern = "^[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z][a-z0-9.:-]+\\.gserviceaccount\\.com$"

  # Snowflake takes a token's audience and scopes from a custom authorization server only; such a one has a path.
  # https://docs.snowflake.com/en/user-guide/oauth-okta
  # https://docs.aws.amazon.com/kms/latest/developerguide/concepts.html#key-id: an alias can be given another key, and no policy names it.
  okta_patterns = {
    issuer      = "^https://[A-Za-z0-9.-]+/oauth2/[A-Za-z0-9]+$"
    client_id   = "^[A-Za-z0-9_-]+$"
    kms_key_arn = "^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$"
  }

  # Keys that would hold a secret, or point to one in a file. CONFIG, where settings end up, is readable by every caller.
  secret_key_pattern = "(?i)(password|passwd|passphrase|passcode|private_key|access_key|api_key|keyfile)|(^|[_-])(pass|pwd|token|secret)$"

  # A null in a map says "not set", as it does everywhere else.
  type     = var.warehouse.type
  settings = { for key, value in var.warehouse.settings : key => value if value != null }
  identity = { for key, value in var.warehouse.identity : key => value if value != null }
  secrets  = [for key in concat(keys(var.warehouse.settings), keys(var.warehouse.identity)) : key if can(regex(local.secret_key_pattern, key))]

  # Of an unknown type nothing is known.
  supported = contains(keys(local.warehouses), local.type)
  known     = try(local.warehouses[local.type], { settings = {}, required = [], identity = [] })

  # What holds for every type.
  problems_of_all = concat(
    local.supported ? [] : [
      ".type must be one of ${join(", ", keys(local.warehouses))}, not ${local.type}.",
    ],
    contains(["generated", "project"], var.warehouse.profile) ? [] : [
      ".profile must be generated (of settings and identity alone) or project (the release's own profiles.yml adds to them).",
    ],
    [for key in local.secrets :
      ": settings and identity never hold a secret or the path of one; remove ${key}. Let the warehouse trust the runner's AWS identity instead, as docs/warehouses shows for each type; a secret that the dbt project itself reads goes to `secrets`, by its ARN."
    ],
    [for key in setsubtract(keys(local.settings), concat(keys(local.known.settings), local.secrets)) :
      ".settings: ${local.type} knows no ${key}; known are ${join(", ", keys(local.known.settings))}."
      if local.supported
    ],
    [for key in setsubtract(keys(local.identity), concat(local.known.identity, local.secrets)) :
      ".identity: ${local.type} knows no ${key}; known are ${length(local.known.identity) > 0 ? join(", ", local.known.identity) : "none"}."
      if local.supported
    ],
    [for key in setsubtract(local.known.required, keys(local.settings)) : ".settings: ${local.type} needs ${key}."],
    [for key, value in local.settings :
      ".settings: ${key} must be a ${local.known.settings[key]}."
      if can(local.known.settings[key]) && !can(regex(local.warehouse_value_patterns[local.known.settings[key]], value))
    ],
  )

  # What holds for one. A setting that is missing is a problem of its own, above.
  problems_by_type = {
    duckdb = var.local ? [] : [
      ": duckdb is a file that ends with the container, for the local stack (examples/local) only; use another type.",
    ]

    postgres = concat(
      length(local.identity) == 0 || (try(local.identity.method, "") == "rds_iam" && can(regex(local.arn_patterns.rds_resource, local.identity.resource_id))) ? [] : [
        ".identity of postgres must be { method = \"rds_iam\", resource_id = \"db-...\", \"cluster-...\" or \"prx-...\" } (the DbiResourceId, DbClusterResourceId or the last part of the proxy's ARN, not the instance's name).",
      ],
      length(local.identity) == 0 || can(regex(local.arn_patterns.rds_user, local.settings.user)) ? [] : [
        ".settings.user must name the database user that the runner connects as, without *, ?, /, $ or blanks, with identity.method = rds_iam.",
      ],
    )

    snowflake = concat(
      contains(["aws_attestation", "aws_token", "okta"], lookup(local.identity, "method", "aws_attestation")) ? [] : [
        ".identity.method of snowflake must be aws_attestation (a signed request, the default), aws_token (a token of AWS's OIDC issuer) or okta (External OAuth).",
      ],
      [for key in keys(local.okta_patterns) :
        ".identity.${key} of snowflake is for method = okta only; remove it, or set the method."
        if try(local.identity.method, null) != "okta" && can(local.identity[key])
      ],
      try(local.identity.method, null) != "okta" || can(regex(local.okta_patterns.issuer, local.identity.issuer)) ? [] : [
        ".identity.issuer of snowflake with okta must be a custom authorization server: https://<org>.okta.com/oauth2/<id>, without a slash at the end.",
      ],
      try(local.identity.method, null) != "okta" || can(regex(local.okta_patterns.client_id, local.identity.client_id)) ? [] : [
        ".identity.client_id of snowflake with okta must be the client id of the API services application (0oa...).",
      ],
      try(local.identity.method, null) != "okta" || can(regex(local.okta_patterns.kms_key_arn, local.identity.kms_key_arn)) ? [] : [
        ".identity.kms_key_arn of snowflake with okta must be the ARN of an RSA key of KMS for signing (arn:<partition>:kms:<region>:<account>:key/<id>), no alias.",
      ],
      lookup(local.settings, "protocol", "https") == "https" ? [] : [
        ".settings.protocol must be https: a login that goes over the network in plain text is everybody's.",
      ],
    )

    redshift = concat(
      can(local.settings.serverless_work_group) != can(local.settings.cluster_id) ? [] : [
        ".settings of redshift must name either serverless_work_group or cluster_id.",
      ],
      can(local.settings.cluster_id) || can(regex(local.arn_patterns.workgroup_id, local.identity.workgroup_id)) ? [] : [
        ".identity.workgroup_id must be the id of the workgroup, the last part of its ARN and not its name: the permission to get a password is for exactly this workgroup.",
      ],
      [for key in ["cluster_id", "dbname"] :
        ".settings.${key} of redshift must be of letters, digits, hyphen, dot and underscore, without wildcards."
        if can(local.settings.cluster_id) && can(local.settings[key]) && !can(regex(local.arn_patterns.name, local.settings[key]))
      ],
      !can(local.settings.region) || can(regex(local.arn_patterns.region, local.settings.region)) ? [] : [
        ".settings.region of redshift must be a region of AWS, by its code.",
      ],
      !can(local.identity.db_user) || can(regex(local.redshift_patterns.db_user, local.identity.db_user)) ? [] : [
        ".identity.db_user of redshift must be one name of at most 128 letters, digits, blanks and _ . = + @ -: it travels as a session tag.",
      ],
      !can(local.identity.db_roles) || (can(regex(local.redshift_patterns.db_roles, local.identity.db_roles)) && try(length(local.identity.db_roles), 0) <= 256) ? [] : [
        ".identity.db_roles of redshift must be names of letters, digits, blanks and _ . = + @ -, separated by colons, 256 characters in all: they travel as one session tag.",
      ],
    )

    bigquery = concat(
      can(regex(local.gcp_audience_pattern, local.identity.audience)) ? [] : [
        ".identity.audience of bigquery must be the provider: //iam.googleapis.com/projects/<number>/locations/global/workloadIdentityPools/<pool>/providers/<provider>.",
      ],
      can(regex(local.service_account_pattern, local.identity.service_account)) ? [] : [
        ".identity.service_account of bigquery must be <name>@<project>.iam.gserviceaccount.com.",
      ],
    )

    athena = concat(
      !can(local.settings.region_name) || can(regex(local.arn_patterns.region, local.settings.region_name)) ? [] : [
        ".settings.region_name of athena must be a region of AWS, by its code.",
      ],
      [for location in concat([for key in ["s3_staging_dir", "s3_data_dir", "s3_tmp_table_dir"] : lookup(local.settings, key, "")], split(",", lookup(local.identity, "read_locations", ""))) :
        ": no location of athena may be in the audit bucket (${var.audit_bucket}): the team's models must not reach the records of their runs."
        if startswith(location, "s3://${var.audit_bucket}/")
      ],
      [for key in ["work_group", "schema"] :
        ".settings.${key} of athena must be of letters, digits, hyphen, dot and underscore, without wildcards."
        if can(local.settings[key]) && !can(regex(local.arn_patterns.name, local.settings[key]))
      ],
      [for key in ["databases", "read_databases"] :
        ".identity.${key} of athena must be names of Glue databases, separated by commas, without blanks or wildcards."
        if can(local.identity[key]) && !can(regex(local.arn_patterns.names, local.identity[key]))
      ],
      [for key in ["s3_staging_dir", "s3_data_dir", "s3_tmp_table_dir"] :
        ".settings.${key} of athena must be s3://<bucket>/<prefix>/ with a slash at the end and without wildcards."
        if can(local.settings[key]) && !can(regex(local.arn_patterns.location, local.settings[key]))
      ],
      can(local.identity.read_locations) && !can(regex(local.arn_patterns.locations, local.identity.read_locations)) ? [
        ".identity.read_locations of athena must be s3://<bucket>/<prefix>/, separated by commas, each with a slash at the end.",
      ] : [],
    )
  }

  problems = [for problem in concat(local.problems_of_all, try(local.problems_by_type[local.type], [])) : "${var.environment}.warehouse${problem}"]
}
