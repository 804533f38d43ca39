"""start, resume, status, show and list: runs for people, and as JSON for scripts.

What --json prints are the fields of the dataclasses in dbt_runner.runs, by their names there; times are in UTC.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from dbt_runner import resumption, runs, variables
from dbt_runner.cli import aws
from dbt_runner.cli.common import Here, common_options, found_run, in_zone, open_here, print_json, run_argument, since_option
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.request import CURRENT
from dbt_runner.runs import LAST, Run, RunDetail

_STATUSES = ("RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "ABORTED", "TIMED_OUT")
_INTERRUPTED_BY_KEYBOARD = 130


_interval_option = click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks at the run."
)


_reason_option = click.option("--reason", help="Why, for the audit.")
_run_id_option = click.option("--run-id", help="The run's id. The same id and request again start nothing new while the run goes on.")
_wait_option = click.option("--wait/--no-wait", default=False, help="Follow the run and exit with the exit code of its error.")


@click.command("start")
@click.option("--job", "-j", help="A job of the environment.")
@click.option(
    "--step", "-s", "steps", multiple=True, metavar="'NAME: COMMAND'", help="A step instead of a job; the same name again adds a command."
)
@click.option("--release", help="A published version instead of the current release.")
@click.option("--vars", "vars_", metavar="JSON", help="dbt's --vars as a JSON object; they win over the job's.")
@click.option("--full-refresh", is_flag=True, help="Rebuild incremental models and seeds from scratch.")
@click.option(
    "--defer-to", metavar="VERSION", help="The release to compare with (state:modified) and to take from what is not built: or current."
)
@click.option("--schema-suffix", metavar="SUFFIX", help="Build into schemas of their own, which end in this; with --defer-to.")
@_reason_option
@_run_id_option
@_wait_option
@_interval_option
@common_options
def start_command(
    *,
    table: str | None,
    environment: str,
    as_json: bool,
    job: str | None,
    steps: Sequence[str],
    release: str | None,
    vars_: str | None,
    full_refresh: bool,
    defer_to: str | None,
    schema_suffix: str | None,
    reason: str | None,
    run_id: str | None,
    wait: bool,
    interval: float,
) -> None:
    """Starts a run of a job, or of steps given here.

    \b
    dbt-runner start --job hourly --wait
    dbt-runner start --step "fix: run --select orders+" --reason "ticket 123"
    dbt-runner start --release 3f2a --step "ci: build --select state:modified+" --defer-to current --schema-suffix pr_12

    --json prints the run (a Run), with --wait as it ended. A skipped run exits with 0.
    """
    document = _document(job, steps, release, vars_, full_refresh, reason)
    document.update({key: value for key, value in {"defer_to": defer_to, "schema_suffix": schema_suffix}.items() if value is not None})
    with aws.aws_errors():
        here = open_here(table, environment)
        _start(here, document, run_id, wait, interval, as_json)


@click.command("resume")
@run_argument()
@click.option(
    "--release",
    type=click.Choice([CURRENT]),
    help="On the environment's current release instead of RUN's: also what has changed since, and what depends on it.",
)
@_reason_option
@_run_id_option
@_wait_option
@_interval_option
@common_options
def resume_command(
    *,
    table: str | None,
    environment: str,
    as_json: bool,
    run: str,
    release: str | None,
    reason: str | None,
    run_id: str | None,
    wait: bool,
    interval: float,
) -> None:
    """Does the rest of a run that failed, was aborted or ran out of time, in a new run.

    It has the release, the steps, the variables and the flags of RUN. Steps that ended well are not run again, nor are nodes that
    succeeded.

    With --release current it has the current release, such as one that mends RUN's. It runs what failed, what was skipped, what is not
    the same in both releases, and everything that depends on these. Changes that act on all nodes are refused by name.
     RUN is a run id, the beginning of one, or the word last. --json prints the new run (a Run), with --wait as it ended.
    """
    with aws.aws_errors():
        here = open_here(table, environment)
        earlier = found_run(here, run)
        problem = resumption.refusal(here.config, earlier, datetime.now(UTC), on_current=release is not None)
        if problem is not None:
            raise TypedError(INVALID_REQUEST, problem)
        _say_release(here, earlier, release)
        document = {"resume": earlier.run_id, "trigger": "cli", **({"reason": reason} if reason is not None else {})}
        if release is not None:
            document["release"] = release
        _start(here, document, run_id, wait, interval, as_json)


@click.command("status")
@run_argument(required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run is closed; without RUN, the one that is running now.")
@_interval_option
@common_options
def status_command(*, table: str | None, environment: str, as_json: bool, run: str | None, follow: bool, interval: float) -> None:
    """Shows how an environment is, or how far a run is.

    RUN is a run id, the beginning of one, or the word last. --json prints an EnvironmentStatus, or for a run a RunDetail; with
    --follow, the run's last one.
    """
    with aws.aws_errors():
        here = open_here(table, environment)
        if run is None:
            status = runs.environment_status(here.store, here.stepfunctions, here.config)
            if not follow or status.running is None:
                print_json(status) if as_json else _write_environment(status)
                return
            found = status.running.run
        else:
            found = found_run(here, run)
        if follow:
            detail = _follow(here, found, interval, quiet=as_json)
        else:
            detail = runs.detail_of(here.store, found)
            if not as_json:
                from dbt_runner.cli import render, terminal

                terminal.write(render.run_status(detail))
    if as_json:
        print_json(detail)


@click.command("show")
@run_argument(default=LAST)
@click.option("--nodes", type=click.Choice(["all", "failed"]), default="all", show_default=True, help="Which nodes to list.")
@common_options
def show_command(*, table: str | None, environment: str, as_json: bool, run: str, nodes: str) -> None:
    """Shows all that is recorded of a run: its steps, nodes, failures and artifacts.

    RUN is a run id, the beginning of one, or the word last, which is also what it is when it is left out. --json prints a RunDetail.
    """
    with aws.aws_errors():
        here = open_here(table, environment)
        detail = runs.detail_of(here.store, found_run(here, run))
    if nodes == "failed":
        detail = dataclasses.replace(detail, nodes=tuple(node for node in detail.nodes if node.failed))
    if as_json:
        print_json(detail)
        return
    from dbt_runner.cli import render, terminal

    terminal.write(render.run_record(detail))


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many runs at the most.")
@click.option("--status", type=click.Choice(_STATUSES, case_sensitive=False), help="Only runs with this status.")
@click.option("--job", "-j", help="Only runs of this job.")
@since_option("Only runs")
@common_options
def list_command(
    *, table: str | None, environment: str, as_json: bool, limit: int, status: str | None, job: str | None, since: datetime | None
) -> None:
    """Lists an environment's runs, newest first. --json prints a list of Runs."""
    with aws.aws_errors():
        here = open_here(table, environment)
        found = runs.list_runs(here.store, here.config, status=status, job=job, since=in_zone(since))
        listed = list(itertools.islice(found, limit))
    if as_json:
        print_json(listed)
        return
    from dbt_runner.cli import render, terminal

    terminal.write(render.run_list(listed))


