"""An attempt's line of metrics is what CloudWatch takes metrics out of."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from dbt_runner import metrics, task_metadata
from dbt_runner.config import Warehouse
from dbt_runner.store import Store, timestamp
from runner import projects
from runner.attempts import EXECUTION, RUN_KEY, Run

COUNTS = {"success": 3, "error": 1, "fail": 2, "skipped": 4}


def line(job: str | None = "hourly", waited: dict[str, float] | None = None, **changes: Any) -> dict[str, Any]:
    outcome = {"exit_code": 10, "seconds": 2.5, "counts": COUNTS, "peak_memory_mib": 312, **changes}
    return metrics.of_attempt(projects.asked(Warehouse("duckdb", {}, {})).config, job, outcome, waited)


WAITS = {"QueueSeconds": 7.5, "StartUpSeconds": 31.0}


def test_every_metric_has_its_unit_and_its_value() -> None:
    fields = line(waited=WAITS)
    (directive,) = fields["_aws"]["CloudWatchMetrics"]
    assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == dict(metrics.UNITS)
    assert {name: fields[name] for name in metrics.UNITS} == {
        "Attempts": 1,
        "FailedAttempts": 1,
        "AttemptSeconds": 2.5,
        "Nodes": 10,
        "FailedNodes": 3,
        "PeakMemory": 312,
        **WAITS,
    }


def test_what_is_not_known_is_no_metric() -> None:
    (directive,) = line()["_aws"]["CloudWatchMetrics"]
    assert {metric["Name"] for metric in directive["Metrics"]} == set(metrics.UNITS) - set(WAITS)


BEGUN = "2026-11-22T10:00:40.500Z"


@pytest.mark.parametrize(
    ("known", "waited"),
    [
        ({}, {}),
        ({"asked_for_at": "2026-11-22T10:00:09.500123456Z"}, {"StartUpSeconds": 31.0}),
        ({"run_started_at": "2026-11-22T10:00:00.000Z", "lock_since": "2026-11-22T10:00:07.500Z"}, {"QueueSeconds": 7.5}),
        ({"lock_since": "2026-11-22T10:00:07.500Z"}, {}),
        ({"run_started_at": "2026-11-22T10:00:00.000Z"}, {}),
        # The host's clock is ahead of the container's.
        ({"asked_for_at": "2026-11-22T10:00:41.000Z"}, {"StartUpSeconds": 0.0}),
        ({"asked_for_at": "soon", "run_started_at": "2026-11-22T10:00:00", "lock_since": BEGUN}, {}),
    ],
    ids=["nothing", "start-up", "queue", "no start", "no lock", "other clock", "no times"],
)
def test_waits_are_the_times_between(known: dict[str, str], waited: dict[str, float]) -> None:
    assert metrics.waits(BEGUN, **known) == pytest.approx(waited, abs=0.001)


@pytest.mark.parametrize(("job", "dimension"), [("hourly", "hourly"), (None, "-")])
def test_every_dimension_has_a_value(job: str | None, dimension: str) -> None:
    fields = line(job)
    (directive,) = fields["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "dbt/analytics/prod"
    assert [[fields[name] for name in names] for names in directive["Dimensions"]] == [[dimension]]


def test_an_attempt_that_ended_well_is_none_that_failed() -> None:
    assert (line(exit_code=0)["Attempts"], line(exit_code=0)["FailedAttempts"]) == (1, 0)


@pytest.fixture
def run(store: Store, environment: dict[str, Any]) -> Run:
    return Run(store, environment)


def test_a_run_says_once_how_long_it_waited_and_each_container_how_long_it_took_to_start(
    run: Run, metadata: Callable[[bytes], str], capsys: pytest.CaptureFixture[str]
) -> None:
    began = datetime.fromisoformat(RUN_KEY.split("#")[1])
    run.release = "0.0.1"  # which is not there: the attempts end at once
    run.lock = {"owner": EXECUTION, "run_id": "r-1", "since": timestamp(began + timedelta(seconds=12.5))}
    run.environment[task_metadata.VARIABLE] = metadata(json.dumps({"TaskARN": "arn:of:task", "PullStartedAt": timestamp(began)}).encode())
    for position, attempt in ((0, 1), (1, 1), (1, 2)):
        run.attempt(position, attempt)
    written = [json.loads(text) for text in capsys.readouterr().out.splitlines() if '"metrics"' in text]
    assert [fields.get("QueueSeconds") for fields in written] == [12.5, None, None]
    assert all(fields["StartUpSeconds"] > 0 for fields in written)


def test_without_a_health_check_the_first_step_says_how_long_its_run_waited(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.config["health_check"]["enabled"] = False
    run.release = "0.0.1"
    run.lock = {"owner": EXECUTION, "run_id": "r-1", "since": RUN_KEY.split("#")[1]}
    run.attempt()
    (fields,) = [json.loads(text) for text in capsys.readouterr().out.splitlines() if '"metrics"' in text]
    assert fields["QueueSeconds"] == 0 and "StartUpSeconds" not in fields
