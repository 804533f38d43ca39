"""The embedded AWS: the real Terraform module, state machines and runner on one machine, without an AWS account.

`stack.LocalStack` puts the parts together: `terraform` applies the module against moto, `moto_patches` makes moto's
Step Functions, ECS, EventBridge and S3 behave as AWS's do where a run depends on it, and `ecs_agent` runs each ECS
task as a local process. It needs the extra `local` (`pip install 'dbt-runner[local]'`); nothing of it is in the image.
"""
