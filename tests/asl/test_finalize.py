"""finalize closes what an execution left open, frees its lock, has it announced, and does each of it once."""

from __future__ import annotations

import pytest

from asl.endings import event
from asl.fakes import EXECUTION, NOW, OTHER_EXECUTION, RUN_ID, RUN_KEY, STARTED_AT, STARTED_MILLIS, Cloud, Fault, Item

ENDED = pytest.mark.parametrize(
    ("status", "error"), [("ABORTED", "Dbt.Interrupted"), ("TIMED_OUT", "Dbt.Timeout"), ("FAILED", "Dbt.RunnerError")]
)
OPEN = {
    "run_id": RUN_ID,
    "execution": EXECUTION,
    "job": "hourly",
    "trigger": "schedule",
    "request": '{"job":"hourly"}',
    "release": "1.4.2",
    "status": "RUNNING",
    "started_at": STARTED_AT,
    "artifacts": f"runs/prod/2026/11/22/{RUN_ID}/",
}


def finalize(cloud: Cloud, status: str, *, start_millis: int = STARTED_MILLIS, **detail: object) -> Item:
    """Runs finalize with an event; returns its output."""
    happened = event(status=status, start_millis=start_millis)
    happened["detail"].update(detail)
    execution = cloud.finalize(happened)
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    assert isinstance(execution.output, dict)
    return execution.output


def only_record(cloud: Cloud) -> dict[str, str]:
    (record,) = cloud.records()
    return {key: value["S"] for key, value in record.items()}


@ENDED
def test_open_record_is_closed_and_keeps_what_it_knows(cloud: Cloud, status: str, error: str) -> None:
    cloud.put(RUN_KEY, **OPEN)
    assert finalize(cloud, status) == {"run_id": RUN_ID, "status": status, "closed": True}
    record = only_record(cloud)
    assert record["cause"]
    assert record == {
        "pk": "ENV#prod",
        "sk": RUN_KEY,
        **OPEN,
        "status": status,
        "error": error,
        "cause": record["cause"],
        "ended_at": NOW,
        "steps": "[]",
    }


def test_open_record_keeps_the_steps_that_it_tells_of(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN, steps='[{"step":"build"}]')
    finalize(cloud, "ABORTED")
    assert only_record(cloud)["steps"] == '[{"step":"build"}]'


@ENDED
def test_run_that_left_no_record_gets_one(cloud: Cloud, status: str, error: str) -> None:
    finalize(cloud, status)
    record = only_record(cloud)
    assert record == {
        "pk": "ENV#prod",
        "sk": RUN_KEY,
        "run_id": RUN_ID,
        "execution": EXECUTION,
        "trigger": "unknown",
        "request": "{}",
        "status": status,
        "error": error,
        "cause": record["cause"],
        "started_at": STARTED_AT,
        "ended_at": NOW,
        "artifacts": f"runs/prod/2026/11/22/{RUN_ID}/",
        "steps": "[]",
    }


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_closed_record_stays_as_it_is(cloud: Cloud, status: str) -> None:
    cloud.put(RUN_KEY, **{**OPEN, "status": "FAILED", "error": "Dbt.ModelError", "ended_at": NOW, "steps": "[]"})
    before = cloud.items()
    assert finalize(cloud, status) == {"run_id": RUN_ID, "status": status, "closed": False}
    assert cloud.items() == before


@ENDED
def test_run_is_announced_when_it_is_closed_and_its_lock_free(cloud: Cloud, status: str, error: str) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    seen: list[tuple[str, object]] = []
    cloud.before["Announce"] = lambda: seen.append((only_record(cloud)["error"], cloud.lock()))
    finalize(cloud, status)
    assert cloud.announced == {RUN_ID: RUN_KEY}
    assert seen == [(error, None)]


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_same_event_twice_changes_nothing_and_announces_once(cloud: Cloud, status: str) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    finalize(cloud, status)
    after_first = cloud.items()
    assert finalize(cloud, status)["closed"] is False
    assert cloud.items() == after_first
    assert cloud.announced == {RUN_ID: RUN_KEY}


@pytest.mark.parametrize("record", [True, False], ids=["with a record", "without a record"])
def test_own_lock_is_released(cloud: Cloud, record: bool) -> None:
    if record:
        cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    finalize(cloud, "ABORTED")
    assert cloud.lock() is None


def test_own_lock_is_released_where_the_record_is_closed(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN, ended_at=NOW)
    cloud.hold_lock(EXECUTION, RUN_ID)
    finalize(cloud, "FAILED")
    assert cloud.lock() is None


