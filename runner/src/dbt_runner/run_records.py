"""What the audit store's items say about a run, in types: the run, its steps, the outcomes of its attempts, its nodes.

docs/architecture.md describes the items. Nothing here reads or writes anything.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from dbt_runner import variables
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import ERRORS, RUNNER_ERROR, TypedError
from dbt_runner.events import BAD_STATUSES, Batch
from dbt_runner.request import HEALTH_CHECK
from dbt_runner.store import STEP_PREFIX, Item
from dbt_runner.warning_tally import DbtWarning, merged


@dataclass(frozen=True)
class PlannedStep:
    """A step as it was asked for."""

    name: str
    commands: tuple[str, ...]
    on_failure: str


@dataclass(frozen=True)
class StepResult:
    """How far a step is.

    Attributes:
        status: SUCCEEDED, FAILED, RUNNING, PENDING, or INCOMPLETE (an attempt that left nodes but no outcome).
        attempts: how many attempts began.
        counts: nodes by dbt's status.
        seconds: of the last attempt; of a running one up to now.
    """

    step: str
    status: str
    attempts: int
    error: str | None
    message: str | None
    counts: Mapping[str, int]
    seconds: float


@dataclass(frozen=True)
class Run:
    """One run. Times are ISO 8601 in UTC.

    Attributes:
        status: STARTING (Step Functions knows it, the store does not yet), RUNNING, SUCCEEDED, FAILED, SKIPPED, ABORTED, TIMED_OUT.
        recorded: whether the audit store has a record of it.
        seconds: from start to end; None while it is open.
        artifacts: S3 URI below which its artifacts are; None before there is a record.
        resumed_from: the run of which this one does the rest.
        resumed_runs: how many runs that makes, with those that it resumed in turn.
        release_digest, git_commit: of its release (sha256 of the bundle, in hex); None until its first task has ended.
        image: digest of the runner's image; None as above, or where nothing knows it.
        versions: of the runner, dbt and its adapter.
        defer_to: the release that its commands compare with and defer to.
        schema_suffix: what the schemas that it builds into end in, if they are its own.
        plan: its steps as they were asked for; empty when the request was not valid.
        steps: those that ended, or, in a RunDetail, all that are known.
    """

    run_id: str
    environment: str
    execution: str
    status: str
    recorded: bool
    started_at: str
    ended_at: str | None = None
    seconds: float | None = None
    error: str | None = None
    cause: str | None = None
    job: str | None = None
    trigger: str | None = None
    reason: str | None = None
    release: str | None = None
    vars: Mapping[str, Any] = field(default_factory=dict)
    full_refresh: bool = False
    artifacts: str | None = None
    resumed_from: str | None = None
    resumed_runs: int = 0
    defer_to: str | None = None
    schema_suffix: str | None = None
    release_digest: str | None = None
    git_commit: str | None = None
    image: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    plan: tuple[PlannedStep, ...] = ()
    steps: tuple[StepResult, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether nothing about this run will change any more."""
        return self.recorded and self.ended_at is not None

    @property
    def exit_code(self) -> int:
        """The exit code of the run's error; 0 for a run that succeeded, was skipped or is open."""
        if self.error:
            return ERRORS.get(self.error, RUNNER_ERROR).exit_code
        return 0 if self.ended_at is None or self.status in ("SUCCEEDED", "SKIPPED") else RUNNER_ERROR.exit_code


@dataclass(frozen=True)
class Outcome:
    """What one attempt of a step left behind; docs/architecture.md describes the fields. `position` 0 is the health check."""

    position: int
    step: str
    attempt: int
    exit_code: int | None
    error: str | None
    message: str | None
    why: str | None
    counts: Mapping[str, int]
    failures: tuple[Mapping[str, Any], ...]
    commands: tuple[Mapping[str, Any], ...]
    artifacts: tuple[Mapping[str, Any], ...]
    started_at: str | None
    ended_at: str | None
    seconds: float
    peak_memory_mib: int | None
    versions: Mapping[str, str]
    compute: str | None
    parse: Mapping[str, str]
    release: Mapping[str, Any]
    image: str | None
    fault: str | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    unpublished: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class NodeResultRow:
    """What became of one node; docs/architecture.md describes the fields.

    `failures` counts the failing rows of a test. `batches` are those of a microbatch model, the failed ones first; an item holds a
    thousand of the `batches_total`.
    """

    unique_id: str
    step: str
    attempt: int
    command: int
    resource_type: str
    name: str
    status: str
    message: str | None
    started_at: str | None
    ended_at: str | None
    seconds: float
    thread: str | None
    relation: str | None
    rows: int | None
    failures: int | None
    batches: tuple[Batch, ...] = ()
    batches_total: int = 0

    @property
    def failed(self) -> bool:
        return self.status in BAD_STATUSES

    def batch_lines(self, most: int) -> list[str]:
        """What became of the batches of a microbatch model that did not succeed, for people; a short list."""
        left = [batch for batch in self.batches if batch.failed]
        if not left:
            return []
        only = " only" if len(left) < len(self.batches) else ""
        lines = [f"{len(left)} of {self.batches_total} batches did not succeed; a resume runs them{only}"]
        lines += [
            f"{batch.starts_at} to {batch.ends_at}: {batch.status}" + (f": {batch.message}" if batch.message else "")
            for batch in left[:most]
        ]
        return [*lines, f"and {len(left) - most} more"] if len(left) > most else lines


