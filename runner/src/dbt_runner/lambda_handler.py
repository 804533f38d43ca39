"""The entry point on AWS Lambda: the same attempt as in a container, in a sandbox that is frozen and used again.

The event is the pointer that a container gets in its variables: `{"run_key": ..., "step": 1, "attempt": 1}`, step 0 being the health
check. The answer is small, `{"exit_code": 0, "error": null}`; the outcome itself is in the audit store, as always. What differs from
a container, and what is done about it:

* Nobody sends a signal before the time is over: the attempt gets an alarm of its own, early enough to stop dbt and to write the outcome.
* The sandbox serves one run after another: what one leaves behind, files and processes, is gone before the next begins.
* The role's credentials and Lambda's own variables are plain ones: the worker gets none of them (dbt_runner.identity).
* Nobody injects the team's secrets: they are read for each attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from dbt_runner import identity, secret_variables
from dbt_runner.attempt import Attempt
from dbt_runner.compute import Compute
from dbt_runner.errors import ERRORS, RUNNER_ERROR, TypedError
from dbt_runner.release_cache import ReleaseCache
from dbt_runner.store import Store, client_config

# To stop dbt, to write the last nodes, the artifacts and the outcome; of a short timeout a part of it.
_LONGEST_MARGIN_SECONDS = 40.0
_MARGIN = 0.25
_GRACE = 0.6
_CLOSING = 0.3
_PR_SET_CHILD_SUBREAPER = 36
_POINTER = {"run_key": str, "step": int, "attempt": int}


class Context(Protocol):
    """What is used of the object that Lambda's runtime client hands over."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


class Sandbox:
    """One execution environment of the function, for all its invocations, one after the other.

    Args:
        environment: the function's environment variables.
        folder: the one that can be written to, all of it the sandbox's own: it is emptied.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        import boto3

        self._environment = dict(environment)
        self._folder = folder
        # After a timeout Lambda starts the process anew, but keeps what it had written.
        _empty(folder)
        self._releases = ReleaseCache(folder / "releases")
        session = boto3.Session()
        self._clients = cache(session.client)
        self._secrets = secret_variables.references(environment)
        self._sts = cache(lambda: session.client("sts", config=client_config()))
        table, bucket = environment["DBT_RUNNER_TABLE"], environment["DBT_RUNNER_BUCKET"]
        patient = client_config()
        self._store = Store(session.client("dynamodb", config=patient), session.client("s3", config=patient), table, bucket)

    def invoke(self, event: object, request: str, seconds_left: float) -> dict[str, Any]:
        """Runs one attempt.

        Args:
            event: the pointer to it.
            request: Lambda's id of this invocation, which it also names where it says how the invocation ended.
            seconds_left: until Lambda ends the process.

        Raises:
            TypedError: Dbt.RunnerError when the event is no such pointer: the state machine did not send it.
        """
        run_key, position, attempt = _pointer(event)
        margin = min(_LONGEST_MARGIN_SECONDS, seconds_left * _MARGIN)
        compute = Compute(
            name="lambda",
            task=request,
            seconds=seconds_left - margin,
            lifetime_seconds=seconds_left,
            grace_seconds=margin * _GRACE,
            closing_seconds=margin * _CLOSING,
            fetch=self._releases.fetch,
            variables=lambda: secret_variables.read(self._secrets, self._clients),
        )
        try:
            code = Attempt(self._store, self._sts, self._environment, compute).run(
                self._environment["DBT_RUNNER_ENVIRONMENT"], run_key, position, attempt
            )
        finally:
            _end_leftovers()
            _empty(self._folder, keep=self._releases.folder)
            # What a run leaves in cycles, its secrets among it, would wait for collections that come ever more seldom: 6 MiB of it in a
            # thousand runs.
            gc.collect()
        return {"exit_code": code, "error": next((kind.name for kind in ERRORS.values() if kind.exit_code == code), None)}


_sandbox: Sandbox | None = None


def handler(event: object, context: Context) -> dict[str, Any]:
    """What Lambda calls. See `Sandbox.invoke`."""
    global _sandbox
    if _sandbox is None:
        if "AWS_LAMBDA_RUNTIME_API" not in os.environ:
            raise TypedError(RUNNER_ERROR, "this is the function's entry point: people use dbt-runner start")
        identity.hide()
        _adopt_orphans()
        _sandbox = Sandbox(os.environ, Path(tempfile.gettempdir()))
    return _sandbox.invoke(event, context.aws_request_id, context.get_remaining_time_in_millis() / 1000)


def _pointer(event: object) -> tuple[str, int, int]:
    fits = isinstance(event, Mapping) and set(event) == set(_POINTER)
    if not (fits and isinstance(event, Mapping) and all(type(event[name]) is kind for name, kind in _POINTER.items())):
        raise TypedError(RUNNER_ERROR, f"the event must be {list(_POINTER)} and nothing else: this function is called by the state machine")
    return event["run_key"], event["step"], event["attempt"]


def _adopt_orphans() -> None:
    """Has every descendant whose parent ends become a child of this process, so that none is lost sight of. On Linux only.

    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _end_leftovers() -> None:
    """Kills what the attempt's worker has started and not ended. The children of a killed one become children of this process."""
    while children := list(_children(os.getpid())):
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; after it come the state and the parent.
            if int(status.read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found


def _empty(folder: Path, keep: Path | None = None) -> None:
    for path in folder.iterdir():
        if path == keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