def test_lock_of_another_run_is_left_alone(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock()
    before = cloud.lock()
    assert finalize(cloud, "ABORTED")["closed"] is True
    assert cloud.lock() == before
    assert before is not None and before["owner"]["S"] == OTHER_EXECUTION


@pytest.mark.parametrize("difference", [-1000, -999, -123, -1, 1, 877, 1000])
def test_record_is_found_though_the_event_rounds_the_start(cloud: Cloud, difference: int) -> None:
    cloud.put(RUN_KEY, **OPEN)
    finalize(cloud, "TIMED_OUT", start_millis=STARTED_MILLIS + difference)
    record = only_record(cloud)
    assert (record["sk"], record["status"], record["job"]) == (RUN_KEY, "TIMED_OUT", "hourly")


def test_record_of_another_run_of_the_same_moment_is_left_alone(cloud: Cloud) -> None:
    other = f"RUN#{STARTED_AT}#another"
    cloud.put(other, **{**OPEN, "run_id": "another"})
    cloud.put(RUN_KEY, **OPEN)
    finalize(cloud, "ABORTED")
    statuses = {record["sk"]["S"]: record["status"]["S"] for record in cloud.records()}
    assert statuses == {other: "RUNNING", RUN_KEY: "ABORTED"}


@pytest.mark.parametrize(
    ("error", "typed"),
    [
        ("Dbt.ModelError", "Dbt.ModelError"),
        ("States.Runtime", "Dbt.RunnerError"),
        ("NotDbt.ModelError", "Dbt.RunnerError"),
        (None, "Dbt.RunnerError"),
    ],
)
def test_failure_keeps_its_typed_error(cloud: Cloud, error: str | None, typed: str) -> None:
    finalize(cloud, "FAILED", error=error, cause="what happened")
    assert only_record(cloud)["error"] == typed
    assert "what happened" in only_record(cloud)["cause"]
    assert (error or "") in only_record(cloud)["cause"]


def test_long_causes_are_cut(cloud: Cloud) -> None:
    finalize(cloud, "FAILED", error="States.DataLimitExceeded", cause="x" * 5000)
    assert len(only_record(cloud)["cause"]) == 1000


def test_event_without_a_stop_date_closes_the_record_now(cloud: Cloud) -> None:
    finalize(cloud, "ABORTED", stopDate=None)
    assert only_record(cloud)["ended_at"] == NOW


@pytest.mark.parametrize("state", ["FindRecord", "CloseRecord", "ReleaseLock"])
def test_passing_fault_of_the_table_changes_nothing(cloud: Cloud, state: str) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    prefix = "DynamoDb" if state == "FindRecord" else "DynamoDB"
    execution = cloud.finalize(event(status="ABORTED"), {state: Fault(f"{prefix}.ThrottlingException", times=3)})
    assert execution.error is None
    assert only_record(cloud)["status"] == "ABORTED"
    assert cloud.lock() is None
    assert cloud.announced == {RUN_ID: RUN_KEY}


@pytest.mark.parametrize("state", ["CloseRecord", "ReleaseLock"])
def test_lost_answer_does_not_keep_the_run_from_being_announced(cloud: Cloud, state: str) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    execution = cloud.finalize(event(status="ABORTED"), {state: Fault("DynamoDB.SdkClientException", times=1, performed=True)})
    assert execution.error is None
    assert cloud.lock() is None
    assert cloud.announced == {RUN_ID: RUN_KEY}


def test_lock_that_cannot_be_released_does_not_keep_the_run_from_being_announced(cloud: Cloud) -> None:
    """The next run takes it over, because its owner no longer runs."""
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.finalize(event(status="ABORTED"), {"ReleaseLock": Fault("DynamoDB.AmazonDynamoDBException", "not authorized")})
    assert only_record(cloud)["status"] == "ABORTED"
    assert cloud.announced == {RUN_ID: RUN_KEY}


@pytest.mark.parametrize("state", ["FindRecord", "CloseRecord"])
def test_record_that_cannot_be_closed_fails_finalize(cloud: Cloud, state: str) -> None:
    """Its own failed execution is then the only trace, so it must not look like a success."""
    cloud.put(RUN_KEY, **OPEN)
    execution = cloud.finalize(event(status="ABORTED"), {state: Fault("DynamoDB.AmazonDynamoDBException", "not authorized")})
    assert execution.error is not None
    assert cloud.announced == {}
