# One page for the environment, of metrics that the runner and announce emit, and two questions to the logs.

locals {
  of_jobs = { for metric in ["RunsSucceeded", "RunsFailed", "RunSeconds", "Attempts", "FailedAttempts", "Nodes", "FailedNodes", "PeakMemory", "QueueSeconds", "StartUpSeconds"] : metric => [
    for job in keys(var.jobs) : [var.namespace, metric, "Job", job]
  ] }

  graphs = [
    { title = "Runs that succeeded", metrics = local.of_jobs.RunsSucceeded, stat = "Sum" },
    { title = "Runs that failed", metrics = local.of_jobs.RunsFailed, stat = "Sum" },
    { title = "Duration of runs (s)", metrics = local.of_jobs.RunSeconds, stat = "Maximum" },
    { title = "Attempts, and those that failed", metrics = concat(local.of_jobs.Attempts, local.of_jobs.FailedAttempts), stat = "Sum" },
    { title = "Nodes, and those that failed", metrics = concat(local.of_jobs.Nodes, local.of_jobs.FailedNodes), stat = "Sum" },
    { title = "Peak memory (MiB)", metrics = local.of_jobs.PeakMemory, stat = "Maximum" },
    { title = "Waiting for the lock, and for containers to start (s)", metrics = concat(local.of_jobs.QueueSeconds, local.of_jobs.StartUpSeconds), stat = "Maximum" },
  ]

  questions = [
    { title = "Attempts that failed", group = var.log_groups.runner, query = "filter exit_code > 0 | fields @timestamp, run_id, step, attempt, message | sort @timestamp desc | limit 50" },
    { title = "Slowest attempts", group = var.log_groups.runner, query = "filter message = 'metrics' | fields @timestamp, run_id, step, AttemptSeconds, Nodes, PeakMemory | sort AttemptSeconds desc | limit 20" },
  ]
}

resource "aws_cloudwatch_dashboard" "this" {
  count = var.observability.dashboard ? 1 : 0

  dashboard_name = var.id

  dashboard_body = jsonencode({
    widgets = concat(
      [for place, graph in local.graphs : {
        type   = "metric"
        x      = place % 3 * 8
        y      = floor(place / 3) * 6
        width  = 8
        height = 6
        properties = {
          title   = graph.title
          region  = var.location.region
          metrics = graph.metrics
          stat    = graph.stat
          period  = 3600
          view    = "timeSeries"
          stacked = graph.stat == "Sum"
        }
      } if length(graph.metrics) > 0],
      [for place, question in local.questions : {
        type   = "log"
        x      = place * 12
        y      = 6 * ceil(length(local.graphs) / 3)
        width  = 12
        height = 6
        properties = {
          title  = question.title
          region = var.location.region
          query  = "SOURCE '${question.group}' | ${question.query}"
          view   = "table"
        }
      }],
    )
  })

  lifecycle {
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
    precondition {
      condition     = length(flatten([for graph in local.graphs : [for metric in graph.metrics : metric[1]]])) <= 2500
      error_message = "Limit \"metrics of a dashboard\" of CloudWatch: ${length(var.jobs)} jobs of ${var.id} have ${length(flatten([for graph in local.graphs : [for metric in graph.metrics : metric[1]]]))} of 2500. Give some of the jobs to another environment, or set observability.dashboard = false (docs/limits.md)."
    }
  }
}

# The questions of docs/operations.md, where the console offers them.
resource "aws_cloudwatch_query_definition" "this" {
  for_each = var.observability.saved_queries ? { for question in local.questions : question.title => question } : {}

  name            = "${var.id}/${each.key}"
  log_group_names = [each.value.group]
  query_string    = each.value.query
}
