# The interface. Validations refer to variables and to the constants below, to nothing else: a mistake is found before any
# provider is asked. Every list of offenders in a message names them by their path in the variable.

locals {
  # Keys that would hold a secret, or point to one in a file. CONFIG, where settings end up, is readable by every caller.
  secret_key_pattern = "(?i)(password|passwd|passphrase|passcode|private_key|access_key|api_key|keyfile)|(^|[_-])(pass|pwd|token|secret)$"

  # Of environments, of jobs and steps, and of what else a message names again.
  environment_pattern      = "^[a-z]([a-z0-9_-]*[a-z0-9])?$"
  name_pattern             = "^[a-z0-9][a-z0-9_-]{0,39}$"
  macro_pattern            = "^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z_][A-Za-z0-9_]*)?$"
  env_var_pattern          = "^[A-Za-z_][A-Za-z0-9_]*$"
  reserved_env_var_pattern = "^(DBT_RUNNER_|AWS_|ECS_|LAMBDA_|_HANDLER$|_X_AMZN_)"

  # Names by which the interpreter, the linker or a library finds code and settings: the runner's own process has them, too.
  steering_env_var_pattern = "^(PYTHON|LD_|OPENSSL_|BOTO_|GLIBC_TUNABLES$|GCONV_PATH$|LOCPATH$|SSLKEYLOGFILE$|NETRC$|HOME$|PATH$|TMPDIR$|TEMP$|TMP$|OPENLINEAGE_CONFIG$|OPENLINEAGE__)"
  certificates_pattern     = "^(SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$"
  writable_path_pattern    = "^([^/]|//|/(tmp|dev|proc)(/|$)|.*/\\.\\.?(/|$))"

  email_pattern = "^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$"

  # A field of cron is a list of values, ranges and steps; day of month and day of week have more. One of these two must be ?, and only one.
  # https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
  cron_lists = {
    for field, value in {
      minute  = "[0-5]?[0-9]"
      hour    = "([01]?[0-9]|2[0-3])"
      day     = "(0?[1-9]|[12][0-9]|3[01])"
      month   = "(0?[1-9]|1[0-2]|(?i:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC))"
      weekday = "([1-7]|(?i:SUN|MON|TUE|WED|THU|FRI|SAT))"
      year    = "(19[7-9][0-9]|2[01][0-9][0-9])"
    } : field => "(\\*|${value}(-${value})?)${field == "weekday" ? "" : "(/[1-9][0-9]*)?"}(,(\\*|${value}(-${value})?)${field == "weekday" ? "" : "(/[1-9][0-9]*)?"})*"
  }
  cron_day     = "(${local.cron_lists.day}|L|LW|(0?[1-9]|[12][0-9]|3[01])W)"
  cron_weekday = "(${local.cron_lists.weekday}|L|([1-7]|(?i:SUN|MON|TUE|WED|THU|FRI|SAT))(L|#[1-5]))"
  schedule_pattern = join("", [
    "^(",
    "rate\\([1-9][0-9]{0,8} (minute|hour|day)s?\\)",
    "|cron\\(${local.cron_lists.minute} ${local.cron_lists.hour} (",
    "${local.cron_day} ${local.cron_lists.month} \\?",
    "|\\? ${local.cron_lists.month} ${local.cron_weekday}",
    ") ${local.cron_lists.year}\\)",
    "|at\\(\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}\\)",
    ")$",
  ])

  # Days that no month of the list has: 31 in months of 30 days, 30 and 31 in February.
  schedule_never_pattern = "(?i)^cron\\(\\S+ \\S+ (31W? (0?[2469]|11|FEB|APR|JUN|SEP|NOV)(,(0?[2469]|11|FEB|APR|JUN|SEP|NOV))*|3[01]([,-]3[01])?W? (0?2|FEB)) "

  # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc.html
  oidc_provider_pattern = "^[a-z][a-z0-9_]{0,31}$"
  oidc_url_pattern      = "^https://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(/[A-Za-z0-9._~/-]*)?$"
  oidc_arn_pattern      = "^arn:[a-z-]+:iam::\\d{12}:oidc-provider/[^*?$\\s]+$"
  oidc_audience_pattern = "^[^*?$\\s]+$"

  # Blanks at the edges never match a token; $ would begin a policy variable. Control characters are in no subject.
  oidc_subject_pattern = "^[^\\s$\\x00-\\x1f\\x7f]([^$\\x00-\\x1f\\x7f]*[^\\s$\\x00-\\x1f\\x7f])?$"

  # Whose token a subject is about, by issuer. `of` is matched with "<issuer> <subject>": the first rule that fits counts. A subject must match
  # the rule's `subject`, which has the owner in full before the first wildcard. What ends the owner (/ or :) belongs to it: acme* would be
  # acme-evil, too. `write` is for the message.
  oidc_rules = [
    # A repository's administrator chooses the claims that a subject is made of, so that environment:prod may be anybody's. Strangers may
    # call a public reusable workflow, so that job_workflow_ref says what runs and not whose it is. Also GitHub Enterprise.
    # https://docs.github.com/en/actions/reference/security/oidc
    {
      of      = "^(token\\.actions\\.(githubusercontent|[a-z0-9-]+\\.ghe)\\.com(/\\S*)? |\\S+/_services/token |\\S+ (repo|repository|repository_id|repository_owner|repository_owner_id|workflow_ref|job_workflow_ref):)"
      subject = "^([^*?:]+:[^*?:]*:)*((repo|repository|workflow_ref):[A-Za-z0-9][A-Za-z0-9_-]*(@[0-9]+)?/|(enterprise|enterprise_id|repository_id|repository_owner|repository_owner_id):[A-Za-z0-9][A-Za-z0-9_-]*(:|$))"
      write   = "repo:<owner>/<repository>:environment:<name>; job_workflow_ref only beside an owner such as repository_owner:<owner>, because strangers can call a public workflow"
    },
    # https://docs.gitlab.com/ci/secrets/id_token_authentication/
    {
      of      = "^(gitlab\\.com |\\S+ project_path:)"
      subject = "^project_path:[A-Za-z0-9_][A-Za-z0-9_.-]*/"
      write   = "project_path:<group>/<project>:ref_type:tag:ref:v*"
    },
    # https://developer.hashicorp.com/terraform/cloud-docs/dynamic-provider-credentials/workload-identity-tokens
    # https://buildkite.com/docs/pipelines/security/oidc
    {
      of      = "^(app\\.terraform\\.io |agent\\.buildkite\\.com |\\S+ organization:)"
      subject = "^organization:[A-Za-z0-9][A-Za-z0-9_.-]*:"
      write   = "organization:<name>:..."
    },
    # https://circleci.com/docs/openid-connect-tokens/
    {
      of      = "^(oidc\\.circleci\\.com(/\\S*)? |\\S+ org/)"
      subject = "^org/[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}/"
      write   = "org/<organization id>/project/<project id>/user/*"
    },
    # https://support.atlassian.com/bitbucket-cloud/docs/deploy-on-aws-using-bitbucket-pipelines-openid-connect/
    {
      of      = "^\\S+/pipelines-config/identity/oidc "
      subject = "^\\{[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\\}(:|$)"
      write   = "{<repository uuid>}:*"
    },
    # https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
    {
      of      = "^(oidc\\.eks\\.\\S+ |\\S+ system:)"
      subject = "^system:serviceaccount:[a-z0-9]([a-z0-9-]*[a-z0-9])?:[^:]+$"
      write   = "system:serviceaccount:<namespace>:<name>"
    },
    # https://learn.microsoft.com/azure/devops/pipelines/release/configure-workload-identity
    {
      of      = "^(vstoken\\.dev\\.azure\\.com/\\S* |\\S+ sc://)"
      subject = "^sc://[^*?/:|]+/"
      write   = "sc://<organization>/<project>/<service connection>"
    },
    # https://vercel.com/docs/oidc/reference
    {
      of      = "^(oidc\\.vercel\\.com(/\\S*)? |\\S+ owner:)"
      subject = "^owner:[^*?:/|]+:"
      write   = "owner:<team>:project:<name>:environment:production"
    },
    # Ids of people and applications, which have nothing in common that a wildcard could stand for: auth0|<id>, 00u..., a GUID, an address.
    {
      of      = "^(\\S*\\.okta(preview|-emea|-gov)?\\.com(/\\S*)? |\\S*\\.auth0\\.com/? |accounts\\.google\\.com |login\\.microsoftonline\\.|sts\\.windows\\.net/|cognito-idp\\.|\\S+ (.*[|@]|(https?|urn|mailto|email|user|users|group|groups|client|clients|service|services):))"
      subject = "^[^*?]+$"
      write   = "each id in full, without a wildcard"
    },
    {
      of      = ""
      subject = "^([^*?]+|([^*?:/|@]+[:/]+){2,}[^:/|@]*)$"
      write   = "the subject in full, or a wildcard in its last part only, behind at least two others: tenant:<name>:*"
    },
  ]

  # Of the vars of a job and of those of a caller, each: MAX_CHARACTERS in runner/src/dbt_runner/variables.py.
  vars_characters        = 50000
  json_string_pattern    = "/\"(\\\\.|[^\"\\\\])*\"/"
  beyond_16_bits_pattern = "/[\\x{10000}-\\x{10ffff}]/"
  beyond_ascii_pattern   = "/[^\\x00-\\x7f]/"

  # A reference to a secret may name a JSON key, a stage and a version at its end.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html
  secret_arn_pattern = "^arn:[a-z-]+:(secretsmanager:[a-z0-9-]+:\\d{12}:secret:[^*?$\\s]+|ssm:[a-z0-9-]+:\\d{12}:parameter/[^*?$\\s]+)$"

  # What the runner accepts, as in runner/src/dbt_runner. A command is split like a shell would and never given to a shell.
  dbt_commands = [
    "build", "compile", "docs generate", "list", "ls", "parse", "run", "run-operation", "seed", "show", "snapshot",
    "source freshness", "test",
  ]
  dbt_command_pattern = "^\\s*(?:dbt\\s+)?(?:${join("|", [for c in local.dbt_commands : replace(c, " ", "\\s+")])})(\\s|$)"

  # Flags that the runner sets itself: those that are worth finding at plan. The runner has the last word, by its own parser.
  owned_flags        = ["--project-dir", "--profiles-dir", "--profile", "--target", "-t", "--target-path", "--log-path", "--vars"]
  owned_flag_pattern = "(?:^|\\s)[\"']?(?:(?:${join("|", [for f in local.owned_flags : f if startswith(f, "--")])})(?:=|\\s|[\"']|$)|(?:${join("|", [for f in local.owned_flags : f if !startswith(f, "--")])}))"

  # CPU units and the MiB of memory that go with them.
  # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html#fargate-tasks-size
  fargate_memory = tomap({
    256   = [512, 1024, 2048]
    512   = range(1024, 4096 + 1, 1024)
    1024  = range(2048, 8192 + 1, 1024)
    2048  = range(4096, 16384 + 1, 1024)
    4096  = range(8192, 30720 + 1, 1024)
    8192  = range(16384, 61440 + 1, 4096)
    16384 = range(32768, 122880 + 1, 8192)
  })

  # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html, and 0 for ever
  log_retention_days = [0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653]
}

