"""Whether a run can be resumed: one answer for the command that does it, and for everything that offers it.

The state machine decides again when the new run has begun (CheckResumed in asl/dbt_run.asl.json). It refuses what cannot be resumed, and
here is also refused what would fail again in the same way.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from dbt_runner import callers, release
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import (
    ACCESS_DENIED,
    COMPILATION_ERROR,
    INVALID_REQUEST,
    NOTHING_SELECTED,
    RELEASE_CORRUPT,
    RELEASE_NOT_FOUND,
    TypedError,
)
from dbt_runner.request import HEALTH_CHECK, parse_command
from dbt_runner.run_records import Run

# How long Step Functions knows an execution that has ended.
# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
RESUMABLE = timedelta(days=90)
# As the state machine has it.
_LONGEST_CHAIN = 50
# Of a run of which nothing ran: the same release, steps and vars come to the same again, or a new run is what is wanted.
_STARTED_AGAIN = frozenset(
    kind.name for kind in (ACCESS_DENIED, COMPILATION_ERROR, INVALID_REQUEST, NOTHING_SELECTED, RELEASE_CORRUPT, RELEASE_NOT_FOUND)
)


def refusal(config: EnvironmentConfig, run: Run, now: datetime, *, on_current: bool = False) -> str | None:
    """Why a run cannot be resumed, for people; None where it can.

    Args:
        on_current: on the environment's current release, and not on the run's own.
    """
    name = f"run {run.run_id}"
    if not run.closed or run.ended_at is None:
        return f"{name} has not ended yet: dbt-runner status --follow {run.run_id}"
    if run.status in ("SUCCEEDED", "SKIPPED"):
        return f"{name} is {run.status}: there is nothing left of it to do"
    if run.release is None or not run.plan:
        return f"{name} never came as far as its steps: start it again"
    if now - datetime.fromisoformat(run.ended_at) > RESUMABLE:
        return f"{name} ended more than {RESUMABLE.days} days ago: start it again"
    if run.error in _STARTED_AGAIN and not _has_done_something(run):
        again = f" (dbt-runner start --job {run.job})" if run.job else ""
        return f"{name} failed as {run.error} before anything of it ran: there is no rest to do, start it again once that is mended{again}"
    if run.resumed_runs >= _LONGEST_CHAIN:
        return f"{name} is the last of a chain of {_LONGEST_CHAIN} runs that resumed each other: start a new one"
    of_pull_request = any(version is not None and release.is_ci(version) for version in (run.release, run.defer_to))
    if of_pull_request and not config.slim_ci:
        return f"{name} was of a pull request, and environment {config.environment} takes none any more: slim_ci is not set"
    if on_current and (of_pull_request or run.defer_to is not None):
        return f"{name} compares with another release, and cannot be resumed on the current one: start a new run"
    if run.job is None:
        try:
            callers.check_commands(config, {text: parse_command(text, text) for step in run.plan for text in step.commands})
        except TypedError as exc:
            return f"{name} has steps of its caller that environment {config.environment} no longer takes: {exc.message}"
    return None


def _has_done_something(run: Run) -> bool:
    done = any(step.step != HEALTH_CHECK and (step.counts or step.status == "SUCCEEDED") for step in run.steps)
    return done or run.resumed_from is not None
