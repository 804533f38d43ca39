"""`dbt-runner cost`: what an environment's runs of a month cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from dbt_runner import costs, runs
from dbt_runner.cli import aws
from dbt_runner.cli.common import common_options, open_here, print_json
from dbt_runner.costs import MonthCost
from dbt_runner.words import size


@click.command("cost")
@click.option("--month", "-m", help="A month in UTC, such as 2026-11; this month when it is left out.")
@click.option(
    "--prices", "prices_file", type=click.Path(path_type=Path, dir_okay=False), help="Prices of your region, in the form of prices.json."
)
@common_options
def cost_command(*, table: str | None, environment: str, as_json: bool, month: str | None, prices_file: Path | None) -> None:
    """Reckons what the runs of a month cost, by job: Fargate, Lambda, Step Functions' transitions, and storage.

    An estimate from the runs' records and list prices of one region and day, both of which it says. The warehouse, the network, logs,
    and what is billed without a run are not in it. --json prints a MonthCost.
    """
    month = month or datetime.now(UTC).strftime("%Y-%m")
    first, next_month = costs.month_of(month)
    prices = costs.load_prices(prices_file)
    with aws.aws_errors():
        here = open_here(table, environment)
        last = next_month - timedelta(milliseconds=1)
        found = runs.list_runs(here.store, here.config, since=first, until=last)
        # The number of nodes stands in the steps of a closed run: nothing of a run is read but its few outcomes.
        read = ((run, runs.outcomes_of(here.store, run), sum(sum(step.counts.values()) for step in run.steps)) for run in found)
        cost = costs.cost_of_month(here.config, month, read, prices)
    if as_json:
        print_json(cost)
        return
    _write(cost)


def _write(cost: MonthCost) -> None:
    from rich.text import Text

    from dbt_runner.cli.terminal import Column, Rows, facts, write

    head = facts(
        (
            ("Environment", cost.environment),
            ("Month", cost.month),
            ("Total", f"{cost.total:,.2f} {cost.currency}"),
            ("Prices", f"list prices of {cost.prices_region}, {cost.prices_as_of}; an estimate"),
        )
    )
    names = ("runs", "tasks", "vCPU h", "GB h", "transitions", "stored", "Fargate", "Lambda", "Step Functions", "storage", "total")
    columns = (Column("job", whole=True), *(Column(name, right=True, whole=True) for name in names))
    rows = (
        (
            job.job or "(steps)",
            f"{job.runs:,}",
            f"{job.tasks:,}",
            f"{job.vcpu_hours:,.2f}",
            f"{job.gb_hours:,.2f}",
            f"{job.transitions:,}",
            size(job.stored_bytes),
            *(f"{money:,.4f}" for money in (job.fargate, job.lambda_, job.step_functions, job.storage, job.total)),
        )
        for job in cost.jobs
    )
    write(head, Text(""), Rows(columns, rows) if cost.jobs else Text("no runs", style="dim"))
