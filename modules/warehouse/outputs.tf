output "warehouse" {
  description = "Type, settings and identity without what is not set."
  value       = { type = local.type, settings = local.settings, identity = local.identity, profile = var.warehouse.profile }

  precondition {
    condition     = length(local.problems) == 0
    error_message = join("\n", local.problems)
  }
}
