"""The command line of `dbt-runner`: for people, for CI, and (step, check) as the container's entry point.

Each command lives in a module that is imported when the command is called, so that `dbt-runner step` does not pay for what
only people need, and the other way round.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
import traceback
from typing import Any

import click

from dbt_runner import __version__
from dbt_runner.cli.guard import guarded, harmless
from dbt_runner.errors import RUNNER_ERROR, TypedError

_COMMANDS = {
    "step": "dbt_runner.cli.container",
    "check": "dbt_runner.cli.check",
    "start": "dbt_runner.cli.runs",
    "status": "dbt_runner.cli.runs",
    "resume": "dbt_runner.cli.runs",
    "show": "dbt_runner.cli.runs",
    "list": "dbt_runner.cli.runs",
    "ci": "dbt_runner.cli.ci",
    "report": "dbt_runner.cli.report",
    "logs": "dbt_runner.cli.logs",
    "history": "dbt_runner.cli.history",
    "cost": "dbt_runner.cli.cost",
    "release": "dbt_runner.cli.release",
    "verify": "dbt_runner.cli.release",
    "local": "dbt_runner.cli.local",
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: Any = getattr(importlib.import_module(_COMMANDS[cmd_name]), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="dbt-runner")
def cli() -> None:
    """Runs dbt on AWS Step Functions: releases, runs, and what became of them."""


def main() -> None:
    """The console script: a typed error becomes one line on stderr and its own exit code, any other one a line and exit code 1.

    What it prints is harmless to a terminal. A container's log is JSON, for programs, and comes out as it is.
    """
    with contextlib.nullcontext() if "DBT_RUNNER_RUN_KEY" in os.environ else guarded():
        try:
            cli(prog_name="dbt-runner")
        except TypedError as exc:
            click.echo(f"dbt-runner: {exc}", err=True)
            sys.exit(exc.kind.exit_code)
        except Exception as exc:
            click.echo(f"dbt-runner: {_unforeseen(exc)}", err=True)
            sys.exit(RUNNER_ERROR.exit_code)


def _unforeseen(exc: Exception) -> str:
    """One line for an exception that no command expects. The traceback goes to a file that only its owner may read."""
    said = " ".join(f"{type(exc).__name__}: {exc}".encode(errors="backslashreplace").decode().split())[:300]
    try:
        with tempfile.NamedTemporaryFile("w", prefix="dbt-runner-error-", suffix=".txt", delete=False, encoding="utf-8") as file:
            file.writelines(harmless(line) for line in traceback.format_exception(exc))
    except OSError:
        return f"{RUNNER_ERROR.name}: {said} (a bug of dbt-runner: report it with the command that you ran)"
    return f"{RUNNER_ERROR.name}: {said} (a bug of dbt-runner: report it with the command that you ran and {file.name})"
