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

from dbt_runner import removal
from dbt_runner.local.image_process import FUNCTION_COMMAND, FUNCTION_ENTRY_POINT, HOME, WORKING_DIRECTORY, on_this_machine

_LIMITS = Path(__file__).with_name("lambda_limits")
# What a process needs of this machine and no sandbox would miss.
_INHERITED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE")
_PREFIX = "/2018-06-01/runtime/"
_IDLE_SECONDS = 5.0
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib
_INIT_SECONDS = 10.0


@dataclass(frozen=True)
class Function:
    """A version of a function, as it is configured.

    Attributes:
        environ: its environment variables, with the credentials of its role.
        memory: MiB.
        command: the entry point and its arguments, as the function's image configuration has them.
        working_directory: from there as well.
    """

    arn: str
    name: str
    version: str
    timeout_seconds: float
    memory: int
    environ: Mapping[str, str]
    command: Sequence[str] = (*FUNCTION_ENTRY_POINT, *FUNCTION_COMMAND)
    working_directory: str = WORKING_DIRECTORY


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
        around: makes the command line that is really started out of that of the sandbox's first process, for fewer rights.
    """

    def __init__(
        self,
        function: Function,
        on_line: Callable[[str], None],
        *,
        writable: Sequence[Path] = (),
        around: Callable[[Sequence[str]], Sequence[str]] = list,
    ) -> None:
        self.function = function
        self.folder = Path(tempfile.mkdtemp(prefix="dbt-lambda-"))
        self._on_line = on_line
        self._around = around
        self._writable = [self.folder, *writable]
        self._calls: queue.SimpleQueue[_Invocation | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._process: int | None = None
        # Of each process that was started; 0 stands for one that could not be.
        self._ended: dict[int, threading.Event] = {}
        self._started: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._init: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self._server = _RuntimeApi(self._calls, self._answers, self._idle)
        self._server_thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        self._server_thread.start()

    @property
    def pid(self) -> int:
        """The process's, once there is one."""
        assert self._process is not None
        return self._process

    def invoke(self, event: bytes) -> Answer:
        """Hands an event to the handler and waits for its answer. Lambda's own errors are answers, too."""
        if self._process is None or self._has_ended(self._process):
            self._start()
            # A function's time begins when its process asks for the first event.
            self._idle.wait(_INIT_SECONDS)
        deadline = time.time() + self.function.timeout_seconds
        call = _Invocation(event, int(deadline * 1000))
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
        """Ends the process and all that it left behind, and an invocation that waits for its answer, and removes its folder."""
        self._kill()
        if self._init is not None:
            assert self._init.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._init.stdin.close()
            self._init.wait()
            for reader in self._readers:
                reader.join(_IDLE_SECONDS)
        self._answers.put(None)
        self._calls.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._server_thread.join()
        # A program may have taken the rights on what it left.
        with contextlib.suppress(removal.NotEmpty):
            removal.empty(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        while not self._answers.empty():
            self._answers.get()
        if self._init is None:
            self._start_init()
        assert self._init is not None and self._init.stdin is not None
        self._idle.clear()
        function = self.function
        environ = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "TMPDIR": str(self.folder),
            # As the image has it.
            "HOME": HOME,
            # The worker's: what holds the role's credentials is isolated from it.
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
        }
        start = {"argv": on_this_machine(function.command), "env": environ, "cwd": function.working_directory}
        self._init.stdin.write(f"{json.dumps(start)}\n")
        self._init.stdin.flush()
        self._process = self._started.get()
        if self._has_ended(self._process):
            self._answers.put(None)
            self._idle.set()

    def _start_init(self) -> None:
        reports, given = os.pipe()
        self._init = subprocess.Popen(
            self._around([sys.executable, "-I", "-m", "dbt_runner.local.lambda_init", str(given), ":".join(map(str, self._writable))]),
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            cwd=WORKING_DIRECTORY,
            pass_fds=(given,),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        os.close(given)
        self._readers = [threading.Thread(target=read, args=args, daemon=True) for read, args in (
            (self._read, (self._init,)), (self._follow, (reports,)),
        )]  # fmt: skip
        for reader in self._readers:
            reader.start()

    def _read(self, init: subprocess.Popen[str]) -> None:
        assert init.stdout is not None
        with init.stdout as lines:
            for line in lines:
                self._on_line(line.rstrip("\n"))

    def _follow(self, reports: int) -> None:
        """Hears of starts and ends from the init process."""
        with open(reports, encoding="utf-8") as lines:
            for line in lines:
                report = json.loads(line)
                if started := report.get("started"):
                    self._ended[started] = threading.Event()
                    self._started.put(started)
                elif "started" in report:
                    # There is no such program.
                    self._started.put(0)
                else:
                    self._ended[report["ended"]].set()
                    self._idle.set()
                    if report["ended"] == self._process:
                        self._answers.put(None)
        # The init process has ended. Where it was killed, no report of an end comes any more.
        self._signal(signal.SIGKILL)
        for ended in self._ended.values():
            ended.set()
        self._idle.set()
        self._answers.put(None)

    def _has_ended(self, process: int) -> bool:
        return process not in self._ended or self._ended[process].is_set()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and not self._has_ended(self._process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process, number)

    def _kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            if self._process in self._ended:
                self._ended[self._process].wait()
            self._process = None
            # It may be waiting in the API for a call that the next process is to get.
            self._server.forget_waiting()


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
