"""Functions of the embedded Lambda: which sandbox takes a call, and that none outlives the agent."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from dbt_runner.cli import cli
from dbt_runner.local import session
from dbt_runner.local.clients import boto3_client
from dbt_runner.local.errors import StackError
from dbt_runner.local.lambda_agent import LambdaAgent
from dbt_runner.local.lambda_sandbox import Answer, Function
from dbt_runner.local.moto_patches.awslambda import functions
from dbt_runner.local.stack import find_module
from local.support import wait_for

HANDLER = """
import os, pathlib, signal
def handler(event, context):
    print("called by", event["caller"])
    if "until" in event:
        pathlib.Path(event["began"]).touch()
        while not pathlib.Path(event["until"]).exists():
            signal.sigtimedwait([], 0.02)
    return {"pid": os.getpid(), "version": os.environ["AWS_LAMBDA_FUNCTION_VERSION"], "team": os.environ["TEAM"]}
"""


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def agent(tmp_path: Path, lines: list[tuple[str, str]]) -> Iterator[LambdaAgent]:
    (tmp_path / "handlers.py").write_text(HANDLER)
    agent = LambdaAgent(
        {"PYTHONPATH": str(tmp_path), "TEAM": "of the emulator"},
        tmp_path / "logs",
        writable=[tmp_path],
        on_line=lambda arn, line: lines.append((arn, line)),
    )
    agent.attach()
    yield agent
    agent.close()


def version(number: int = 1, **environ: str) -> Function:
    command = (sys.executable, "-m", "awslambdaric", "handlers.handler")
    return Function(f"arn:aws:lambda:us-east-1:123456789012:function:f:{number}", "f", str(number), 60, 512, environ, command)


def call(agent: LambdaAgent, function: Function, **event: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(agent.invoke(function, json.dumps({"caller": "test", **event}).encode()).payload)
    return answer


class Waiting:
    """A call that does not end before it is told to."""

    def __init__(self, agent: LambdaAgent, function: Function, folder: Path) -> None:
        self.answers: list[Answer] = []
        self._until = folder / "until"
        began = folder / "began"
        event = json.dumps({"caller": "test", "began": str(began), "until": str(self._until)}).encode()
        self._thread = threading.Thread(target=lambda: self.answers.append(agent.invoke(function, event)))
        self._thread.start()
        wait_for(began.exists, "the call has begun")

    def end(self) -> dict[str, Any]:
        self._until.touch()
        return self.joined()

    def joined(self) -> dict[str, Any]:
        self._thread.join(30)
        [answer] = self.answers
        result: dict[str, Any] = json.loads(answer.payload)
        return result


def test_a_sandbox_that_is_idle_takes_the_next_call_and_a_busy_one_none(agent: LambdaAgent, tmp_path: Path) -> None:
    first = call(agent, version())
    assert call(agent, version()) == first
    waiting = Waiting(agent, version(), tmp_path)
    other = call(agent, version())
    assert waiting.end() == first
    assert other["pid"] != first["pid"]


def test_versions_share_no_sandbox_and_each_has_its_own_variables(agent: LambdaAgent) -> None:
    first, second = call(agent, version(1)), call(agent, version(2, TEAM="of the function"))
    assert (first["version"], first["team"]) == ("1", "of the emulator")
    assert (second["version"], second["team"]) == ("2", "of the function")
    assert first["pid"] != second["pid"]


def test_output_is_in_a_file_of_the_sandbox_and_goes_to_who_watches(
    agent: LambdaAgent, tmp_path: Path, lines: list[tuple[str, str]]
) -> None:
    call(agent, version())
    log = tmp_path / "logs" / "lambda-f-1.log"
    wait_for(lambda: (version().arn, "called by test") in lines, "the line is there")
    assert log.read_text() == "called by test\n"


def test_closing_ends_what_is_at_work_and_what_is_idle(agent: LambdaAgent, tmp_path: Path) -> None:
    waiting = Waiting(agent, version(1), tmp_path)
    idle = call(agent, version(2))
    agent.close()
    assert waiting.joined()["errorType"] == "Runtime.ExitError"
    with pytest.raises(ProcessLookupError):
        os.kill(idle["pid"], 0)
    with pytest.raises(StackError, match="closed"):
        call(agent, version())
    assert functions.runner is None


@pytest.mark.skipif(sys.platform != "linux", reason="the init process is a parent by /proc")
def test_closing_ends_also_where_the_init_process_was_killed(agent: LambdaAgent, tmp_path: Path) -> None:
    idle = call(agent, version(1))
    process = psutil.Process(idle["pid"])
    init = process.parent()
    assert init is not None and "dbt_runner.local.lambda_init" in init.cmdline()
    init.kill()
    agent.close()
    wait_for(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "the process has ended")


def test_the_engine_waits_as_long_as_lambda_lets_a_function_run() -> None:
    assert boto3_client("lambda", "http://127.0.0.1:1").meta.config.read_timeout > 900
    assert boto3_client("sns", "http://127.0.0.1:1").meta.config.read_timeout == 60


@pytest.mark.parametrize(("arguments", "compute"), [([], "fargate"), (["--compute", "lambda"], "lambda")])
def test_a_local_run_tells_terraform_where_its_steps_are_to_run(
    arguments: list[str], compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def refuse(home: Path, *, variables: object, **_: object) -> None:
        given.append(variables)
        raise StackError("no stack in this test")

    monkeypatch.setattr(session, "LocalStack", refuse)
    monkeypatch.setattr(session, "_candidate", lambda *_: None)
    project = find_module() / "examples" / "local" / "shop"
    done = CliRunner().invoke(cli, ["local", "run", "--project", str(project), *arguments])
    assert (done.exit_code, given) == (1, [{"compute": compute, "env_vars": {}}]), done.output


def test_there_is_one_agent_at_a_time(agent: LambdaAgent, tmp_path: Path) -> None:
    with pytest.raises(StackError, match="another Lambda agent"):
        LambdaAgent({}, tmp_path / "logs").attach()