variable "name" {
  description = "Name of the deployment. Every resource's name begins with it (docs/architecture.md lists them)."
  type        = string
  nullable    = false

  # The bucket is the tightest: <name>-audit-<account, 12>-<region, at most 15>, in 63 characters.
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,26}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 28 characters of a-z, 0-9 and hyphen, begin with a letter and not end with a hyphen: the bucket <name>-audit-<account>-<region> must fit in 63 characters."
  }
}

variable "image" {
  description = "The runner's image, by digest: <repository>@sha256:<64 hex digits>. An image in ECR is pulled with a permission for exactly its repository."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[^\\s@]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must name a digest, not a tag: <repository>@sha256:<64 hex digits>. A tag can be moved after it was reviewed; docker buildx imagetools inspect <image>:<tag> shows its digest."
  }
}

variable "network" {
  description = "Where the containers run. They need a way out to the warehouse and to AWS's APIs (NAT gateway, VPC endpoints or assign_public_ip), and nothing in."
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
    assign_public_ip   = optional(bool, false)
  })
  nullable = false

  validation {
    condition     = length(var.network.subnet_ids) > 0
    error_message = "network.subnet_ids must name at least one subnet, better two in different availability zones."
  }

  validation {
    condition     = length(var.network.security_group_ids) > 0
    error_message = "network.security_group_ids must name at least one security group. The runner needs no ingress; egress to 443 and to the warehouse's port is enough."
  }

  # AWS's limits of an awsvpc configuration.
  validation {
    condition     = length(var.network.subnet_ids) <= 16 && length(var.network.security_group_ids) <= 5
    error_message = "network takes at most 16 subnet_ids and 5 security_group_ids: that is ECS's limit."
  }
}

