"""`dbt-runner logs`: what a run's containers said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from dbt_runner import runs
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, found_run, open_here, run_argument
from dbt_runner.cli.guard import exact_json
from dbt_runner.run_logs import LogQuery, follow, lines_of
from dbt_runner.runs import LAST
from dbt_runner.words import clean, local_time


@click.command("logs")
@run_argument(default=LAST)
@click.option("--node", "-n", help="Only lines about this node: its unique_id, or its name.")
@click.option("--step", "-s", help="Only lines of this step.")
@click.option("--follow", "-f", "following", is_flag=True, help="Go on until the run has ended.")
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds between two looks at the log.")
@common_options
def logs_command(
    *,
    table: str | None,
    environment: str,
    as_json: bool,
    run: str,
    node: str | None,
    step: str | None,
    following: bool,
    interval: float,
) -> None:
    """Shows what a run's containers and Lambda calls wrote to their logs.

    RUN is a run id, the beginning of one, or the word last, which is also what it is when it is left out. --json prints each line as the
    JSON object that the container wrote.
    """
    with aws.aws_errors():
        here = open_here(table, environment)
        found = found_run(here, run)
        if node is not None and node.count(".") < 2:
            from dbt_runner.node_history import unique_id_of

            node = unique_id_of(here.store, [found], node)
        query = LogQuery(found.run_id, step, node)
        logs = aws.client("logs")
        lines: Iterator[dict[str, Any]]
        if following:
            lines = follow(
                logs, here.config.log_groups, found, query, lambda old: runs.refreshed(here.store, here.config, old), interval=interval
            )
        else:
            lines = lines_of(logs, here.config.log_groups, found, query)
        for line in lines:
            click.echo(exact_json(line, indent=None) if as_json else _readable(line))


def _readable(line: dict[str, Any]) -> str:
    """A line for people: when, how bad, where, what. Fields that are not of every line come last."""
    always = ("time", "level", "message", "run_id", "environment", "step", "attempt", "node")
    more = " ".join(f"{key}={json.dumps(value)}" for key, value in line.items() if key not in always and value is not None)
    when = local_time(str(line["time"])).split(" ")[1] if line.get("time") else ""
    where = f"{line.get('step', '')}/{line.get('attempt', '')}"
    level = str(line.get("level", "info"))
    marked = f" {level.upper()}" if level != "info" else ""
    return clean(f"{when}  {where}{marked}  {line.get('message', '')}{'  ' + more if more else ''}")
