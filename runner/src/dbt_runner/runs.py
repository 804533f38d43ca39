"""Runs: how one is started, and what the audit store knows of each.

A run's record appears when the run has got its environment's lock and is complete when the run is closed. In between, the
outcomes of its attempts and the results of its nodes say how far it is; before, only Step Functions knows of it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dbt_runner import admission, variables
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import ERRORS, INVALID_REQUEST, RUNNER_ERROR, TypedError
from dbt_runner.executions import Execution, describe, ended_by, execution_arn, unrecorded
from dbt_runner.request import CURRENT, check_caller, check_suffix, validate_input
from dbt_runner.run_records import (
    NodeResultRow,
    Outcome,
    PlannedStep,
    Run,
    RunDetail,
    StepResult,
    detail_from,
    node_from,
    outcome_from,
    run_from,
)
from dbt_runner.store import (
    CURRENT_RELEASE,
    LOCK,
    NODE_PREFIX,
    RUN_PREFIX,
    STEP_PREFIX,
    Item,
    Store,
    environment_pk,
    pointer_pk,
    run_pk,
    timestamp,
)

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

__all__ = [
    "LAST",
    "CurrentRelease",
    "EnvironmentStatus",
    "Lock",
    "NodeResultRow",
    "Outcome",
    "PlannedStep",
    "Run",
    "RunDetail",
    "StepResult",
    "chosen",
    "current_release_of",
    "detail_of",
    "environment_status",
    "find_run",
    "follow",
    "list_runs",
    "lock_of",
    "nodes_of",
    "outcomes_of",
    "refreshed",
    "start_run",
]

LAST = "last"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
# What Step Functions refuses in the name of an execution; other callers than this module may use everything else.
_NOT_IN_NAMES = re.compile(r"[\s\x00-\x1f\x7f-\x9f<>{}\[\]?*\"#%\\^|~`$&,;:/]")
_STARTED_AT_TOLERANCE = timedelta(seconds=5)  # the execution and its description round the start time differently
_FINALIZE_GRACE_SECONDS = 60.0
_POLLS_BETWEEN_DESCRIPTIONS = 10
_PAUSES_BEFORE_UNKNOWN = (1.0, 2.0)  # seconds
_NODES_PER_INTERVAL = 500


@dataclass(frozen=True)
class CurrentRelease:
    """The release that the next run of an environment gets."""

    version: str
    previous: str | None
    promoted_at: str | None
    promoted_by: str | None
    reason: str | None


@dataclass(frozen=True)
class Lock:
    """Which run has an environment for itself, since when, and until when at the most."""

    run_id: str
    owner: str
    since: str
    lease_until: str


@dataclass(frozen=True)
class EnvironmentStatus:
    """An environment at a glance.

    Attributes:
        running: the run that holds the lock; None also when that run has ended and left its lock to the next one.
        last: the last runs, newest first.
    """

    environment: str
    release: CurrentRelease | None
    lock: Lock | None
    running: RunDetail | None
    last: tuple[Run, ...]


# --- starting --------------------------------------------------------------------------------------------------------


def start_run(
    stepfunctions: SFNClient,
    config: EnvironmentConfig,
    document: Mapping[str, Any],
    run_id: str | None = None,
    *,
    now: datetime | None = None,
) -> Run:
    """Starts a run, after having checked all that can be checked from here.

    Args:
        document: the execution's input, by request.schema.json.
        run_id: the execution's name. Starting the same input again under the name of a run that is still open starts nothing and
            returns that run. One is made up when it is None.
        now: the time for a name that is made up.

    Raises:
        TypedError: Dbt.InvalidRequest. Nothing was started.
        botocore.exceptions.ClientError: Step Functions refused for another reason.
    """
    validate_input(document)
    job = document.get("job")
    if job is not None and job not in config.jobs:
        known = ", ".join(sorted(config.jobs)) or "none; use steps instead"
        raise TypedError(INVALID_REQUEST, f"job: environment {config.environment} has no job {job}; it has: {known}")
    check_suffix(config, document.get("schema_suffix"))
    check_caller(config, document)
    for field in ("release", "defer_to"):
        if field in document and (field, document[field]) != ("defer_to", CURRENT):
            admission.check_name(config, document[field], field)
    run_id = run_id if run_id is not None else _new_run_id(document, now or datetime.now(UTC))
    if not _RUN_ID.fullmatch(run_id) or run_id == LAST:
        raise TypedError(INVALID_REQUEST, f"run id {run_id!r}: use 1 to 80 letters, digits, - and _ (and not the word {LAST})")
    if "vars" in document:
        document = {**document, "vars": variables.text_of(variables.of_input(document["vars"]))}
    text = json.dumps(document, sort_keys=True)  # the same request must be the same text: Step Functions compares it byte by byte
    try:
        answer = stepfunctions.start_execution(stateMachineArn=config.state_machine, name=run_id, input=text)
    except stepfunctions.exceptions.ExecutionAlreadyExists as exc:
        raise _already_exists(describe(stepfunctions, execution_arn(config, run_id)), run_id) from exc
    return unrecorded(config, Execution(run_id, answer["executionArn"], "RUNNING", answer["startDate"], input=text))


def _new_run_id(document: Mapping[str, Any], now: datetime) -> str:
    stem = document.get("job") or ("resume" if "resume" in document else document["steps"][0]["name"])
    return f"{stem}-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def _already_exists(execution: Execution | None, run_id: str) -> TypedError:
    if execution is None:  # DescribeExecution is eventually consistent, or the caller may not call it
        problem = "is the id of another run"
    elif not execution.has_ended:
        problem = "is running with another request"
    else:
        problem = f"is the id of a run that has ended ({execution.status})"
    return TypedError(INVALID_REQUEST, f"{run_id} {problem}: give another --run-id, or none to have one made up")


# --- reading ---------------------------------------------------------------------------------------------------------


def list_runs(
    store: Store,
    config: EnvironmentConfig,
    *,
    status: str | None = None,
    job: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Run]:
    """An environment's recorded runs, newest first; take as many as you need, they are read page by page."""
    between = None
    if since or until:
        between = (f"{RUN_PREFIX}{timestamp(since) if since else ''}", f"{RUN_PREFIX}{timestamp(until) if until else ''}~")
    for item in store.query(environment_pk(config.environment), RUN_PREFIX, newest_first=True, between=between):
        if status in (None, item["status"]) and job in (None, item.get("job")):
            yield run_from(config, item)


