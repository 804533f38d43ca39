locals {
  container = "dbt"

  # How the process starts that has the task role's credentials. A run can write to /tmp, so nothing may be imported or configured from
  # there. -I: neither the working directory nor PYTHON* variables nor a user's own packages name modules. -B and -u are what
  # PYTHONDONTWRITEBYTECODE and PYTHONUNBUFFERED say, which -I ignores. https://docs.python.org/3/using/cmdline.html#cmdoption-I
  python            = ["/opt/dbt-runner/bin/python3", "-I", "-B", "-u"]
  working_directory = "/"

  # Names that the runner reads; the team's own are none of them (validated).
  env_vars = merge(
    var.env_vars,
    {
      # Libraries look for settings and code below it: ~/.aws/models, ~/.aws/config with a credential_process, ~/.netrc. Nobody but root
      # could make it.
      HOME = "/nonexistent"

      DBT_RUNNER_TABLE       = var.table
      DBT_RUNNER_BUCKET      = var.bucket
      DBT_RUNNER_ENVIRONMENT = var.environment
      DBT_RUNNER_IMAGE       = var.image
    },
    # Which of its variables the runner has to keep out of all that it writes. On Lambda nobody injects them: there it reads them itself,
    # by these references. https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    length(var.secrets) == 0 ? {} : { DBT_RUNNER_SECRETS = jsonencode(var.secrets) },
  )

  # Lambda sets the region itself.
  task_env_vars = merge(local.env_vars, { AWS_DEFAULT_REGION = var.region })
}

resource "aws_cloudwatch_log_group" "this" {
  name              = var.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

resource "aws_ecs_cluster" "this" {
  name = var.id
  tags = var.tags
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

# ECS takes 64 KiB of a task definition; beside its containers there are the names of the family, the roles and the volume, and the tags.

locals {
  container_bytes = floor(length(base64encode(local.container_definitions)) / 4) * 3
  other_bytes     = 16384

  container_definitions = jsonencode([{
    name      = local.container
    image     = var.image
    essential = true

    entryPoint       = concat(local.python, ["-m", "dbt_runner"])
    workingDirectory = local.working_directory

    environment = [for key, value in local.task_env_vars : { name = key, value = value }]
    secrets     = [for key, arn in var.secrets : { name = key, valueFrom = arn }]

    # Everything a run writes goes to /tmp and ends with the task.
    readonlyRootFilesystem = true
    mountPoints            = [{ sourceVolume = "tmp", containerPath = "/tmp", readOnly = false }]

    # The longest that Fargate allows: time to cancel queries and to write the outcome. No init process in front: it would have the
    # same variables and the same user as the runner, but show them to the team's code in /proc.
    stopTimeout = 120

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "run"

        # On purpose: blocking, a CloudWatch that does not answer would stop dbt in the middle of a node, with the lock held. A full
        # buffer loses lines instead. What the runner writes in a minute is far smaller, and what no run may lose is in the table first.
        # https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_LogConfiguration.html
        mode            = "non-blocking"
        max-buffer-size = "25m"
      }
    }
  }])
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.id
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.compute.sizes[0].cpu
  memory                   = var.compute.sizes[0].memory
  task_role_arn            = var.task_role_arn
  execution_role_arn       = var.execution_role_arn

  # A run that goes on while this changes has read the old revision's ARN; ECS starts no task of a deregistered one.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.compute.architecture
  }

  volume {
    name = "tmp"
  }

  container_definitions = local.container_definitions

  tags = var.tags

  lifecycle {
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html
    precondition {
      condition     = local.container_bytes <= 65536 - local.other_bytes
      error_message = "Limit \"task definition\" of ECS: env_vars and secrets of ${var.id} make it ${local.container_bytes} of ${65536 - local.other_bytes} bytes. Name fewer or shorter ones: what is no secret can be vars or a file of the project, and one secret can hold several values (docs/limits.md)."
    }
  }
}
