"""Tasks of the embedded ECS are real processes, which end and are ended as containers are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dbt_runner.local.ecs_agent import TaskEnd
from local.support import World, wait_for
from processes import is_running

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")


def end_of(world: World, arn: str) -> TaskEnd:
    return wait_for(lambda: next((end for end in world.emulator.agent.ended if end.task_arn == arn), None), f"{arn} has ended")


def stop(world: World, arn: str, reason: str = "by a test") -> None:
    world.client("ecs").stop_task(cluster="cluster", task=arn, reason=reason)


def running(world: World, arn: str, line: str = "ready") -> None:
    """Wait until the task has written a line, which says that its traps are set."""
    wait_for(lambda: (arn, line) in world.lines, f"{arn} wrote {line}")


@pytest.mark.parametrize("code", [0, 3])
def test_a_task_that_ends_has_its_exit_code(world: World, code: int) -> None:
    task = world.ended_task(world.run_task(f"exit {code}"))
    assert task["containers"][0]["exitCode"] == code
    assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    assert task["createdAt"] <= task["startedAt"] <= task["stoppedAt"]


def test_a_task_has_the_secrets_that_its_definition_refers_to(world: World) -> None:
    parameter, secret = world.name("parameter"), world.name("secret")
    world.client("ssm").put_parameter(Name=f"/{parameter}", Value="of the parameter", Type="SecureString")
    arn = world.client("secretsmanager").create_secret(Name=secret, SecretString='{"key": "of the secret"}')["ARN"]
    secrets = [
        {"name": "PARAMETER", "valueFrom": f"arn:aws:ssm:us-east-1:123456789012:parameter/{parameter}"},
        {"name": "SECRET", "valueFrom": f"{arn}:key::"},
    ]
    task = world.run_task('echo "$PARAMETER, $SECRET"', task_definition=world.register(world.container(secrets=secrets)))
    world.ended_task(task)
    assert (task, "of the parameter, of the secret") in world.lines


def test_a_task_whose_secret_is_not_there_does_not_start(world: World) -> None:
    secrets = [{"name": "KEY", "valueFrom": "arn:aws:ssm:us-east-1:123456789012:parameter/not-there"}]
    task = world.ended_task(world.run_task("echo no", task_definition=world.register(world.container(secrets=secrets))))
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets")
    assert "exitCode" not in task["containers"][0]


def test_a_stopped_task_can_handle_sigterm(world: World) -> None:
    arn = world.run_task("trap 'echo bye; exit 40' TERM; echo ready; sleep 60 & wait")
    running(world, arn)
    stop(world, arn)
    task = world.ended_task(arn)
    assert task["containers"][0]["exitCode"] == 40
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "by a test")
    assert (arn, "bye") in world.lines


def test_a_task_that_does_not_handle_sigterm_ends_with_143(world: World) -> None:
    arn = world.run_task("echo ready; exec sleep 60")
    running(world, arn)
    stop(world, arn)
    assert world.ended_task(arn)["containers"][0]["exitCode"] == 143


def test_a_task_that_ignores_sigterm_is_killed_after_its_stop_timeout(world: World) -> None:
    arn = world.run_task("trap '' TERM; echo ready; while true; do sleep 0.05; done")
    running(world, arn)
    stop(world, arn)
    task = world.ended_task(arn)
    assert task["containers"][0]["exitCode"] == 137
    assert task["stopCode"] == "UserInitiated"


def test_the_children_of_a_task_end_with_it(world: World) -> None:
    arn = world.run_task("sleep 300 & echo $!; exit 0")
    world.ended_task(arn)
    [child] = [int(line) for task, line in world.lines if task == arn]
    wait_for(lambda: not is_running(child), "the child is gone")


def test_a_task_that_cannot_start_says_why(tmp_path: Path, world: World) -> None:
    agent = world.emulator.agent
    entry_point, agent._entry_point = agent._entry_point, (str(tmp_path / "missing"),)
    try:
        task = world.ended_task(world.run_task("true"))
    finally:
        agent._entry_point = entry_point
    assert task["stopCode"] == "TaskFailedToStart"
    assert "CannotStartContainerError" in task["stoppedReason"]
    assert "exitCode" not in task["containers"][0]


def test_a_spot_interruption_ends_a_task_as_fargate_does(world: World) -> None:
    arn = world.run_task("trap 'exit 40' TERM; echo ready; sleep 60 & wait")
    running(world, arn)
    world.emulator.agent.interrupt(arn)
    task = world.ended_task(arn)
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("SpotInterruption", 40)


def test_the_first_reason_to_stop_stays(world: World) -> None:
    arn = world.run_task("trap '' TERM; echo ready; while true; do sleep 0.05; done")
    running(world, arn)
    stop(world, arn, "first")
    stop(world, arn, "second")
    assert world.ended_task(arn)["stoppedReason"] == "first"
    stop(world, arn, "too late")
    assert world.task(arn)["stoppedReason"] == "first"


def test_a_task_sees_its_own_environment_and_nothing_of_ours(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    container = world.container(environment=[{"name": "TEAM", "value": "of the definition"}, {"name": "BOTH", "value": "definition"}])
    arn = world.run_task("env", task_definition=world.register(container), environment={"BOTH": "override", "STEP": "1"})
    environment = dict(line.split("=", 1) for line in end_of(world, arn).log.read_text().splitlines())
    assert (environment["TEAM"], environment["BOTH"], environment["STEP"]) == ("of the definition", "override", "1")
    assert environment["AWS_ENDPOINT_URL"] == world.emulator.endpoint
    assert environment["AWS_ACCESS_KEY_ID"] == "test"
    assert environment["PATH"] == os.environ["PATH"]
    for name in ("AWS_PROFILE", "SECRET_OF_THE_USER", "PYTHONPATH"):
        assert name not in environment


def test_a_task_finds_itself_at_the_metadata_endpoint(world: World) -> None:
    reads = "import json, os; from dbt_runner import task_metadata as m; print(m.task_arn(os.environ), m.container(os.environ)['Image'])"
    arns = [world.run_task(f'{sys.executable} -c "{reads}"') for _ in range(2)]
    for arn in arns:
        assert end_of(world, arn).log.read_text() == f"{arn} none\n"


def test_a_task_has_a_home_and_a_temporary_directory_of_its_own_which_go_with_it(world: World) -> None:
    first, second = (world.run_task('touch "$HOME/a" "$TMPDIR/b" && echo "$HOME" "$TMPDIR"') for _ in range(2))
    homes = []
    for arn in (first, second):
        assert world.ended_task(arn)["containers"][0]["exitCode"] == 0
        [line] = [line for task, line in world.lines if task == arn]
        homes.append(line.split())
    assert len({directory for pair in homes for directory in pair}) == 4
    assert not any(Path(directory).exists() for pair in homes for directory in pair)


def test_the_output_goes_to_the_log_and_to_who_watches(world: World) -> None:
    arn = world.run_task("echo out; echo error >&2")
    end = end_of(world, arn)
    assert sorted(end.log.read_text().splitlines()) == ["error", "out"]
    assert sorted(line for task, line in world.lines if task == arn) == ["error", "out"]
    assert end.command == ("echo out; echo error >&2",)
