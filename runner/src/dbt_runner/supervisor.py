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
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from dbt_runner import descendants, memory
from dbt_runner.compute import GRACE_SECONDS
from dbt_runner.events import CommandResult, CommandStarted, LogLine, NodeResult, Parsed, ParseNotHeld, StepReport, WorkerSpec
from dbt_runner.intake import Intake
from dbt_runner.interrupts import Interrupts
from dbt_runner.lines import Lines
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask
from dbt_runner.texts import fit
from dbt_runner.wire import MAX_LINE

# Bytes of a line of the worker's output; the rest of a longer one is dropped.
_MAX_OUTPUT = 256 << 10
_CHUNK = 1 << 16
# How long lines are taken until the deadline and signals are looked at again.
_TURN_SECONDS = 0.5
# How long the pipes may stay open after the worker's end, if something that it started still holds them.
_DRAIN_SECONDS = 1.0


class ParseHolder(Protocol):
    """Takes what a worker's parse has left, at the one moment when it can be believed."""

    def take(self, parsed: Parsed) -> None:
        """The worker has parsed, waits, and has run no node."""

    def withdraw(self) -> None:
        """The worker had not waited after all."""


@dataclass
class _Stream:
    """One of the worker's pipes: its unfinished line, who takes a finished one, and those that still wait for that."""

    lines: Lines
    take: Callable[[bytes], None]
    waiting: deque[bytes] = field(default_factory=deque)
    ended: bool = False


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
        parse: called when the worker has parsed the project for the first time, on the supervisor's thread; the worker waits meanwhile.
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
        parse: ParseHolder | None = None,
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
        self._parse = parse
        self._streams: dict[int, _Stream] = {}
        self._cut: list[tuple[str, Lines]] = []
        self._events_fd = self._replies_fd = -1
        self._kill_at: float | None = None
        # Elsewhere other children may be somebody else's to wait for.
        self._is_init = os.getpid() == 1

    def run(self, spec: WorkerSpec) -> StepReport:
        """Starts the worker, stops it as Ctrl-C would when asked to or out of time, and returns when it has ended."""
        read_fd, write_fd = os.pipe()
        replies_read_fd, self._replies_fd = os.pipe()
        kills = memory.OutOfMemoryKills()
        self._intake = Intake(spec, self._report, self._mask)
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
                pass_fds=(write_fd, replies_read_fd),
            )
            os.close(write_fd)
            os.close(replies_read_fd)
            # Before it reads what to do: nothing of the team's runs yet.
            descendants.mark(process.pid)
            self._log.info("worker started", worker_pid=process.pid)
            assert process.stdin and process.stdout and process.stderr
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(replace(spec, events_fd=write_fd, replies_fd=replies_read_fd).to_json().encode())
            os.set_blocking(read_fd, False)
            os.set_blocking(self._replies_fd, False)
            self._events_fd = read_fd
            self._register(read_fd, self._on_message, MAX_LINE, whole=True)
            self._register(process.stdout.fileno(), lambda line: self._on_output("info", line), _MAX_OUTPUT)
            self._register(process.stderr.fileno(), lambda line: self._on_output("warning", line), _MAX_OUTPUT)
            self._selector.register(wakeup, selectors.EVENT_READ, None)
            try:
                self._loop(process, wakeup)
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
                os.close(read_fd)
                os.close(self._replies_fd)
                process.stdout.close()
                process.stderr.close()
                self._selector.close()
        self._report.returncode = process.returncode
        self._report.memory_limit_mib, self._report.oom_kills = memory.limit_mib(), kills.since()
        for what, lines in self._cut:
            self._intake.count(what, lines.cut)
        self._report.left_out, self._report.warnings = self._intake.left_out(), self._intake.warnings()
        if self._report.left_out:
            self._log.warning("a part of what the worker told was left out", left_out=self._report.left_out)
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
            drained = not self._streams or (drain_until is not None and moment >= drain_until)
            if drained and process.returncode is not None:
                for stream in list(self._streams.values()):
                    while stream.waiting:
                        stream.take(stream.waiting.popleft())
                return
            waits = [t for t in (None if stopping else deadline, self._kill_at, drain_until) if t is not None]
            unfinished = [fd for fd, stream in self._streams.items() if stream.waiting or stream.ended]
            if unfinished:
                waits.append(moment)
            ready = self._selector.select(max(0.0, min(waits) - moment) if waits else None)
            for fd in unfinished:
                self._read(fd)
            for key, _ in ready:
                if key.data is None:
                    wakeup.recv(4096)
                    if self._is_init:
                        reap_orphans(process.pid)
                else:
                    self._read(key.fd)

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Like Popen.poll, which does not tell what this one worker used: earlier ones of a frozen sandbox were children, too."""
        if process.returncode is None:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                self._report.peak_memory_mib = usage.ru_maxrss // 1024
        return process.returncode is not None

    def _register(self, fd: int, take: Callable[[bytes], None], most: int, *, whole: bool = False) -> None:
        lines = Lines(most, whole=whole)
        self._cut.append(("messages that are too long" if whole else "lines of output without their end", lines))
        self._streams[fd] = _Stream(lines, take)
        self._selector.register(fd, selectors.EVENT_READ, self._streams[fd])

    def _read(self, fd: int) -> None:
        """Takes what a pipe holds, up to one chunk, and for a short time: the deadline and signals are looked at in between."""
        stream = self._streams.get(fd)
        if stream is None or stream.waiting or stream.ended:
            self._take_lines(fd)
            return
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        if fd != self._events_fd:
            # Two pipes know no order: what was printed may hold a secret that was told right before. One read empties a pipe.
            self._read(self._events_fd)
        if not chunk:
            stream.ended = True
            self._selector.unregister(fd)
        stream.waiting.extend(stream.lines.feed(chunk))
        self._take_lines(fd)

    def _take_lines(self, fd: int) -> None:
        stream, events = self._streams.get(fd), self._streams.get(self._events_fd)
        if stream is None or (stream is not events and events is not None and events.waiting):
            return
        end = time.monotonic() + _TURN_SECONDS
        while stream.waiting and time.monotonic() < end:
            stream.take(stream.waiting.popleft())
        if stream.ended and not stream.waiting:
            del self._streams[fd]

    # --- what arrives --------------------------------------------------------------------------------------------

    def _on_message(self, line: bytes) -> None:
        message = self._intake.take(line)
        if isinstance(message, NodeResult):
            self._on_node(message)
        elif isinstance(message, CommandStarted):
            self._log.info("command started", command=message.index)
        elif isinstance(message, CommandResult):
            self._log.info("command ended", command=message.index, success=message.success, seconds=message.seconds)
        elif isinstance(message, Parsed):
            self._on_parsed(message)
        elif isinstance(message, ParseNotHeld):
            self._log.warning("the supervisor was late for dbt's parse: it is not kept")
            if self._parse is not None:
                self._parse.withdraw()
        elif isinstance(message, LogLine):
            self._log.write(message.level, message.message, **({"node": message.node} if message.node else {}))

    def _on_parsed(self, parsed: Parsed) -> None:
        try:
            if self._parse is not None:
                self._parse.take(parsed)
        except Exception as exc:
            self._log.warning("dbt's parse could not be kept", error=repr(exc))
        # A worker that is gone, or that has filled the pipe by itself, waits for nothing.
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            os.write(self._replies_fd, b"\n")

    def _on_output(self, level: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text and self._intake.may_log(len(line)):
            self._log.write(level, fit(self._mask.text(text)))


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
