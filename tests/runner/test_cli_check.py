"""dbt-runner check: what it starts, and what it makes of how that ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli
from dbt_runner.cli import aws
from dbt_runner.request import HEALTH_CHECK, validate_input
from dbt_runner.store import Store, timestamp
from runner.recorded_runs import MACHINE, LiveAlias, create_machine, record_outcome, record_run

Call = Callable[..., Result]
DENIED = {"exit_code": 21, "error": "Dbt.AccessDenied", "message": "the warehouse refused: no CREATE", "why": "its own answer"}


@pytest.fixture
def stepfunctions(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> LiveAlias:
    create_machine(boto3.client("stepfunctions"))
    alias = LiveAlias(boto3.client("stepfunctions"))
    monkeypatch.setattr(aws, "client", lambda service: {"stepfunctions": alias}[service])
    return alias


@pytest.fixture
def call(store: Store, stepfunctions: LiveAlias, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    return lambda *arguments: CliRunner().invoke(cli.cli, ["check", *arguments])


def ends(store: Store, *outcomes: dict[str, Any], **run: Any) -> Callable[[str, Any], None]:
    """Records the end of the run that is started: the attempts of its health check, and the run itself."""

    def on_start(run_id: str, started: Any) -> None:
        for number, outcome in enumerate(outcomes, start=1):
            record_outcome(store, run_id, 0, HEALTH_CHECK, attempt=number, **outcome)
        record_run(store, run_id, timestamp(started), ended_at=timestamp(started), results=[], **run)

    return on_start


def test_it_starts_a_run_that_touches_nothing(call: Call, store: Store, stepfunctions: LiveAlias) -> None:
    stepfunctions.on_start = ends(store, {}, status="SUCCEEDED")
    result = call()
    assert result.exit_code == 0, result.output
    assert "ok" in result.stdout and "At fault" not in result.stdout
    (execution,) = boto3.client("stepfunctions").list_executions(stateMachineArn=MACHINE)["executions"]
    asked = json.loads(boto3.client("stepfunctions").describe_execution(executionArn=execution["executionArn"])["input"])
    assert validate_input(asked)["steps"] == [{"name": "parse", "commands": ["parse"]}]
    assert (asked["reason"], asked["trigger"]) == ("dbt-runner check", "cli")


@pytest.mark.parametrize("fault", ["identity", "network", "warehouse", "permission"])
def test_it_says_where_the_fault_lies(call: Call, store: Store, stepfunctions: LiveAlias, fault: str) -> None:
    stepfunctions.on_start = ends(
        store, {**DENIED, "fault": "network"}, {**DENIED, "fault": fault}, status="FAILED", error="Dbt.AccessDenied", cause="c"
    )
    result = call()
    assert result.exit_code == 21
    assert [line.split() for line in result.stdout.splitlines() if line.startswith("At fault")] == [["At", "fault", fault]]
    assert "no CREATE" in result.stdout and "the platform team" in result.stdout


def test_scripts_get_what_it_found_as_json(call: Call, store: Store, stepfunctions: LiveAlias) -> None:
    stepfunctions.on_start = ends(store, {**DENIED, "fault": "identity"}, status="FAILED", error="Dbt.AccessDenied", cause="c")
    found = json.loads(call("--json").stdout)
    assert found.keys() == {"ok", "fault", "error", "message", "why", "run"}
    assert (found["ok"], found["fault"], found["error"]) == (False, "identity", "Dbt.AccessDenied")
    assert found["run"]["status"] == "FAILED"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"status": "SUCCEEDED"}, "health_check.enabled is false"),
        ({"status": "SKIPPED", "cause": "run other-1 holds the lock"}, "run other-1 holds the lock"),
    ],
)
def test_what_was_not_checked_is_not_well(call: Call, store: Store, stepfunctions: LiveAlias, run: dict[str, Any], words: str) -> None:
    stepfunctions.on_start = ends(store, **run)
    result = call()
    assert result.exit_code == 1
    assert "not checked" in result.stdout and words in result.stdout


def test_a_run_that_fails_elsewhere_has_no_fault_of_the_connection(call: Call, store: Store, stepfunctions: LiveAlias) -> None:
    cause = "release 1.4.2 is not published"
    stepfunctions.on_start = ends(store, status="FAILED", error="Dbt.ReleaseNotFound", cause=cause)
    result = call()
    assert result.exit_code == 31
    assert cause in result.stdout and "At fault" not in result.stdout