def _say_release(here: Here, run: Run, release: str | None) -> None:
    """Says which release the rest of a run will have, where that is not the current one, or not the run's."""
    current = runs.current_release_of(here.store, here.config.environment)
    if current is None or run.release == current.version:
        return
    about = f"Run {run.run_id} is on release {run.release}, current is {current.version}: this resumes it on"
    if release is not None:
        click.echo(f"{about} {current.version}", err=True)
    else:
        click.echo(f"{about} {run.release}; on {current.version} with --release {CURRENT}", err=True)


def _start(here: Here, document: Mapping[str, Any], run_id: str | None, wait: bool, interval: float, as_json: bool) -> None:
    """Starts a run, and with `wait` follows it and exits as it did."""
    run = runs.start_run(here.stepfunctions, here.config, document, run_id)
    if not wait:
        if as_json:
            print_json(run)
        else:
            click.echo(f"Started run {run.run_id} in environment {run.environment}.")
            click.echo(f"Follow it: dbt-runner status --environment {run.environment} --follow {run.run_id}")
        return
    run = _follow(here, run, interval, quiet=as_json).run
    if as_json:
        print_json(run)
    sys.exit(run.exit_code)


def _document(
    job: str | None, steps: Sequence[str], release: str | None, vars_: str | None, full_refresh: bool, reason: str | None
) -> dict[str, Any]:
    """The execution's input as the options say it.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the option.
    """
    if (job is None) == (not steps):
        raise TypedError(INVALID_REQUEST, "give either --job or --step")
    document: dict[str, Any] = {"trigger": "cli"}
    if job is not None:
        document["job"] = job
    else:
        document["steps"] = [{"name": name, "commands": commands} for name, commands in _commands_by_step(steps).items()]
    if release is not None:
        document["release"] = release
    if vars_ is not None:
        document["vars"] = variables.parse(vars_, "--vars")
    if full_refresh:
        document["full_refresh"] = True
    if reason is not None:
        document["reason"] = reason
    return document


def _commands_by_step(texts: Sequence[str]) -> dict[str, list[str]]:
    commands: dict[str, list[str]] = {}
    for text in texts:
        name, _, command = (part.strip() for part in text.partition(":"))
        if not name or not command:
            raise TypedError(INVALID_REQUEST, f"--step {text!r}: give a name and a command, such as 'fix: run --select orders+'")
        commands.setdefault(name, []).append(command)
    return commands


def _follow(here: Here, run: Run, interval: float, *, quiet: bool) -> RunDetail:
    """Shows a run until it is closed and then how it ended; `quiet` shows nothing."""
    details = runs.follow(here.store, here.stepfunctions, here.config, run, interval=interval)
    try:
        if quiet:
            *_, detail = details
            return detail
        from dbt_runner.cli import progress, render, terminal

        detail = progress.show_progress(details)
        if terminal.is_terminal():
            terminal.write(render.run_status(detail))
        return detail
    except KeyboardInterrupt:
        again = f"dbt-runner status --environment {run.environment} --follow {run.run_id}"
        click.echo(f"Run {run.run_id} goes on without being watched. Watch it again: {again}", err=True)
        sys.exit(_INTERRUPTED_BY_KEYBOARD)


def _write_environment(status: runs.EnvironmentStatus) -> None:
    from dbt_runner.cli import render, terminal

    terminal.write(render.environment(status))
