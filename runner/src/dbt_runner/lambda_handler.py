"""The entry point on AWS Lambda: the same attempt as in a container, in a sandbox that is frozen and used again.

The event is the pointer that a container gets in its variables: `{"run_key": ..., "step": 1, "attempt": 1}`, step 0 being the health
check. The answer is small, `{"exit_code": 0, "error": null}`; the outcome itself is in the audit store, as always. What differs from
a container, and what is done about it:

* Nobody sends a signal before the time is over: the attempt gets an alarm of its own, early enough to stop dbt and to write the outcome.
* The sandbox serves one run after another: what one leaves behind, files and processes, is gone before the next begins, and what it
  changed about this process is as it was. Where that cannot be had, this process ends and Lambda starts another one.
* The role's credentials and Lambda's own variables are plain ones: the worker gets none of them (dbt_runner.identity).
* Nobody injects the team's secrets: they are read for each attempt.
"""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, Protocol

from dbt_runner import descendants, identity, isolation, removal, secret_variables
from dbt_runner.attempt import Attempt
from dbt_runner.compute import Compute
from dbt_runner.errors import ERRORS, RUNNER_ERROR, TypedError
from dbt_runner.logs import JsonLog
from dbt_runner.process_state import Changed, ProcessState
from dbt_runner.release_cache import ReleaseCache
from dbt_runner.store import Store, client_config

# To stop dbt, to write the last nodes, the artifacts and the outcome; of a short timeout a part of it.
_LONGEST_MARGIN_SECONDS = 40.0
_MARGIN = 0.25
_GRACE = 0.6
_CLOSING = 0.3
# For ending processes and removing files, however little time is left.
_LEAST_SECONDS = 1.0
_POINTER = {"run_key": str, "step": int, "attempt": int}


class Context(Protocol):
    """What is used of the object that Lambda's runtime client hands over."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int: ...


class Unfit(Exception):
    """This sandbox cannot be made what it was before a run; the message says why."""


class Sandbox:
    """One execution environment of the function, for all its invocations, one after the other.

    Args:
        environment: the function's environment variables.
        folder: the one that can be written to, all of it the sandbox's own: it is emptied.

    Raises:
        Unfit: something of an earlier run is there and stays, or was there and may have changed this process.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = dict(environment)
        self._folder = folder
        # A process that ended in the middle of a run may have left a worker, which then belongs to what started them both. It may also
        # have changed this process already, before anything could be compared: the next one will be alone.
        with _unfit_if_it_fails():
            if found := descendants.end_others(os.getppid(), keep=os.getpid(), only=descendants.is_marked):
                raise Unfit(f"{found} processes of an earlier run were still there")
            # After a timeout Lambda starts the process anew, but keeps what it had written.
            removal.empty(folder)
            self._releases = ReleaseCache(folder / "releases")
        self._state = ProcessState.now()
        self._mode = stat.S_IMODE(folder.stat().st_mode)

        import boto3

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
            Unfit: before the attempt, then nothing was done; or after it, then its outcome has been written.
        """
        run_key, position, attempt = _pointer(event)
        until = time.monotonic() + seconds_left - _LEAST_SECONDS
        self._clean(until)
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
            self._clean(until)
            with _unfit_if_it_fails():
                self._releases.tidy()
            # What a run leaves in cycles, its secrets among it, would wait for collections that come ever more seldom: 6 MiB of it in a
            # thousand runs.
            gc.collect()
        return {"exit_code": code, "error": next((kind.name for kind in ERRORS.values() if kind.exit_code == code), None)}

    def _clean(self, until: float) -> None:
        """Ends processes, puts this one's state right, and removes all files but the release that is kept. In this order: a process could
        write and set limits as long as it runs, and without descriptors nothing can be listed.
        """
        with _unfit_if_it_fails():
            self._state.restore()
            descendants.end(seconds=_left(until))
            self._state.restore()
            removal.empty(self._folder, keep={self._releases.folder.name}, seconds=_left(until))
            if stat.S_IMODE(self._folder.stat().st_mode) != self._mode:
                self._folder.chmod(self._mode)


_sandbox: Sandbox | None = None


def handler(event: object, context: Context) -> dict[str, Any]:
    """What Lambda calls. See `Sandbox.invoke`."""
    global _sandbox
    try:
        if _sandbox is None:
            _sandbox = _begin(os.environ)
        return _sandbox.invoke(event, context.aws_request_id, context.get_remaining_time_in_millis() / 1000)
    except Unfit as exc:
        _leave(exc)


def _begin(environment: Mapping[str, str]) -> Sandbox:
    if "AWS_LAMBDA_RUNTIME_API" not in environment:
        raise TypedError(RUNNER_ERROR, "this is the function's entry point: people use dbt-runner start")
    identity.hide()
    isolation.require(environment)
    descendants.adopt_orphans()
    # Not looked for: that means to write a file, and a run may have made that impossible.
    folder = Path(environment.get("TMPDIR") or "/tmp")
    sandbox = Sandbox(environment, folder)
    tempfile.tempdir = str(folder)
    return sandbox


def _leave(reason: Unfit) -> NoReturn:
    """Ends this process without an answer, so that Lambda starts another one before the next invocation.

    The state machine goes by the outcome: it has been written if the attempt was made, and it counts. If it was not made, nobody has
    claimed its place, and the next attempt begins at once.
    https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
    """
    JsonLog({}).error("this sandbox is taken out of service", error=f"{reason}")
    os._exit(1)


@contextlib.contextmanager
def _unfit_if_it_fails() -> Iterator[None]:
    try:
        yield
    except (Changed, OSError, descendants.StillRunning, removal.NotEmpty) as exc:
        raise Unfit(f"{exc}") from exc


def _left(until: float) -> float:
    return max(_LEAST_SECONDS, until - time.monotonic())


def _pointer(event: object) -> tuple[str, int, int]:
    fits = isinstance(event, Mapping) and set(event) == set(_POINTER)
    if not (fits and isinstance(event, Mapping) and all(type(event[name]) is kind for name, kind in _POINTER.items())):
        raise TypedError(RUNNER_ERROR, f"the event must be {list(_POINTER)} and nothing else: this function is called by the state machine")
    return event["run_key"], event["step"], event["attempt"]
