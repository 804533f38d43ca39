"""One dbt project through the whole flow on the local stack: release, run, audit trail.

Whatever can be refused is refused before the stack is started, and the project is packed and parsed while Terraform waits for the
provider: both together save a user more than half of the time to the first answer.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dbt_runner import config, promotion, publish, release, runs, stage
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.local.errors import TerraformError
from dbt_runner.local.stack import LocalStack, Progress, find_module
from dbt_runner.runs import RunDetail
from dbt_runner.store import Item, Store, environment_pk, release_pk, run_pk

ENVIRONMENT = "local"
VERSION = "local"
ADAPTER = "duckdb"
AUTHOR = "dbt-runner local"

Say = Callable[[str], None]


@dataclass(frozen=True)
class LocalRun:
    """A run on the local stack, when it has ended.

    Attributes:
        audit: every item of the table that the run and its release left.
        lock_is_free: whether the environment's lock was released.
        up_seconds, publish_seconds, run_seconds: how long the stack, the release (beyond the stack) and the run took.
    """

    detail: RunDetail
    release: release.Published
    audit: tuple[Item, ...]
    lock_is_free: bool
    up_seconds: float
    publish_seconds: float
    run_seconds: float


def default_jobs() -> Mapping[str, Any]:
    """The jobs of the local environment, as examples/local gives them to the module."""
    jobs: Mapping[str, Any] = json.loads((find_module() / "examples" / "local" / "jobs.json").read_text())
    return jobs


def run_project(
    project: Path,
    job: str,
    home: Path,
    *,
    compute: str = "fargate",
    say: Say,
    watch: Callable[[Iterator[RunDetail]], RunDetail],
) -> LocalRun:
    """Takes a dbt project through release, promotion and one run of a job, on a stack that lives for this call.

    Args:
        project: the folder with dbt_project.yml; nothing in it is changed.
        job: a job of `default_jobs`.
        home: what the stack writes goes there: warehouse.duckdb, the tasks' logs, Terraform's state.
        compute: where the steps and the health check run: fargate or lambda.
        say: is told what happens next.
        watch: consumes the run's states until it has ended, and returns the last one.

    Raises:
        TypedError, StackError, TerraformError, MotoError: with a message that says what to do. Nothing is left running.
    """
    stage.read_project(project)
    jobs = default_jobs()
    if job not in jobs:
        raise TypedError(INVALID_REQUEST, f"job: the local stack has no job {job}; it has: {', '.join(jobs)}")
    with tempfile.TemporaryDirectory(prefix="dbt-local-") as folder, ThreadPoolExecutor(1, "publish") as pool:
        say(f"packing and parsing {project}")
        candidate = pool.submit(_candidate, project, Path(folder), say)
        started = time.monotonic()
        local = LocalStack(home, variables={"compute": compute}, on_progress=_Reporter(say, candidate), on_warning=_warner(say))
        candidate.add_done_callback(lambda done: local.give_up() if done.exception() else None)
        with _in_place_of_terraforms_error(candidate), local as stack:
            up = time.monotonic()
            store = open_store(stack)
            done = release.commit(store, candidate.result())
            promotion.promote(store, ENVIRONMENT, VERSION, by=AUTHOR, reason="local run")
            published = time.monotonic()
            counts = ", ".join(f"{number} {kind}" for kind, number in done.release.counts.items())
            say(f"release {VERSION} of {done.release.project} is published and promoted: {counts}")
            environment = config.load(store, ENVIRONMENT)
            stepfunctions = stack.client("stepfunctions")
            run = runs.start_run(stepfunctions, environment, {"job": job, "trigger": "local"})
            say(f"run {run.run_id} of job {job} has started")
            detail = watch(runs.follow(store, stepfunctions, environment, run, interval=0.2))
            ended = time.monotonic()
            return LocalRun(
                detail=detail,
                release=done,
                audit=tuple(_audit(store, detail)),
                lock_is_free=runs.lock_of(store, ENVIRONMENT) is None,
                up_seconds=up - started,
                publish_seconds=published - up,
                run_seconds=ended - published,
            )


def serve(home: Path, variables: Mapping[str, Any], *, say: Say, ready: Callable[[LocalStack], None]) -> None:
    """Keeps a stack up until Ctrl-C or SIGTERM ends it from outside.

    Args:
        variables: of examples/local, instead of its defaults.
        ready: called once, when the stack can be used.
    """
    warn = _warner(say)
    with LocalStack(home, variables=variables, on_progress=_Reporter(say), on_warning=warn) as stack:
        ready(stack)
        threading.Event().wait()


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves through every `with`, as Ctrl-C does, so that nothing is left running.

    So does SIGINT, whatever the parent left it as: a shell starts a script's background commands with SIGINT ignored.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + signal.SIGTERM)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, leave),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_store(stack: LocalStack) -> Store:
    """The audit store of a stack."""
    return Store(stack.client("dynamodb"), stack.client("s3"), stack.outputs["table"], stack.outputs["bucket"])


def _warner(say: Say) -> Say:
    return lambda text: say(f"warning: {text}")


@contextlib.contextmanager
def _in_place_of_terraforms_error(candidate: Future[release.Candidate]) -> Iterator[None]:
    """Raises why a project cannot be used, where Terraform was stopped for it."""
    try:
        yield
    except TerraformError:
        if candidate.done():
            candidate.result()
        raise


def _candidate(project: Path, folder: Path, say: Say) -> release.Candidate:
    packed = publish.pack(project, VERSION, ADAPTER, folder, say)
    return publish.parse(packed, AUTHOR, say)


def _audit(store: Store, detail: RunDetail) -> Iterator[Item]:
    run = detail.run
    yield from store.query(release_pk(VERSION))
    for item in store.query(environment_pk(ENVIRONMENT)):
        if "config" not in item:
            yield item
    yield from store.query(run_pk(ENVIRONMENT, run.run_id))


class _Reporter:
    """Says how far the stack is; ends its start when the project turns out to be unusable meanwhile."""

    _EVERY = 10

    def __init__(self, say: Say, candidate: Future[release.Candidate] | None = None) -> None:
        self._say = say
        self._candidate = candidate
        self._said = 0

    def __call__(self, progress: Progress) -> None:
        if self._candidate is not None and self._candidate.done():
            self._candidate.result()
        if progress.phase == "start":
            self._say("starting the embedded AWS")
        elif progress.phase == "init":
            self._say("terraform init")
        elif progress.phase == "ready":
            self._say("the stack is up")
        elif progress.done - self._said >= self._EVERY or progress.done == progress.total:
            self._said = progress.done
            self._say(f"terraform {progress.phase}: {progress.done} of {progress.total} resources")