@dataclass(frozen=True)
class RunDetail:
    """A run with everything that is known of it now: outcomes by step and attempt, nodes by step and start."""

    run: Run
    outcomes: tuple[Outcome, ...]
    nodes: tuple[NodeResultRow, ...]

    @property
    def dbt_warnings(self) -> tuple[DbtWarning, ...]:
        """What dbt warned of in all of its attempts, each warning once."""
        return merged(outcome.warnings for outcome in self.outcomes)


# --- from items -------------------------------------------------------------------------------------------------------


def run_from(config: EnvironmentConfig, item: Item) -> Run:
    """A run from its item ENV#<env> RUN#<started at>#<run id>."""
    request = json_object(item["request"])
    ended_at = item.get("ended_at")
    return Run(
        run_id=item["run_id"],
        environment=config.environment,
        execution=item["execution"],
        status=item["status"],
        recorded=True,
        started_at=item["started_at"],
        ended_at=ended_at,
        seconds=seconds_between(item["started_at"], ended_at),
        error=item.get("error"),
        cause=item.get("cause"),
        job=item.get("job"),
        trigger=item.get("trigger"),
        reason=item.get("reason"),
        release=item.get("release"),
        resumed_from=item.get("resumed_from"),
        resumed_runs=len(json.loads(item.get("resumes", "[]"))),
        release_digest=item.get("release_digest"),
        git_commit=item.get("git_commit"),
        image=item.get("image"),
        versions=item.get("versions", {}),
        artifacts=f"s3://{config.bucket}/{item['artifacts']}",
        steps=tuple(_step_result(step) for step in json.loads(item.get("steps", "[]"))),
        **asked(request),
    )


def _step_result(raw: Mapping[str, Any]) -> StepResult:
    return StepResult(raw["step"], raw["status"], raw["attempts"], raw["error"], raw["message"], raw["counts"], float(raw["seconds"]))


def outcome_from(item: Item) -> Outcome:
    """An attempt's outcome from its item RUN#<env>#<run id> STEP#<nn>#<name>#<attempt>."""
    return Outcome(
        position=int(item["sk"].removeprefix(STEP_PREFIX).partition("#")[0]),
        step=item["step"],
        attempt=item["attempt"],
        exit_code=item.get("exit_code"),
        error=item.get("error"),
        message=item.get("message"),
        why=item.get("why"),
        counts=item.get("counts", {}),
        failures=tuple(item.get("failures", ())),
        commands=tuple(item.get("commands", ())),
        artifacts=tuple(item.get("artifacts", ())),
        started_at=item.get("started_at"),
        ended_at=item.get("ended_at"),
        seconds=float(item.get("seconds", 0)),
        peak_memory_mib=item.get("peak_memory_mib"),
        versions=item.get("versions", {}),
        compute=item.get("compute"),
        parse=item.get("parse", {}),
        release=item.get("release", {}),
        state=item.get("state", {}),
        image=item.get("image"),
        fault=item.get("fault"),
        unpublished=tuple(item.get("unpublished", ())),
        left_out=tuple(item.get("left_out", ())),
        warnings=tuple(item.get("warnings", ())),
    )


def node_from(item: Item) -> NodeResultRow:
    """A node's result from its item RUN#<env>#<run id> NODE#<step>#<unique_id>."""
    return NodeResultRow(
        unique_id=item["unique_id"],
        step=item["step"],
        attempt=item["attempt"],
        command=item.get("command", 0),
        resource_type=item["resource_type"],
        name=item["name"],
        status=item["status"],
        message=item.get("message"),
        started_at=item.get("started_at"),
        ended_at=item.get("ended_at"),
        seconds=float(item.get("seconds", 0)),
        thread=item.get("thread"),
        relation=item.get("relation"),
        rows=item.get("rows"),
        failures=item.get("failures"),
        batches=tuple(Batch(**batch) for batch in item.get("batches", ())),
        batches_total=item.get("batches_total", 0),
    )


