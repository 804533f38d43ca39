"""Never two containers at once: whoever may still be at work is closed out, stopped and waited for before anything goes on.

The four ways in which a container outlives its state or its run: the state's time is over, the answer of RunTask is lost, the execution
is aborted, and another run finds the lock of one that has ended. `endings` holds each run against what `containers` has seen.
"""

from __future__ import annotations

from typing import Any

import pytest

from asl import containers
from asl.containers import Ending
from asl.endings import assert_failed, assert_succeeded, event, steps
from asl.fakes import EXECUTION, OTHER_EXECUTION, OTHER_RUN, RUN_ID, RUN_KEY, SUCCEEDS, Attempt, Cloud, Fault, Item, config
from asl.test_finalize import OPEN

BUILD = {"steps": [{"name": "build", "commands": ["build"]}]}
ON_LAMBDA = {"steps": [{"name": "build", "commands": ["build"], "compute": "lambda"}]}
LOOKING = ("StopTask", "DescribeTask", "HasStopped", "AwaitTask", "DescribeTask", "HasStopped")
OUTLIVES = [("RunStep", "1", BUILD), ("HealthCheck", "0", BUILD)]
each_task = pytest.mark.parametrize(("state", "place", "given"), OUTLIVES)


def timed_out(ending: Ending = "interrupted") -> Attempt:
    return Attempt(None, "States.Timeout", ending=ending)


def claim_of(cloud: Cloud, run_id: str = RUN_ID) -> Item:
    (found,) = [item for item in cloud.items() if (item["pk"]["S"], item["sk"]["S"]) == (f"RUN#prod#{run_id}", "CLAIM")]
    return found


def outcomes(cloud: Cloud) -> list[tuple[str, str | None]]:
    return [(i["sk"]["S"], i.get("error", {}).get("S")) for i in cloud.items() if i["sk"]["S"].startswith("STEP#")]


def polled(cloud: Cloud) -> int:
    return cloud.waits.count(5)


# The state's time is over


@each_task
def test_task_whose_state_is_over_is_stopped_before_the_lock_is_free(cloud: Cloud, state: str, place: str, given: dict[str, Any]) -> None:
    cloud.attempts[place] = timed_out()
    execution = cloud.run(given)
    record = assert_failed(cloud, execution, "Dbt.Timeout")
    assert len(cloud.containers.stops) == 1 and polled(cloud) == 1
    assert execution.states.index("DescribeTask") < execution.states.index("ReleaseLock")
    assert outcomes(cloud)[-1][1] == "Dbt.Interrupted", "what the runner said stays as it is"
    cause = record["cause"]["S"]
    assert "did not end in its time" in cause and "SIGTERM while building" in cause


def test_step_that_may_fail_is_over_before_the_next_one_begins(cloud: Cloud) -> None:
    cloud.attempts["1"] = timed_out()
    record = assert_succeeded(cloud, cloud.run({"job": "hourly"}))
    assert steps(record)[1:] == [("freshness", "FAILED", "Dbt.Timeout"), ("build", "SUCCEEDED", None)]


def test_task_that_was_killed_leaves_the_timeout(cloud: Cloud) -> None:
    cloud.attempts["1"] = timed_out("killed")
    assert_failed(cloud, cloud.run(BUILD), "Dbt.Timeout")
    assert all(not sk.startswith("STEP#01") for sk, _ in outcomes(cloud))


def test_task_that_ends_well_as_its_time_is_over_has_ended_well(cloud: Cloud) -> None:
    """It wrote its outcome between the end of its state and the stop."""
    cloud.attempts["1"] = timed_out()

    def ends() -> None:
        (task,) = cloud.containers.at_work(RUN_ID)
        cloud.containers.end(task, SUCCEEDS.outcome, 0)

    cloud.before["StopTask"] = ends
    assert_succeeded(cloud, cloud.run(BUILD))


def test_task_that_ecs_has_forgotten_has_ended(cloud: Cloud) -> None:
    cloud.attempts["1"] = timed_out("forgotten")
    assert_failed(cloud, cloud.run(BUILD), "Dbt.Timeout")


@pytest.mark.parametrize(("by", "unseen"), [("run", 1), ("run", 2), ("finalize", 1), ("finalize", 5), ("next run", 1), ("next run", 5)])
def test_task_that_ecs_does_not_know_yet_has_not_ended(cloud: Cloud, by: str, unseen: int) -> None:
    """DescribeTasks is eventually consistent: what has just begun may be MISSING, and is at work."""
    cloud.containers.unseen = unseen
    if by == "run":
        cloud.attempts["1"] = timed_out()
        assert_failed(cloud, cloud.run(BUILD), "Dbt.Timeout")
    elif by == "finalize":
        cloud.put(RUN_KEY, **OPEN)
        cloud.hold_lock(EXECUTION, RUN_ID)
        cloud.containers.start(containers.key(RUN_ID, 1, "build", 1))
        assert cloud.finalize(event(status="ABORTED")).error is None and cloud.lock() is None
    else:
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "ABORTED"
        cloud.containers.start(containers.key(OTHER_RUN, 1, "build", 1))
        assert_succeeded(cloud, cloud.run(BUILD))
    assert cloud.containers.violations == []


