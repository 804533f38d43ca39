# One audit store and the identity providers for the deployment; everything else once per environment, nothing shared between environments.

module "warehouse" {
  source   = "./modules/warehouse"
  for_each = var.environments

  environment  = each.key
  warehouse    = each.value.warehouse
  audit_bucket = local.bucket
  # The local stack names an image that no registry has.
  local = can(regex("^(000000000000\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com/)?local/", var.image))
}

# A function in a VPC has no public address, whatever its subnets give to tasks: without a NAT gateway or endpoints it only waits.
check "way_out_of_functions" {
  assert {
    condition = !var.network.assign_public_ip || !anytrue([for e in local.environments : try(e.function.vpc, false)])
    error_message = "network.assign_public_ip gives no address to Lambda functions: see that they reach AWS by NAT or VPC endpoints, or set compute.lambda.vpc = false: ${join(", ", [
      for env, e in local.environments : env if try(e.function.vpc, false)
    ])}."
  }
}

# A key's policy cannot be read at plan. Without these entries alarms are lost in silence.
# https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html#compatibility-with-aws-services
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
check "kms_key_admits_services" {
  assert {
    condition     = length(local.kms_key_missing) == 0
    error_message = "The policy of kms_key_arn must admit ${join(" and ", local.kms_key_missing)} (variables.tf says with which actions): without logs the apply fails, without cloudwatch no alarm reaches its topic. List in kms_key_services what it admits."
  }
}

module "audit_store" {
  source = "./modules/audit_store"

  name         = var.name
  environments = keys(var.environments)
  table        = local.table
  bucket       = local.bucket
  partition    = local.location.partition
  audit        = var.audit
  kms_key_arn  = var.kms_key_arn
  tags         = var.tags
}

module "notifications" {
  source   = "./modules/notifications"
  for_each = local.environments

  id          = each.value.id
  topic_arn   = each.value.arns.topic
  chat_arn    = var.notifications.chat ? each.value.arns.chat_topic : null
  location    = local.location
  emails      = var.notifications.emails
  owners      = var.notifications.owners
  kms_key_arn = var.kms_key_arn
  tags        = var.tags
}

module "identity" {
  source   = "./modules/identity"
  for_each = local.environments

  id          = each.value.id
  environment = each.key
  location    = local.location
  arns        = each.value.arns
  namespace   = each.value.namespace
  chat        = var.notifications.chat
  warehouse   = each.value.warehouse
  function    = each.value.function
  image       = var.image
  secrets     = each.value.secrets
  iam         = var.iam
  kms_key_arn = var.kms_key_arn
  tags        = var.tags
}

module "oidc_federation" {
  source = "./modules/oidc_federation"

  location            = local.location
  table               = module.audit_store.table
  identity_providers  = var.oidc.providers
  environments        = local.federated
  max_session_seconds = var.oidc.max_session_seconds
  trust_characters    = var.oidc.trust_characters
  iam                 = var.iam
  kms_key_arn         = var.kms_key_arn
  tags                = var.tags
}

module "runner" {
  source   = "./modules/runner"
  for_each = local.environments

  id                 = each.value.id
  environment        = each.key
  region             = local.location.region
  log_group          = "/${var.name}/${each.key}/runner"
  log_retention_days = var.audit.log_retention_days
  image              = var.image
  compute            = each.value.compute
  function           = each.value.function
  table              = module.audit_store.table
  bucket             = module.audit_store.bucket
  env_vars           = each.value.env_vars
  secrets            = each.value.secrets
  task_role_arn      = module.identity[each.key].roles.task
  execution_role_arn = module.identity[each.key].roles.execution
  kms_key_arn        = var.kms_key_arn
  tags               = var.tags
}

module "state_machine" {
  source   = "./modules/state_machine"
  for_each = local.environments

  name        = var.name
  environment = each.key
  location    = local.location
  arns        = each.value.arns
  namespace   = each.value.namespace
  chat        = var.notifications.chat
  table       = module.audit_store.table
  bucket      = module.audit_store.bucket
  roles       = module.identity[each.key].roles
  settings    = each.value

  ecs = {
    cluster          = module.runner[each.key].cluster_arn
    task_definition  = module.runner[each.key].task_definition_arn
    container        = module.runner[each.key].container
    subnets          = var.network.subnet_ids
    security_groups  = var.network.security_group_ids
    assign_public_ip = var.network.assign_public_ip ? "ENABLED" : "DISABLED"
    log_group        = module.runner[each.key].log_group
  }

  function = module.runner[each.key].function

  items_retention_days = var.audit.items_retention_days

  log_retention_days = var.audit.log_retention_days
  kms_key_arn        = var.kms_key_arn
  tags               = var.tags
}

module "observability" {
  source   = "./modules/observability"
  for_each = local.environments

  id            = each.value.id
  environment   = each.key
  location      = local.location
  namespace     = each.value.namespace
  jobs          = each.value.jobs
  arns          = each.value.arns
  log_groups    = merge(module.state_machine[each.key].log_groups, { runner = module.runner[each.key].log_group })
  observability = var.observability
  emails        = var.notifications.emails
  kms_key_arn   = var.kms_key_arn
  tags          = var.tags
}
