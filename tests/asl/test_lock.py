"""One run at a time in an environment: who gets the lock, who waits, who gives way, and that no dead owner keeps it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from asl.endings import assert_failed, assert_skipped, assert_succeeded
from asl.fakes import EXECUTION, NOW, NOW_MILLIS, OTHER_EXECUTION, RUN_ID, Cloud, Fault, config

HOURLY = {"job": "hourly"}
THIRD = OTHER_EXECUTION.replace("other", "third")


def overlap(cloud: Cloud, policy: str) -> None:
    cloud.put("CONFIG", config=json.dumps(config(overlap=policy)))


def held(cloud: Cloud, status: str | None) -> None:
    """Has the other execution hold the lock, in a status of its own or long gone."""
    cloud.hold_lock()
    if status is not None:
        cloud.statuses[OTHER_EXECUTION] = status


def test_lock_says_who_holds_it_and_until_when(cloud: Cloud) -> None:
    assert_succeeded(cloud, cloud.run(HOURLY))
    lock = cloud.started[0].lock
    assert lock is not None
    assert {key: value for key, value in lock.items() if key not in ("pk", "sk")} == {
        "owner": {"S": EXECUTION},
        "run_id": {"S": RUN_ID},
        "since": {"S": NOW},
        "lease_until": {"N": str(NOW_MILLIS // 1000 + 14400 + 900)},
    }


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_run_gives_way_to_a_running_one(cloud: Cloud, status: str) -> None:
    held(cloud, status)
    record = assert_skipped(cloud, cloud.run(HOURLY))
    assert record["cause"]["S"] == "run other was running in environment prod; its overlap policy is skip"
    lock = cloud.lock()
    assert lock is not None and lock["owner"]["S"] == OTHER_EXECUTION


def test_run_fails_where_the_policy_is_fail(cloud: Cloud) -> None:
    overlap(cloud, "fail")
    held(cloud, "RUNNING")
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.EnvironmentBusy")
    assert "run other is running" in record["cause"]["S"]
    assert cloud.started == []
    lock = cloud.lock()
    assert lock is not None and lock["owner"]["S"] == OTHER_EXECUTION


def test_run_queues_until_the_lock_is_released(cloud: Cloud) -> None:
    overlap(cloud, "queue")
    held(cloud, "RUNNING")
    cloud.on_wait = lambda: cloud.delete("LOCK") if len(cloud.waits) == 12 else None
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert len(cloud.waits) == 12
    assert cloud.waits == sorted(cloud.waits)
    assert cloud.waits[0] == 2
    assert 60 <= cloud.waits[-1] <= 61


def test_queueing_run_takes_the_lock_of_an_owner_that_dies(cloud: Cloud) -> None:
    overlap(cloud, "queue")
    held(cloud, "RUNNING")
    cloud.on_wait = lambda: cloud.statuses.update({OTHER_EXECUTION: "TIMED_OUT"})
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert "TakeOverLock" in execution.states


@pytest.mark.parametrize("policy", ["skip", "queue", "fail"])
@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED", None])
def test_lock_of_a_dead_owner_is_taken_over(cloud: Cloud, status: str | None, policy: str) -> None:
    overlap(cloud, policy)
    held(cloud, status)
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert "TakeOverLock" in execution.states
    assert cloud.waits == []
    asked = [call.state for call in execution.calls].count("DescribeHolder")
    assert asked == (4 if status is None else 1), "that an execution does not exist is asked more than once"
    lock = cloud.started[0].lock
    assert lock is not None and lock["lease_until"] == {"N": str(NOW_MILLIS // 1000 + 14400 + 900)}
    assert lock["run_id"] == {"S": RUN_ID}


@pytest.mark.parametrize("name", ["Sfn.ExecutionDoesNotExist", "Sfn.ExecutionDoesNotExistException"])
@pytest.mark.parametrize("times", [1, 2, 3, None])
@pytest.mark.parametrize("policy", ["skip", "queue", "fail"])
def test_holder_that_step_functions_does_not_know_yet_keeps_its_lock(cloud: Cloud, policy: str, times: int | None, name: str) -> None:
    """DescribeExecution is eventually consistent: two jobs are due at the same minute, and the second asks for the first."""
    overlap(cloud, policy)
    cloud.hold_lock(since=NOW)
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"
    cloud.on_wait = lambda: cloud.delete("LOCK") if len(cloud.waits) == 2 else None
    execution = cloud.run(HOURLY, {"DescribeHolder": Fault(name, "Execution Does Not Exist", times=times)})
    assert "TakeOverLock" not in execution.states and cloud.containers.violations == []
    if policy == "skip":
        assert_skipped(cloud, execution)
    elif policy == "fail":
        assert_failed(cloud, execution, "Dbt.EnvironmentBusy")
    else:
        assert_succeeded(cloud, execution)
        assert len(cloud.waits) == 2


@pytest.mark.parametrize(("seconds", "taken"), [(0, False), (299, False), (300, True), (86400, True)])
def test_unknown_holder_counts_as_dead_when_it_has_held_the_lock_for_five_minutes(cloud: Cloud, seconds: int, taken: bool) -> None:
    since = datetime.fromisoformat(NOW) - timedelta(seconds=seconds)
    cloud.hold_lock(since=since.strftime("%Y-%m-%dT%H:%M:%S.000Z"))
    execution = cloud.run(HOURLY)
    assert ("TakeOverLock" in execution.states) is taken
    assert execution.output == {**dict(execution.output), "status": "SUCCEEDED" if taken else "SKIPPED"}


@pytest.mark.parametrize("times", [1, 2, 3])
def test_live_holder_that_is_not_found_for_a_moment_keeps_a_lock_of_any_age(cloud: Cloud, times: int) -> None:
    held(cloud, "RUNNING")
    fault = Fault("Sfn.ExecutionDoesNotExist", "Execution Does Not Exist", times=times)
    assert_skipped(cloud, cloud.run(HOURLY, {"DescribeHolder": fault}))


def test_lease_that_has_ended_needs_no_owner(cloud: Cloud) -> None:
    cloud.hold_lock(lease_until=NOW_MILLIS // 1000 - 1)
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert "DescribeHolder" not in execution.states


def test_lease_that_ends_now_is_still_one(cloud: Cloud) -> None:
    cloud.hold_lock(lease_until=NOW_MILLIS // 1000)
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"
    assert_skipped(cloud, cloud.run(HOURLY))


def test_lost_race_for_a_dead_owner_s_lock_is_lost(cloud: Cloud) -> None:
    """Two runs see the same dead owner; the other one is faster."""
    held(cloud, "ABORTED")
    cloud.statuses[THIRD] = "RUNNING"
    cloud.before["TakeOverLock"] = lambda: cloud.hold_lock(THIRD, "third")
    execution = cloud.run(HOURLY)
    assert execution.error is None
    assert execution.output == {"run_id": RUN_ID, "status": "SKIPPED", "holder": "third"}
    assert execution.states.count("AcquireLock") == 2
    lock = cloud.lock()
    assert lock is not None and lock["owner"]["S"] == THIRD
    assert cloud.started == []


def test_lock_that_is_released_meanwhile_is_taken(cloud: Cloud) -> None:
    held(cloud, "RUNNING")
    cloud.before["ReadLock"] = lambda: cloud.delete("LOCK")
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert "DescribeHolder" not in execution.states


@pytest.mark.parametrize("state", ["AcquireLock", "TakeOverLock"])
def test_lost_answer_does_not_lose_the_lock(cloud: Cloud, state: str) -> None:
    if state == "TakeOverLock":
        held(cloud, "ABORTED")
    faults = {state: Fault("DynamoDB.SdkClientException", "connection reset", times=1, performed=True)}
    assert_succeeded(cloud, cloud.run(HOURLY, faults))


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        ("AcquireLock", "DynamoDB.AmazonDynamoDBException", "the lock could not be taken"),
        ("ReadLock", "DynamoDB.AmazonDynamoDBException", "the lock could not be read"),
        ("DescribeHolder", "Sfn.SfnException", "the run that holds the lock could not be looked up"),
        ("TakeOverLock", "DynamoDB.AmazonDynamoDBException", "the lock could not be taken over"),
    ],
)
def test_lock_that_cannot_be_judged_is_left_alone(cloud: Cloud, state: str, error: str, says: str) -> None:
    if state != "AcquireLock":
        held(cloud, "ABORTED" if state == "TakeOverLock" else "RUNNING")
    before = cloud.lock()
    record = assert_failed(cloud, cloud.run(HOURLY, {state: Fault(error, "not authorized")}), "Dbt.RunnerError")
    assert record["cause"]["S"] == f"{says}: {error}: not authorized"
    assert cloud.started == []
    assert cloud.lock() == before


def test_failed_run_leaves_a_lock_that_is_no_longer_its_own(cloud: Cloud) -> None:
    """Somebody took the lock away while the run was in its last step: releasing it would let a third one in."""
    cloud.before["RecordSuccess"] = lambda: cloud.hold_lock(THIRD, "third")
    assert_succeeded(cloud, cloud.run(HOURLY))
    lock = cloud.lock()
    assert lock is not None and lock["owner"]["S"] == THIRD
