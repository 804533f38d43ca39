"""A step whose state is over while its task is not, on the embedded AWS: another engine than that of tests/asl, real processes and signals.

The container claims and writes its outcome by the runner's own code, which the test calls for it when it says that it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from asl import render
from dbt_runner import claim
from dbt_runner.local.emulator import Emulator
from dbt_runner.request import AttemptKey
from dbt_runner.store import CLAIM, LOCK, Item, Store, environment_pk, run_pk
from local.support import World
from local.test_dbt_run_retries import config

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")

KEY = AttemptKey("test", "r1", 1, "build", 1)
SCRIPT = "trap 'echo stopped; exit 40' TERM; echo started; while true; do sleep 0.05; done"


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("logs"))
    world.emulator = Emulator(world.logs, on_line=lambda arn, line: said(world, arn, line), entry_point=("bash", "-c", SCRIPT))
    world.emulator.start()
    try:
        world.prepare()
        yield world
    finally:
        world.emulator.stop()


def store(world: World) -> Store:
    return Store(world.client("dynamodb"), world.client("s3"), world.client("dynamodb").list_tables()["TableNames"][0], None)


def said(world: World, task: str, line: str) -> None:
    """What the runner does in the container, which ends only when this has been done."""
    world.lines.append((task, line))
    if line == "started":
        claim.take(store(world), KEY, "fargate", task, None)
        return
    # Stopped: by then the lock must not be another one's.
    assert lock(world) is not None
    held = store(world).get(KEY.pk, CLAIM)
    assert held is not None and held["task"] == task
    outcome = {"error": "Dbt.Interrupted", "message": "SIGTERM", "exit_code": 40, "holder": held["holder"]}
    store(world).put({"pk": KEY.pk, "sk": KEY.outcome_sk, "step": "build", "attempt": 1, **outcome}, only_over="holder")
    world.lines.append((task, "wrote its outcome"))


def lock(world: World) -> Item | None:
    return store(world).get(environment_pk("test"), LOCK)


def machine(world: World, table: str) -> str:
    """The project's own definition with less patience."""
    announce = world.machine({"Hear": {"Type": "Succeed"}})
    definition = render.load("dbt_run.asl.json", {"partition": "aws", "table": table, "environment": "test", "announce": announce})
    states: dict[str, Any] = definition["States"]
    assert states["RunStep"]["TimeoutSeconds"] == "{% $step.timeout_seconds + 600 %}"
    states["RunStep"]["TimeoutSeconds"], states["AwaitTask"]["Seconds"] = 2, 1
    return world.machine(states, TimeoutSeconds=120)


def test_task_whose_state_is_over_is_stopped_and_the_lock_is_free_afterwards(world: World) -> None:
    table = world.table()
    store(world).put({"pk": environment_pk("test"), "sk": "CONFIG", "config": json.dumps(config(world))})
    given = {"release": "1.0.0", "steps": [{"name": "build", "commands": ["build"]}]}
    execution = world.ended(world.start(machine(world, table), given, name="r1"), seconds=60)

    assert (execution["status"], execution["error"]) == ("FAILED", "Dbt.Timeout"), execution.get("cause")
    assert "step build did not end in its time; SIGTERM" in execution["cause"]
    assert [line for _, line in world.lines] == ["started", "stopped", "wrote its outcome"]
    [(task, _), *_] = world.lines
    ended = world.task(task)
    assert (ended["lastStatus"], ended["stopCode"], ended["containers"][0]["exitCode"]) == ("STOPPED", "UserInitiated", 40)
    assert ended["stoppedReason"] == "Its state in the run has ended"
    assert lock(world) is None
    outcomes = list(store(world).query(run_pk("test", "r1"), "STEP#"))
    assert [(item["sk"], item["error"]) for item in outcomes] == [("STEP#01#build#1", "Dbt.Interrupted")]
    held = store(world).get(KEY.pk, CLAIM)
    assert held is not None and (held["place"], held["closed_up_to"]) == (1001, 1001)
