"""`dbt-runner local`: the whole flow on this machine, with an AWS that lives inside the command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dbt_runner.cli.common import env_option, json_object, print_json
from dbt_runner.errors import INVALID_REQUEST, RUNNER_ERROR, TypedError

if TYPE_CHECKING:
    from dbt_runner.local.session import LocalRun
    from dbt_runner.local.stack import LocalStack
    from dbt_runner.runs import RunDetail

# The lines of `up` are pasted into a shell. What the module takes is stricter, and is checked at plan.
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]+")
_home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep what the stack writes (the DuckDB file, logs, Terraform's state) in this folder.",
)

_compute_option = click.option(
    "--compute",
    type=click.Choice(["fargate", "lambda"]),
    default="fargate",
    show_default=True,
    help="Where the steps and the health check run: as tasks of ECS, or as a Lambda function with its limits.",
)


@click.group("local")
def local_command() -> None:
    """Tries a dbt project in the whole flow on this machine: no AWS account, no Docker, nothing left behind."""


@local_command.command("run")
@click.option(
    "--project", type=click.Path(path_type=Path), default=Path("."), show_default="the working directory", help="The dbt project."
)
@click.option("--job", "-j", default="build", show_default=True, help="A job of the local environment: build or hourly.")
@click.option("--keep", is_flag=True, help="Keep the stack's folder, with the DuckDB file, and say where it is.")
@_home_option
@_compute_option
@click.option("--vars", "vars_", metavar="JSON", help="dbt's --vars as a JSON object, for the parse and the run.")
@env_option
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds from scratch.")
@click.option("--select", "-s", "select", multiple=True, metavar="NODES", help="dbt's --select for the job's commands that build or test.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON; progress goes to standard error.")
def run_command(
    *,
    project: Path,
    job: str,
    keep: bool,
    home: Path | None,
    compute: str,
    vars_: str | None,
    env: Sequence[str],
    full_refresh: bool,
    select: Sequence[str],
    as_json: bool,
) -> None:
    """Takes a dbt project through the whole flow: apply, release, run, audit trail. It runs on DuckDB.

    Parse and run get the same variables: those of --vars and --env, and none of your environment besides.
    """
    asked = {"vars": json_object("--vars", vars_), "full_refresh": full_refresh, "select": select}
    _run("local", project, job, keep, home, compute, as_json, env, **asked)


@local_command.command("demo")
@_compute_option
def demo_command(compute: str) -> None:
    """The sample project through the whole flow: what `make demo` calls."""
    from dbt_runner.local.stack import find_module

    _run("demo", find_module() / "examples" / "local" / "shop", "hourly", keep=False, home=None, compute=compute, as_json=False)


@local_command.command("rollback")
def rollback_command() -> None:
    """A bad release and the way back, with the sample project: what `make demo-rollback` calls."""
    from dbt_runner.cli import progress
    from dbt_runner.local import rollback, session

    def watch(details: Iterator[RunDetail]) -> RunDetail:
        return progress.show_progress(details, stream=sys.stdout)

    with _folder(None, keep=False) as folder, session.exit_on_sigterm(), _cause_on_the_last_line("rollback"):
        story = rollback.tell(folder, say=_clock(err=False), watch=watch)
    click.echo("")
    for move in story.promotions:
        click.echo(f"{move.promoted_at}  {move.previous or '(none)'} -> {move.version}  {move.promoted_by}: {move.reason}")
    for detail in story.runs:
        click.echo(f"{detail.run.started_at}  run {detail.run.run_id} of {detail.run.release}: {detail.run.error or detail.run.status}")
    click.echo(f"rollback: the next run started {story.rollback_seconds:.1f} s after it, without a build or an apply")
    statuses = [(detail.run.release, detail.run.status) for detail in story.runs]
    if statuses != [(rollback.GOOD, "SUCCEEDED"), (rollback.BROKEN, "FAILED"), (rollback.GOOD, "SUCCEEDED")]:
        raise TypedError(RUNNER_ERROR, f"the story went another way: {statuses}")


@local_command.command("up")
@_home_option
@click.option(
    "--environments",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A JSON file with the module's `environments` instead of the one environment local.",
)
def up_command(home: Path | None, environments: Path | None) -> None:
    """Keeps the stack up until Ctrl-C, and prints the variables with which other terminals reach it."""
    from dbt_runner.local import session

    say = _clock(err=True)
    variables = {"environments": _environments(environments)} if environments else {}
    names = list(variables.get("environments", [session.ENVIRONMENT]))

    def ready(stack: LocalStack) -> None:
        for name, value in stack.environ.items():
            click.echo(f"export {name}={value}")
        click.echo(f"export DBT_RUNNER_ENVIRONMENT={names[0]}")
        if len(names) > 1:
            click.echo(f"# or one of: {', '.join(names[1:])}")
        say("ready: paste the lines above into another terminal; Ctrl-C ends the stack")

    with _folder(home, keep=False) as folder, session.exit_on_sigterm(), _cause_on_the_last_line("local"):
        try:
            session.serve(folder, variables, say=say, ready=ready)
        except KeyboardInterrupt:
            say("the stack is down")


def _run(
    label: str,
    project: Path,
    job: str,
    keep: bool,
    home: Path | None,
    compute: str,
    as_json: bool,
    env: Sequence[str] = (),
    **asked: Any,
) -> None:
    from dbt_runner.cli import progress
    from dbt_runner.local import session
    from dbt_runner.publisher import Publisher

    started = time.monotonic()
    stream = sys.stderr if as_json else sys.stdout
    say = _clock(err=as_json)

    def watch(details: Iterator[RunDetail]) -> RunDetail:
        return progress.show_progress(details, stream=stream)

    with _folder(home, keep) as folder, session.exit_on_sigterm(), _cause_on_the_last_line(label):
        wanted = session.run_input(job, **asked)
        publisher = Publisher.of(os.environ, env)
        done = session.run_project(project, wanted, folder, publisher=publisher, compute=compute, say=say, watch=watch)
        if keep or home:
            say(f"kept: {folder} (warehouse.duckdb, logs/)")
    if as_json:
        print_json({**dataclasses.asdict(done.detail), "release": dataclasses.asdict(done.release)})
    else:
        _show(done)
    run = done.detail.run
    seconds = time.monotonic() - started
    nodes = sum(sum(step.counts.values()) for step in run.steps)
    if run.status == "SUCCEEDED" and done.lock_is_free:
        click.echo(f"{label}: run {run.run_id} {run.status}: {nodes} nodes in {seconds:.1f} s", err=as_json)
        return
    cause = f"{run.error}: {run.cause}" if run.error else "" if done.lock_is_free else "the lock was not released"
    click.echo(f"{label}: run {run.run_id} {run.status}: {cause}", err=as_json)
    sys.exit(run.exit_code or RUNNER_ERROR.exit_code)


def _show(done: LocalRun) -> None:
    from dbt_runner.cli import render, terminal

    terminal.write(
        "",
        render.run_record(done.detail),
        "",
        render.audit_items(done.audit),
        "",
        f"Lock      {'free' if done.lock_is_free else 'HELD'}",
        f"Times     stack {done.up_seconds:.1f} s, release {done.publish_seconds:.1f} s, run {done.run_seconds:.1f} s",
    )


def _clock(*, err: bool) -> Callable[[str], None]:
    """Says a line with the seconds since now in front of it."""
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"[{time.monotonic() - started:6.1f} s] {text}", err=err)

    return say


def _environments(path: Path) -> dict[str, Any]:
    """The module's `environments`, as a file has them; that of the command first if it is there.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file.
    """
    from dbt_runner.local import session

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise TypedError(INVALID_REQUEST, f"{path} is not JSON: {exc}") from exc
    if not isinstance(document, dict) or not document:
        raise TypedError(INVALID_REQUEST, f"{path} must hold an object with an environment for each name, as the module's environments")
    if bad := [name for name in document if not _ENVIRONMENT.fullmatch(name)]:
        raise TypedError(INVALID_REQUEST, f"{path}: {bad[0]!r} is no name of an environment: use lower-case letters, digits and hyphens")
    first = [session.ENVIRONMENT] if session.ENVIRONMENT in document else []
    return {name: document[name] for name in dict.fromkeys([*first, *document])}


@contextlib.contextmanager
def _folder(home: Path | None, keep: bool) -> Iterator[Path]:
    """The stack's folder: the user's own, or a temporary one, which is removed unless it is to be kept."""
    if home is not None or keep:
        yield home or Path(tempfile.mkdtemp(prefix="dbt-local-"))
        return
    with tempfile.TemporaryDirectory(prefix="dbt-local-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _cause_on_the_last_line(label: str) -> Iterator[None]:
    """Ends the command with its exit code, and with what went wrong on the last line."""
    from dbt_runner.local.errors import LocalError

    code = RUNNER_ERROR.exit_code
    try:
        yield
        return
    except KeyboardInterrupt:
        problem, code = "interrupted; nothing is left running", 130
    except TypedError as exc:
        problem, code = f"FAILED: {exc}", exc.kind.exit_code
    except LocalError as exc:
        problem = f"FAILED: {exc}"
    click.echo(f"{label}: {problem}", err=True)
    sys.exit(code)
