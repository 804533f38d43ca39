"""Attempts as tasks of ECS run them: the runner's own entry point in a process, a session and a directory of its own, on AWS over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from dbt_runner.local import image_process
from dbt_runner.local.clients import client_environ
from dbt_runner.local.emulator import Emulator
from dbt_runner.store import CONFIG, LOCK, Item, Store, environment_pk, run_pk
from runner.conftest import BUCKET, TABLE, config_of

ENVIRONMENT = "prod"
# Nothing here takes that long, on a machine with much to do either.
_DEADLINE_SECONDS = 300.0
_EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:analytics-prod:"


@contextlib.contextmanager
def aws(folder: Path) -> Iterator[tuple[Store, str]]:
    """The audit store on moto's server, and the server's URL."""
    emulator = Emulator(folder / "logs")
    emulator.start()
    try:
        dynamodb, s3 = emulator.client("dynamodb"), emulator.client("s3")
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        s3.create_bucket(Bucket=BUCKET)
        yield Store(dynamodb, s3, TABLE, BUCKET), emulator.endpoint
    finally:
        emulator.stop()


class Run:
    """A run of release 1.4.2 on DuckDB with one step, `build`, as the state machine leaves it before it starts the container.

    Args:
        endpoint: where the containers find AWS.
        warehouse: DuckDB's file.
    """

    def __init__(self, store: Store, endpoint: str, run_id: str, warehouse: Path, commands: Sequence[str] = ("build",)) -> None:
        self.store = store
        self.endpoint = endpoint
        self.run_id = run_id
        self.key = f"RUN#2026-11-23T01:00:00.000Z#{run_id}"
        config = config_of(ENVIRONMENT)
        config["warehouse"]["settings"].update(path=str(warehouse), threads=4)
        steps = [{"name": "build", "commands": list(commands), "on_failure": "fail", "timeout_seconds": 300}]
        request = {"job": "hourly", "vars": {}, "full_refresh": False, "trigger": "schedule", "steps": steps}
        pk = environment_pk(ENVIRONMENT)
        execution = _EXECUTION + run_id
        store.put({"pk": pk, "sk": CONFIG, "config": json.dumps(config)})
        store.put({"pk": pk, "sk": LOCK, "owner": execution, "run_id": run_id})
        item = {"run_id": run_id, "execution": execution, "release": "1.4.2", "artifacts": f"runs/prod/2026/11/23/{run_id}/"}
        store.put({"pk": pk, "sk": self.key, **item, "status": "RUNNING", "request": json.dumps(request)})

    def start(self, attempt: int, environment: Mapping[str, str] | None = None) -> Container:
        """Starts the container of an attempt. `environment` comes on top of what the task has."""
        return Container(
            {
                **client_environ(self.endpoint),
                "DBT_RUNNER_TABLE": TABLE,
                "DBT_RUNNER_BUCKET": BUCKET,
                "DBT_RUNNER_ENVIRONMENT": ENVIRONMENT,
                "DBT_RUNNER_RUN_KEY": self.key,
                "DBT_RUNNER_STEP": "1",
                "DBT_RUNNER_ATTEMPT": str(attempt),
                **(environment or {}),
            }
        )

    def outcome(self, attempt: int) -> Item | None:
        return self.store.get(run_pk(ENVIRONMENT, self.run_id), f"STEP#01#build#{attempt}")

    def nodes(self) -> dict[str, Item]:
        """The node items, by unique_id."""
        return {item["unique_id"]: item for item in self.store.query(run_pk(ENVIRONMENT, self.run_id), "NODE#")}


class Container:
    """A task that is running. Leaving the context ends all of its processes and removes what they wrote.

    Attributes:
        lines: what it wrote so far.
        supervisor: its first process's id.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="container-"))
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._ended = False
        self._process = subprocess.Popen(
            image_process.on_this_machine([*image_process.TASK_ENTRY_POINT, "step"]),
            env={"PATH": os.environ["PATH"], "HOME": image_process.HOME, "TMPDIR": str(self._directory), **environment},
            cwd=image_process.WORKING_DIRECTORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.supervisor = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_group()
        self._process.wait()
        self._reader.join()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    @property
    def worker(self) -> int | None:
        """The worker's process id, as soon as there is one."""
        return next((int(entry["worker_pid"]) for entry in self.entries if "worker_pid" in entry), None)

    def wait_for_lines(self, number: int, seconds: float = _DEADLINE_SECONDS) -> bool:
        """Waits until it has written so many lines or has ended; whether it is still there."""
        with self._more:
            self._more.wait_for(lambda: len(self.lines) >= number or self._ended, seconds)
        return self._process.poll() is None

    def signal(self, number: signal.Signals, *processes: int) -> bool:
        """Sends a signal to some of its processes; whether one of them was still there."""
        reached = False
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)
                reached = True
        return reached and self._process.poll() is None

    def wait(self) -> int:
        """Waits until its first process ends, which ends all others; returns what subprocess would."""
        code = self._process.wait(_DEADLINE_SECONDS)
        self._end_group()
        self._reader.join()
        self._wait_for_worker()
        return code

    def _wait_for_worker(self) -> None:
        """A process that was killed is still there for a moment, and with it its lock of the warehouse's file."""
        if self.worker is None:
            return
        try:
            ended = os.pidfd_open(self.worker)
        except ProcessLookupError:
            return
        try:
            assert select.select([ended], [], [], _DEADLINE_SECONDS)[0], "the worker outlives its container"
        finally:
            os.close(ended)

    def _end_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._more:
                    self.lines.append(line)
                    self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()