variable "environments" {
  description = <<-EOT
    The environments (dev, staging, prod), each with its own roles, state machines, cluster and task definition.

    warehouse.settings  the connection as the dbt adapter names it; numbers may be given as numbers. No secrets.
    warehouse.identity  how the warehouse knows the runner, by type: docs/warehouses. postgres: { method = "rds_iam", resource_id = "db-..." }.
    warehouse.profile   generated, of the two above; or project: the release's own profiles.yml adds to them: docs/warehouses.
    compute.sizes       a step begins with the first; an attempt after one that ran out of memory has the next.
    compute.spot        all attempts of a step but the last run on Spot; a retry.max_attempts of 1 is on Spot too.
    compute.type        where steps run: fargate, or lambda for light ones; a step's own `compute` wins, health_check.compute is the check's.
    compute.lambda      the function, made where anything runs on it: memory and ephemeral_storage in MiB, timeout_seconds of at most 900,
                        reserved_concurrency, and whether it is in `network` (vpc). It needs the image in ECR in the same region.
    compute.on_timeout  what becomes of a step that outgrows the function, in time or memory: fail, or fargate to do the rest there.
    timeout_seconds     of the environment: of a whole run. Of a step: one hour where not set, or the run's less a minute where that is shorter.
    overlap             what a run does while another holds the environment: skip, queue or fail. With queue timeout_seconds is 36000 at most.
    slim_ci             of runs that compare with another release: state_target is dbt's target for which that one is parsed (the environment's
                        name where not set; where it is set the deployer publishes releases of pull requests only, and moves no pointer);
                        schema_suffixes a regular expression that their schema suffix must match as a whole. Where neither is set,
                        releases of pull requests (ci-*) are refused.
    requests            what callers may ask for beside a job as it is (docs/security.md#callers): steps of their own; inline, SQL of their own by
                        --inline and any macro by run-operation; operations, the macros that they may run where inline is false; overrides of
                        release, vars, full_refresh, defer_to and schema_suffix. The steps of `jobs` are not bound by it.
    jobs.vars           dbt vars as JSON, so that numbers and booleans stay what they are: jsonencode({ day = "today", full = true }).
    jobs.fresh_within_minutes  what the job promises: an alarm tells when it has not succeeded for so long, whatever the reason.
    env_vars            plain values. Secrets go to `secrets`: the variable's name and the ARN of a Secrets Manager secret or an SSM
                        parameter, encrypted with an AWS-managed key or with `kms_key_arn`.
  EOT
  type = map(object({
    warehouse = object({
      type     = string
      settings = optional(map(string), {})
      identity = optional(map(string), {})
      profile  = optional(string, "generated")
    })
    compute = optional(object({
      type         = optional(string, "fargate")
      sizes        = optional(list(object({ cpu = number, memory = number })), [{ cpu = 1024, memory = 4096 }])
      spot         = optional(bool, true)
      architecture = optional(string, "ARM64")
      on_timeout   = optional(string, "fail")
      lambda = optional(object({
        memory               = optional(number, 2048)
        timeout_seconds      = optional(number, 900)
        ephemeral_storage    = optional(number, 1024)
        reserved_concurrency = optional(number)
        vpc                  = optional(bool, true)
      }), {})
    }), {})
    health_check = optional(object({
      enabled         = optional(bool, true)
      compute         = optional(string, "fargate")
      timeout_seconds = optional(number, 60)
    }), {})
    retry = optional(object({
      max_attempts     = optional(number, 3)
      interval_seconds = optional(number, 30)
      backoff_rate     = optional(number, 2)
    }), {})
    overlap         = optional(string, "skip")
    timeout_seconds = optional(number, 14400)
    slim_ci = optional(object({
      state_target    = optional(string)
      schema_suffixes = optional(string)
    }), {})
    requests = optional(object({
      steps      = optional(bool, true)
      inline     = optional(bool, false)
      operations = optional(list(string), [])
      overrides  = optional(bool, true)
    }), {})
    jobs = optional(map(object({
      schedule     = optional(string)
      timezone     = optional(string, "UTC")
      enabled      = optional(bool, true)
      vars         = optional(string, "{}")
      full_refresh = optional(bool, false)

      fresh_within_minutes = optional(number)
      steps = list(object({
        name            = string
        commands        = list(string)
        on_failure      = optional(string, "fail")
        timeout_seconds = optional(number)
        compute         = optional(string)
        on_timeout      = optional(string)
      }))
    })), {})
    env_vars = optional(map(string), {})
    secrets  = optional(map(string), {})
  }))
  nullable = false

  validation {
    condition     = length(var.environments) > 0
    error_message = "environments must hold at least one environment, for example { prod = { warehouse = {...}, jobs = {...} } }."
  }

  # The key is part of partition keys that IAM fences with RUN#<env>#*, so it must hold no # and no wildcard.
  validation {
    condition = alltrue([
      for env in keys(var.environments) : can(regex(local.environment_pattern, env)) && !can(regex("-(alarms|announce|chat|finalize)$", env))
    ])
    error_message = "The keys of environments must be of a-z, 0-9, hyphen and underscore, begin with a letter, end with a letter or digit, and not end with -alarms, -announce, -chat or -finalize (the names of the other topics and state machines): ${join(", ", [
      for env in keys(var.environments) : env if !can(regex(local.environment_pattern, env)) || can(regex("-(alarms|announce|chat|finalize)$", env))
    ])}."
  }

  validation {
    condition = alltrue([for env in keys(var.environments) : length("${var.iam.name_prefix}${var.name}-${env}-execution") <= 64])
    error_message = "Limit \"name of a role\" of IAM: the roles <iam.name_prefix><name>-<environment>-execution must fit in IAM's 64 characters; shorten name, iam.name_prefix or the key of: ${join(", ", [
      for env in keys(var.environments) : env if length("${var.iam.name_prefix}${var.name}-${env}-execution") > 64
    ])}."
  }

  # The warehouse has a module of its own: modules/warehouse.

  # Compute

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for c in concat([e.compute.type, e.health_check.compute], flatten([for j in e.jobs : j.steps[*].compute])) : c == null ? true : contains(["fargate", "lambda"], c)]
    ]))
    error_message = "compute.type, health_check.compute and the compute of a step must be fargate or lambda: ${join(", ", [
      for env, e in var.environments : env if !alltrue([for c in concat([e.compute.type, e.health_check.compute], flatten([for j in e.jobs : j.steps[*].compute])) : c == null ? true : contains(["fargate", "lambda"], c)])
    ])}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for o in concat([e.compute.on_timeout], flatten([for j in e.jobs : j.steps[*].on_timeout])) : o == null ? true : contains(["fail", "fargate"], o)]
    ]))
    error_message = "compute.on_timeout and the on_timeout of a step must be fail, or fargate to do the rest of a step there that outgrows Lambda: ${join(", ", [
      for env, e in var.environments : env if !alltrue([for o in concat([e.compute.on_timeout], flatten([for j in e.jobs : j.steps[*].on_timeout])) : o == null ? true : contains(["fail", "fargate"], o)])
    ])}."
  }

  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html; with less memory dbt does not start.
  validation {
    condition = alltrue([
      for n in flatten([for l in values(var.environments)[*].compute.lambda : [l.memory, l.ephemeral_storage]]) :
      n >= 512 && n <= 10240 && floor(n) == n
    ])
    error_message = "compute.lambda.memory and ephemeral_storage must be whole numbers of MiB from 512 to 10240: ${join(", ", [
      for env, e in var.environments : "${env} (memory ${e.compute.lambda.memory}, ephemeral_storage ${e.compute.lambda.ephemeral_storage})"
      if !alltrue([for n in [e.compute.lambda.memory, e.compute.lambda.ephemeral_storage] : n >= 512 && n <= 10240 && floor(n) == n])
    ])}."
  }

  # Of the time a quarter, 40 seconds at most, is for stopping dbt and writing the outcome.
  validation {
    condition = alltrue([
      for l in values(var.environments)[*].compute.lambda : l.timeout_seconds >= 60 && l.timeout_seconds <= 900 && floor(l.timeout_seconds) == l.timeout_seconds
    ])
    error_message = "compute.lambda.timeout_seconds must be a whole number from 60 to 900, Lambda's limit; longer steps belong on fargate: ${join(", ", [
      for env, e in var.environments : "${env} (${e.compute.lambda.timeout_seconds})"
      if e.compute.lambda.timeout_seconds < 60 || e.compute.lambda.timeout_seconds > 900 || floor(e.compute.lambda.timeout_seconds) != e.compute.lambda.timeout_seconds
    ])}."
  }

  validation {
    condition = alltrue([
      for l in values(var.environments)[*].compute.lambda : l.reserved_concurrency == null ? true : l.reserved_concurrency >= 1 && floor(l.reserved_concurrency) == l.reserved_concurrency
    ])
    error_message = "compute.lambda.reserved_concurrency must be a whole number of at least 1, or be left out (with 0 the function could never run): ${join(", ", [
      for env, e in var.environments : "${env} (${coalesce(e.compute.lambda.reserved_concurrency, 1)})"
      if try(e.compute.lambda.reserved_concurrency < 1 || floor(e.compute.lambda.reserved_concurrency) != e.compute.lambda.reserved_concurrency, false)
    ])}."
  }

  validation {
    condition = can(regex("^\\d{12}\\.dkr\\.ecr[.-]", var.image)) || !anytrue(flatten([
      for e in var.environments : [for c in concat([e.compute.type, e.health_check.compute], flatten([for j in e.jobs : j.steps[*].compute])) : c == null ? false : c == "lambda"]
    ]))
    error_message = "image must be in a private repository of ECR, in the same region, where compute is lambda: Lambda takes it from nowhere else."
  }

  validation {
    condition = alltrue([for e in var.environments : contains(["ARM64", "X86_64"], e.compute.architecture)])
    error_message = "compute.architecture must be ARM64 or X86_64, the one that the image was built for: ${join(", ", [
      for env, e in var.environments : env if !contains(["ARM64", "X86_64"], e.compute.architecture)
    ])}."
  }

  validation {
    condition = alltrue([for e in var.environments : length(e.compute.sizes) > 0])
    error_message = "compute.sizes must hold at least one size, for example [{ cpu = 1024, memory = 4096 }]: ${join(", ", [
      for env, e in var.environments : env if length(e.compute.sizes) == 0
    ])}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for s in e.compute.sizes : contains(lookup(local.fargate_memory, s.cpu, []), s.memory)]
    ]))
    error_message = "Fargate has no such compute.sizes: ${join(", ", flatten([
      for env, e in var.environments : [for s in e.compute.sizes : "${env} (cpu ${s.cpu}, memory ${s.memory}${length(lookup(local.fargate_memory, s.cpu, [])) > 0 ? "; with this cpu the memory is one of ${join(" ", local.fargate_memory[s.cpu])}" : ""})" if !contains(lookup(local.fargate_memory, s.cpu, []), s.memory)]
    ]))}. cpu is one of ${join(" ", sort(keys(local.fargate_memory)))}, in units; memory is in MiB."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for i, s in e.compute.sizes : i == 0 ? true : s.memory > e.compute.sizes[i - 1].memory]
    ]))
    error_message = "compute.sizes must grow: an attempt that ran out of memory is repeated with the next size, which must have more of it: ${join(", ", [
      for env, e in var.environments : env if anytrue([for i, s in e.compute.sizes : i == 0 ? false : s.memory <= e.compute.sizes[i - 1].memory])
    ])}."
  }

  # Behaviour

  validation {
    condition = alltrue([
      for r in values(var.environments)[*].retry : contains(range(1, 11), r.max_attempts) && r.backoff_rate >= 1 && r.backoff_rate <= 10
      && r.interval_seconds >= 1 && r.interval_seconds <= 3600 && floor(r.interval_seconds) == r.interval_seconds
    ])
    error_message = "retry.max_attempts must be a whole number from 1 (no retry) to 10, interval_seconds a whole number from 1 to 3600, backoff_rate from 1 to 10."
  }

  validation {
    condition = alltrue([for e in var.environments : contains(["skip", "queue", "fail"], e.overlap)])
    error_message = "overlap must be skip, queue or fail: ${join(", ", [
      for env, e in var.environments : env if !contains(["skip", "queue", "fail"], e.overlap)
    ])}."
  }

  validation {
    condition = alltrue([for e in var.environments : e.overlap != "queue" || e.timeout_seconds <= 36000])
    error_message = "With overlap = \"queue\" timeout_seconds must be at most 36000, ten hours: a run that waits longer would outgrow the 25,000 events of an execution's history: ${join(", ", [
      for env, e in var.environments : "${env} (${e.timeout_seconds})" if e.overlap == "queue" && e.timeout_seconds > 36000
    ])}."
  }

  validation {
    condition = alltrue([
      for e in var.environments : can(regex("^[a-z0-9_]+$", coalesce(e.slim_ci.state_target, "x"))) && can(regexall(coalesce(e.slim_ci.schema_suffixes, "x"), ""))
    ])
    error_message = "slim_ci.state_target must be the name of a dbt target (a-z, 0-9 and _), slim_ci.schema_suffixes a regular expression such as pr_[0-9]+: ${join(", ", [
      for env, e in var.environments : env if !can(regex("^[a-z0-9_]+$", coalesce(e.slim_ci.state_target, "x"))) || !can(regexall(coalesce(e.slim_ci.schema_suffixes, "x"), ""))
    ])}."
  }

  validation {
    condition = alltrue([
      for e in var.environments : e.timeout_seconds >= 300 && e.timeout_seconds <= 31536000 && floor(e.timeout_seconds) == e.timeout_seconds
    ])
    error_message = "timeout_seconds of an environment must be a whole number from 300 to 31536000, a year: ${join(", ", [
      for env, e in var.environments : env if e.timeout_seconds < 300 || e.timeout_seconds > 31536000 || floor(e.timeout_seconds) != e.timeout_seconds
    ])}."
  }

  validation {
    condition = alltrue([
      for e in var.environments : e.health_check.timeout_seconds >= 10 && e.health_check.timeout_seconds < e.timeout_seconds && floor(e.health_check.timeout_seconds) == e.health_check.timeout_seconds
    ])
    error_message = "health_check.timeout_seconds must be a whole number of at least 10 and less than the environment's timeout_seconds: ${join(", ", [
      for env, e in var.environments : env if e.health_check.timeout_seconds < 10 || e.health_check.timeout_seconds >= e.timeout_seconds || floor(e.health_check.timeout_seconds) != e.health_check.timeout_seconds
    ])}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for macro in e.requests.operations : can(regex(local.macro_pattern, macro))]
    ]))
    error_message = "requests.operations must be names of macros as run-operation takes them, such as drop_schemas or shop.drop_schemas: ${join(", ", flatten([
      for env, e in var.environments : [for macro in e.requests.operations : "${env} (${macro})" if !can(regex(local.macro_pattern, macro))]
    ]))}."
  }

  validation {
    condition = alltrue([for e in var.environments : e.requests.steps || !(e.requests.inline || length(e.requests.operations) > 0)])
    error_message = "requests.inline and requests.operations are about steps of callers, which requests.steps = false refuses; remove them, or set steps = true: ${join(", ", [
      for env, e in var.environments : env if !e.requests.steps && (e.requests.inline || length(e.requests.operations) > 0)
    ])}."
  }

  # Jobs

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for job in keys(e.jobs) : can(regex(local.name_pattern, job))]
    ]))
    error_message = "A job's name must be 1 to 40 characters of a-z, 0-9, hyphen and underscore and begin with a letter or digit: ${join(", ", flatten([
      for env, e in var.environments : [for job in keys(e.jobs) : "${env}.jobs: ${job}" if !can(regex(local.name_pattern, job))]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([for e in var.environments : [for j in e.jobs : j.schedule == null ? true :
      can(regex(local.schedule_pattern, j.schedule)) && !can(regex(local.schedule_never_pattern, j.schedule)) && (!startswith(j.schedule, "at(") || can(formatdate("YYYY", "${trimsuffix(trimprefix(j.schedule, "at("), ")")}Z")))
    ]]))
    error_message = "A job's schedule must be rate(<n> minutes|hours|days), cron(<minutes> <hours> <day of month> <month> <day of week> <year>) with ? for one of the two days, or at(yyyy-mm-ddThh:mm:ss), each with a moment that exists, or be left out for a job that is started by hand: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job} (${j.schedule})" if j.schedule == null ? false : !(
        can(regex(local.schedule_pattern, j.schedule)) && !can(regex(local.schedule_never_pattern, j.schedule)) && (!startswith(j.schedule, "at(") || can(formatdate("YYYY", "${trimsuffix(trimprefix(j.schedule, "at("), ")")}Z")))
      )]
    ]))}."
  }

  # How far an alarm can look back.
  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : j.fresh_within_minutes == null ? true : j.fresh_within_minutes >= 5 && j.fresh_within_minutes <= 10080]
    ]))
    error_message = "fresh_within_minutes of a job must be 5 to 10080 (a week): ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job} (${j.fresh_within_minutes})" if try(j.fresh_within_minutes < 5 || j.fresh_within_minutes > 10080, false)]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : contains(local.timezones, j.timezone)]
    ]))
    error_message = "A job's timezone must be a name of the IANA database such as UTC or Europe/Berlin: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job} (${j.timezone})" if !contains(local.timezones, j.timezone)]
    ]))}."
  }

  # Steps

  # Limits of steps as in runner/src/dbt_runner/request.schema.json.
  validation {
    condition = alltrue(flatten([for e in var.environments : [for j in e.jobs : length(j.steps) >= 1 && length(j.steps) <= 50]]))
    error_message = "A job must have 1 to 50 steps, for example steps = [{ name = \"build\", commands = [\"build\"] }]: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job}" if length(j.steps) < 1 || length(j.steps) > 50]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : can(regex(local.name_pattern, s.name)) && s.name != "health_check"]]
    ]))
    error_message = "A step's name must be 1 to 40 characters of a-z, 0-9, hyphen and underscore, begin with a letter or digit, and not be health_check, which the audit uses itself: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : "${env}.jobs.${job}: ${s.name}" if !can(regex(local.name_pattern, s.name)) || s.name == "health_check"]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : length(distinct([for s in j.steps : s.name])) == length(j.steps)]
    ]))
    error_message = "The names of a job's steps must differ: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job}" if length(distinct([for s in j.steps : s.name])) != length(j.steps)]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : length(s.commands) >= 1 && length(s.commands) <= 20]]
    ]))
    error_message = "A step must have 1 to 20 commands, for example commands = [\"build --select tag:hourly\"]: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : "${env}.jobs.${job}.${s.name}" if length(s.commands) < 1 || length(s.commands) > 20]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : [for c in s.commands : can(regex(local.dbt_command_pattern, c))]]]
    ]))
    error_message = "A command must begin with one of ${join(", ", local.dbt_commands)}: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : [for c in s.commands : "${env}.jobs.${job}.${s.name} (${c})" if !can(regex(local.dbt_command_pattern, c))]]]
    ]))}."
  }

  validation {
    condition = !anytrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : [for c in s.commands : can(regex("[[:cntrl:]]", c)) || length(c) > 8192]]]
    ]))
    error_message = "A command must be one line of at most 8192 characters, without control characters; write several commands as several elements: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : "${env}.jobs.${job}.${s.name}" if anytrue([for c in s.commands : can(regex("[[:cntrl:]]", c)) || length(c) > 8192])]]
    ]))}."
  }

  validation {
    condition = !anytrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : [for c in s.commands : can(regex(local.owned_flag_pattern, c))]]]
    ]))
    error_message = "The runner sets ${join(", ", local.owned_flags)} itself; remove them. Vars have their own field, vars, and the target is the environment: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : [for c in s.commands : "${env}.jobs.${job}.${s.name} (${c})" if can(regex(local.owned_flag_pattern, c))]]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for job in e.jobs : can(keys(jsondecode(job.vars)))]
    ]))
    error_message = "A job's vars must be a JSON object; write vars = jsonencode({ ... }): ${join(", ", flatten([
      for env, e in var.environments : [for name, job in e.jobs : "${env}.${name}" if !can(keys(jsondecode(job.vars)))]
    ]))}."
  }

  # As runner/src/dbt_runner/variables.py counts: as JSON in ASCII, with a blank after each comma and colon.
  validation {
    condition = alltrue(flatten([for e in var.environments : [for j in e.jobs : length(j.vars) <= local.vars_characters && sum([
      length(replace(replace(j.vars, local.beyond_16_bits_pattern, "\\u0000\\u0000"), local.beyond_ascii_pattern, "\\u0000")),
      length(regexall("[,:]", replace(j.vars, local.json_string_pattern, ""))),
      -length(regexall("\\s", replace(j.vars, local.json_string_pattern, ""))),
    ]) <= local.vars_characters]]))
    error_message = "Limit \"vars of a job\" of the runner: they may have ${local.vars_characters} characters, as JSON in ASCII. Move what is long into a file or the vars of dbt_project.yml: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : "${env}.jobs.${job} (${length(j.vars)})" if length(j.vars) > local.vars_characters || sum([
        length(replace(replace(j.vars, local.beyond_16_bits_pattern, "\\u0000\\u0000"), local.beyond_ascii_pattern, "\\u0000")),
        length(regexall("[,:]", replace(j.vars, local.json_string_pattern, ""))),
        -length(regexall("\\s", replace(j.vars, local.json_string_pattern, ""))),
      ]) > local.vars_characters]
    ]))} (docs/limits.md)."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for j in e.jobs : [for s in j.steps : contains(["fail", "continue"], s.on_failure)]]
    ]))
    error_message = "A step's on_failure must be fail or continue: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : "${env}.jobs.${job}.${s.name} (${s.on_failure})" if !contains(["fail", "continue"], s.on_failure)]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([for e in var.environments : [for j in e.jobs : [for s in j.steps : s.timeout_seconds == null ? true :
      s.timeout_seconds >= 1 && s.timeout_seconds < e.timeout_seconds && floor(s.timeout_seconds) == s.timeout_seconds
    ]]]))
    error_message = "A step's timeout_seconds must be a whole number of at least 1 and less than the environment's timeout_seconds, which ends the whole run: ${join(", ", flatten([
      for env, e in var.environments : [for job, j in e.jobs : [for s in j.steps : "${env}.jobs.${job}.${s.name} (${s.timeout_seconds})" if s.timeout_seconds == null ? false : s.timeout_seconds < 1 || s.timeout_seconds >= e.timeout_seconds || floor(s.timeout_seconds) != s.timeout_seconds]]
    ]))}."
  }

  # Environment variables of the container

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for key in concat(keys(e.env_vars), keys(e.secrets)) : can(regex(local.env_var_pattern, key)) && !can(regex(local.reserved_env_var_pattern, key))]
    ]))
    error_message = "A name in env_vars or secrets must be of letters, digits and underscore, and not begin with DBT_RUNNER_, AWS_, ECS_ or LAMBDA_, which the runner and AWS set: ${join(", ", flatten([
      for env, e in var.environments : [for key in concat(keys(e.env_vars), keys(e.secrets)) : "${env}: ${key}" if !can(regex(local.env_var_pattern, key)) || can(regex(local.reserved_env_var_pattern, key))]
    ]))}."
  }

  validation {
    condition = !anytrue(flatten([
      for e in var.environments : [for key in concat(keys(e.env_vars), keys(e.secrets)) : can(regex(local.steering_env_var_pattern, key))]
    ]))
    error_message = "A variable in env_vars or secrets must not say where Python, the linker or a library finds code or settings, because the process that holds the task role's credentials reads it, too. Set it in profiles.yml or in an image of your own: ${join(", ", flatten([
      for env, e in var.environments : [for key in concat(keys(e.env_vars), keys(e.secrets)) : "${env}: ${key}" if can(regex(local.steering_env_var_pattern, key))]
    ]))}."
  }

  validation {
    condition = !anytrue(flatten([
      for e in var.environments : [for key, value in e.env_vars : can(regex(local.certificates_pattern, key)) && can(regex(local.writable_path_pattern, value))]
    ]))
    error_message = "Certificates must be in the image, by an absolute path outside of /tmp, where a run could replace them: ${join(", ", flatten([
      for env, e in var.environments : [for key, value in e.env_vars : "${env}.env_vars: ${key}" if can(regex(local.certificates_pattern, key)) && can(regex(local.writable_path_pattern, value))]
    ]))}."
  }

  validation {
    condition = !anytrue(flatten([
      for e in var.environments : [for key in keys(e.env_vars) : startswith(key, "DBT_ENV_SECRET_") || can(regex(local.secret_key_pattern, key))]
    ]))
    error_message = "env_vars are plain text in the task definition, and in the function. Move to `secrets`, with the ARN of a Secrets Manager secret or an SSM parameter as the value: ${join(", ", flatten([
      for env, e in var.environments : [for key in keys(e.env_vars) : "${env}.env_vars: ${key}" if startswith(key, "DBT_ENV_SECRET_") || can(regex(local.secret_key_pattern, key))]
    ]))}."
  }

  validation {
    condition = alltrue([for e in var.environments : length(setintersection(keys(e.env_vars), keys(e.secrets))) == 0])
    error_message = "A name may stand in env_vars or in secrets, not in both: ${join(", ", flatten([
      for env, e in var.environments : [for key in setintersection(keys(e.env_vars), keys(e.secrets)) : "${env}: ${key}"]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.environments : [for arn in values(e.secrets) : can(regex(local.secret_arn_pattern, arn))]
    ]))
    error_message = "The values of secrets must be ARNs of Secrets Manager secrets (arn:aws:secretsmanager:...:secret:...) or SSM parameters (arn:aws:ssm:...:parameter/...), never the secret itself: ${join(", ", flatten([
      for env, e in var.environments : [for key, arn in e.secrets : "${env}.secrets: ${key}" if !can(regex(local.secret_arn_pattern, arn))]
    ]))}."
  }
}

