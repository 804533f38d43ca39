"""An execution environment of a Lambda function, as a local process behind Lambda's own Runtime API.

The process is what the image starts on Lambda: AWS's runtime client with the runner's handler. What holds on Lambda holds here: it
gets its credentials in plain variables, can write to its own temporary folder only (where the kernel has Landlock), has no
shared semaphores, is frozen between two invocations and used again, and is killed when its time is over. Memory is not limited.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What the image gives to Lambda as its entry point.
ENTRY_POINT = (sys.executable, "-m", "awslambdaric", "dbt_runner.lambda_handler.handler")
_LIMITS = Path(__file__).with_name("lambda_limits")
# What a process needs of this machine and no sandbox would miss.
_INHERITED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE")
_PREFIX = "/2018-06-01/runtime/"
_IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class Function:
    """A version of a function, as it is configured.

    Attributes:
        environ: its environment variables, with the credentials of its role.
        memory: MiB.
    """

    arn: str
    name: str
    version: str
    timeout_seconds: float
    memory: int
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What an invocation came to: the handler's result, or, with `failed`, an object with errorType and errorMessage. Both as JSON."""

    payload: bytes
    failed: bool = False


@dataclass
class _Invocation:
    event: bytes
    deadline_millis: int
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class LambdaSandbox:
    """One execution environment; one invocation at a time.

    Args:
        function: what it is an environment of.
        on_line: called with each line of the process's output, from a thread of the sandbox.
        writable: folders that it can write to beside its own, for a warehouse that is a file.
        entry_point: in place of the image's.
    """

    def __init__(
        self,
        function: Function,
        on_line: Callable[[str], None],
        *,
        writable: Sequence[Path] = (),
        entry_point: Sequence[str] = ENTRY_POINT,
    ) -> None:
        self.function = function
        self.folder = Path(tempfile.mkdtemp(prefix="dbt-lambda-"))
        self._on_line = on_line
        self._writable = [self.folder, *writable]
        self._entry_point = tuple(entry_point)
        self._calls: queue.SimpleQueue[_Invocation | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._server = _RuntimeApi(self._calls, self._answers, self._idle)
        self._server_thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        self._server_thread.start()

    @property
    def pid(self) -> int:
        """The process's, once there is one."""
        assert self._process is not None
        return self._process.pid

    def invoke(self, event: bytes) -> Answer:
        """Hands an event to the handler and waits for its answer. Lambda's own errors are answers, too."""
        deadline = time.time() + self.function.timeout_seconds
        call = _Invocation(event, int(deadline * 1000))
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._signal(signal.SIGCONT)
        self._idle.clear()
        self._calls.put(call)
        try:
            answer = self._answers.get(timeout=max(0.0, deadline - time.time()))
        except queue.Empty:
            self._kill()
            said = f"RequestId: {call.request_id} Error: Task timed out after {self.function.timeout_seconds:.2f} seconds"
            return _error("Sandbox.Timedout", said)
        if answer is None:
            self._kill()
            return _error("Runtime.ExitError", f"RequestId: {call.request_id} Error: Runtime exited without providing a reason")
        # Lambda freezes a sandbox when its runtime asks for the next invocation.
        if self._idle.wait(_IDLE_SECONDS):
            self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """Ends the process, and an invocation that waits for its answer, and removes its folder."""
        self._kill()
        self._answers.put(None)
        self._calls.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._server_thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        while not self._answers.empty():
            self._answers.get()
        function = self.function
        folders = ":".join(map(str, self._writable))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dbt_runner.local.lambda_init", folders, *self._entry_point],
            env={
                **{name: os.environ[name] for name in _INHERITED if name in os.environ},
                # As the image has it.
                "HOME": str(self.folder),
                "TMPDIR": str(self.folder),
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": str(_LIMITS),
                # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": function.name,
                "AWS_LAMBDA_FUNCTION_VERSION": function.version,
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
                "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
                "AWS_EXECUTION_ENV": "AWS_Lambda_Image",
                "LAMBDA_TASK_ROOT": "/var/task",
                **function.environ,
            },
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._on_line(line.rstrip("\n"))
        process.wait()
        if process is self._process:
            self._answers.put(None)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None and self._process.poll() is None:
                os.killpg(self._process.pid, number)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            # It may be waiting in the API for a call that the next process is to get.
            self._server.forget_waiting()
        if self._reader is not None:
            self._reader.join(_IDLE_SECONDS)


def _error(kind: str, message: str) -> Answer:
    return Answer(json.dumps({"errorType": kind, "errorMessage": message}).encode(), failed=True)


class _RuntimeApi(ThreadingHTTPServer):
    """https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html for one sandbox."""

    daemon_threads = True

    def __init__(
        self, calls: queue.SimpleQueue[_Invocation | None], answers: queue.SimpleQueue[Answer | None], idle: threading.Event
    ) -> None:
        super().__init__(("127.0.0.1", 0), _RuntimeHandler)
        self.calls = calls
        self.answers = answers
        self.idle = idle
        self._waiting = 0
        self._lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """A process that is killed leaves a connection behind: that is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def next(self) -> _Invocation | None:
        with self._lock:
            self._waiting += 1
        self.idle.set()
        try:
            return self.calls.get()
        finally:
            with self._lock:
                self._waiting -= 1

    def forget_waiting(self) -> None:
        """Ends the requests of processes that are gone."""
        with self._lock:
            waiting = self._waiting
        for _ in range(waiting):
            self.calls.put(None)


class _RuntimeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _RuntimeApi

    def do_GET(self) -> None:
        assert self.path == f"{_PREFIX}invocation/next", self.path
        call = self.server.next()
        if call is None:
            self.close_connection = True
            return
        headers = {
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(call.deadline_millis),
            "Lambda-Runtime-Invoked-Function-Arn": "arn",
            "Lambda-Runtime-Trace-Id": f"Root=1-{call.request_id}",
            "Content-Type": "application/json",
        }
        self._send(200, call.event, headers)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = self.path.rpartition("/")[2]
        if what in ("response", "error"):
            self.server.answers.put(Answer(body, failed=what == "error"))
        self._send(202, b'{"status":"OK"}', {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Without a line on stderr for each request."""
