"""What must hold however a run ends. Every path of the tests goes through one of these."""

from __future__ import annotations

import json
import re
from itertools import groupby, pairwise
from typing import Any

from sfnx.testing import Execution

from asl import error_names, render
from asl.fakes import ENVIRONMENT, EXECUTION, NOW, NOW_MILLIS, OTHER_RUN, RUN_ID, RUN_KEY, STARTED_AT, STARTED_MILLIS, Cloud, Item, Started
from dbt_runner.errors import ERRORS

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
# The attributes of a run item (docs/architecture.md): those that every closed one has, and those that depend on the run.
ALWAYS = {"pk", "sk", "run_id", "execution", "trigger", "request", "status", "started_at", "ended_at", "artifacts", "steps"}
SOMETIMES = {
    "release_digest",
    "git_commit",
    "image",
    "versions",
    "job",
    "project",
    "reason",
    "release",
    "resumed_from",
    "resumes",
    "resumed_releases",
    "schema_suffix",
    "error",
    "cause",
}
MOST_STARTS = 5
"""How often a task that does not start is tried in one attempt."""


def assert_succeeded(cloud: Cloud, execution: Execution, *, announced: bool = True, released: bool = True) -> Item:
    """The run succeeded and says so; returns its record."""
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    return _assert_kept(cloud, execution, "SUCCEEDED", None, announced, released)


def assert_skipped(cloud: Cloud, execution: Execution) -> Item:
    """The run gave way to another one, which still holds the lock; returns its record."""
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    assert execution.output == {"run_id": RUN_ID, "status": "SKIPPED", "holder": OTHER_RUN}
    assert cloud.started == []
    return _assert_kept(cloud, execution, "SKIPPED", None, announced=False, released=True)


def assert_failed(cloud: Cloud, execution: Execution, error: str, *, announced: bool = True, released: bool = True) -> Item:
    """The run failed with a typed error, was announced once, and finalize has nothing else to add; returns its record."""
    assert execution.error == error, f"{execution.error}: {execution.cause}"
    record = _assert_kept(cloud, execution, "FAILED", error, announced, released)
    assert record["cause"]["S"] == execution.cause
    assert len(record["cause"]["S"]) <= 1000
    before = cloud.items()
    finalized = cloud.finalize(event(execution))
    assert finalized.error is None, f"finalize: {finalized.error}: {finalized.cause}"
    after = cloud.items()
    if not released:
        # What the run could not do, finalize has done: it closed the run, waited for what was at work, and then freed the lock.
        before, after = ([item for item in items if item["sk"]["S"] not in ("LOCK", "CLAIM")] for items in (before, after))
        after = [item for item in after if item in before or not item["sk"]["S"].startswith("STEP#")]
    assert after == before
    assert cloud.announced == {RUN_ID: RUN_KEY}
    assert not _owns_lock(cloud)
    assert cloud.containers.violations == []
    return record


def assert_left_to_finalize(cloud: Cloud, execution: Execution, error: str) -> Item:
    """The run failed and could not record it, finalize did, and announced it; returns the record."""
    assert execution.error == error, f"{execution.error}: {execution.cause}"
    assert not any("ended_at" in record for record in cloud.records() if record["run_id"]["S"] == RUN_ID)
    assert cloud.announced == {}, "an open run was announced"
    finalized = cloud.finalize(event(execution))
    assert finalized.error is None, f"finalize: {finalized.error}: {finalized.cause}"
    return _assert_kept(cloud, execution, "FAILED", error, announced=True, released=True)


def assert_ended(cloud: Cloud, execution: Execution, *, untold: bool = False, unreleased: bool = False) -> None:
    """However the run ended, it ended in one of the ways above.

    Args:
        untold: whether announce could not be started.
        unreleased: whether the lock could not be released.
    """
    if execution.error is None and isinstance(execution.output, dict) and execution.output["status"] == "SKIPPED":
        assert_skipped(cloud, execution)
    elif execution.error is None:
        assert_succeeded(cloud, execution, announced=not untold, released=not unreleased)
    elif any("ended_at" in record for record in cloud.records() if record["run_id"]["S"] == RUN_ID):
        assert_failed(cloud, execution, execution.error, announced=not untold, released=not unreleased)
    else:
        assert_left_to_finalize(cloud, execution, execution.error)


def assert_finalized(cloud: Cloud, execution: Execution, *, untold: bool = False, unreleased: bool = False) -> None:
    """finalize closed the record of an aborted run, or failed for everybody to see and left the closing to the next try.

    Args:
        untold: whether announce could not be started.
        unreleased: whether the lock could not be released.
    """
    (record,) = cloud.records()
    assert execution.error in (None, "Dbt.RunnerError")
    if execution.error is None or "ended_at" in record:
        _assert_well_formed(record)
        assert record["status"]["S"] == "ABORTED" and record["error"]["S"] == "Dbt.Interrupted"
        assert cloud.announced == ({} if untold else {RUN_ID: RUN_KEY})
        assert _owns_lock(cloud) is unreleased
        assert cloud.containers.violations == []
    else:
        assert record["status"]["S"] == "RUNNING" and cloud.announced == {}
        assert cloud.finalize(event(status="ABORTED")).error is None
        assert_finalized(cloud, cloud.finalize(event(status="ABORTED")))


