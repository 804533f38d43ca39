"""What is tried again, how often, after how long, and on what: by the attempt, by the start of a task, and by the call of RunTask."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asl import error_names, render
from asl.endings import MOST_STARTS, assert_failed, assert_succeeded, steps
from asl.fakes import SUCCEEDS, Attempt, Cloud, Fault, Item, dies, fails, stopped
from dbt_runner.errors import ERRORS, ErrorKind

HOURLY = {"job": "hourly"}
BUILD = 2
"""The place of the job's last step."""
SIZES = [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}, {"cpu": 4096, "memory": 16384}]
RETRYABLE = [kind for kind in ERRORS.values() if kind.retryable]
UNAVAILABLE = fails("Dbt.WarehouseUnavailable", 20, "connection refused")
OUT_OF_MEMORY = fails("Dbt.OutOfMemory", 41, "4.0 of 4.0 GiB were in use")
KILLED_FOR_MEMORY = dies(stopped(137, container_reason="OutOfMemoryError: Container killed due to memory usage"))
NO_IMAGE = dies(stopped(None, code="TaskFailedToStart", reason="CannotPullContainerError: i/o timeout"))
NO_CAPACITY = Attempt(None, "ECS.AmazonECSException", "Capacity is unavailable at this time")
RUN_TASK = "arn:aws:states:::ecs:runTask.sync"
PASSING = sorted(error_names.passing(RUN_TASK))
DOUBTFUL = sorted(error_names.perhaps_passing(RUN_TASK))


def one_daily(errors: list[str], *more: int) -> list[Any]:
    """A parameter for each error; the first one stands for all in the default run, because one list of a Retry has them all."""
    return [pytest.param(*(error, *more), id=error, marks=[pytest.mark.slow] * (error != errors[0])) for error in errors]


each_place = pytest.mark.parametrize("place", [0, BUILD])
each_state = pytest.mark.parametrize(("state", "place"), [("HealthCheck", 0), ("RunStep", BUILD)])
at_both_ends = pytest.mark.parametrize("random", [0.0, 0.999999999])
"""What $random gives at the ends of its range."""


def compute(cloud: Cloud, *, sizes: int = 1, spot: bool = True) -> dict[str, Any]:
    return {**cloud.config()["compute"], "sizes": SIZES[:sizes], "spot": spot}


def retry(max_attempts: int, interval_seconds: int = 30, backoff_rate: float = 2) -> dict[str, float]:
    return {"max_attempts": max_attempts, "interval_seconds": interval_seconds, "backoff_rate": backoff_rate}


def tried(cloud: Cloud, place: int = BUILD) -> list[int]:
    """The attempts of a step for which a task was started."""
    return [started.attempt for started in cloud.started if started.place == place]


def told(record: Item) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(record["steps"]["S"])
    return found


# Attempts


def test_definition_retries_what_the_table_of_errors_calls_retryable() -> None:
    assert render.load("dbt_run.asl.json")["States"]["Prepare"]["Assign"]["retryable"] == [kind.name for kind in RETRYABLE]


@pytest.mark.parametrize("attempt", [1, pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("kind", [kind for kind in ERRORS.values() if kind.name != "Dbt.EnvironmentBusy"], ids=lambda kind: kind.name)
def test_error_is_retried_exactly_where_it_can_pass_and_an_attempt_is_left(cloud: Cloud, kind: ErrorKind, attempt: int) -> None:
    cloud.configure(compute=compute(cloud, sizes=3))
    cloud.attempts[str(BUILD)] = [UNAVAILABLE] * (attempt - 1) + [fails(kind.name, kind.exit_code), SUCCEEDS]
    execution = cloud.run(HOURLY)
    if kind.retryable and attempt < 3:
        record = assert_succeeded(cloud, execution)
        assert tried(cloud) == list(range(1, attempt + 2))
    else:
        record = assert_failed(cloud, execution, kind.name)
        assert tried(cloud) == list(range(1, attempt + 1))
    assert told(record)[-1]["attempts"] == tried(cloud)[-1]


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param(dies(stopped(None, code="SpotInterruption", reason="Your Spot Task was interrupted.")), id="spot"),
        pytest.param(dies(stopped(143)), id="SIGTERM"),
        pytest.param(dies(stopped(137)), id="SIGKILL"),
        pytest.param(dies(stopped(20)), id="exit code"),
    ],
)
def test_error_that_ecs_tells_of_is_retried_like_one_of_an_outcome(cloud: Cloud, attempt: Attempt) -> None:
    cloud.attempts[str(BUILD)] = [attempt, SUCCEEDS]
    assert told(assert_succeeded(cloud, cloud.run(HOURLY)))[-1]["attempts"] == 2