variable "oidc" {
  description = <<-EOT
    Who comes from outside, by OIDC tokens: CI as deployer, people as operator (docs/security.md#people-and-ci).

    providers            by a key of your choice: url (the tokens' iss) creates a provider in IAM, arn adopts one that exists; an account has
                         one for each issuer. audiences: what aud must be. thumbprints: only for an issuer whose CA AWS does not trust.
    environments         for each environment, who may become its deployer (releases, the pointer, starting runs) and its operator (start,
                         stop and read runs), by provider: the subjects (sub) of tokens, in full or with wildcards behind a full owner.
                         audiences: fewer than the provider's, for example the one application of the operators.
    max_session_seconds  how long a session of these roles may last.
    trust_characters     the account's quota for the length of a role's trust policy, where it has been raised (docs/limits.md).
  EOT
  type = object({
    providers = optional(map(object({
      url         = optional(string)
      arn         = optional(string)
      audiences   = list(string)
      thumbprints = optional(list(string))
    })), {})
    environments = optional(map(object({
      deployer = optional(map(object({ subjects = list(string), audiences = optional(list(string)) })), {})
      operator = optional(map(object({ subjects = list(string), audiences = optional(list(string)) })), {})
    })), {})
    max_session_seconds = optional(number, 3600)
    trust_characters    = optional(number, 2048)
  })
  nullable = false
  default  = {}

  # The key becomes part of statement ids.
  validation {
    condition = alltrue([for key in keys(var.oidc.providers) : can(regex(local.oidc_provider_pattern, key))])
    error_message = "The keys of oidc.providers must be of a-z, 0-9 and underscore and begin with a letter, for example github: ${join(", ", [
      for key in keys(var.oidc.providers) : key if !can(regex(local.oidc_provider_pattern, key))
    ])}."
  }

  validation {
    condition = alltrue([
      for p in var.oidc.providers : (p.url == null) != (p.arn == null) && can(p.url == null ? regex(local.oidc_arn_pattern, p.arn) : regex(local.oidc_url_pattern, p.url))
    ])
    error_message = "A provider of oidc needs either url, the issuer exactly as in the tokens (https://token.actions.githubusercontent.com, https://gitlab.com, https://<org>.okta.com/oauth2/<authorization server>; no port, no query), which creates it, or arn (arn:aws:iam::<account>:oidc-provider/<issuer>), which adopts it: ${join(", ", [
      for key, p in var.oidc.providers : key if !((p.url == null) != (p.arn == null) && can(p.url == null ? regex(local.oidc_arn_pattern, p.arn) : regex(local.oidc_url_pattern, p.url)))
    ])}."
  }

  validation {
    condition = length(distinct([
      for key, p in var.oidc.providers : try(regex(":oidc-provider/(.*)$", p.arn)[0], trimprefix(p.url, "https://"), key)
    ])) == length(var.oidc.providers)
    error_message = "Two of oidc.providers have the same issuer, of which an account has one provider: name it once and use its key in every environment."
  }

  validation {
    condition = alltrue([for p in var.oidc.providers : length(p.audiences) > 0 && alltrue([for a in p.audiences : can(regex(local.oidc_audience_pattern, a))])])
    error_message = "audiences of oidc.providers must name at least one audience (the tokens' aud) in full, without *, ?, $ or blanks; sts.amazonaws.com is what GitHub's action asks for: ${join(", ", [
      for key, p in var.oidc.providers : key if !(length(p.audiences) > 0 && alltrue([for a in p.audiences : can(regex(local.oidc_audience_pattern, a))]))
    ])}."
  }

  validation {
    condition = alltrue([for env in keys(var.oidc.environments) : contains(keys(var.environments), env)])
    error_message = "oidc.environments names what is not in environments: ${join(", ", [
      for env in keys(var.oidc.environments) : env if !contains(keys(var.environments), env)
    ])}."
  }

  validation {
    condition = alltrue(flatten([for e in var.oidc.environments : [for key in concat(keys(e.deployer), keys(e.operator)) : contains(keys(var.oidc.providers), key)]]))
    error_message = "oidc.environments names providers that are not in oidc.providers: ${join(", ", flatten([
      for env, e in var.oidc.environments : [for key in concat(keys(e.deployer), keys(e.operator)) : "${env}: ${key}" if !contains(keys(var.oidc.providers), key)]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.oidc.environments : [for role in [e.deployer, e.operator] : [for grant in role : length(grant.subjects) > 0]]
    ]))
    error_message = "subjects must name at least one subject (sub) wherever a provider is named: a token of anybody at that issuer would do otherwise: ${join(", ", flatten([
      for env, e in var.oidc.environments : [for role, grants in { deployer = e.deployer, operator = e.operator } : [for key, grant in grants : "${env}.${role}.${key}" if length(grant.subjects) == 0]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.oidc.environments : [for role in [e.deployer, e.operator] : [for grant in role : [for s in grant.subjects : can(regex(local.oidc_subject_pattern, s))]]]
    ]))
    error_message = "A subject must not be empty, hold $ or control characters, or have blanks at its edges: ${join(", ", flatten([
      for env, e in var.oidc.environments : [for role, grants in { deployer = e.deployer, operator = e.operator } : [for key, grant in grants : [for s in grant.subjects : "${env}.${role}.${key} (\"${s}\")"
        if !can(regex(local.oidc_subject_pattern, s))
      ]]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.oidc.environments : [for role in [e.deployer, e.operator] : [for key, grant in role : [for s in grant.subjects :
        can(regex([for r in local.oidc_rules : r.subject if can(regex(r.of, "${try(regex(":oidc-provider/(.*)$", var.oidc.providers[key].arn)[0], trimprefix(var.oidc.providers[key].url, "https://"), key)} ${s}"))][0], s))
      ]]]
    ]))
    error_message = "A subject must name its owner in full before its first wildcard (* or ?), or strangers at that issuer may have a token that matches: ${join("; ", flatten([
      for env, e in var.oidc.environments : [for role, grants in { deployer = e.deployer, operator = e.operator } : [for key, grant in grants : [for s in grant.subjects :
        "${env}.${role}.${key} (\"${s}\"): write ${[for r in local.oidc_rules : r.write if can(regex(r.of, "${try(regex(":oidc-provider/(.*)$", var.oidc.providers[key].arn)[0], trimprefix(var.oidc.providers[key].url, "https://"), key)} ${s}"))][0]}"
        if !can(regex([for r in local.oidc_rules : r.subject if can(regex(r.of, "${try(regex(":oidc-provider/(.*)$", var.oidc.providers[key].arn)[0], trimprefix(var.oidc.providers[key].url, "https://"), key)} ${s}"))][0], s))
      ]]]
    ]))}."
  }

  validation {
    condition = alltrue(flatten([
      for e in var.oidc.environments : [for role in [e.deployer, e.operator] : [for key, grant in role :
        grant.audiences == null ? true : length(grant.audiences) > 0 && length(setsubtract(grant.audiences, try(var.oidc.providers[key].audiences, grant.audiences))) == 0
      ]]
    ]))
    error_message = "audiences in oidc.environments must be some of the provider's audiences; leave them out for all of them: ${join(", ", flatten([
      for env, e in var.oidc.environments : [for role, grants in { deployer = e.deployer, operator = e.operator } : [for key, grant in grants : "${env}.${role}.${key}"
        if grant.audiences == null ? false : length(grant.audiences) == 0 || length(setsubtract(grant.audiences, try(var.oidc.providers[key].audiences, grant.audiences))) > 0
      ]]
    ]))}."
  }

  validation {
    condition     = var.oidc.max_session_seconds >= 3600 && var.oidc.max_session_seconds <= 43200 && floor(var.oidc.max_session_seconds) == var.oidc.max_session_seconds
    error_message = "oidc.max_session_seconds must be a whole number from 3600 to 43200: that is IAM's range."
  }

  validation {
    condition     = var.oidc.trust_characters >= 2048 && var.oidc.trust_characters <= 8192 && floor(var.oidc.trust_characters) == var.oidc.trust_characters
    error_message = "oidc.trust_characters must be the account's quota \"Role trust policy length\" as Service Quotas shows it: 2048 where it was never raised, 8192 at most."
  }

  # https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html
  validation {
    condition = alltrue([for p in var.oidc.providers : length(p.audiences) <= 100 && alltrue([for text in concat(p.audiences, p.url == null ? [] : [p.url]) : length(text) <= 255])])
    error_message = "Limit \"identity provider\" of IAM: a provider of oidc.providers may have 100 audiences, and a url and audiences of 255 characters each: ${join(", ", [
      for key, p in var.oidc.providers : key if !(length(p.audiences) <= 100 && alltrue([for text in concat(p.audiences, p.url == null ? [] : [p.url]) : length(text) <= 255]))
    ])} (docs/limits.md)."
  }
}