def assert_announced(cloud: Cloud, execution: Execution, *, missed: str | None = None) -> None:
    """announce told of a failed run whatever it could, changed nothing of the run, and says what it could not tell.

    Args:
        missed: the state that could not do its part.
    """
    (record,) = cloud.records()
    assert record["status"]["S"] == "FAILED" and record["ended_at"]["S"] == NOW
    if missed is None:
        assert execution.error is None, f"{execution.error}: {execution.cause}"
    else:
        assert execution.error == "Dbt.RunnerError" and f"{missed}: " in str(execution.cause)
    if missed != "ReadRun":
        audiences = [message["MessageAttributes"]["audience"]["StringValue"] for message in cloud.notifications]
        # Who owns what failed stands in the outcome.
        owners = [] if missed in ("ReadOutcome", "TellOwner") else ["owner"]
        assert audiences == ([] if missed == "Tell" else ["everybody"]) + owners
        assert len(cloud.chats) == (0 if missed == "TellChat" else 1)
        assert len(cloud.metrics) == (0 if missed == "Measure" else 1)
        assert bool(cloud.published) is (missed != "Publish")


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


def _assert_kept(cloud: Cloud, execution: Execution, status: str, error: str | None, announced: bool, released: bool) -> Item:
    """What every path promises; returns the one record of the run."""
    assert execution.error is None or execution.error in error_names.TYPED
    _assert_every_task_was_called(execution)
    records = [record for record in cloud.records() if record["run_id"]["S"] == RUN_ID]
    assert len(records) == 1
    (record,) = records
    _assert_well_formed(record)
    assert record["status"]["S"] == status
    assert record.get("error", {}).get("S") == error
    assert cloud.announced == ({RUN_ID: RUN_KEY} if announced else {})
    assert _owns_lock(cloud) is not released
    _assert_started_in_order(cloud, record)
    assert cloud.containers.violations == []
    return record


def _assert_started_in_order(cloud: Cloud, record: Item) -> None:
    """Containers run with the lock, one step after the other, and again only where another attempt can help."""
    if not cloud.started:
        return
    for started in cloud.started:
        assert started.lock is not None and started.lock["owner"]["S"] == EXECUTION, "a container ran without the lock"
        assert started.environment["DBT_RUNNER_RUN_KEY"] == RUN_KEY
        assert started.command == (["check"] if started.place == 0 else ["step"])
    places = [started.place for started in cloud.started]
    assert places == sorted(places), "a step ran after one that comes later"
    config = cloud.config()
    asked = json.loads(record["request"]["S"])["steps"]
    for place, group in groupby(cloud.started, key=lambda started: started.place):
        compute = asked[place - 1].get("compute") if place else config["health_check"]["compute"]
        _assert_attempts_of_a_step(config, list(group), compute)
    first = 0 if config["health_check"]["enabled"] else 1
    for place, step in enumerate(json.loads(record["steps"]["S"]), start=first):
        last = max((started.attempt for started in cloud.started if started.place == place), default=0)
        # An attempt whose RunTask was refused started nothing, and still is the one that ended the step.
        assert step["attempts"] in (max(last, 1), last + 1)


def _assert_attempts_of_a_step(config: dict[str, Any], tasks: list[Started], compute: str | None) -> None:
    sizes = [(size["cpu"], size["memory"]) for size in config["compute"]["sizes"]]
    most = config["retry"]["max_attempts"]
    functions = [task for task in tasks if task.capacity == "LAMBDA"]
    assert tasks[: len(functions)] == functions, "a step came back from Fargate to Lambda"
    assert compute == "lambda" or not functions
    if compute == "lambda" and config["lambda"] is not None:
        last = functions[-1].attempt if functions else 0
        # Twice in a row where the answer of the first invocation was lost: which of them works is a matter of the claim.
        assert list(dict.fromkeys(task.attempt for task in functions)) == list(range(1, last + 1))
        assert last <= most
        # Whatever the number of attempts, what outgrows Lambda has one on Fargate. An invocation that timed out may not be in the list.
        tasks, most = tasks[len(functions) :], max(most, last + 2)
        if not tasks:
            return
        assert tasks[0].attempt - last in (1, 2)
    else:
        assert (tasks[0].attempt, tasks[0].size) == (1, sizes[0])
    for before, after in pairwise(tasks):
        assert after.attempt - before.attempt in (0, 1)
        if before.outcome is not None:
            assert after.attempt == before.attempt + 1, "an attempt that had ended was started again"
            assert "error" in before.outcome and ERRORS[before.outcome["error"]["S"]].retryable, "nothing called for another attempt"
        assert sizes.index(after.size) - sizes.index(before.size) in (0, after.attempt - before.attempt)
    assert tasks[-1].attempt <= most
    for task in tasks:
        assert task.capacity == "FARGATE" or (config["compute"]["spot"] and (most == 1 or task.attempt < most))
    for _, starts in groupby(tasks, key=lambda task: task.attempt):
        assert len(list(starts)) <= MOST_STARTS


def _assert_every_task_was_called(execution: Execution) -> None:
    """A Task whose Arguments cannot be evaluated makes no call, and where its error is caught nothing else would show it."""
    called = {call.state for call in execution.calls}
    kinds = {name: state["Type"] for name, state in render.load("dbt_run.asl.json")["States"].items()}
    silent = [name for name in execution.states if kinds[name] == "Task" and name not in called]
    assert silent == [], f"entered without a call, so their Arguments do not evaluate: {silent}"


def _assert_well_formed(record: Item) -> None:
    assert set(record) >= ALWAYS
    assert set(record) <= ALWAYS | SOMETIMES
    assert all(set(value) == ({"M"} if name == "versions" else {"S"}) for name, value in record.items())
    assert record["sk"]["S"] == RUN_KEY
    assert record["execution"]["S"] == EXECUTION
    assert record["started_at"]["S"] == STARTED_AT
    assert TIME.fullmatch(record["ended_at"]["S"])
    assert record["ended_at"]["S"] >= record["started_at"]["S"]
    assert record["artifacts"]["S"] == f"runs/{ENVIRONMENT}/2026/11/22/{RUN_ID}/"
    steps(record)
