"""What is retried, with real signals to real processes: the run goes on where it was, and says how often it tried."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from dbt_runner.store import Item
from flow.support import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]


def start_slow_once(stack: Stack, flag: Path) -> str:
    document = {"steps": [{"name": "build", "commands": ["run --select fast slow_once"]}], "vars": {"flag": str(flag)}}
    execution = stack.start("local", document)
    stack.wait_until_slow_runs("local", execution)
    return execution


def assert_resumed(stack: Stack, execution: str, first_error: str) -> Item:
    """The run succeeded with its second attempt, which ran only what the first had not finished."""
    assert stack.execution_ended(execution)["status"] == "SUCCEEDED"
    record = stack.record("local", execution)
    build = json.loads(record["steps"])[1]
    assert (record["status"], build["attempts"], build["counts"]) == ("SUCCEEDED", 2, {"success": 2})
    first, second = [o for o in stack.outcomes("local", execution) if o["step"] == "build"]
    assert (first["error"], second.get("error")) == (first_error, None)
    nodes = stack.nodes("local", execution)
    assert {i.rsplit(".")[-1]: n["attempt"] for i, n in nodes.items()} == {"fast": 1, "slow_once": 2}
    key = record["artifacts"] + "build/2/run_results.json"
    results = json.loads(stack.client("s3").get_object(Bucket=stack.config("local").bucket, Key=key)["Body"].read())["results"]
    assert {r["unique_id"] for r in results} == set(nodes)
    return second


@pytest.mark.slow
def test_a_task_that_is_taken_away_is_resumed(stack: Stack, tmp_path: Path) -> None:
    execution = start_slow_once(stack, tmp_path / "flag")
    (tmp_path / "flag").touch()
    ecs = stack.client("ecs")
    [task] = running_tasks(stack)
    ecs.stop_task(cluster="dbt-local", task=task, reason="Your Spot Task was interrupted.")
    assert_resumed(stack, execution, "Dbt.Interrupted")


def test_a_worker_that_is_killed_is_resumed_on_the_same_size(stack: Stack, tmp_path: Path) -> None:
    """Nothing shows that its memory ran out, so that more of it is no remedy."""
    execution = start_slow_once(stack, tmp_path / "flag")
    (tmp_path / "flag").touch()
    os.kill(stack.worker_pid(execution, "build"), signal.SIGKILL)
    assert_resumed(stack, execution, "Dbt.Interrupted")
    sizes = [(o["taskOverride"].get("cpu"), o["taskOverride"].get("memory")) for o in task_inputs(stack, execution)]
    assert len(sizes) == 3 and sizes[-1] == sizes[-2]


@pytest.mark.slow
def test_a_container_that_is_killed_as_a_whole_is_resumed(stack: Stack, tmp_path: Path) -> None:
    """The supervisor writes no outcome then. What it had written before is not run again."""
    execution = start_slow_once(stack, tmp_path / "flag")
    wait_for("the result of fast", lambda: stack.nodes("local", execution) or None)
    (tmp_path / "flag").touch()
    os.kill(psutil.Process(stack.worker_pid(execution, "build")).ppid(), signal.SIGKILL)
    assert stack.execution_ended(execution)["status"] == "SUCCEEDED"
    assert {i.rsplit(".")[-1]: n["attempt"] for i, n in stack.nodes("local", execution).items()} == {"fast": 1, "slow_once": 2}
    assert json.loads(stack.record("local", execution)["steps"])[1]["attempts"] == 2


@pytest.mark.slow
def test_a_warehouse_that_is_not_there_for_a_moment_is_waited_for(stack: Stack) -> None:
    # Another process that has the file open keeps every connection out, as a warehouse that refuses connections does.
    path = stack.config("local").warehouse.settings["path"]
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import duckdb, sys; held = duckdb.connect({path!r}); print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        execution = stack.start("local", {"steps": [{"name": "build", "commands": ["run --select fast"]}]})
        wait_for("first refusal", lambda: next(iter(stack.outcomes("local", execution)), None))
    finally:
        holder.communicate()
    assert stack.execution_ended(execution)["status"] == "SUCCEEDED"
    check, build = json.loads(stack.record("local", execution)["steps"])
    assert check["attempts"] > 1 and build["attempts"] == 1
    assert stack.outcomes("local", execution)[0]["error"] == "Dbt.WarehouseUnavailable"


@pytest.mark.slow
def test_a_failed_test_is_never_tried_again(stack: Stack) -> None:
    execution, record = stack.run("local", {"steps": [{"name": "build", "commands": ["build --select wrong"]}]})
    assert execution["error"] == "Dbt.TestFailure"
    assert json.loads(record["steps"])[1]["attempts"] == 1


def running_tasks(stack: Stack) -> list[str]:
    ecs = stack.client("ecs")
    arns = ecs.list_tasks(cluster="dbt-local")["taskArns"]
    tasks = ecs.describe_tasks(cluster="dbt-local", tasks=arns)["tasks"] if arns else []
    return [task["taskArn"] for task in tasks if task["lastStatus"] == "RUNNING"]


def task_inputs(stack: Stack, execution: str) -> list[Any]:
    """What the state machine asked of ECS for each task of the run, as its history says."""
    history = stack.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=1000)["events"]
    parameters = [json.loads(e["taskScheduledEventDetails"]["parameters"]) for e in history if "taskScheduledEventDetails" in e]
    return [{"taskOverride": {k.lower(): v for k, v in p["Overrides"].items()}} for p in parameters if "Overrides" in p]