variable "audit" {
  description = <<-EOT
    The audit store. Days of 0 keep for ever.

    deletion_protection        of the table; force_destroy deletes the bucket with what is in it.
    runs_retention_days        artifacts of runs (runs/) expire after this; releases never do.
    noncurrent_retention_days  overwritten and expired objects stay recoverable for this long.
    cache_retention_days       dbt's parse caches (cache/) expire after this; the next run makes them again.
    incomplete_upload_days     uploads that broke off are removed after this.
    log_retention_days         of the log groups.
    rows_retention_days        rows of the long-term audit (audit/) expire after this.
    items_retention_days       nodes and outcomes leave the table after this, at least 91; runs, releases and promotions never do.
    athena                     tables and named queries over the long-term audit; they cost nothing until somebody asks.
    former_environments        environments that are gone and whose rows are still to be found.
    object_lock                { mode = "GOVERNANCE" or "COMPLIANCE", days } for everything in the bucket. A bucket has it from its creation or never.
  EOT
  type = object({
    force_destroy             = optional(bool, false)
    deletion_protection       = optional(bool, true)
    runs_retention_days       = optional(number, 0)
    noncurrent_retention_days = optional(number, 0)
    cache_retention_days      = optional(number, 30)
    incomplete_upload_days    = optional(number, 7)
    log_retention_days        = optional(number, 90)
    rows_retention_days       = optional(number, 0)
    items_retention_days      = optional(number, 0)
    athena                    = optional(bool, true)
    former_environments       = optional(list(string), [])
    object_lock               = optional(object({ mode = string, days = number }))
  })
  nullable = false
  default  = {}

  validation {
    condition     = var.audit.rows_retention_days >= 0 && floor(var.audit.rows_retention_days) == var.audit.rows_retention_days
    error_message = "audit.rows_retention_days must be a whole number of days; 0 keeps for ever."
  }

  # Step Functions knows a run for 90 days, and as long it can be resumed from its items.
  validation {
    condition     = var.audit.items_retention_days == 0 || (var.audit.items_retention_days >= 91 && floor(var.audit.items_retention_days) == var.audit.items_retention_days)
    error_message = "audit.items_retention_days must be 0 (for ever) or a whole number of at least 91 days, as long as a run can be resumed."
  }

  validation {
    condition     = alltrue([for env in var.audit.former_environments : can(regex("^[a-z0-9][a-z0-9_-]{0,39}$", env))])
    error_message = "audit.former_environments must be names of environments: a-z, 0-9, _ and -."
  }

  validation {
    condition = var.audit.object_lock == null ? true : (
      contains(["GOVERNANCE", "COMPLIANCE"], var.audit.object_lock.mode) && var.audit.object_lock.days >= 1 && floor(var.audit.object_lock.days) == var.audit.object_lock.days
    )
    error_message = "audit.object_lock must be { mode = \"GOVERNANCE\" or \"COMPLIANCE\", days = a whole number of at least 1 }."
  }

  validation {
    condition     = var.audit.object_lock == null || !var.audit.force_destroy
    error_message = "audit.object_lock keeps what audit.force_destroy would delete: choose one."
  }

  validation {
    condition = alltrue([
      for days in [var.audit.runs_retention_days, var.audit.noncurrent_retention_days, var.audit.cache_retention_days, var.audit.incomplete_upload_days] :
      days >= 0 && floor(days) == days
    ])
    error_message = "audit.runs_retention_days, noncurrent_retention_days, cache_retention_days and incomplete_upload_days must be whole numbers of days; 0 keeps for ever."
  }

  validation {
    condition     = contains(local.log_retention_days, var.audit.log_retention_days)
    error_message = "audit.log_retention_days must be one of CloudWatch's: ${join(", ", local.log_retention_days)} (0 keeps for ever)."
  }
}

