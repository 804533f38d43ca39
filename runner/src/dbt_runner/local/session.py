"""One dbt project through the whole flow on the local stack: release, run, audit trail.

Whatever can be refused is refused before the stack is started, and the project is packed and parsed while Terraform waits for the
provider: both together save a user more than half of the time to the first answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dbt_runner import config, profile, project_yaml, promotion, publish, release, runs, stage
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.local.errors import TerraformError
from dbt_runner.local.stack import LocalStack, Progress, find_module
from dbt_runner.publisher import Publisher, missing_calls
from dbt_runner.request import EXECUTING_VERBS, parse_command, validate_input
from dbt_runner.runs import RunDetail
from dbt_runner.store import Item, Store, environment_pk, release_pk, run_pk

ENVIRONMENT = "local"
VERSION = "local"
ADAPTER = "duckdb"
AUTHOR = "dbt-runner local"

Say = Callable[[str], None]

# What dbt's process has when it parses and when it runs.
_ALWAYS_SET = ("PATH", "HOME", "LANG", "TMPDIR")


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


def run_input(
    job: str, *, vars: Mapping[str, Any] | None = None, full_refresh: bool = False, select: Sequence[str] = ()
) -> Mapping[str, Any]:
    """The input of a run of a job of `default_jobs`.

    Args:
        vars, full_refresh: as in an input.
        select: dbt's node selection, for each command of the job that builds or tests nodes; the run is then one of these steps.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the field.
    """
    jobs = default_jobs()
    if job not in jobs:
        raise TypedError(INVALID_REQUEST, f"job: the local stack has no job {job}; it has: {', '.join(jobs)}")
    asked: dict[str, Any] = {"job": job, "trigger": "local"}
    if select:
        steps = [{**step, "commands": [_selecting(command, select) for command in step["commands"]]} for step in jobs[job]["steps"]]
        asked = {"steps": steps, "trigger": "local"}
    if vars:
        asked["vars"] = dict(vars)
    if full_refresh:
        asked["full_refresh"] = True
    return validate_input(asked)


def run_project(
    project: Path,
    asked: Mapping[str, Any],
    home: Path,
    *,
    publisher: Publisher | None = None,
    compute: str = "fargate",
    say: Say,
    watch: Callable[[Iterator[RunDetail]], RunDetail],
) -> LocalRun:
    """Takes a dbt project through release, promotion and one run of a job, on a stack that lives for this call.

    Args:
        project: the folder with dbt_project.yml; nothing in it is changed.
        asked: the run's input, see `run_input`. Its vars are those of the parse, too.
        publisher: whose variables the project gets, for the parse and the run; None for none by name.
        home: what the stack writes goes there: warehouse.duckdb, the tasks' logs, Terraform's state.
        compute: where the steps and the health check run: fargate or lambda.
        say: is told what happens next.
        watch: consumes the run's states until it has ended, and returns the last one.

    Raises:
        TypedError, StackError, TerraformError, MotoError: with a message that says what to do. Nothing is left running.
    """
    source = stage.read_project(project)
    publisher = publisher or Publisher.of(os.environ)
    check_variables(publisher)
    missing = list(_missing(source, publisher, asked.get("vars", {})))
    for problem in missing:
        say(f"warning: {problem}")
    with tempfile.TemporaryDirectory(prefix="dbt-local-") as folder, ThreadPoolExecutor(1, "publish") as pool:
        say(f"packing and parsing {project}")
        candidate = pool.submit(_candidate, project, Path(folder), say, asked.get("vars", {}), publisher)
        started = time.monotonic()
        if missing:
            # dbt may well refuse the project for it, and that is known long before the stack is up.
            candidate.result()
        variables = {"compute": compute, "env_vars": dict(publisher.given)}
        local = LocalStack(home, variables=variables, on_progress=_Reporter(say, candidate), on_warning=_warner(say))
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
            run = runs.start_run(stepfunctions, environment, dict(asked))
            say(f"run {run.run_id} of {'job ' + asked['job'] if 'job' in asked else 'the selected nodes'} has started")
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


def check_variables(publisher: Publisher) -> None:
    """Refuses variables that the module would refuse when it is applied.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the variable.
    """
    for name in publisher.given:
        if name.startswith("DBT_ENV_SECRET_") or profile.names_secret(name):
            raise TypedError(
                INVALID_REQUEST,
                f"--env: {name} is named like a secret, and the local stack has plain variables only, as `env_vars` of the module: "
                "give the project a default for it",
            )


def _candidate(project: Path, folder: Path, say: Say, vars: Mapping[str, Any], publisher: Publisher) -> release.Candidate:
    packed = publish.pack(project, VERSION, ADAPTER, folder, say, vars, publisher=publisher)
    return publish.parse(packed, AUTHOR, say)


def _selecting(command: str, select: Sequence[str]) -> str:
    verb = parse_command(command, "commands").verb
    if verb not in EXECUTING_VERBS or verb == ("run-operation",):
        return command
    return f"{command} --select {shlex.join(select)}"


def _missing(source: stage.Project, publisher: Publisher, vars: Mapping[str, Any]) -> Iterator[str]:
    """What the project asks for without a default and does not get, as far as its text tells that."""
    texts = [
        (name, re.sub(r"\{#.*?#\}", "", path.read_text(errors="replace"), flags=re.DOTALL))
        for name, path in stage.files(source.root, roots=[path.resolve() for path in stage.local_packages(source)]).items()
        if path.suffix in (".sql", ".yml", ".yaml")
    ]
    for name, file in missing_calls("env_var", texts, {*publisher.given, *_ALWAYS_SET}):
        yield f"{file} needs the environment variable {name}: pass --env {name}=VALUE"
    known = {*vars, *_keys(project_yaml.read(source.root / stage.PROJECT_FILE).get("vars"))}
    for name, file in missing_calls("var", texts, known):
        yield f"{file} needs the variable {name}: pass --vars '{{\"{name}\": VALUE}}'"


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _keys(item)


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