def find_run(
    store: Store, stepfunctions: SFNClient, config: EnvironmentConfig, reference: str, *, sleep: Callable[[float], None] = time.sleep
) -> Run:
    """The run that somebody means.

    A run that was started a moment ago may be unknown to Step Functions, which is eventually consistent, and has no record yet: it is
    looked for again before it is said not to exist.

    Args:
        reference: a run id, the beginning of one, or `last` for the newest recorded run.

    Raises:
        TypedError: Dbt.InvalidRequest: there is no such run, or several begin so.
    """
    if reference == LAST:
        newest = next(list_runs(store, config), None)
        if newest is None:
            raise TypedError(INVALID_REQUEST, f"environment {config.environment} has no runs yet: dbt-runner start begins one")
        return newest
    if not 0 < len(reference) <= 80 or _NOT_IN_NAMES.search(reference):
        raise TypedError(INVALID_REQUEST, f"{reference!r} cannot be a run id: dbt-runner list shows them")
    # The record's key begins with the run's start time, which Step Functions tells in one call as long as it keeps the execution.
    for pause in (*_PAUSES_BEFORE_UNKNOWN, None):
        execution = describe(stepfunctions, execution_arn(config, reference))
        if execution is not None:
            return _recorded(store, config, execution) or unrecorded(config, execution)
        found = _search(store, config, reference)
        if found is not None:
            return found
        if pause is not None:
            sleep(pause)
    raise TypedError(INVALID_REQUEST, f"environment {config.environment} has no run {reference}: dbt-runner list shows the runs it has")