variable "notifications" {
  description = "Who is told about runs: emails of what concerns everybody, owners (as the dbt project names them) of their own nodes, and with chat a topic for channels of Slack and Microsoft Teams. Every environment has a topic of its own; each address must confirm each subscription."
  type = object({
    emails = optional(list(string), [])
    owners = optional(map(list(string)), {})
    chat   = optional(bool, false)
  })
  nullable = false
  default  = {}

  validation {
    condition = alltrue([for address in var.notifications.emails : can(regex(local.email_pattern, address))])
    error_message = "notifications.emails must be addresses such as team@example.com: ${join(", ", [
      for address in var.notifications.emails : address if !can(regex(local.email_pattern, address))
    ])}."
  }

  validation {
    condition = alltrue([for address in flatten(values(var.notifications.owners)) : can(regex(local.email_pattern, address))])
    error_message = "notifications.owners must hold lists of addresses such as team@example.com: ${join(", ", [
      for address in flatten(values(var.notifications.owners)) : address if !can(regex(local.email_pattern, address))
    ])}."
  }

  # https://docs.aws.amazon.com/general/latest/gr/sns.html#limits_sns
  validation {
    condition     = length(distinct(var.notifications.emails)) + length(flatten(values(var.notifications.owners))) <= 200
    error_message = "Limit \"filter policies of a topic\" of SNS: notifications.emails and owners have ${length(distinct(var.notifications.emails)) + length(flatten(values(var.notifications.owners)))} addresses, of which a topic takes 200. Give mailing lists instead of people (docs/limits.md)."
  }
}

