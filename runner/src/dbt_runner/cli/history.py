"""`dbt-runner history`: a node over its last runs."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from dbt_runner import runs
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, open_here, print_json
from dbt_runner.words import duration, local_time, one_line

if TYPE_CHECKING:
    from dbt_runner.node_history import NodeHistory


@click.command("history")
@click.option("--node", "-n", required=True, help="The node's unique_id, or its name.")
@click.option("--job", "-j", help="Only runs of this job.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many results at the most.")
@click.option("--runs", "last", type=click.IntRange(min=1), default=200, show_default=True, help="How many runs to look back.")
@common_options
def history_command(*, table: str | None, environment: str, as_json: bool, node: str, job: str | None, limit: int, last: int) -> None:
    """Shows a node's last results: how it ended, how long it took, and since when it fails.

    --json prints a NodeHistory.
    """
    from dbt_runner.node_history import history_of

    with aws.aws_errors():
        here = open_here(table, environment)
        looked_at = itertools.islice(runs.list_runs(here.store, here.config, job=job), last)
        found = history_of(here.store, here.config.environment, looked_at, node, limit=limit)
    if as_json:
        print_json(found)
        return
    _write(found)


def _write(found: NodeHistory) -> None:
    from rich.text import Text

    from dbt_runner.cli.terminal import Column, Rows, facts, styled, write

    since = f"{local_time(found.failing_since)}, run {found.failing_since_run}" if found.failing_since else None
    head = facts(
        (
            ("Node", found.unique_id),
            ("Environment", found.environment),
            ("Fails since", since),
            ("Last success", local_time(found.last_success) if found.last_success else "not in these runs"),
            ("Usually takes", duration(found.median_seconds)),
        )
    )
    columns = (
        Column("started", whole=True),
        Column("run", whole=True),
        Column("release"),
        Column("step"),
        Column("attempt", right=True),
        Column("status", whole=True),
        Column("duration", right=True, whole=True),
        Column("message", cut=True),
    )
    rows = (
        (
            local_time(result.started_at, zone=False) if result.started_at else "",
            result.run_id,
            result.release or "",
            result.step,
            str(result.attempt),
            styled(result.status),
            duration(result.seconds),
            one_line(result.message, 120),
        )
        for result in found.results
    )
    write(head, Text(""), Rows(columns, rows))
