"""Runs the tasks of the embedded ECS as local processes.

What holds in a container holds here: the process sees the environment of its task definition and overrides and little
else, finds its task's metadata where ECS would have them, has its own home and temporary directory, gets SIGTERM when its
task is stopped and SIGKILL when the stop timeout is over, and takes its children with it when it ends. CPU and memory
limits are not enforced.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner import secret_variables
from dbt_runner.errors import TypedError
from dbt_runner.local.clients import boto3_client
from dbt_runner.local.errors import StackError
from dbt_runner.local.image_process import TASK_ENTRY_POINT, on_this_machine
from dbt_runner.local.task_metadata_server import TaskMetadataServer

_log = logging.getLogger(__name__)

# What a process needs of this machine and no container would miss. Credentials and settings of the user are not in it.
_INHERITED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE")
_DEFAULT_STOP_TIMEOUT_SECONDS = 30
_READER_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class TaskEnd:
    """A task that has ended."""

    task_arn: str
    command: tuple[str, ...]
    exit_code: int | None
    """As ECS reports it: 128 and the signal's number when a signal ended the process; None when it never started."""
    stop_code: str
    stopped_reason: str
    log: Path
    """Everything that the process wrote."""


@dataclass
class _Container:
    task: Any
    entry_point: tuple[str, ...]
    command: tuple[str, ...]
    working_directory: str | None
    environment: dict[str, str]
    secrets: dict[str, str]
    stop_timeout: float
    directory: Path
    log: Path
    process: subprocess.Popen[str] | None = None
    killer: threading.Timer | None = None
    thread: threading.Thread | None = None


