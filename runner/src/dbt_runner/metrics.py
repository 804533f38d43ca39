"""Figures of an attempt as CloudWatch takes them out of a log line: the embedded metric format.

No call, no permission and no cost of an API: the line is written as every other one.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dbt_runner.config import EnvironmentConfig
from dbt_runner.events import BAD_STATUSES

UNITS: Mapping[str, str] = {
    "Attempts": "Count",
    "FailedAttempts": "Count",
    "AttemptSeconds": "Seconds",
    "Nodes": "Count",
    "FailedNodes": "Count",
    "PeakMemory": "Megabytes",
    "QueueSeconds": "Seconds",
    "StartUpSeconds": "Seconds",
}
"""The unit of each metric, by its name."""
NO_JOB = "-"
"""The dimension of runs that are no job's: the format wants a value."""


def waits(
    started_at: str, *, asked_for_at: str | None = None, run_started_at: str | None = None, lock_since: str | None = None
) -> dict[str, float]:
    """How long an attempt and its run waited for their turn, as far as that is known.

    Args:
        started_at: when the runner began with the attempt. All times are ISO 8601.
        asked_for_at: when ECS began to bring up its container.
        run_started_at, lock_since: of the run, where this attempt is the one to say how long it waited for the lock.
    """
    spans = {"StartUpSeconds": (asked_for_at, started_at), "QueueSeconds": (run_started_at, lock_since)}
    known = {name: _seconds(begin, end) for name, (begin, end) in spans.items() if begin and end}
    return {name: seconds for name, seconds in known.items() if seconds is not None}


def _seconds(begin: str, end: str) -> float | None:
    try:
        span = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (TypeError, ValueError):
        return None
    # The clocks are not the same: the state machine's or the host's, and the container's.
    return round(max(0.0, span), 3)


def of_attempt(
    config: EnvironmentConfig, job: str | None, outcome: Mapping[str, Any], waited: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Fields that make a log line one of metrics too.

    Args:
        config: of the environment, whose namespace the metrics go to.
        job: None where the run is no job's.
        outcome: the attempt's outcome item.
        waited: see `waits`.
    """
    counts: Mapping[str, int] = outcome["counts"]
    values: dict[str, float] = {
        "Attempts": 1,
        "FailedAttempts": int(bool(outcome["exit_code"])),
        "AttemptSeconds": outcome["seconds"],
        "Nodes": sum(counts.values()),
        "FailedNodes": sum(number for status, number in counts.items() if status in BAD_STATUSES),
        "PeakMemory": outcome["peak_memory_mib"],
        **(waited or {}),
    }
    directive = {
        "Namespace": f"dbt/{config.name}/{config.environment}",
        "Dimensions": [["Job"]],
        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
    }
    return {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}, "Job": job or NO_JOB, **values}
