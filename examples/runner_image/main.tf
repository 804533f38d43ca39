# Where the runner's image lives, and the role by which GitHub Actions pushes it without a stored key. Applied before the first deployment:
# the workflow runner-image.yml of examples/github_actions then gives the `image` that a deployment takes.

provider "aws" {
  region = var.region
}

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  issuer       = "token.actions.githubusercontent.com"
  account      = data.aws_caller_identity.current.account_id
  arn          = "arn:${data.aws_partition.current.partition}"
  provider_arn = coalesce(var.github_provider_arn, "${local.arn}:iam::${local.account}:oidc-provider/${local.issuer}")
  publisher    = "dbt-runner-image"
}

module "image_repository" {
  source = "../../modules/image_repository"

  # The roles and functions of these deployments, by the names that the module gives them.
  pull_role_arns = [for name in var.deployments : "${local.arn}:iam::${local.account}:role/${name}-*-execution"]
  push_role_arns = ["${local.arn}:iam::${local.account}:role/${local.publisher}"]
  function_arns  = [for name in var.deployments : "${local.arn}:lambda:${data.aws_region.current.id}:${local.account}:function:${name}-*"]
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.github_provider_arn == null ? 1 : 0

  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "trust" {
  # Only a job of this repository that met the protection rules of this GitHub environment.
  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html
  statement {
    sid     = "RunnerImage"
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [local.provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = ["repo:${var.repository}:environment:${var.github_environment}"]
    }
  }
}

resource "aws_iam_role" "publisher" {
  name               = local.publisher
  description        = "Pushes the image of the dbt runner"
  assume_role_policy = data.aws_iam_policy_document.trust.json

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "publisher" {
  name   = "push"
  role   = aws_iam_role.publisher.name
  policy = module.image_repository.push_policy
}