def test_young_task_that_ecs_never_knows_keeps_the_lock(cloud: Cloud) -> None:
    """Three minutes of waiting are no proof of the end of what began a moment ago."""
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.containers.start(containers.key(RUN_ID, 1, "build", 1))
    cloud.containers.unseen = 1000
    finalized = cloud.finalize(event(status="ABORTED"))
    assert finalized.error is None and "could not be seen to stop" in dict(finalized.output)["lock"]
    assert cloud.lock() is not None


def test_task_that_cannot_be_seen_to_stop_keeps_the_lock(cloud: Cloud) -> None:
    """finalize comes to the same end, and says so; so does each run after it, until the task is gone."""
    cloud.attempts["1"] = timed_out("never")
    execution = cloud.run(BUILD)
    assert execution.error == "Dbt.Timeout" and "ReleaseLock" not in execution.states
    assert "the lock is kept: task arn:aws:ecs:" in str(execution.cause)
    assert cloud.waits[-39:] == [5] * 39
    finalized = cloud.finalize(event(execution))
    assert finalized.error is None and "ReleaseLock" not in finalized.states
    assert cloud.containers.violations == []
    lock = cloud.lock()
    assert lock is not None and lock["owner"]["S"] == EXECUTION


def test_task_that_comes_up_late_begins_nothing(cloud: Cloud) -> None:
    """It was started, and has not come as far as its claim when the run gives it up."""
    cloud.attempts["1"] = Attempt(None, "States.Timeout", '"TaskFailedToStart"')
    assert_failed(cloud, cloud.run(BUILD), "Dbt.Timeout")
    assert cloud.containers.stops == []
    assert claim_of(cloud)["closed_up_to"] == {"N": "1001"}
    late = cloud.containers.start(containers.key(RUN_ID, 1, "build", 1))
    assert (late.holder, late.exit_code) == (None, 33)


# The answer of RunTask is lost


@pytest.mark.parametrize("error", ["ECS.ServerException", "ECS.AmazonECSException", "Unheard.Of"])
@each_task
def test_second_task_of_an_attempt_does_nothing_and_the_first_is_stopped(
    cloud: Cloud, state: str, place: str, given: dict[str, Any], error: str
) -> None:
    execution = cloud.run(given, {state: Fault(error, times=1, performed=True)})
    record = assert_succeeded(cloud, execution)
    assert len(cloud.containers.stops) == 1
    tried = [started.attempt for started in cloud.started if str(started.place) == place]
    assert tried == ([1, 2] if error == "Unheard.Of" else [1, 1, 2]), "what was stopped is tried again"
    assert ("STEP#01#build#1", "Dbt.Interrupted") in outcomes(cloud) or place == "0"
    assert [status for _, status, _ in steps(record)] == ["SUCCEEDED"] * 2


def test_first_task_may_end_well_while_the_second_is_refused(cloud: Cloud) -> None:
    def ends() -> None:
        for task in cloud.containers.at_work(RUN_ID):
            cloud.containers.end(task, SUCCEEDS.outcome, 0)

    cloud.before["StopTask"] = ends
    assert_succeeded(cloud, cloud.run(BUILD, {"RunStep": Fault("ECS.ServerException", times=1, performed=True)}))
    assert outcomes(cloud)[-1] == ("STEP#01#build#1", None)


def test_what_is_known_to_have_stopped_is_not_asked_for(cloud: Cloud) -> None:
    cloud.attempts["1"] = [Attempt(None, "States.TaskFailed", '{"TaskArn": "x", "StopCode": "SpotInterruption"}'), SUCCEEDS]
    execution = cloud.run(BUILD)
    assert_succeeded(cloud, execution)
    assert "CloseClaim" in execution.states and "StopTask" not in execution.states


# On Lambda, where nobody can be stopped


def test_invocation_that_outlives_its_state_is_waited_for(cloud: Cloud) -> None:
    execution = cloud.run(ON_LAMBDA, {"InvokeFunction": Fault("Unheard.Of", "connection reset", times=1, performed=True)})
    record = assert_failed(cloud, execution, "Dbt.RunnerError")
    assert "connection reset" in record["cause"]["S"]
    assert 900 <= sum(cloud.waits) <= 906 and cloud.containers.stops == []


def test_invocation_that_ends_while_it_is_waited_for_is_believed(cloud: Cloud) -> None:
    def ends() -> None:
        for one in cloud.containers.at_work(RUN_ID):
            cloud.containers.end(one, SUCCEEDS.outcome, 0)

    cloud.on_wait = ends
    fault = Fault("Lambda.SdkClientException", "connection reset", times=1, performed=True)
    assert_succeeded(cloud, cloud.run(ON_LAMBDA, {"InvokeFunction": fault}))
    assert outcomes(cloud)[-1] == ("STEP#01#build#1", None)


