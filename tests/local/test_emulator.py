"""The embedded AWS starts, keeps to itself, and leaves nothing behind when it stops."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from dbt_runner.local import emulator as emulator_module
from dbt_runner.local import moto_patches
from dbt_runner.local.clients import boto3_client, client_environ, without_aws_settings
from dbt_runner.local.emulator import Emulator
from dbt_runner.local.errors import MotoError, StackError
from local.support import World, wait_for

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    """An emulator of the test's own, which the test may stop."""
    world = World(tmp_path / "logs")
    world.emulator.start()
    try:
        world.prepare()
        yield world
    finally:
        world.emulator.stop()


def test_stopping_leaves_moto_as_it_was(fresh: World) -> None:
    assert all(patch.applied for patch in moto_patches.all_patches())
    fresh.emulator.stop()
    assert [patch.name for patch in moto_patches.all_patches() if patch.applied] == []


def test_stopping_ends_every_task_execution_and_thread(fresh: World) -> None:
    machine = fresh.machine({"A": fresh.sync_state("trap '' TERM; echo $$; while true; do sleep 0.05; done")})
    execution = fresh.start(machine)
    fresh.running_task(execution)
    [pid] = wait_for(lambda: [int(line) for _, line in fresh.lines], "the task wrote its process id")
    waiting = fresh.start(fresh.machine({"A": {"Type": "Wait", "Seconds": 60, "End": True}}))
    wait_for(lambda: "WaitStateEntered" in fresh.history(waiting), "an execution waits")
    agent = fresh.emulator.agent
    fresh.emulator.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    [end] = agent.ended
    assert (end.exit_code, end.stop_code) == (137, "UserInitiated")
    ours = ("moto", "event-bus", "task-", "log-", "_execution_logic")
    wait_for(lambda: not [t for t in threading.enumerate() if any(name in t.name for name in ours)], "the threads are gone")


def test_stopping_twice_does_nothing(fresh: World) -> None:
    fresh.emulator.stop()
    fresh.emulator.stop()


def test_what_was_made_is_forgotten(fresh: World) -> None:
    endpoint = fresh.emulator.endpoint
    fresh.client("sns").create_topic(Name="topic")
    fresh.emulator.stop()
    with pytest.raises(StackError, match="not started"):
        fresh.client("sns")
    with pytest.raises(EndpointConnectionError):
        boto3_client("sns", endpoint).list_topics()
    fresh.emulator.start()
    assert fresh.client("sns").list_topics()["Topics"] == []


def test_a_second_one_in_the_same_process_is_refused(fresh: World, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="in this process already"):
        Emulator(tmp_path / "other").start()
    fresh.client("sns").list_topics()


def test_a_server_that_cannot_be_made_does_not_block_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("no more sockets")

    emulator = Emulator(tmp_path / "logs")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no more sockets"):
        patched.setattr(emulator_module, "_make_server", refuse)
        emulator.start()
    emulator.start()
    emulator.stop()


def test_it_listens_on_this_machine_only(fresh: World) -> None:
    assert fresh.emulator.endpoint.startswith("http://127.0.0.1:")
    assert fresh.emulator._server.server_address[0] == "127.0.0.1"


def test_a_watcher_that_fails_does_not_hold_a_task_up(tmp_path: Path) -> None:
    def fail(arn: str, line: str) -> None:
        raise RuntimeError("broken watcher")

    world = World(tmp_path / "logs")
    world.emulator = Emulator(tmp_path / "logs", on_line=fail, entry_point=("bash", "-c"))
    world.emulator.start()
    try:
        world.prepare()
        # More than a pipe holds: the process could not end if nobody read on.
        task = world.ended_task(world.run_task("for i in {1..5000}; do echo 0123456789012345678901234567890123456789; done"))
        assert task["containers"][0]["exitCode"] == 0
        [end] = world.emulator.agent.ended
        assert len(end.log.read_text().splitlines()) == 5000
    finally:
        world.emulator.stop()


def test_clients_ignore_the_users_own_settings(fresh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "real")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert fresh.client("sns").list_topics()["Topics"] == []
    table = fresh.table()
    get = {"TableName": table, "Key": {"pk": {"S": "a"}, "sk": {"S": "b"}}}
    state = {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:getItem", "Arguments": get, "End": True}
    assert fresh.output({"A": state}) == {}


def test_no_credentials_of_the_user_reach_another_process() -> None:
    mine = {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "real", "AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "PATH": "/bin"}
    environ = {**without_aws_settings(mine), **client_environ("http://127.0.0.1:5000")}
    assert environ["PATH"] == "/bin"
    assert {name: value for name, value in environ.items() if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def test_another_version_of_moto_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_patches, "version", lambda name: "5.2.6")
    with pytest.raises(MotoError, match=r"moto 5\.2\.6 is installed.*moto 5\.2\.5 is needed: pip install 'dbt-runner\[local\]'"):
        moto_patches.apply_all()


def test_a_process_in_which_moto_mocks_boto3_is_refused() -> None:
    from moto import mock_aws

    with mock_aws(), pytest.raises(MotoError, match="mock_aws"):
        moto_patches.apply_all()


def test_patches_are_applied_once() -> None:
    moto_patches.apply_all()
    before = [len(patch._originals) for patch in moto_patches.all_patches()]
    moto_patches.apply_all()
    assert [len(patch._originals) for patch in moto_patches.all_patches()] == before
