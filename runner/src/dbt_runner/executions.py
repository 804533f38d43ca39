"""Runs as Step Functions knows them: before their record appears, and when they ended without one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import ERRORS, INTERRUPTED, RUNNER_ERROR, TIMEOUT
from dbt_runner.run_records import Run, asked, json_object, seconds_between, text_or_none
from dbt_runner.store import timestamp

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

_ENDED = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"})


@dataclass(frozen=True)
class Execution:
    """What Step Functions knows of a run.

    Attributes:
        name: the run id.
        status: Step Functions' own word.
    """

    name: str
    arn: str
    status: str
    started_at: datetime
    ended_at: datetime | None = None
    input: str = "{}"
    error: str | None = None
    cause: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED


def describe(stepfunctions: SFNClient, arn: str) -> Execution | None:
    """An execution; None when it does not exist (any more) or the caller may not look at it: the store knows the rest."""
    try:
        answer = stepfunctions.describe_execution(executionArn=arn)
    except stepfunctions.exceptions.ClientError as exc:
        if exc.response.get("Error", {}).get("Code") in ("ExecutionDoesNotExist", "StateMachineDoesNotExist", "AccessDeniedException"):
            return None
        raise
    return Execution(
        name=arn.rpartition(":")[2],
        arn=arn,
        status=answer["status"],
        started_at=answer["startDate"],
        ended_at=answer.get("stopDate"),
        input=answer.get("input", "{}"),
        error=answer.get("error"),
        cause=answer.get("cause"),
    )


def unrecorded(config: EnvironmentConfig, execution: Execution) -> Run:
    """A run of which Step Functions knows, and the store does not: not yet, or finalize is still to come."""
    request = json_object(execution.input)
    run = Run(
        run_id=execution.name,
        environment=config.environment,
        execution=execution.arn,
        status="STARTING",
        recorded=False,
        started_at=timestamp(execution.started_at),
        job=text_or_none(request.get("job")),
        trigger=text_or_none(request.get("trigger")),
        reason=text_or_none(request.get("reason")),
        # Beside resume it is the word current: the version will stand in the record.
        release=None if "resume" in request else text_or_none(request.get("release")),
        resumed_from=text_or_none(request.get("resume")),
        **asked(request),
    )
    return ended_by(config, run, execution) if execution.has_ended else run


def ended_by(config: EnvironmentConfig, run: Run, execution: Execution) -> Run:
    """An open run as finalize will close it: its execution has ended."""
    error = {"SUCCEEDED": None, "ABORTED": INTERRUPTED.name, "TIMED_OUT": TIMEOUT.name}.get(execution.status, execution.error)
    if error is not None or execution.status == "FAILED":
        error = error if error in ERRORS else RUNNER_ERROR.name
    finalize = f"{config.name}-{config.environment}-finalize"
    cause = execution.cause or f"the execution ended ({execution.status}), its record was not closed: look at the executions of {finalize}"
    ended_at = timestamp(execution.ended_at) if execution.ended_at else None
    return replace(
        run, status=execution.status, error=error, cause=cause, ended_at=ended_at, seconds=seconds_between(run.started_at, ended_at)
    )


def execution_arn(config: EnvironmentConfig, run_id: str) -> str:
    """The ARN of a run's execution, from the state machine's, which may end in an alias or a version."""
    arn, partition, service, region, account, _, machine = config.state_machine.split(":")[:7]
    return ":".join((arn, partition, service, region, account, "execution", machine, run_id))
