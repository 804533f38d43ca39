"""Help for the tests of the Lambda entry point: AWS's runtime client and the handler in a process of their own, as on Lambda."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from dbt_runner.local.image_process import FUNCTION_COMMAND, FUNCTION_ENTRY_POINT, WORKING_DIRECTORY
from dbt_runner.local.lambda_sandbox import Function, LambdaSandbox
from dbt_runner.store import CONFIG, LOCK, environment_pk
from runner import projects
from runner.attempts import EXECUTION, PREFIX, RUN_KEY, Run

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:analytics-prod:7"
SECRET = "of-the-control-role"
LIMITS = Path(projects.__file__).parents[2] / "runner/src/dbt_runner/local/lambda_limits"


@pytest.fixture
def server(store: object) -> Iterator[str]:
    """The store of this process for other ones: the URL of a server on the same backends."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


class World:
    """Sandboxes of the function of environment `prod`, and the run that they are asked to work on."""

    def __init__(self, run: Run, server: str, folder: Path) -> None:
        self.run = run
        self.lines: list[str] = []
        self.folder = folder
        self.environ = {
            "AWS_ENDPOINT_URL": server,
            "AWS_ACCESS_KEY_ID": "AKIA",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": SECRET,
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "DBT_RUNNER_TABLE": run.store.table,
            "DBT_RUNNER_BUCKET": str(run.store.bucket),
            "DBT_RUNNER_ENVIRONMENT": "prod",
            "TEAM": "of the function",
        }
        self._open = contextlib.ExitStack()

    def sandbox(
        self,
        timeout_seconds: float = 60,
        *,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = (*FUNCTION_ENTRY_POINT, *FUNCTION_COMMAND),
        working_directory: str = WORKING_DIRECTORY,
        around: Callable[[Sequence[str]], Sequence[str]] = list,
    ) -> LambdaSandbox:
        """A sandbox; closed with the test."""
        variables = {**self.environ, **(environ or {})}
        function = Function(ARN, "analytics-prod", "7", timeout_seconds, 1024, variables, command, working_directory)
        sandbox = LambdaSandbox(function, self.lines.append, writable=[self.folder], around=around)
        self._open.callback(sandbox.close)
        return sandbox

    def close(self) -> None:
        self._open.close()

    def plan(self, run_id: str = "r-1") -> None:
        """What the state machine has written when it invokes the function."""
        pk, store = environment_pk("prod"), self.run.store
        store.put({"pk": pk, "sk": CONFIG, "config": json.dumps(self.run.config)})
        store.put({"pk": pk, "sk": LOCK, "owner": EXECUTION, "run_id": run_id})
        item = {"run_id": run_id, "execution": EXECUTION, "release": "1.4.2", "artifacts": PREFIX, "status": "RUNNING"}
        store.put({"pk": pk, "sk": RUN_KEY, **item, "request": json.dumps({**self.run.plan, "steps": self.run.steps})})

    def scripted(self, script: str) -> dict[str, str]:
        """Variables of a function that make a script take the worker's place, and the worker's alone; see projects.scripted."""
        worker = projects.scripted(self.folder / "scripted", script)["PYTHONPATH"]
        start = f"import sys\nif 'dbt_runner.worker' in sys.orig_argv: sys.path.insert(0, {worker!r})\n"
        projects.write(
            self.folder / "start",
            {
                "sitecustomize.py": start
                + (LIMITS / "sitecustomize.py").read_text().split('"""', 2)[2].replace("from __future__ import annotations", "")
            },
        )
        return {"PYTHONPATH": str(self.folder / "start")}


def invoke(sandbox: LambdaSandbox, position: int = 1, attempt: int = 1) -> dict[str, Any]:
    """What the handler answers to the pointer to an attempt."""
    answer = sandbox.invoke(json.dumps({"run_key": RUN_KEY, "step": position, "attempt": attempt}).encode())
    result: dict[str, Any] = json.loads(answer.payload)
    return result


def left_in(sandbox: LambdaSandbox) -> set[str]:
    """Everything in a sandbox's writable folder, by relative path."""
    return {path.relative_to(sandbox.folder).as_posix() for path in sandbox.folder.rglob("*")}


Factory = Callable[..., LambdaSandbox]
