"""Two runs of one environment at once, by each policy; and a run that is aborted in its middle."""

from __future__ import annotations

import json

import pytest

from flow.support import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]

SLOW = {"steps": [{"name": "long", "commands": ["run --select fast slow"]}]}
QUICK = {"steps": [{"name": "quick", "commands": ["run --select fast"]}]}


def test_skip_ends_the_second_run_at_once_and_an_aborted_one_stops_its_task_and_is_closed(stack: Stack) -> None:
    execution = stack.start("local", SLOW)
    stack.wait_until_slow_runs("local", execution)
    lock = stack.lock("local")
    assert lock is not None and lock.owner == execution
    second, skipped = stack.run("local", QUICK)
    assert (second["status"], skipped["status"]) == ("SUCCEEDED", "SKIPPED")
    assert execution.rsplit(":", 1)[1] in skipped["cause"]
    assert json.loads(second["output"])["status"] == "SKIPPED"
    assert stack.outcomes("local", second["executionArn"]) == []
    stack.abort(execution)

    assert stack.execution_ended(execution)["status"] == "ABORTED"
    record = stack.record("local", execution)
    assert (record["status"], record["error"]) == ("ABORTED", "Dbt.Interrupted")
    # The container is told, cancels its query, and writes what it knows before it goes.
    outcome = wait_for("outcome", lambda: next((o for o in stack.outcomes("local", execution) if o["step"] == "long"), None), 60)
    assert (outcome["error"], outcome["exit_code"]) == ("Dbt.Interrupted", 40)
    assert stack.nodes("local", execution)["model.shop.fast"]["status"] == "success"
    wait_for("free lock", lambda: True if stack.lock("local") is None else None, 60)
    assert _running_tasks(stack, "local") == [], "the lock is free when the task has stopped, and no sooner"


@pytest.mark.slow
def test_fail_ends_the_second_run_with_an_error_and_another_environment_does_not_wait(stack: Stack) -> None:
    first = stack.start("busy", SLOW)
    stack.wait_until_slow_runs("busy", first)
    execution, record = stack.run("busy", QUICK)
    assert (execution["error"], record["error"]) == ("Dbt.EnvironmentBusy", "Dbt.EnvironmentBusy")
    lock = stack.lock("busy")
    assert lock is not None and lock.owner == first
    other, _ = stack.run("local", QUICK)
    assert other["status"] == "SUCCEEDED"
    _end(stack, "busy", first)


def test_queue_lets_the_second_run_wait_for_the_first(stack: Stack) -> None:
    first = stack.start("queue", SLOW)
    stack.wait_until_slow_runs("queue", first)
    second = stack.start("queue", QUICK)
    wait_for("second run in the queue", lambda: True if "Queue" in _states(stack, second) else None, 30)
    lock = stack.lock("queue")
    assert lock is not None and lock.owner == first
    _end(stack, "queue", first)
    assert stack.execution_ended(second)["status"] == "SUCCEEDED"
    assert stack.record("queue", second)["started_at"] < stack.record("queue", first)["ended_at"]


def _end(stack: Stack, environment: str, execution: str) -> None:
    stack.abort(execution)
    stack.record(environment, execution)
    wait_for("stopped task", lambda: True if not _running_tasks(stack, environment) else None, 60)


def _states(stack: Stack, execution: str) -> set[str]:
    history = stack.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=1000)["events"]
    return {event["stateEnteredEventDetails"]["name"] for event in history if "stateEnteredEventDetails" in event}


def _running_tasks(stack: Stack, environment: str) -> list[str]:
    """Tasks of an environment's cluster that have not stopped. A stopped one is listed too, with its last status."""
    ecs = stack.client("ecs")
    cluster = f"dbt-{environment}"
    arns = ecs.list_tasks(cluster=cluster)["taskArns"]
    tasks = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return [task["taskArn"] for task in tasks if task["lastStatus"] != "STOPPED"]