variable "observability" {
  description = "CloudWatch alarms on a topic of their own (to notifications.emails and to whatever ARNs alarm_actions names), a dashboard, and queries that Logs Insights offers, for each environment."
  type = object({
    alarms        = optional(bool, true)
    dashboard     = optional(bool, true)
    saved_queries = optional(bool, true)
    alarm_actions = optional(list(string), [])
  })
  nullable = false
  default  = {}

  validation {
    condition     = length(var.observability.alarm_actions) <= 4 && alltrue([for arn in var.observability.alarm_actions : can(regex("^arn:[^:]+:[^:]+:", arn))])
    error_message = "observability.alarm_actions must be at most 4 ARNs: CloudWatch takes 5 actions, and the alarms' topic is one: ${join(", ", var.observability.alarm_actions)}."
  }

  # The alarm on a slow job has a model of its history. https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
  validation {
    condition     = !var.observability.alarms || sum(concat([0], [for e in var.environments : length(e.jobs)])) <= 500
    error_message = "Limit \"anomaly detection models\" of CloudWatch: each job has one for its alarm, a region 500, and the environments have ${sum(concat([0], [for e in var.environments : length(e.jobs)]))} jobs. Set observability.alarms = false, or deploy some of the environments to another region or account (docs/limits.md)."
  }
}

