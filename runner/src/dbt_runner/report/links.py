"""Addresses of AWS's console for a run. They are links for people who are signed in; a report itself asks nobody for anything."""

from __future__ import annotations

from urllib.parse import quote as percent

from dbt_runner.config import EnvironmentConfig
from dbt_runner.run_records import Run

_CONSOLES = {"aws": "console.aws.amazon.com", "aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


def _quote(text: str, safe: str = "") -> str:
    return percent(text, safe=safe, errors="replace")


def _console(config: EnvironmentConfig, path: str) -> str:
    domain = _CONSOLES.get(config.state_machine.split(":")[1], _CONSOLES["aws"])
    return f"https://{config.region}.{domain}/{path}"


def execution(config: EnvironmentConfig, run: Run) -> str:
    """The execution in Step Functions, with its history."""
    return _console(config, f"states/home?region={config.region}#/v2/executions/details/{_quote(run.execution, ':')}")


def logs(config: EnvironmentConfig, run: Run, log_group: str) -> str:
    """The run's lines in one of its environment's log groups."""
    pattern = f'{{ $.run_id = "{run.run_id}" }}'
    group, events = _escaped(_quote(log_group)), _escaped(f"?filterPattern={_quote(pattern)}")
    return _console(config, f"cloudwatch/home?region={config.region}#logsV2:log-groups/log-group/{group}/log-events{events}")


def artifacts(config: EnvironmentConfig, run: Run) -> str | None:
    """The folder of the run's artifacts in S3; None while it has no record."""
    if run.artifacts is None:
        return None
    prefix = run.artifacts.partition("//")[2].partition("/")[2]
    return _console(config, f"s3/buckets/{config.bucket}?region={config.region}&prefix={_quote(prefix, '/')}")


def _escaped(text: str) -> str:
    """CloudWatch's console wants what stands behind its # escaped once more, and with $ instead of %."""
    return _quote(text).replace("%", "$")
