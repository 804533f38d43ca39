"""dbt_run tries a step again on the embedded AWS: another engine than that of tests/asl, with real tasks and a real wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from asl import render
from asl.test_variables import TELLING, same
from dbt_runner import variables
from dbt_runner.local.emulator import Emulator
from local.support import World

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")

# What a container does: the first attempt is killed, the second one ends well.
SCRIPT = 'echo "$0 $DBT_RUNNER_STEP $DBT_RUNNER_ATTEMPT"; [ "$DBT_RUNNER_ATTEMPT" = 2 ] || kill -9 $$'
SIZES = [{"cpu": 256, "memory": 512}, {"cpu": 512, "memory": 1024}]


@pytest.fixture
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose containers run the script, with their command as its name."""
    world = World(tmp_path_factory.mktemp("logs"))
    world.emulator = Emulator(world.logs, on_line=lambda arn, line: world.lines.append((arn, line)), entry_point=("bash", "-c", SCRIPT))
    world.emulator.start()
    try:
        world.prepare()
        yield world
    finally:
        world.emulator.stop()


def config(world: World) -> dict[str, Any]:
    """The fields of CONFIG that the state machine reads."""
    return {
        "compute": {"sizes": SIZES, "spot": True},
        "health_check": {"enabled": False, "timeout_seconds": 60},
        "retry": {"max_attempts": 2, "interval_seconds": 1, "backoff_rate": 1},
        "overlap": "fail",
        "timeout_seconds": 60,
        "jobs": {},
        "ecs": {
            "cluster": "cluster",
            "task_definition": world.task_definition,
            "container": "dbt",
            "subnets": [world.subnet],
            "security_groups": ["sg-1"],
            "assign_public_ip": "DISABLED",
        },
    }


def test_step_that_ran_out_of_memory_succeeds_with_more_of_it(containers: World) -> None:
    world, table = containers, containers.table()
    environment = {"pk": {"S": "ENV#test"}}
    dynamodb = world.client("dynamodb")
    dynamodb.put_item(TableName=table, Item={**environment, "sk": {"S": "CONFIG"}, "config": {"S": json.dumps(config(world))}})
    # The outcomes that the attempts would write: the supervisor of the first one has seen its worker killed for its memory.
    killed = {"exit_code": {"N": "41"}, "error": {"S": "Dbt.OutOfMemory"}, "message": {"S": "0.5 of 0.5 GiB were in use"}}
    for attempt, said in enumerate((killed, {"exit_code": {"N": "0"}}), start=1):
        place = {"pk": {"S": "RUN#test#r1"}, "sk": {"S": f"STEP#01#build#{attempt}"}}
        dynamodb.put_item(TableName=table, Item={**place, **said, "seconds": {"N": "1"}})
    announce = world.machine({"Hear": {"Type": "Succeed"}})
    definition = render.load("dbt_run.asl.json", {"partition": "aws", "table": table, "environment": "test", "announce": announce})

    machine = world.machine(definition["States"], TimeoutSeconds=60)
    given = {"release": "1.0.0", "steps": [{"name": "build", "commands": ["build"]}], "vars": json.dumps(TELLING)}
    execution = world.ended(world.start(machine, given, name="r1"), seconds=30)

    assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))
    assert [line for _, line in world.lines] == ["step 1 1", "step 1 2"]
    first, second = (world.task(arn) for arn, _ in world.lines)
    assert [(task["overrides"]["cpu"], task["overrides"]["memory"]) for task in (first, second)] == [("256", "512"), ("512", "1024")]
    found = dynamodb.query(
        TableName=table,
        KeyConditionExpression="pk = :pk AND begins_with(sk, :run)",
        ExpressionAttributeValues={":pk": environment["pk"], ":run": {"S": "RUN#"}},
    )["Items"]
    assert [record["status"]["S"] for record in found] == ["SUCCEEDED"]
    assert same(variables.of_record(json.loads(found[0]["request"]["S"])), TELLING), "the variables are what the caller wrote"

    # The same number in an object: this engine would round it, too.
    execution = world.ended(world.start(machine, {**given, "vars": {"deep": [TELLING["16 digits"]]}}, name="r2"), seconds=30)
    assert (execution["status"], execution["error"]) == ("FAILED", "Dbt.InvalidRequest")
    assert "more than 15 digits" in execution["cause"]
    [step] = json.loads(found[0]["steps"]["S"])
    assert (step["step"], step["status"], step["attempts"], step["error"]) == ("build", "SUCCEEDED", 2, None)
    announced = world.execution(f"{announce.replace(':stateMachine:', ':execution:')}:r1")
    assert json.loads(announced["input"]) == {"key": found[0]["sk"]["S"]}