@pytest.mark.parametrize("attempt", [dies(stopped(139)), dies(stopped(11)), Attempt(None, "States.Timeout"), Attempt(None)])
def test_task_without_outcome_is_not_retried_for_that_alone(cloud: Cloud, attempt: Attempt) -> None:
    cloud.attempts[str(BUILD)] = [attempt, SUCCEEDS]
    execution = cloud.run(HOURLY)
    assert execution.error is not None
    assert_failed(cloud, execution, execution.error)
    assert tried(cloud) == [1]


def test_run_whose_second_attempt_succeeds_is_a_run_that_succeeded(cloud: Cloud) -> None:
    cloud.attempts[str(BUILD)] = [UNAVAILABLE, SUCCEEDS]
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert steps(record) == [("health_check", "SUCCEEDED", None), ("freshness", "SUCCEEDED", None), ("build", "SUCCEEDED", None)]
    assert [step["attempts"] for step in told(record)] == [1, 1, 2]
    outcomes = [item for item in cloud.items() if item["sk"]["S"].startswith("STEP#02#")]
    assert [(item["sk"]["S"], item.get("error", {}).get("S")) for item in outcomes] == [
        ("STEP#02#build#1", "Dbt.WarehouseUnavailable"),
        ("STEP#02#build#2", None),
    ]


def test_health_check_is_retried_as_step_0(cloud: Cloud) -> None:
    cloud.attempts["0"] = [UNAVAILABLE, UNAVAILABLE, SUCCEEDS]
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert [(started.place, started.attempt, started.command) for started in cloud.started] == [
        (0, 1, ["check"]),
        (0, 2, ["check"]),
        (0, 3, ["check"]),
        (1, 1, ["step"]),
        (2, 1, ["step"]),
    ]
    assert [step["attempts"] for step in told(record)] == [3, 1, 1]


def test_step_that_may_fail_is_given_up_when_its_attempts_are_used_up(cloud: Cloud) -> None:
    cloud.attempts["1"] = UNAVAILABLE
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert (tried(cloud, 1), tried(cloud)) == ([1, 2, 3], [1])
    assert told(record)[1]["attempts"] == 3
    assert steps(record)[1] == ("freshness", "FAILED", "Dbt.WarehouseUnavailable")


def test_each_step_has_attempts_of_its_own(cloud: Cloud) -> None:
    for place in ("0", "1", "2"):
        cloud.attempts[place] = [UNAVAILABLE, UNAVAILABLE, SUCCEEDS]
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert [step["attempts"] for step in told(record)] == [3, 3, 3]


# Back-off


@at_both_ends
@pytest.mark.parametrize(
    ("interval", "rate", "longest"),
    [
        (30, 2, [30, 60, 120, 240, 480, 900, 900, 900, 900]),
        (1, 1, [1] * 9),
        (3, 1.5, [3, 4, 6, 10, 15, 22, 34, 51, 76]),
        (3600, 10, [900] * 9),
    ],
)
def test_back_off_is_drawn_between_a_second_and_its_bound(
    cloud: Cloud, interval: int, rate: float, longest: list[int], random: float
) -> None:
    cloud.configure(retry=retry(10, interval, rate))
    cloud.attempts["0"] = UNAVAILABLE
    cloud.random = random
    assert_failed(cloud, cloud.run(HOURLY), "Dbt.WarehouseUnavailable")
    assert cloud.waits == (longest if random else [1] * 9)


def test_run_that_needs_no_retry_waits_for_nothing(cloud: Cloud) -> None:
    assert_succeeded(cloud, cloud.run(HOURLY))
    assert cloud.waits == []


# Sizes


