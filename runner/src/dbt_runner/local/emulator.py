"""AWS's API on 127.0.0.1: moto's server in this process, patched, with state machines, tasks and functions that run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbt_runner.local.clients import boto3_client, client_environ
from dbt_runner.local.ecs_agent import EcsAgent
from dbt_runner.local.errors import StackError
from dbt_runner.local.lambda_agent import LambdaAgent

_one_per_process = threading.Lock()
# moto's interpreter logs every failed state with a dump of its syntax tree, which costs up to 0.3 s each. The execution's
# error, cause and history say the same.
_interpreter_log = logging.getLogger("moto.stepfunctions")


class Emulator:
    """The embedded AWS without any resources in it.

    There is one per process at a time, because moto keeps its state in module globals. `logs` gets one file per task and
    per sandbox of a function; the other arguments are those of `EcsAgent` and `LambdaAgent`.
    """

    def __init__(
        self,
        logs: Path,
        *,
        on_line: Callable[[str, str], None] | None = None,
        stop_timeout_cap: float = 120.0,
        entry_point: Sequence[str] | None = None,
        writable: Sequence[Path] = (),
    ) -> None:
        self._logs = logs
        self._writable = tuple(writable)
        self._on_line = on_line
        self._stop_timeout_cap = stop_timeout_cap
        self._entry_point = entry_point
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._agent: EcsAgent | None = None
        self._functions: LambdaAgent | None = None
        self._clients: dict[str, Any] = {}
        self._log_level = logging.NOTSET

    @property
    def endpoint(self) -> str:
        """The URL of the API. Raises StackError while the emulator is not started."""
        if self._server is None:
            raise StackError("the embedded AWS is not started")
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environ(self) -> Mapping[str, str]:
        """See `client_environ`."""
        return client_environ(self.endpoint)

    @property
    def agent(self) -> EcsAgent:
        """What runs the ECS tasks. Raises StackError while the emulator is not started."""
        if self._agent is None:
            raise StackError("the embedded AWS is not started")
        return self._agent

    def client(self, service: str) -> Any:
        """A boto3 client of the emulator; the same one each time."""
        if service not in self._clients:
            self._clients[service] = boto3_client(service, self.endpoint)
        return self._clients[service]

    def start(self) -> None:
        """Start the server. Raises MotoError or StackError, and then leaves nothing behind."""
        from dbt_runner.local import moto_patches

        moto_patches.apply_all()
        from dbt_runner.local.moto_patches.events import event_queue
        from dbt_runner.local.moto_patches.stepfunctions_engine import engine_clients

        if not _one_per_process.acquire(blocking=False):
            raise StackError("a local stack is up in this process already: take it down first")
        try:
            self._server = _make_server()
        except BaseException:
            _one_per_process.release()
            raise
        self._log_level = _interpreter_log.level
        _interpreter_log.setLevel(logging.CRITICAL)
        try:
            self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="moto", daemon=True)
            self._thread.start()
            engine_clients.connect(self.endpoint)
            event_queue.start()
            arguments: dict[str, Any] = {} if self._entry_point is None else {"entry_point": self._entry_point}
            self._agent = EcsAgent(self.environ, self._logs, on_line=self._on_line, stop_timeout_cap=self._stop_timeout_cap, **arguments)
            self._agent.attach()
            self._functions = LambdaAgent(self.environ, self._logs, writable=self._writable, on_line=self._on_line)
            self._functions.attach()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Abort what runs, end every task, stop the server and drop its memory. Does nothing when it is not started."""
        if self._server is None:
            return
        from dbt_runner.local import moto_patches
        from dbt_runner.local.moto_patches.events import event_queue
        from dbt_runner.local.moto_patches.stepfunctions_engine import engine_clients

        try:
            # First the events: nothing that ends from here on is to start something new.
            event_queue.stop()
            _abort_executions()
            if self._functions is not None:
                self._functions.close()
            if self._agent is not None:
                self._agent.close()
        finally:
            engine_clients.connect(None)
            if self._thread is not None and self._thread.is_alive():
                # Only then: shutdown waits for a loop to end that may not have begun.
                self._server.shutdown()
                self._thread.join()
            self._server.server_close()
            self._server = self._thread = self._agent = self._functions = None
            self._clients.clear()
            _forget_everything()
            moto_patches.revert_all()
            _interpreter_log.setLevel(self._log_level)
            _one_per_process.release()


def _make_server() -> Any:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):  # type: ignore[misc]
        """Without a line on stderr for each request."""

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    return make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True, request_handler=QuietHandler)


def _abort_executions() -> None:
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    for backends in stepfunctions_parser_backends.values():
        for backend in backends.values():
            for machine in backend.state_machines:
                for execution in machine.executions:
                    if execution.status == "RUNNING":
                        execution.stop(stop_date=datetime.now(UTC), error=None, cause="The local stack was taken down")


def _forget_everything() -> None:
    from moto.moto_api._internal import moto_api_backend

    moto_api_backend.reset()
