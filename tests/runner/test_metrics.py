"""An attempt's line of metrics is what CloudWatch takes metrics out of."""

from __future__ import annotations

from typing import Any

import pytest

from dbt_runner import metrics
from dbt_runner.config import Warehouse
from runner import projects

COUNTS = {"success": 3, "error": 1, "fail": 2, "skipped": 4}


def line(job: str | None = "hourly", **changes: Any) -> dict[str, Any]:
    outcome = {"exit_code": 10, "seconds": 2.5, "counts": COUNTS, "peak_memory_mib": 312, **changes}
    return metrics.of_attempt(projects.asked(Warehouse("duckdb", {}, {})).config, job, outcome)


def test_every_metric_has_its_unit_and_its_value() -> None:
    fields = line()
    (directive,) = fields["_aws"]["CloudWatchMetrics"]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == dict(metrics.UNITS)
    assert {name: fields[name] for name in metrics.UNITS} == {
        "Attempts": 1,
        "FailedAttempts": 1,
        "AttemptSeconds": 2.5,
        "Nodes": 10,
        "FailedNodes": 3,
        "PeakMemory": 312,
    }


@pytest.mark.parametrize(("job", "dimension"), [("hourly", "hourly"), (None, "-")])
def test_every_dimension_has_a_value(job: str | None, dimension: str) -> None:
    fields = line(job)
    (directive,) = fields["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "dbt/analytics/prod"
    assert [[fields[name] for name in names] for names in directive["Dimensions"]] == [[dimension]]


def test_an_attempt_that_ended_well_is_none_that_failed() -> None:
    assert (line(exit_code=0)["Attempts"], line(exit_code=0)["FailedAttempts"]) == (1, 0)