def test_second_invocation_of_an_attempt_does_nothing(cloud: Cloud) -> None:
    execution = cloud.run(ON_LAMBDA, {"InvokeFunction": Fault("Lambda.ServiceException", times=1, performed=True)})
    record = assert_failed(cloud, execution, "Dbt.RunnerError")
    assert "the invocation that was at work ended without an answer" in record["cause"]["S"]
    assert sum(cloud.waits) >= 900


# The execution was aborted


@pytest.mark.parametrize("ending", ["interrupted", "killed", "forgotten"])
@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED"])
def test_finalize_frees_the_lock_when_the_task_has_stopped(cloud: Cloud, status: str, ending: Ending) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.containers.start(containers.key(RUN_ID, 1, "build", 1), ending=ending)
    cloud.passes(600)
    finalized = cloud.finalize(event(status=status))
    assert finalized.error is None and cloud.lock() is None and cloud.containers.violations == []
    assert tuple(s for s in finalized.states if s in LOOKING) == LOOKING + LOOKING[-3:] * (2 if ending == "forgotten" else 0)
    assert cloud.announced == {RUN_ID: RUN_KEY} and "lock" not in dict(finalized.output)


def test_finalize_twice_changes_nothing(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.containers.start(containers.key(RUN_ID, 1, "build", 1))
    cloud.finalize(event(status="ABORTED"))
    before = cloud.items()
    assert cloud.finalize(event(status="ABORTED")).error is None
    assert cloud.items() == before
    assert len(cloud.containers.stops) == 1


def test_finalize_closes_out_a_task_that_comes_up_late(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.finalize(event(status="ABORTED"))
    assert cloud.containers.start(containers.key(RUN_ID, 50, "build", 10)).exit_code == 33


def test_finalize_that_sees_no_end_keeps_the_lock_and_says_so(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    stuck = cloud.containers.start(containers.key(RUN_ID, 1, "build", 1), ending="never")
    finalized = cloud.finalize(event(status="ABORTED"))
    assert dict(finalized.output)["lock"] == f"kept: task {stuck.name} of run {RUN_ID} could not be seen to stop"
    assert cloud.lock() is not None and cloud.announced == {RUN_ID: RUN_KEY}


def test_finalize_waits_for_an_invocation(cloud: Cloud) -> None:
    cloud.put(RUN_KEY, **OPEN)
    cloud.hold_lock(EXECUTION, RUN_ID)
    cloud.containers.start(containers.key(RUN_ID, 1, "build", 1), seconds=900)
    cloud.finalize(event(status="ABORTED"))
    assert cloud.lock() is None and cloud.containers.violations == []
    assert 900 <= sum(cloud.waits) <= 906


# Another run finds the lock of one that has ended


def left(cloud: Cloud, status: str | None, ending: Ending = "interrupted", seconds: float | None = None) -> None:
    """A run that has ended, with its lock and a container at work."""
    cloud.hold_lock()
    if status is not None:
        cloud.statuses[OTHER_EXECUTION] = status
    cloud.containers.start(containers.key(OTHER_RUN, 1, "build", 1), ending=ending, seconds=seconds)


@pytest.mark.parametrize("overlap", ["skip", "queue", "fail"])
@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED", None])
def test_lock_is_taken_over_when_the_owners_task_has_stopped(cloud: Cloud, status: str | None, overlap: str) -> None:
    cloud.configure(overlap=overlap)
    left(cloud, status)
    execution = cloud.run(BUILD)
    assert_succeeded(cloud, execution)
    assert "TakeOverLock" in execution.states and len(cloud.containers.stops) == 1
    assert claim_of(cloud, OTHER_RUN)["closed_up_to"] == {"N": "999999"}


def test_lock_whose_lease_is_over_is_taken_over_no_sooner(cloud: Cloud) -> None:
    left(cloud, "RUNNING")
    cloud.hold_lock(lease_until=1)
    execution = cloud.run(BUILD)
    assert_succeeded(cloud, execution)
    assert "DescribeHolder" not in execution.states and len(cloud.containers.stops) == 1


def test_lock_of_an_owner_on_lambda_is_taken_over_when_the_functions_time_is_over(cloud: Cloud) -> None:
    left(cloud, "ABORTED", seconds=600)
    assert_succeeded(cloud, cloud.run(BUILD))
    assert 600 <= sum(cloud.waits) <= 606


@pytest.mark.parametrize("how", ["does not stop", "cannot be asked for", "has no name"])
def test_lock_of_an_owner_that_may_be_at_work_is_not_taken_over(cloud: Cloud, how: str) -> None:
    left(cloud, "ABORTED", "never" if how == "does not stop" else "interrupted")
    if how == "has no name":
        key = {name: claim_of(cloud, OTHER_RUN)[name] for name in ("pk", "sk")}
        cloud.dynamodb.update_item(TableName=config()["table"], Key=key, UpdateExpression="REMOVE task")
    faults = {"DescribeTask": Fault("Ecs.AccessDeniedException")} if how == "cannot be asked for" else {}
    before = cloud.lock()
    record = assert_failed(cloud, cloud.run(BUILD, faults), "Dbt.EnvironmentBusy")
    assert record["cause"]["S"].startswith("run other has ended, but its lock is not taken over: ")
    assert cloud.lock() == before and cloud.started == []
