"""Runs the functions of the embedded Lambda as local processes: for each version of a function as many sandboxes as are needed at once.

A sandbox that is idle takes the next call, so that one run after another meets what the one before left in it, as on AWS.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dbt_runner.local.errors import StackError
from dbt_runner.local.lambda_sandbox import Answer, Function, LambdaSandbox

_log = logging.getLogger(__name__)

# What the credentials of a function's role have and the emulator's do not.
_SESSION = {"AWS_SESSION_TOKEN": "test"}


class LambdaAgent:
    """The runner of functions, for `moto_patches.awslambda.functions`.

    Args:
        environ: what every function needs in order to reach the embedded AWS.
        logs: gets one file a sandbox, `lambda-<function>-<number>.log`.
        writable: folders that functions can write to beside their own, for a warehouse that is a file.
        on_line: called with the function's ARN and each line of its output, from a thread of its sandbox.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        logs: Path,
        *,
        writable: Sequence[Path] = (),
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self._environ = {**environ, **_SESSION}
        self._logs = logs
        self._writable = tuple(writable)
        self._on_line = on_line
        self._idle: dict[str, list[LambdaSandbox]] = {}
        self._busy: list[LambdaSandbox] = []
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closed = False

    def attach(self) -> None:
        """Take over the functions that are invoked from now on."""
        from dbt_runner.local.moto_patches.awslambda import functions

        if functions.runner is not None:
            raise StackError("another Lambda agent runs in this process already: close it first")
        self._logs.mkdir(parents=True, exist_ok=True)
        functions.runner = self

    def invoke(self, function: Function, event: bytes) -> Answer:
        """Hands an event to an idle sandbox of the function, or to a new one, and waits for the answer."""
        sandbox = self._take(function)
        try:
            return sandbox.invoke(event)
        finally:
            self._give_back(sandbox)

    def close(self) -> None:
        """End every sandbox, also those that are at work, and leave nothing behind."""
        from dbt_runner.local.moto_patches.awslambda import functions

        with self._lock:
            self._closed = True
            sandboxes = [*self._busy, *(sandbox for idle in self._idle.values() for sandbox in idle)]
            self._idle.clear()
        try:
            for sandbox in sandboxes:
                sandbox.close()
        finally:
            if functions.runner is self:
                functions.runner = None

    def _take(self, function: Function) -> LambdaSandbox:
        with self._lock:
            if self._closed:
                raise StackError("the Lambda agent is closed and takes no more calls")
            idle = self._idle.setdefault(function.arn, [])
            sandbox = idle.pop() if idle else self._make(function)
            self._busy.append(sandbox)
            return sandbox

    def _give_back(self, sandbox: LambdaSandbox) -> None:
        with self._lock:
            self._busy.remove(sandbox)
            if not self._closed:
                self._idle.setdefault(sandbox.function.arn, []).append(sandbox)

    def _make(self, function: Function) -> LambdaSandbox:
        self._made[function.name] += 1
        log = self._logs / f"lambda-{function.name}-{self._made[function.name]}.log"

        def write(line: str) -> None:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            if self._on_line is not None:
                try:
                    self._on_line(function.arn, line)
                except Exception:
                    # Whoever watches must not block the process by leaving its pipe unread.
                    _log.exception("the callback for a function's output failed and is not called again")
                    self._on_line = None

        whole = replace(function, environ={**self._environ, **function.environ})
        return LambdaSandbox(whole, write, writable=self._writable)
