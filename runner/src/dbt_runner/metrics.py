"""Figures of an attempt as CloudWatch takes them out of a log line: the embedded metric format.

No call, no permission and no cost of an API: the line is written as every other one.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
}
"""The unit of each metric, by its name."""
NO_JOB = "-"
"""The dimension of runs that are no job's: the format wants a value."""


def of_attempt(config: EnvironmentConfig, job: str | None, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that make a log line one of metrics too.

    Args:
        config: of the environment, whose namespace the metrics go to.
        job: None where the run is no job's.
        outcome: the attempt's outcome item.
    """
    counts: Mapping[str, int] = outcome["counts"]
    values: dict[str, float] = {
        "Attempts": 1,
        "FailedAttempts": int(bool(outcome["exit_code"])),
        "AttemptSeconds": outcome["seconds"],
        "Nodes": sum(counts.values()),
        "FailedNodes": sum(number for status, number in counts.items() if status in BAD_STATUSES),
        "PeakMemory": outcome["peak_memory_mib"],
    }
    directive = {
        "Namespace": f"dbt/{config.name}/{config.environment}",
        "Dimensions": [["Job"]],
        "Metrics": [{"Name": name, "Unit": UNITS[name]} for name in values],
    }
    return {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}, "Job": job or NO_JOB, **values}
