# Who comes from outside: CI and people, by tokens of their own identity provider. Nothing here has a password or an access key.
#
#   token (GitHub Actions, GitLab, Okta, ...) -> provider -> deployer or operator of one environment
#
# A file for each role; this one has the providers and what the roles share: their names and whom they trust.

resource "aws_iam_openid_connect_provider" "this" {
  for_each = local.created

  url             = each.value.url
  client_id_list  = each.value.audiences
  thumbprint_list = each.value.thumbprints
  tags            = var.tags
}

locals {
  created = { for key, provider in var.identity_providers : key => provider if provider.arn == null }

  # The issuer as IAM writes it in ARNs and condition keys: without the scheme.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
  issuers = {
    for key, provider in var.identity_providers :
    key => provider.arn == null ? trimprefix(provider.url, "https://") : split(":oidc-provider/", provider.arn)[1]
  }

  provider_arns = {
    for key, provider in var.identity_providers :
    key => coalesce(provider.arn, "arn:${var.location.partition}:iam::${var.location.account}:oidc-provider/${local.issuers[key]}")
  }

  # A role exists where somebody may become it.
  deployers = { for env, e in var.environments : env => e if length(e.deployer) > 0 }
  operators = { for env, e in var.environments : env => e if length(e.operator) > 0 }

  grants = merge(
    { for env, e in local.deployers : "${env}/deployer" => e.deployer },
    { for env, e in local.operators : "${env}/operator" => e.operator },
  )

  role_names = {
    for role in keys(local.grants) : role => "${var.iam.name_prefix}${var.environments[split("/", role)[0]].id}-${split("/", role)[1]}"
  }

  role_arns = {
    for role, name in local.role_names : role => "arn:${var.location.partition}:iam::${var.location.account}:role${var.iam.path}${name}"
  }

  # A statement for each provider and way of comparing: subjects in full by StringEquals, those with a wildcard by StringLike. Both in
  # one statement would have to be true together.
  trusted = {
    for role, grants in local.grants : role => {
      for statement in flatten([
        for provider, grant in grants : [
          for test in ["StringEquals", "StringLike"] : {
            provider  = provider
            test      = test
            audiences = coalesce(grant.audiences, var.identity_providers[provider].audiences)
            subjects  = [for subject in grant.subjects : subject if can(regex("[*?]", subject)) == (test == "StringLike")]
          }
        ]
      ]) : "${statement.provider}/${statement.test}" => statement if length(statement.subjects) > 0
    }
  }

  # Whose pointers a deployer moves: its own environment's, and those of the environments in which pull requests are checked. The pipelines
  # of pull requests become the deployers of the latter, which therefore move none.
  checked = [for env, e in var.environments : env if e.pull_requests]
  pins    = { for env in keys(local.deployers) : env => [for each in distinct(concat([env], local.moves[env])) : "pins/${each}"] }
  moves   = { for env, e in local.deployers : env => e.pull_requests ? [] : concat([env], local.checked) }

  # What the runs of an environment leave in the bucket, for people to read, and what they ran.
  trail = { for env in keys(local.operators) : env => concat(
    ["releases", "pins/${env}", "runs/${env}", "docs/${env}"], [for table in ["runs", "attempts", "nodes", "promotions"] : "audit/${table}/env=${env}"]
  ) }

  kms_keys = var.kms_key_arn == null ? [] : [var.kms_key_arn]
  via      = { for service in ["dynamodb", "s3"] : service => "${service}.${var.location.region}.${var.location.dns_suffix}" }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.trusted

  # Both keys by an operator that is false where the key is absent.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-idp_oidc.html
  dynamic "statement" {
    for_each = each.value

    content {
      # A sid may hold letters and digits only.
      sid     = replace(title(replace(statement.key, "/[_/]/", " ")), " ", "")
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [local.provider_arns[statement.value.provider]]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.issuers[statement.value.provider]}:aud"
        values   = statement.value.audiences
      }

      condition {
        test     = statement.value.test
        variable = "${local.issuers[statement.value.provider]}:sub"
        values   = statement.value.subjects
      }
    }
  }
}