# --- steps -----------------------------------------------------------------------------------------------------------


def detail_from(run: Run, outcomes: tuple[Outcome, ...], nodes: Iterable[NodeResultRow], now: datetime) -> RunDetail:
    """Puts together what was read of a run at the moment `now`; the outcomes are given in the order of steps and attempts."""
    place = {step.name: position for position, step in enumerate(run.plan)}
    ordered = tuple(sorted(nodes, key=lambda node: (place.get(node.step, len(place)), node.started_at or "", node.unique_id)))
    return RunDetail(replace(run, steps=tuple(_steps(run, outcomes, ordered, now))), outcomes, ordered)


def _steps(run: Run, outcomes: Sequence[Outcome], nodes: Sequence[NodeResultRow], now: datetime) -> Iterator[StepResult]:
    """A run's steps, those that the record lacks derived from what their attempts left; none that an ended run never began."""
    recorded = {step.step: step for step in run.steps}
    last = {outcome.step: outcome for outcome in outcomes}  # ordered: the last attempt wins
    nodes_by_step: dict[str, list[NodeResultRow]] = {}
    for node in nodes:
        nodes_by_step.setdefault(node.step, []).append(node)
    continues = {step.name: step.on_failure == "continue" for step in run.plan}
    names = dict.fromkeys((*([HEALTH_CHECK] if HEALTH_CHECK in {*recorded, *last} else []), *continues, *recorded, *last, *nodes_by_step))

    is_next = False  # whether the step before has ended in a way that lets this one run
    ended_at = run.started_at
    for name in names:
        outcome, rows = last.get(name), nodes_by_step.get(name, [])
        attempt = max((row.attempt for row in rows), default=0)
        if name in recorded:
            step = recorded[name]
        elif outcome is not None and outcome.attempt >= attempt:
            status = "FAILED" if outcome.error else "SUCCEEDED"
            step = StepResult(name, status, outcome.attempt, outcome.error, outcome.message, outcome.counts, outcome.seconds)
        elif run.ended_at is None and (rows or is_next):
            began = min((row.started_at for row in rows if row.started_at and row.attempt == attempt), default=ended_at)
            seconds = max(0.0, round((now - datetime.fromisoformat(began)).total_seconds(), 3))
            step = StepResult(name, "RUNNING", max(1, attempt), None, None, _counts(rows), seconds)
        elif rows:
            seconds = seconds_between(min(row.started_at or "" for row in rows), max(row.ended_at or "" for row in rows)) or 0.0
            step = StepResult(name, "INCOMPLETE", attempt, None, "the attempt left no outcome", _counts(rows), seconds)
        elif run.ended_at is None:
            step = StepResult(name, "PENDING", 0, None, None, {}, 0.0)
        else:
            continue
        is_next = step.status == "SUCCEEDED" or (step.status == "FAILED" and continues.get(name, False))
        ended_at = (outcome.ended_at if outcome else None) or ended_at
        yield step


def _counts(nodes: Iterable[NodeResultRow]) -> dict[str, int]:
    return dict(sorted(Counter(node.status for node in nodes).items()))


# --- requests, as they stand in records ------------------------------------------------------------------------------


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Run that its request gives, as far as they are what they should be."""
    steps = request.get("steps")
    try:
        vars_ = variables.of_record(request)
    except TypedError:  # the run was refused for it
        vars_ = {}
    return {
        "vars": vars_,
        "full_refresh": request.get("full_refresh") is True,
        "defer_to": text_or_none(request.get("defer_to")),
        "schema_suffix": text_or_none(request.get("schema_suffix")),
        "plan": tuple(
            PlannedStep(step["name"], tuple(str(command) for command in step["commands"]), str(step.get("on_failure", "fail")))
            for step in (steps if isinstance(steps, list) else [])
            if isinstance(step, dict) and isinstance(step.get("name"), str) and isinstance(step.get("commands"), list)
        ),
    }


def json_object(text: str) -> Mapping[str, Any]:
    """The object that a request is; empty when it is something else, which the state machine records as it came."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def seconds_between(start: str, end: str | None) -> float | None:
    """Seconds from one of the store's times to another; None while there is no end."""
    if not start or not end:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)