def test_out_of_memory_moves_to_the_next_size_for_the_rest_of_the_step(cloud: Cloud) -> None:
    cloud.configure(compute=compute(cloud, sizes=3), retry=retry(4))
    cloud.attempts["1"] = [OUT_OF_MEMORY, UNAVAILABLE, KILLED_FOR_MEMORY, SUCCEEDS]
    assert_succeeded(cloud, cloud.run(HOURLY))
    assert [(started.place, started.size) for started in cloud.started] == [
        (0, (1024, 4096)),
        (1, (1024, 4096)),
        (1, (2048, 8192)),
        (1, (2048, 8192)),
        (1, (4096, 16384)),
        (2, (1024, 4096)),
    ]


@pytest.mark.parametrize("sizes", [1, 3])
def test_kill_without_evidence_of_memory_is_tried_again_on_the_same_size(cloud: Cloud, sizes: int) -> None:
    cloud.configure(compute=compute(cloud, sizes=sizes))
    cloud.attempts[str(BUILD)] = [dies(stopped(137)), dies(stopped(137)), SUCCEEDS]
    assert told(assert_succeeded(cloud, cloud.run(HOURLY)))[-1]["attempts"] == 3
    assert {started.size for started in cloud.started} == {(1024, 4096)}


@pytest.mark.parametrize("sizes", [1, 2])
def test_out_of_memory_at_the_largest_size_ends_the_step_and_says_so(cloud: Cloud, sizes: int) -> None:
    cloud.configure(compute=compute(cloud, sizes=sizes), retry=retry(10))
    cloud.attempts[str(BUILD)] = OUT_OF_MEMORY
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.OutOfMemory")
    largest = SIZES[sizes - 1]
    message = f"no larger size is left than {largest['cpu']} CPU units and {largest['memory']} MiB: 4.0 of 4.0 GiB were in use"
    assert tried(cloud) == list(range(1, sizes + 1))
    assert told(record)[-1]["message"] == message
    assert record["cause"]["S"] == f"build: {message}"


def test_out_of_memory_on_the_last_attempt_does_not_blame_the_sizes(cloud: Cloud) -> None:
    cloud.configure(compute=compute(cloud, sizes=3), retry=retry(2))
    cloud.attempts[str(BUILD)] = OUT_OF_MEMORY
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.OutOfMemory")
    assert told(record)[-1]["message"] == "4.0 of 4.0 GiB were in use"


# Capacity


@pytest.mark.parametrize(
    ("spot", "max_attempts", "capacity"),
    [
        (True, 3, ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]),
        (True, 2, ["FARGATE_SPOT", "FARGATE"]),
        (True, 1, ["FARGATE_SPOT"]),
        (False, 2, ["FARGATE", "FARGATE"]),
        (False, 1, ["FARGATE"]),
    ],
)
@each_place
def test_last_of_several_attempts_leaves_spot(cloud: Cloud, place: int, spot: bool, max_attempts: int, capacity: list[str]) -> None:
    cloud.configure(compute=compute(cloud, spot=spot), retry=retry(max_attempts))
    cloud.attempts[str(place)] = fails("Dbt.Interrupted", 40)
    assert_failed(cloud, cloud.run(HOURLY), "Dbt.Interrupted")
    assert [started.capacity for started in cloud.started if started.place == place] == capacity


# Calls of RunTask


@pytest.mark.parametrize("error", [*one_daily(PASSING), *one_daily(DOUBTFUL)])
@each_place
def test_refused_call_is_repeated_and_is_no_attempt(cloud: Cloud, place: int, error: str) -> None:
    cloud.attempts[str(place)] = [Attempt(None, error)] * 2 + [UNAVAILABLE] + [Attempt(None, error)] * 2 + [SUCCEEDS]
    execution = cloud.run(HOURLY)
    record = assert_succeeded(cloud, execution)
    assert tried(cloud, place) == [1, 2]
    assert {step["step"]: step["attempts"] for step in told(record)}["health_check" if place == 0 else "build"] == 2
    assert len(cloud.waits) == 1