def detail_of(store: Store, run: Run, *, now: datetime | None = None) -> RunDetail:
    """Reads a run's outcomes and nodes, and derives from them what the run's record doesn't say (yet) about its steps."""
    outcomes = outcomes_of(store, run)
    return detail_from(run, outcomes, nodes_of(store, run), now or datetime.now(UTC))


def outcomes_of(store: Store, run: Run) -> tuple[Outcome, ...]:
    """The outcomes of a run's attempts, in the order of steps and attempts."""
    outcomes = [outcome_from(item) for item in store.query(run_pk(run.environment, run.run_id), STEP_PREFIX)]
    return tuple(sorted(outcomes, key=lambda outcome: (outcome.position, outcome.attempt)))


def nodes_of(store: Store, run: Run, step: str | None = None) -> tuple[NodeResultRow, ...]:
    """The nodes of a run, or of one step of it, that have a result, by unique_id within each step."""
    prefix = NODE_PREFIX if step is None else f"{NODE_PREFIX}{step}#"
    return tuple(node_from(item) for item in store.query(run_pk(run.environment, run.run_id), prefix))


def lock_of(store: Store, environment: str) -> Lock | None:
    """Who holds an environment's lock; None when nobody does."""
    item = store.get(environment_pk(environment), LOCK)
    if item is None:
        return None
    return Lock(item["run_id"], item["owner"], item["since"], timestamp(datetime.fromtimestamp(item["lease_until"], UTC)))


def current_release_of(store: Store, environment: str) -> CurrentRelease | None:
    """The release that the next run gets; None before the first promotion."""
    item = store.get(pointer_pk(environment), CURRENT_RELEASE)
    if item is None or not isinstance(item.get("version"), str):
        return None
    return CurrentRelease(item["version"], *(item.get(key) for key in ("previous", "promoted_at", "promoted_by", "reason")))


def environment_status(store: Store, stepfunctions: SFNClient, config: EnvironmentConfig, *, last: int = 5) -> EnvironmentStatus:
    """An environment's release, lock, running run and last runs."""
    lock = lock_of(store, config.environment)
    running = None
    if lock is not None:
        with contextlib.suppress(TypedError):  # a lock whose run left no trace is the next run's to take over
            holder = find_run(store, stepfunctions, config, lock.run_id)
            running = None if holder.ended_at else detail_of(store, holder)
    newest = tuple(run for run, _ in zip(list_runs(store, config), range(last), strict=False))
    return EnvironmentStatus(config.environment, current_release_of(store, config.environment), lock, running, newest)


