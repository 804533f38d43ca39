"""Steps on Lambda: where they run, what is made of what the function answers or fails with, and what goes on on Fargate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asl.endings import assert_failed, assert_succeeded, steps
from asl.fakes import RUN_KEY, SUCCEEDS, Attempt, Cloud, Item, fails

SIZES = [{"cpu": 512, "memory": 1024}, {"cpu": 1024, "memory": 2048}, {"cpu": 2048, "memory": 8192}]
UNAVAILABLE = fails("Dbt.WarehouseUnavailable", 20, "connection refused")
TIME_IS_OVER = fails("Dbt.Interrupted", 40, "the function's time is over")
KILLED = Attempt(
    None, "Sandbox.Timedout", '{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 1 Error: Task timed out after 900.00 seconds"}'
)
NO_MEMORY = '{"errorType":"Runtime.ExitError","errorMessage":"RequestId: 1 Error: Runtime exited with error: signal: killed"}'
OUT_OF_MEMORY = Attempt(None, "Runtime.ExitError", NO_MEMORY)


def step(name: str = "build", **changes: object) -> dict[str, Any]:
    return {"name": name, "commands": ["build"], "compute": "lambda", **changes}


def run(cloud: Cloud, *given: dict[str, Any], health_check: str = "lambda", **compute: object) -> Any:
    cloud.configure(
        health_check={"enabled": True, "compute": health_check, "timeout_seconds": 60},
        compute={**cloud.config()["compute"], "sizes": SIZES, **compute},
    )
    return cloud.run({"steps": list(given) or [step()]})


def ran(cloud: Cloud) -> list[tuple[int, int, str]]:
    """Place, attempt and capacity of everything that ran."""
    return [(started.place, started.attempt, started.capacity) for started in cloud.started]


def told(record: Item) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(record["steps"]["S"])
    return found


# Where


def test_run_on_lambda_starts_no_task(cloud: Cloud) -> None:
    record = assert_succeeded(cloud, run(cloud, step("freshness"), step("build")))
    assert ran(cloud) == [(0, 1, "LAMBDA"), (1, 1, "LAMBDA"), (2, 1, "LAMBDA")]
    assert [name for name, _, _ in steps(record)] == ["health_check", "freshness", "build"]


def test_step_says_where_it_runs_and_the_environment_says_it_for_the_others(cloud: Cloud) -> None:
    others = {"name": "others", "commands": ["build"]}
    execution = run(cloud, step("own", compute="fargate"), others, health_check="fargate", type="lambda")
    assert_succeeded(cloud, execution)
    assert ran(cloud) == [(0, 1, "FARGATE_SPOT"), (1, 1, "FARGATE_SPOT"), (2, 1, "LAMBDA")]


def test_function_gets_a_pointer_and_not_the_request(cloud: Cloud) -> None:
    execution = run(cloud, step("first"), step("second"))
    sent = [call.arguments["Payload"] for call in execution.calls if call.state == "InvokeFunction"]
    assert sent == [{"run_key": RUN_KEY, "step": place, "attempt": 1} for place in (0, 1, 2)]


def test_step_on_lambda_is_refused_where_there_is_no_function(cloud: Cloud) -> None:
    cloud.configure(**{"lambda": None})
    record = assert_failed(cloud, cloud.run({"steps": [step()]}), "Dbt.InvalidRequest")
    assert "has no function" in record["cause"]["S"] and cloud.started == []


def test_step_of_a_job_runs_on_fargate_where_the_function_is_gone(cloud: Cloud) -> None:
    """A run that is resumed has steps of a time when there was one."""
    config = cloud.config()
    config["jobs"]["hourly"]["steps"][1]["compute"] = "lambda"
    cloud.configure(jobs=config["jobs"], **{"lambda": None})
    assert_succeeded(cloud, cloud.run({"job": "hourly"}))
    assert {capacity for _, _, capacity in ran(cloud)} == {"FARGATE_SPOT"}


# What the function answers


@pytest.mark.parametrize(
    ("attempt", "error", "evidence"),
    [
        (KILLED, "Dbt.Timeout", "did not end in its time"),
        (Attempt(None, "States.Timeout"), "Dbt.Timeout", "did not end in its time"),
        (Attempt(None, "Lambda.Unknown", "Error: Task timed out after 900.00 seconds"), "Dbt.Timeout", "Task timed out"),
        (OUT_OF_MEMORY, "Dbt.OutOfMemory", "the function has 2048 MiB"),
        (Attempt(None, "Runtime.OutOfMemory", "RequestId: 1"), "Dbt.OutOfMemory", "the function has 2048 MiB"),
        (Attempt(None, "Runtime.ExitError", "exit status 1"), "Dbt.RunnerError", "exit status 1"),
        (Attempt(None, "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"), "Dbt.RunnerError", "segmentation"),
        (Attempt(None, "TypedError", "a text that names OutOfMemory"), "Dbt.RunnerError", "a text that names"),
        (Attempt(None, "TypedError", "Dbt.RunnerError: the event must be"), "Dbt.RunnerError", "the event must be"),
        (Attempt(None, "Unheard.Of", "connection reset"), "Dbt.RunnerError", "connection reset"),
        (Attempt(None, "Lambda.AccessDeniedException", "no identity-based policy"), "Dbt.RunnerError", "no identity-based policy"),
        (Attempt(None), "Dbt.RunnerError", "no outcome"),
    ],
    ids=lambda value: value.error or "no outcome" if isinstance(value, Attempt) else "",
)
def test_function_without_outcome_is_judged_by_what_lambda_says(cloud: Cloud, attempt: Attempt, error: str, evidence: str) -> None:
    cloud.attempts["1"] = attempt
    record = assert_failed(cloud, run(cloud), error)
    assert evidence in record["cause"]["S"] and told(record)[-1]["attempts"] == 1
    assert [call for call in ran(cloud) if call[0] == 1] == [(1, 1, "LAMBDA")]


def test_outcome_is_believed_over_the_answer(cloud: Cloud) -> None:
    cloud.attempts["1"] = Attempt(fails("Dbt.TestFailure", 11).outcome, "Runtime.ExitError", "exit status 1")
    assert_failed(cloud, run(cloud), "Dbt.TestFailure")


def test_error_that_can_pass_is_tried_again_on_lambda(cloud: Cloud) -> None:
    cloud.attempts["0"] = cloud.attempts["1"] = [UNAVAILABLE, UNAVAILABLE, SUCCEEDS]
    record = assert_succeeded(cloud, run(cloud, step(on_timeout="fargate")))
    assert ran(cloud) == [(place, attempt, "LAMBDA") for place in (0, 1) for attempt in (1, 2, 3)]
    assert [result["attempts"] for result in told(record)] == [3, 3]


@pytest.mark.parametrize("said", ["signal: terminated", "exit status 137", "exit status 143"])
def test_runtime_that_was_stopped_is_tried_again(cloud: Cloud, said: str) -> None:
    cloud.attempts["1"] = [Attempt(None, "Runtime.ExitError", f"RequestId: 1 Error: Runtime exited with error: {said}"), SUCCEEDS]
    assert told(assert_succeeded(cloud, run(cloud)))[-1]["attempts"] == 2
    assert ran(cloud)[1:] == [(1, 1, "LAMBDA"), (1, 2, "LAMBDA")]


def test_refused_invocation_is_repeated_and_is_no_attempt(cloud: Cloud) -> None:
    cloud.attempts["1"] = [Attempt(None, "Lambda.TooManyRequestsException")] * 8 + [SUCCEEDS]
    record = assert_succeeded(cloud, run(cloud))
    assert told(record)[-1]["attempts"] == 1 and cloud.waits == []


def test_refusal_that_lasts_ends_the_step_with_its_reason(cloud: Cloud) -> None:
    cloud.attempts["1"] = Attempt(None, "Lambda.TooManyRequestsException", "Rate Exceeded")
    execution = run(cloud)
    record = assert_failed(cloud, execution, "Dbt.RunnerError")
    assert "Refused: Lambda.TooManyRequestsException: Rate Exceeded" in record["cause"]["S"]
    assert [call.state for call in execution.calls].count("InvokeFunction") == 1 + 9


# What goes on on Fargate


@pytest.mark.parametrize("outgrown", [TIME_IS_OVER, KILLED, Attempt(None, "States.Timeout")], ids=["said so", "killed", "no answer"])
@pytest.mark.parametrize("most", [1, 3])
def test_step_that_outgrows_lambda_goes_on_on_fargate_whatever_its_attempts(cloud: Cloud, outgrown: Attempt, most: int) -> None:
    cloud.attempts["1"] = [outgrown, SUCCEEDS]
    cloud.configure(retry={"max_attempts": most, "interval_seconds": 30, "backoff_rate": 2})
    config = cloud.config()
    cloud.configure(
        retry=config["retry"],
        health_check={**config["health_check"], "compute": "lambda"},
        compute={**config["compute"], "sizes": SIZES, "spot": False},
    )
    record = assert_succeeded(cloud, cloud.run({"steps": [step(on_timeout="fargate"), step("next")]}))
    assert ran(cloud) == [(0, 1, "LAMBDA"), (1, 1, "LAMBDA"), (1, 2, "FARGATE"), (2, 1, "LAMBDA")]
    assert cloud.started[2].size == (512, 1024)
    assert [result["attempts"] for result in told(record)] == [1, 2, 1]
    assert sum(cloud.waits) == 0, "what has ended by itself is not waited for"


def test_step_that_moved_has_what_is_left_of_its_attempts_there(cloud: Cloud) -> None:
    cloud.attempts["1"] = [TIME_IS_OVER, UNAVAILABLE, UNAVAILABLE, SUCCEEDS]
    record = assert_failed(cloud, run(cloud, step(on_timeout="fargate")), "Dbt.WarehouseUnavailable")
    assert ran(cloud)[1:] == [(1, 1, "LAMBDA"), (1, 2, "FARGATE_SPOT"), (1, 3, "FARGATE")]
    assert told(record)[-1]["attempts"] == 3


@pytest.mark.parametrize(("memory", "size"), [(2048, (2048, 8192)), (1536, (1024, 2048)), (10240, (2048, 8192))])
def test_step_that_needs_more_memory_gets_the_first_size_that_has_it(cloud: Cloud, memory: int, size: tuple[int, int]) -> None:
    cloud.configure(**{"lambda": {**cloud.config()["lambda"], "memory": memory}})
    cloud.attempts["1"] = [OUT_OF_MEMORY, SUCCEEDS]
    config = cloud.config()
    cloud.configure(
        **{"lambda": config["lambda"]},
        compute={**config["compute"], "sizes": SIZES},
        health_check={**config["health_check"], "enabled": False},
    )
    assert_succeeded(cloud, cloud.run({"steps": [step(on_timeout="fargate")]}))
    assert [started.size for started in cloud.started] == [(0, memory), size]


@pytest.mark.parametrize("outgrown", [KILLED, fails("Dbt.Timeout", 42), OUT_OF_MEMORY], ids=["killed", "said so", "memory"])
def test_step_that_outgrows_lambda_ends_there_by_default(cloud: Cloud, outgrown: Attempt) -> None:
    cloud.attempts["1"] = [outgrown, SUCCEEDS]
    execution = run(cloud)
    assert_failed(cloud, execution, "Dbt.OutOfMemory" if outgrown is OUT_OF_MEMORY else "Dbt.Timeout")
    assert ran(cloud)[1:] == [(1, 1, "LAMBDA")]


def test_step_whose_own_time_is_over_does_not_go_on(cloud: Cloud) -> None:
    cloud.attempts["1"] = [fails("Dbt.Timeout", 42, "the step did not end in its time"), SUCCEEDS]
    assert_failed(cloud, run(cloud, step(on_timeout="fargate")), "Dbt.Timeout")
    assert ran(cloud)[1:] == [(1, 1, "LAMBDA")]


def test_environment_says_for_its_steps_whether_they_go_on(cloud: Cloud) -> None:
    cloud.attempts["1"] = cloud.attempts["2"] = [TIME_IS_OVER, SUCCEEDS]
    run(cloud, step("first"), step("second", on_timeout="fail"), on_timeout="fargate")
    assert ran(cloud)[1:] == [(1, 1, "LAMBDA"), (1, 2, "FARGATE_SPOT"), (2, 1, "LAMBDA"), (2, 2, "LAMBDA")]