class EcsAgent:
    """The runner of tasks, for `moto_patches.ecs.board`.

    `environ` holds what every task needs in order to reach the embedded AWS. `logs` gets one file a task. `on_line` is
    called with the task's ARN and each line of its output, from a thread of the task. `stop_timeout_cap` (seconds)
    shortens the stop timeout of task definitions. `entry_point` replaces the one that task definitions name.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        logs: Path,
        *,
        on_line: Callable[[str, str], None] | None = None,
        stop_timeout_cap: float = 120.0,
        entry_point: Sequence[str] | None = None,
    ) -> None:
        self._environ = dict(environ)
        self._logs = logs
        self._on_line = on_line
        self._stop_timeout_cap = stop_timeout_cap
        self._entry_point = entry_point
        self._containers: dict[str, _Container] = {}
        self._clients: dict[str, Any] = {}
        self._ended: list[TaskEnd] = []
        self._lock = threading.Lock()
        self._metadata: TaskMetadataServer | None = None
        self._closed = False

    @property
    def ended(self) -> tuple[TaskEnd, ...]:
        """The tasks that have ended, in that order."""
        with self._lock:
            return tuple(self._ended)

    def attach(self) -> None:
        """Take over the tasks that RunTask makes from now on."""
        from dbt_runner.local.moto_patches.ecs import board

        if board.runner is not None:
            raise StackError("another ECS agent runs in this process already: close it first")
        self._logs.mkdir(parents=True, exist_ok=True)
        self._metadata = TaskMetadataServer()
        board.runner = self

    def start(self, task: Any) -> None:
        """Start the container of a task; does not wait."""
        with self._lock:
            if self._closed:
                raise StackError("the ECS agent is closed and takes no more tasks")
            container = self._container(task)
            container.thread = threading.Thread(target=self._run, args=(container,), name=f"task-{task.id}")
            self._containers[task.task_arn] = container
            container.thread.start()

    def stop(self, task: Any) -> None:
        """Send SIGTERM to a task's process, and SIGKILL after its stop timeout; does not wait."""
        with self._lock:
            container = self._containers.get(task.task_arn)
            if container is None or container.process is None or container.killer is not None:
                # Ended, not started yet (the thread that starts it looks by itself) or being stopped.
                return
            self._terminate(container)

    def interrupt(self, task_arn: str, *, stop_code: str = "SpotInterruption", reason: str = "Your Spot Task was interrupted.") -> None:
        """End a task as AWS does by itself, by default as Fargate Spot does when it takes the capacity back."""
        from dbt_runner.local.moto_patches.ecs import board

        with self._lock:
            container = self._containers.get(task_arn)
        if container is None:
            raise StackError(f"no such task is running: {task_arn}")
        board.ask_to_stop(container.task, code=stop_code, reason=reason)

    def close(self, *, grace_seconds: float = 5.0) -> None:
        """Stop every task (SIGTERM, SIGKILL after `grace_seconds`), wait for all threads and leave nothing behind."""
        from dbt_runner.local.moto_patches.ecs import board

        with self._lock:
            self._closed = True
            self._stop_timeout_cap = min(self._stop_timeout_cap, grace_seconds)
            running = list(self._containers.values())
        try:
            for container in running:
                container.stop_timeout = min(container.stop_timeout, grace_seconds)
                board.ask_to_stop(container.task, code="UserInitiated", reason="The local stack was taken down")
            for container in running:
                if container.thread is not None:
                    container.thread.join()
        except BaseException:
            # A second Ctrl-C while waiting: no more patience.
            for container in running:
                self._kill(container)
            raise
        finally:
            if board.runner is self:
                board.runner = None
            if self._metadata is not None:
                self._metadata.close()
                self._metadata = None

    def _container(self, task: Any) -> _Container:
        definition = task._backend.describe_task_definition(task.task_definition_arn)
        [main, *_] = definition.container_definitions
        all_overrides: list[dict[str, Any]] = (task.overrides or {}).get("containerOverrides", [])
        overrides = next((item for item in all_overrides if item.get("name") == main["name"]), {})
        directory = Path(tempfile.mkdtemp(prefix="dbt-task-"))
        (directory / "home").mkdir()
        (directory / "tmp").mkdir()
        return _Container(
            task=task,
            entry_point=tuple(self._entry_point or main.get("entryPoint") or TASK_ENTRY_POINT),
            working_directory=main.get("workingDirectory"),
            command=tuple(overrides.get("command") or main.get("command") or ()),
            environment={
                **{name: os.environ[name] for name in _INHERITED if name in os.environ},
                "PYTHONUNBUFFERED": "1",
                "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
                **self._environ,
                **(self._metadata.add(task, main["image"]) if self._metadata else {}),
                "HOME": str(directory / "home"),
                "TMPDIR": str(directory / "tmp"),
                **{item["name"]: item["value"] for item in [*main.get("environment", []), *overrides.get("environment", [])]},
            },
            secrets={item["name"]: item["valueFrom"] for item in main.get("secrets", [])},
            stop_timeout=min(float(main.get("stopTimeout") or _DEFAULT_STOP_TIMEOUT_SECONDS), self._stop_timeout_cap),
            directory=directory,
            log=self._logs / f"{task.id}.log",
        )

    def _run(self, container: _Container) -> None:
        from dbt_runner.local.moto_patches.ecs import board

        exit_code, code, reason = None, "TaskFailedToStart", ""
        try:
            container.environment.update(secret_variables.read(container.secrets, self._client))
            with self._lock:
                asked_to_stop = container.task.desired_status == "STOPPED"
                if not asked_to_stop:
                    container.process = subprocess.Popen(
                        on_this_machine([*container.entry_point, *container.command]),
                        env=container.environment,
                        cwd=container.working_directory or container.directory / "home",
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT,
                        text=True,
                        encoding="utf-8",
                        errors="replace",
                        start_new_session=True,
                    )
            if container.process is not None:
                board.set_running(container.task)
                self._stop_if_asked_meanwhile(container)
                exit_code = self._wait(container)
                code, reason = "EssentialContainerExited", "Essential container in task exited"
        except TypedError as exc:
            reason = f"ResourceInitializationError: unable to pull secrets or registry auth: {exc.message}"
        except OSError as exc:
            reason = f"CannotStartContainerError: {exc}"
            container.log.write_text(f"{reason}\n", encoding="utf-8")
        finally:
            if container.killer is not None:
                container.killer.cancel()
            self._kill(container)
            shutil.rmtree(container.directory, ignore_errors=True)
            self._end(container, exit_code, code, reason)

    def _client(self, service: str) -> Any:
        """One client a service for all tasks: a new one reads boto3's models again, a quarter of a second for each secret of each task."""
        with self._lock:
            if service not in self._clients:
                self._clients[service] = boto3_client(service, self._environ["AWS_ENDPOINT_URL"], self._environ["AWS_DEFAULT_REGION"])
            return self._clients[service]

    def _end(self, container: _Container, exit_code: int | None, code: str, reason: str) -> None:
        from dbt_runner.local.moto_patches.ecs import board

        task = container.task
        with self._lock:
            del self._containers[task.task_arn]
            if self._metadata is not None:
                self._metadata.remove(task)
            asked = task.desired_status == "STOPPED"
            self._ended.append(
                TaskEnd(
                    task_arn=task.task_arn,
                    command=container.command,
                    exit_code=exit_code,
                    stop_code=task.stop_code if asked else code,
                    stopped_reason=task.stopped_reason if asked else reason,
                    log=container.log,
                )
            )
        board.set_stopped(task, exit_code=exit_code, code=code, reason=reason)

    def _stop_if_asked_meanwhile(self, container: _Container) -> None:
        with self._lock:
            if container.task.desired_status == "STOPPED" and container.killer is None:
                self._terminate(container)

    def _terminate(self, container: _Container) -> None:
        """Only the main process gets SIGTERM, as in a container."""
        assert container.process is not None
        with contextlib.suppress(ProcessLookupError):
            container.process.send_signal(signal.SIGTERM)
        container.killer = threading.Timer(container.stop_timeout, self._kill, args=(container,))
        container.killer.daemon = True
        container.killer.start()

    @staticmethod
    def _kill(container: _Container) -> None:
        if container.process is not None and container.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(container.process.pid, signal.SIGKILL)

    def _wait(self, container: _Container) -> int:
        process = container.process
        assert process is not None
        reader = threading.Thread(target=self._read, args=(container,), name=f"log-{container.task.id}", daemon=True)
        reader.start()
        returned = process.wait()
        # What it leaves behind in its group ends with it, as everything in a container does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # A child in a session of its own may hold the pipe open; its output is not worth waiting for.
        reader.join(_READER_GRACE_SECONDS)
        return 128 - returned if returned < 0 else returned

    def _read(self, container: _Container) -> None:
        assert container.process is not None and container.process.stdout is not None
        with container.process.stdout as lines, container.log.open("w", encoding="utf-8") as log:
            for line in lines:
                log.write(line)
                log.flush()
                if self._on_line is not None:
                    try:
                        self._on_line(container.task.task_arn, line.rstrip("\n"))
                    except Exception:
                        # Whoever watches must not block the process by leaving its pipe unread.
                        _log.exception("the callback for task output failed and is not called again")
                        self._on_line = None
