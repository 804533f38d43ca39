"""The supervisor: keeps one worker, listens to it, and knows what became of it even when it is killed.

It runs as PID 1 and does not import dbt, so that a crash or an out-of-memory kill of the worker leaves somebody to tell.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from dbt_runner import descendants, memory
from dbt_runner.compute import GRACE_SECONDS
from dbt_runner.events import (
    CommandResult,
    CommandStarted,
    Finished,
    LogLine,
    NodeResult,
    Parsed,
    Secret,
    StepReport,
    WorkerSpec,
    decode,
    masked,
)
from dbt_runner.interrupts import Interrupts
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask

# How long the pipes may stay open after the worker's end, if something that it started still holds them.
_DRAIN_SECONDS = 1.0


class Supervisor:
    """Runs one worker to its end.

    Args:
        environment: the worker's environment variables, all of them.
        log: gets the worker's lines.
        interrupts: when it is asked to stop, so is the worker.
        on_node: called with each node's result as it arrives, on the supervisor's thread; must not block for long.
        timeout_seconds: after this long the worker is stopped.
        grace_seconds: how long a worker that is asked to stop may take before it is killed.
        mask: what must not be in anything that the worker tells, and gets the secrets that it does tell.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: JsonLog,
        interrupts: Interrupts,
        on_node: Callable[[NodeResult], None],
        timeout_seconds: float,
        grace_seconds: float = GRACE_SECONDS,
        mask: Mask | None = None,
    ) -> None:
        self._environment = dict(environment)
        self._log = log
        self._interrupts = interrupts
        self._on_node = on_node
        self._timeout = timeout_seconds
        self._grace = grace_seconds
        self._mask = mask or Mask()
        self._report = StepReport()
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[int, bytearray] = {}
        self._events_fd = -1
        self._kill_at: float | None = None
        # Elsewhere other children may be somebody else's to wait for.
        self._is_init = os.getpid() == 1

    def run(self, spec: WorkerSpec) -> StepReport:
        """Starts the worker, stops it as Ctrl-C would when asked to or out of time, and returns when it has ended."""
        read_fd, write_fd = os.pipe()
        kills = memory.OutOfMemoryKills()
        with _wakeup_on_signals() as wakeup:
            process = subprocess.Popen(
                # -P: what lies in the project's folder is not for import; a yaml.py there would shadow PyYAML. -s: nor is what lies in
                # the attempt's, which is the worker's home.
                [sys.executable, "-P", "-s", "-m", "dbt_runner.worker", str(os.getpid())],
                env=self._environment,
                cwd=spec.project,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(write_fd,),
            )
            os.close(write_fd)
            # Before it reads what to do: nothing of the team's runs yet.
            descendants.mark(process.pid)
            self._log.info("worker started", worker_pid=process.pid)
            assert process.stdin and process.stdout and process.stderr
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(_with_fd(spec, write_fd).to_json().encode())
            os.set_blocking(read_fd, False)
            self._events_fd = read_fd
            self._register(read_fd, self._on_message)
            self._register(process.stdout.fileno(), lambda line: self._on_output("info", line))
            self._register(process.stderr.fileno(), lambda line: self._on_output("warning", line))
            self._selector.register(wakeup, selectors.EVENT_READ, None)
            try:
                self._loop(process, wakeup)
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
                os.close(read_fd)
                process.stdout.close()
                process.stderr.close()
                self._selector.close()
        self._report.returncode = process.returncode
        self._report.memory_limit_mib, self._report.oom_kills = memory.limit_mib(), kills.since()
        return self._report

    # --- the loop ------------------------------------------------------------------------------------------------

    def _loop(self, process: subprocess.Popen[bytes], wakeup: socket.socket) -> None:
        deadline = time.monotonic() + self._timeout
        stopping = False
        drain_until: float | None = None
        while True:
            moment = time.monotonic()
            if not self._has_ended(process):
                if not stopping and self._interrupts.requested:
                    self._report.interrupted = True
                    self._report.expired = self._interrupts.expired
                elif not stopping and moment >= deadline:
                    self._report.timed_out = True
                    self._log.warning("the step ran out of its time", timeout_seconds=self._timeout)
                if (self._report.interrupted or self._report.timed_out) and not stopping:
                    stopping = True
                    self._kill_at = moment + self._grace
                    self._log.info("stopping dbt", grace_seconds=self._grace)
                    process.send_signal(signal.SIGINT)
                if self._kill_at is not None and moment >= self._kill_at:
                    self._log.warning("dbt did not stop in its grace period: killing it")
                    self._report.killed = True
                    self._kill_at = None
                    process.kill()
            elif drain_until is None:
                drain_until = moment + _DRAIN_SECONDS
            drained = not self._buffers or (drain_until is not None and moment >= drain_until)
            if drained and process.returncode is not None:
                return
            waits = [t for t in (None if stopping else deadline, self._kill_at, drain_until) if t is not None]
            for key, _ in self._selector.select(max(0.0, min(waits) - moment) if waits else None):
                if key.data is None:
                    wakeup.recv(4096)
                    if self._is_init:
                        reap_orphans(process.pid)
                else:
                    self._read(key.fd, key.data)

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Like Popen.poll, which does not tell what this one worker used: earlier ones of a frozen sandbox were children, too."""
        if process.returncode is None:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self._report.peak_memory_mib = usage.ru_maxrss // 1024
        return process.returncode is not None

    def _register(self, fd: int, on_line: Callable[[bytes], None]) -> None:
        self._buffers[fd] = bytearray()
        self._selector.register(fd, selectors.EVENT_READ, on_line)

    def _read(self, fd: int, on_line: Callable[[bytes], None]) -> None:
        if fd not in self._buffers:
            return
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if fd != self._events_fd:
            # Two pipes know no order: what was printed may hold a secret that was told right before. One read empties a pipe.
            self._read(self._events_fd, self._on_message)
        buffer = self._buffers[fd]
        buffer += chunk
        *lines, rest = buffer.split(b"\n")
        self._buffers[fd] = rest
        if not chunk:
            if rest:
                lines.append(rest)
            del self._buffers[fd]
            self._selector.unregister(fd)
        for line in lines:
            on_line(bytes(line))

    # --- what arrives --------------------------------------------------------------------------------------------

    def _on_message(self, line: bytes) -> None:
        try:
            raw = decode(line)
        except ValueError:
            # A killed worker leaves half a line behind.
            return
        if isinstance(raw, Secret):
            self._mask.add([raw.value])
            return
        message = masked(raw, self._mask)
        if isinstance(message, NodeResult):
            self._report.nodes[message.unique_id] = message
            self._on_node(message)
        elif isinstance(message, CommandStarted):
            self._log.info("command started", command=message.index)
        elif isinstance(message, CommandResult):
            self._report.commands.append(message)
            self._log.info("command ended", command=message.index, success=message.success, seconds=message.seconds)
        elif isinstance(message, Parsed):
            self._report.parsed = self._report.parsed or message
        elif isinstance(message, LogLine):
            self._log.write(message.level, message.message, **({"node": message.node} if message.node else {}))
        elif isinstance(message, Finished):
            self._report.finished = True

    def _on_output(self, level: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text:
            self._log.write(level, self._mask.text(text))


def reap_orphans(keep: int) -> None:
    """Takes the exit status of every child that has ended but one.

    Process 1 inherits what the worker's own children leave behind. An ended process whose status nobody takes keeps its place in the
    table of processes, and where that is full, nothing can be started any more. https://man7.org/linux/man-pages/man2/wait.2.html

    Args:
        keep: the worker, whose status is taken where it is looked at.
    """
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None and ended.si_pid != keep:
            os.waitpid(ended.si_pid, 0)


def _with_fd(spec: WorkerSpec, fd: int) -> WorkerSpec:
    return replace(spec, events_fd=fd)


@contextlib.contextmanager
def _wakeup_on_signals() -> Iterator[socket.socket]:
    """Makes signals readable on a socket, so that the loop can sleep until something happens. For the main thread only."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    # Only a signal with a handler wakes the socket up. SIGTERM and SIGINT have theirs already.
    before = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    before_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(before_fd)
        signal.signal(signal.SIGCHLD, before)
        reader.close()
        writer.close()
