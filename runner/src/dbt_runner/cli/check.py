"""check: can this environment log in to its warehouse and build there, and if not, where does the fault lie?

In a container the same word is the state machine's health check.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from dbt_runner.cli.common import common_options

if TYPE_CHECKING:
    from dbt_runner.runs import Run, RunDetail

# Not every run has a health check, and a run has at least one step: the one that reads the project and touches nothing.
_STEP = {"name": "parse", "commands": ["parse"]}


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        ok: whether the environment can run.
        fault: identity, network, warehouse or permission; None where the check is not what failed.
        error: as the outcome names it, with `message` and `why`.
        run: the run that did it.
    """

    ok: bool
    fault: str | None
    error: str | None
    message: str | None
    why: str | None
    run: Run


@click.command("check")
@click.option("--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds between two looks at the run.")
@common_options
def check_command(*, table: str | None, environment: str, as_json: bool, interval: float) -> None:
    """Checks that an environment can log in to its warehouse and build there, by its own role and network.

    \b
    dbt-runner check --environment prod

    It starts a run of nothing but the health check and a parse of the current release, waits for it, and says whether the identity, the
    network, the warehouse or a permission is at fault. Exits with the exit code of the error. --json prints a Check.
    """
    if "DBT_RUNNER_RUN_KEY" in os.environ:
        from dbt_runner.cli.container import check_in_container

        check_in_container()
    from dbt_runner import runs
    from dbt_runner.cli import aws
    from dbt_runner.cli.common import open_here, print_json

    with aws.aws_errors():
        here = open_here(table, environment)
        run = runs.start_run(here.stepfunctions, here.config, {"steps": [_STEP], "reason": "dbt-runner check", "trigger": "cli"}, None)
        if not as_json:
            click.echo(f"Checking by run {run.run_id} ...", err=True)
        *_, detail = runs.follow(here.store, here.stepfunctions, here.config, run, interval=interval)
    found = check_of(detail)
    if as_json:
        print_json(found)
    else:
        from dbt_runner.cli import terminal

        terminal.write(terminal.facts(_told(found)))
    sys.exit(0 if found.ok else found.run.exit_code or 1)


def check_of(detail: RunDetail) -> Check:
    """Reads a check from the run that did it: the last attempt of its health check, or else what the run itself says."""
    from dbt_runner.request import HEALTH_CHECK

    run = detail.run
    health = max((o for o in detail.outcomes if o.step == HEALTH_CHECK), key=lambda o: o.attempt, default=None)
    if health is None and run.status == "SUCCEEDED":
        problem = "health_check.enabled is false in this environment, so that nothing asked the warehouse"
        return Check(False, None, None, problem, None, run)
    if health is None or health.error is None:
        return Check(run.status == "SUCCEEDED", None, run.error, run.cause, None, run)
    return Check(False, health.fault, health.error, health.message, health.why, run)


def _told(found: Check) -> list[tuple[str, str | None]]:
    from dbt_runner.errors import ERRORS

    owner = ERRORS[found.error].owner if found.error in ERRORS else None
    result = "ok" if found.ok else "not checked" if found.error is None else "failed"
    return [
        ("Environment", found.run.environment),
        ("Check", result),
        ("At fault", found.fault),
        ("Error", f"{found.error} (who acts: {owner})" if owner else found.error),
        ("Message", found.message),
        ("Why", found.why),
        ("Run", found.run.run_id),
    ]
