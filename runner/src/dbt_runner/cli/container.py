"""`dbt-runner step` and, in a container, `dbt-runner check`: what the state machine calls."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import click

from dbt_runner import isolation


@click.command("step", hidden=True)
def step_command() -> None:
    """Runs one attempt of a step (called by the state machine)."""
    _leave_on_sigterm()
    isolation.require(os.environ)
    from dbt_runner.attempt import from_container

    sys.exit(from_container())


def check_in_container() -> None:
    """Checks the request, the release and the warehouse before a run (called by the state machine), and exits."""
    _leave_on_sigterm()
    isolation.require(os.environ)
    from dbt_runner.attempt import from_container

    sys.exit(from_container({**os.environ, "DBT_RUNNER_STEP": "0"}))


def _leave_on_sigterm() -> None:
    """Until the attempt has handlers of its own: a process with the number 1 ignores a signal that it doesn't handle."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
