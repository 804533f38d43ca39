"""What must hold however a run ends. Every path of the tests goes through one of these."""

from __future__ import annotations

import json
import re
from typing import Any

from sfnx.testing import Execution

from asl import error_names, render
from asl.fakes import ENVIRONMENT, EXECUTION, NOW_MILLIS, OTHER_RUN, RUN_ID, RUN_KEY, STARTED_AT, STARTED_MILLIS, Cloud, Item

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# The attributes of a run item (docs/architecture.md): those that every closed one has, and those that depend on the run.
ALWAYS = {"pk", "sk", "run_id", "execution", "trigger", "request", "status", "started_at", "ended_at", "artifacts", "steps"}
SOMETIMES = {"job", "reason", "release", "error", "cause"}


def assert_succeeded(cloud: Cloud, execution: Execution, *, notified: int = 0, released: bool = True) -> Item:
    """The run succeeded and says so; returns its record."""
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    return _assert_kept(cloud, execution, "SUCCEEDED", None, notified, released)


def assert_skipped(cloud: Cloud, execution: Execution) -> Item:
    """The run gave way to another one, which still holds the lock; returns its record."""
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    assert execution.output == {"run_id": RUN_ID, "status": "SKIPPED", "holder": OTHER_RUN}
    assert cloud.started == []
    return _assert_kept(cloud, execution, "SKIPPED", None, notified=0, released=True)


def assert_failed(cloud: Cloud, execution: Execution, error: str, *, notified: int = 1, released: bool = True) -> Item:
    """The run failed with a typed error, said so once, and finalize has nothing to add; returns its record."""
    assert execution.error == error, f"{execution.error}: {execution.cause}"
    record = _assert_kept(cloud, execution, "FAILED", error, notified, released)
    assert record["cause"]["S"] == execution.cause
    assert len(record["cause"]["S"]) <= 1000
    before = cloud.items()
    finalized = cloud.finalize(event(execution))
    assert finalized.error is None, f"finalize: {finalized.error}: {finalized.cause}"
    after = cloud.items() if released else [*cloud.items(), *(item for item in before if item["sk"]["S"] == "LOCK")]
    assert sorted(after, key=str) == sorted(before, key=str)
    assert len(cloud.notifications) == notified
    assert not _owns_lock(cloud)
    return record


def assert_left_to_finalize(cloud: Cloud, execution: Execution, error: str) -> Item:
    """The run failed and could not record it, finalize did, and people heard of it once; returns the record."""
    assert execution.error == error, f"{execution.error}: {execution.cause}"
    assert not any("ended_at" in record for record in cloud.records())
    finalized = cloud.finalize(event(execution))
    assert finalized.error is None, f"finalize: {finalized.error}: {finalized.cause}"
    return _assert_kept(cloud, execution, "FAILED", error, notified=1, released=True)


def event(execution: Execution | None = None, status: str = "FAILED", *, start_millis: int = STARTED_MILLIS) -> Item:
    """The status change event of this run, as EventBridge delivers it to finalize."""
    return {
        "version": "0",
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "detail": {
            "executionArn": EXECUTION,
            "stateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:machine",
            "name": RUN_ID,
            "status": status,
            "startDate": start_millis,
            "stopDate": NOW_MILLIS,
            "input": "{}",
            "output": None,
            "error": execution.error if execution else None,
            "cause": execution.cause if execution else None,
        },
    }


def steps(record: Item) -> list[tuple[str, str, str | None]]:
    """Name, status and error of each step that a record tells of."""
    told: list[dict[str, Any]] = json.loads(record["steps"]["S"])
    for step in told:
        assert set(step) == {"step", "status", "attempts", "error", "message", "counts", "seconds"}
    return [(step["step"], step["status"], step["error"]) for step in told]


def _owns_lock(cloud: Cloud) -> bool:
    lock = cloud.lock()
    return lock is not None and lock["owner"]["S"] == EXECUTION


def _assert_kept(cloud: Cloud, execution: Execution, status: str, error: str | None, notified: int, released: bool) -> Item:
    """What every path promises; returns the one record of the run."""
    assert execution.error is None or execution.error in error_names.TYPED
    _assert_every_task_was_called(execution)
    records = [record for record in cloud.records() if record["run_id"]["S"] == RUN_ID]
    assert len(records) == 1
    (record,) = records
    _assert_well_formed(record)
    assert record["status"]["S"] == status
    assert record.get("error", {}).get("S") == error
    assert len(cloud.notifications) == notified
    if notified:
        _assert_notified_of(cloud.notifications[0], str(error))
    assert _owns_lock(cloud) is not released
    for started in cloud.started:
        assert started.lock is not None and started.lock["owner"]["S"] == EXECUTION, "a container ran without the lock"
        assert started.environment["DBT_RUNNER_RUN_KEY"] == RUN_KEY
        assert started.environment["DBT_RUNNER_ATTEMPT"] == "1"
        assert started.command == (["check"] if started.environment["DBT_RUNNER_STEP"] == "0" else ["step"])
    return record


def _assert_every_task_was_called(execution: Execution) -> None:
    """A Task whose Arguments cannot be evaluated makes no call, and where its error is caught nothing else would show it."""
    called = {call.state for call in execution.calls}
    kinds = {name: state["Type"] for name, state in render.load("dbt_run.asl.json")["States"].items()}
    silent = [name for name in execution.states if kinds[name] == "Task" and name not in called]
    assert silent == [], f"entered without a call, so their Arguments do not evaluate: {silent}"


def _assert_well_formed(record: Item) -> None:
    assert set(record) >= ALWAYS
    assert set(record) <= ALWAYS | SOMETIMES
    assert all(set(value) == {"S"} for value in record.values())
    assert record["sk"]["S"] == RUN_KEY
    assert record["execution"]["S"] == EXECUTION
    assert record["started_at"]["S"] == STARTED_AT
    assert TIME.fullmatch(record["ended_at"]["S"])
    assert record["ended_at"]["S"] >= record["started_at"]["S"]
    assert record["artifacts"]["S"] == f"runs/{ENVIRONMENT}/2026/11/22/{RUN_ID}/"
    steps(record)


def _assert_notified_of(message: Item, error: str) -> None:
    assert message["MessageAttributes"]["error"]["StringValue"] == error
    assert message["MessageAttributes"]["environment"]["StringValue"] == ENVIRONMENT
    assert error in message["Subject"] and len(message["Subject"]) < 100
    lines = message["Message"].split("\n")
    assert f"Run: {RUN_ID}" in lines and f"Error: {error}" in lines
    assert any(line.startswith("Cause: ") and len(line) > len("Cause: ") for line in lines)
    assert lines[-1].startswith("Look closer: dbt-runner show")