def follow(
    store: Store,
    stepfunctions: SFNClient,
    config: EnvironmentConfig,
    run: Run,
    *,
    interval: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[RunDetail]:
    """A run as it is now, again and again until it is closed; the last one is the run as it ended.

    A step that has ended is not read again, and a step of thousands of nodes is read less often than `interval` says, because each
    reading costs as much as there is to read. A run whose execution ended without its record being closed is given a minute, then
    it ends here with what Step Functions says.

    Args:
        interval: seconds between two readings.
    """
    ended_steps: dict[str, tuple[NodeResultRow, ...]] = {}
    execution = None
    grace = _FINALIZE_GRACE_SECONDS
    for poll in itertools.count():
        if poll % _POLLS_BETWEEN_DESCRIPTIONS == 0:
            execution = describe(stepfunctions, run.execution)
        run = refreshed(store, config, run)
        abandoned = execution is not None and execution.has_ended and not run.closed
        if execution is not None and abandoned and grace <= 0:
            run = ended_by(config, run, execution)
        detail = detail_from(run, *_read_once(store, run, ended_steps), datetime.now(UTC))
        yield detail
        if run.closed or (abandoned and grace <= 0):
            return
        unfinished = len(detail.nodes) - sum(len(nodes) for nodes in ended_steps.values())
        pause = interval * (1 + unfinished // _NODES_PER_INTERVAL)
        if abandoned:
            grace -= pause
        sleep(pause)


def _read_once(
    store: Store, run: Run, ended_steps: dict[str, tuple[NodeResultRow, ...]]
) -> tuple[tuple[Outcome, ...], tuple[NodeResultRow, ...]]:
    """A run's outcomes and nodes; nodes of steps that cannot change any more come from `ended_steps`, which this adds to."""
    if not run.recorded:
        return (), ()
    # Outcomes first: an attempt writes its nodes before its outcome, so nodes that are read after an outcome are complete.
    outcomes = outcomes_of(store, run)
    if run.ended_at is not None:
        return outcomes, nodes_of(store, run)
    last = {outcome.step: outcome for outcome in outcomes}
    nodes: list[NodeResultRow] = []
    for step in run.plan:
        rows = ended_steps.get(step.name)
        if rows is None:
            rows = nodes_of(store, run, step.name)
            outcome = last.get(step.name)
            if outcome is not None and not (outcome.error and ERRORS.get(outcome.error, RUNNER_ERROR).retryable):
                ended_steps[step.name] = rows
        nodes.extend(rows)
        if step.name not in last:
            break  # steps run one after the other
    return outcomes, tuple(nodes)


# --- what the store knows --------------------------------------------------------------------------------------------


def _recorded(store: Store, config: EnvironmentConfig, execution: Execution) -> Run | None:
    return _near(store, config, execution.name, execution.started_at)


def refreshed(store: Store, config: EnvironmentConfig, run: Run) -> Run:
    """The run as its record is now; itself while there is none."""
    if not run.recorded:
        return _near(store, config, run.run_id, datetime.fromisoformat(run.started_at)) or run
    item = store.get(environment_pk(config.environment), f"{RUN_PREFIX}{run.started_at}#{run.run_id}")
    return run_from(config, item) if item else run


def _near(store: Store, config: EnvironmentConfig, run_id: str, started_at: datetime) -> Run | None:
    """The record of a run that started at about this time."""
    earliest, latest = started_at - _STARTED_AT_TOLERANCE, started_at + _STARTED_AT_TOLERANCE
    between = (f"{RUN_PREFIX}{timestamp(earliest)}", f"{RUN_PREFIX}{timestamp(latest)}~")
    items = store.query(environment_pk(config.environment), RUN_PREFIX, between=between)
    return next((run_from(config, item) for item in items if item["run_id"] == run_id), None)


def _search(store: Store, config: EnvironmentConfig, reference: str) -> Run | None:
    """The run with this id, or else the one whose id begins so, of all that the store has; None where there is none."""
    candidates: dict[str, Item] = {}
    for item in store.query(environment_pk(config.environment), RUN_PREFIX, newest_first=True):
        if item["run_id"] == reference:
            return run_from(config, item)
        if item["run_id"].startswith(reference) and len(candidates) < 4:
            candidates.setdefault(item["run_id"], item)
    found = chosen(candidates, reference)
    return None if found is None else run_from(config, candidates[found])


def chosen(run_ids: Iterable[str], reference: str) -> str | None:
    """The run with this id, or else the one whose id begins so; None where there is none.

    Raises:
        TypedError: Dbt.InvalidRequest when several begin so.
    """
    begin = list(dict.fromkeys(run_id for run_id in run_ids if reference and run_id.startswith(reference)))
    if reference in begin or not begin:
        return reference if begin else None
    if len(begin) > 1:
        some = ", ".join(begin[:3]) + (", ..." if len(begin) > 3 else "")
        raise TypedError(INVALID_REQUEST, f"several runs begin with {reference}: {some}; give more of the id")
    return begin[0]