variable "iam" {
  description = "Path, permissions boundary (ARN) and name prefix of every role."
  type = object({
    path                 = optional(string, "/")
    permissions_boundary = optional(string)
    name_prefix          = optional(string, "")
  })
  nullable = false
  default  = {}

  validation {
    condition     = can(regex("^/([A-Za-z0-9+=,.@_-]+/)*$", var.iam.path))
    error_message = "iam.path must begin and end with a slash, for example / or /data/dbt/."
  }

  validation {
    condition     = length(var.iam.path) <= 512
    error_message = "Limit \"path of a role\" of IAM: iam.path has ${length(var.iam.path)} of 512 characters (docs/limits.md)."
  }

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]*$", var.iam.name_prefix))
    error_message = "iam.name_prefix may hold letters, digits and + = , . @ _ - only."
  }

  validation {
    condition     = var.iam.permissions_boundary == null ? true : can(regex("^arn:[a-z-]+:iam::(\\d{12}|aws):policy/\\S+$", var.iam.permissions_boundary))
    error_message = "iam.permissions_boundary must be the ARN of a managed policy (arn:aws:iam::<account>:policy/...), or be left out."
  }
}

variable "kms_key_arn" {
  description = <<-EOT
    A KMS key of your own for the table, the bucket, the topics and the log groups; null uses keys that AWS manages. Its key policy must
    let the account's own policies grant its use (the roles of this module get their permissions from theirs), and admit these services:

    logs.<region>.amazonaws.com  kms:Encrypt, kms:Decrypt, kms:ReEncrypt*, kms:GenerateDataKey* and kms:Describe*, for the log groups;
                                 without them the apply fails.
    cloudwatch.amazonaws.com     kms:Decrypt and kms:GenerateDataKey*, for alarms (where observability.alarms is on); without them no
                                 alarm reaches its topic, and nothing says so.

    The module cannot read a key's policy. List the services that it admits in kms_key_services; plan warns of the others.
  EOT
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:\\d{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key (arn:aws:kms:<region>:<account>:key/...), not an alias or an id."
  }
}

variable "kms_key_services" {
  description = "The service principals that the policy of kms_key_arn admits, once you have seen to it: see there."
  type        = list(string)
  nullable    = false
  default     = []

  validation {
    condition     = alltrue([for service in var.kms_key_services : can(regex("^[a-z0-9.-]+\\.amazonaws\\.com(\\.cn)?$", service))])
    error_message = "kms_key_services must be service principals, such as cloudwatch.amazonaws.com: ${join(", ", [for service in var.kms_key_services : service if !can(regex("^[a-z0-9.-]+\\.amazonaws\\.com(\\.cn)?$", service))])}."
  }
}

variable "tags" {
  description = "Tags of every resource that takes tags."
  type        = map(string)
  nullable    = false
  default     = {}

  # https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
  validation {
    condition     = length(var.tags) <= 50 && alltrue([for key, value in var.tags : length(key) <= 128 && length(value) <= 256])
    error_message = "Limit \"tags of a resource\" of AWS: tags may be 50, of 128 characters for a key and 256 for a value: ${join(", ", [for key, value in var.tags : key if length(var.tags) > 50 || length(key) > 128 || length(value) > 256])} (docs/limits.md)."
  }
}