@pytest.mark.parametrize(("error", "calls"), [*one_daily(PASSING, 9), *one_daily(DOUBTFUL, 3)])
@pytest.mark.parametrize("spot", [True, False])
@each_state
def test_refusal_that_lasts_ends_the_step_with_its_reason(cloud: Cloud, state: str, place: int, spot: bool, error: str, calls: int) -> None:
    """Spot may be what has no capacity: on demand is tried before the step is given up."""
    cloud.configure(compute=compute(cloud, spot=spot))
    cloud.attempts[str(place)] = Attempt(None, error, "told to refuse")
    execution = cloud.run(HOURLY)
    record = assert_failed(cloud, execution, "Dbt.RunnerError")
    asked = [call.arguments for call in execution.calls if call.state == state]
    asked = asked[1:] if state == "RunStep" else asked  # The step before.
    capacity = [arguments["CapacityProviderStrategy"][0]["CapacityProvider"] for arguments in asked]
    assert capacity == (["FARGATE_SPOT"] * calls if spot else []) + ["FARGATE"] * calls
    assert f"Refused: {error}: told to refuse" in record["cause"]["S"]
    assert told(record)[-1]["attempts"] == 1


@each_place
def test_spot_without_capacity_is_left_for_that_attempt(cloud: Cloud, place: int) -> None:
    cloud.attempts[str(place)] = [NO_CAPACITY] * 9 + [UNAVAILABLE, SUCCEEDS]
    assert_succeeded(cloud, cloud.run(HOURLY))
    assert [started.capacity for started in cloud.started if started.place == place] == ["FARGATE", "FARGATE_SPOT"]


@pytest.mark.parametrize(
    "error",
    [
        "ECS.AccessDeniedException",
        "ECS.ClusterNotFoundException",
        "States.TaskFailed",
        "States.Timeout",
        "States.Permissions",
        "States.QueryEvaluationError",
        "Unheard.Of",
    ],
)
@each_state
def test_call_that_will_never_start_a_task_is_not_repeated(cloud: Cloud, state: str, place: int, error: str) -> None:
    execution = cloud.run({"steps": [{"name": "build", "commands": ["build"]}]}, {state: Fault(error)})
    assert_failed(cloud, execution, "Dbt.Timeout" if error == "States.Timeout" else "Dbt.RunnerError")
    assert [call.state for call in execution.calls].count(state) == 1


# Starts of tasks


@pytest.mark.parametrize("failed", range(1, MOST_STARTS))
@each_place
def test_task_that_does_not_start_is_started_again_and_is_no_attempt(cloud: Cloud, place: int, failed: int) -> None:
    cloud.attempts[str(place)] = [NO_IMAGE] * failed + [SUCCEEDS]
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert tried(cloud, place) == [1] * (failed + 1)
    assert {step["attempts"] for step in told(record)} == {1}


@each_place
def test_task_that_never_starts_ends_the_step_with_its_reason(cloud: Cloud, place: int) -> None:
    cloud.attempts[str(place)] = NO_IMAGE
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert tried(cloud, place) == [1] * MOST_STARTS
    assert told(record)[-1]["attempts"] == 1
    assert told(record)[-1]["message"] == ("the task left no outcome in 5 starts: TaskFailedToStart: CannotPullContainerError: i/o timeout")


@at_both_ends
def test_starts_back_off_whatever_the_attempts_do(cloud: Cloud, random: float) -> None:
    cloud.configure(retry=retry(3, 1, 1))
    cloud.attempts["0"] = NO_IMAGE
    cloud.random = random
    assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert cloud.waits == ([15, 30, 60, 120] if random else [1] * 4)


def test_each_attempt_has_starts_of_its_own(cloud: Cloud) -> None:
    cloud.attempts[str(BUILD)] = ([NO_IMAGE] * 4 + [UNAVAILABLE]) * 2 + [NO_IMAGE] * 4 + [SUCCEEDS]
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert tried(cloud) == [1] * 5 + [2] * 5 + [3] * 5
    assert told(record)[-1]["attempts"] == 3


def test_step_that_may_fail_may_never_start(cloud: Cloud) -> None:
    cloud.attempts["1"] = NO_IMAGE
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert steps(record)[1] == ("freshness", "FAILED", "Dbt.RunnerError")


def test_container_that_ran_is_not_started_again_though_another_one_of_its_task_failed_to_start(cloud: Cloud) -> None:
    cloud.attempts[str(BUILD)] = [dies(stopped(1, code="TaskFailedToStart", reason="a sidecar did not start")), SUCCEEDS]
    assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert tried(cloud) == [1]
