"""What the commands about runs share: their options, the environment that they are about, and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dbt_runner import config as configuration
from dbt_runner import variables
from dbt_runner.cli import aws
from dbt_runner.cli.guard import exact_json
from dbt_runner.config import EnvironmentConfig
from dbt_runner.store import Store

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

    from dbt_runner.run_records import Run

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Here:
    """What every command about runs works with. The store knows the bucket, too."""

    store: Store
    stepfunctions: SFNClient
    config: EnvironmentConfig


def open_here(table: str | None, environment: str) -> Here:
    """The audit store, Step Functions and an environment's configuration, by the caller's session.

    Raises:
        TypedError: as cli.aws.open_store and config.load.
    """
    config = configuration.load(aws.open_store(table), environment)
    return Here(aws.open_store(table, config.bucket), aws.client("stepfunctions"), config)


def common_options(command: _Command) -> _Command:
    """--table, --environment and --json, as `table`, `environment` and `as_json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts."),
        click.option("--environment", "-e", envvar="DBT_RUNNER_ENVIRONMENT", show_envvar=True, required=True, help="The environment."),
        click.option("--table", envvar="DBT_RUNNER_TABLE", show_envvar=True, help="The audit table."),
    ):
        command = option(command)
    return command


class RunReference(click.types.StringParamType):
    """RUN: an existing run. `found_run` resolves it, or `account.find` where only the bucket is asked: both take the same words."""

    name = "RUN"


def run_argument(**attributes: Any) -> Callable[[_Command], _Command]:
    """The argument RUN of a command, as `run`."""
    return click.argument("run", type=RunReference(), **attributes)


def found_run(here: Here, reference: str) -> Run:
    """The run that a RUN of the command line means.

    Raises:
        TypedError: as runs.find_run.
    """
    from dbt_runner import runs

    return runs.find_run(here.store, here.stepfunctions, here.config, reference)


project_option = click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default="the working directory",
    help="The dbt project's folder.",
)


env_option = click.option(
    "--env",
    "env",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="A variable for the project's env_var(); without a value, the one of this environment. Repeat it for more. dbt gets no others.",
)


def since_option(help: str) -> Callable[[_Command], _Command]:
    """--since, as a datetime without a zone where the caller gave none: see `in_zone`."""
    return click.option(
        "--since",
        type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]),
        metavar="TIME",
        help=f"{help} since then: 2026-11-01 or 2026-11-01T06:00, in the local time zone unless it has one (+0000).",
    )


def in_zone(since: datetime | None) -> datetime | None:
    """The moment that somebody means, in the local time zone where they named none."""
    return since.astimezone() if since else None


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """The JSON object that an option was given; empty where it was not.

    Raises:
        TypedError: Dbt.InvalidRequest when it is something else.
    """
    return variables.parse(text or "{}", option)


def print_json(value: Any) -> None:
    """Prints a dataclass, a list of them, or what is JSON already."""
    click.echo(exact_json(_plain(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
