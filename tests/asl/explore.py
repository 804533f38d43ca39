"""Every Task of every machine, every error that it can meet, at every call of it: does every run still end as it must?

And is there one container at work at a time, and none while the lock of its run is free, though the error is only that of a lost answer?

From the folder of the tests: `python -m asl.explore`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from moto import mock_aws
from sfnx.testing import Execution

from asl import containers, ended, endings, error_names, render, resumable
from asl.fakes import EXECUTION, OTHER_EXECUTION, OTHER_RUN, RUN_ID, RUN_KEY, STARTED_AT, SUCCEEDS, Attempt, Cloud, Fault, fails, make_cloud
from asl.machine import tasks

RUN, FINALIZE, ANNOUNCE = render.DEFINITIONS
UNKNOWN = "Unheard.Of"
# A failed condition says that somebody had done the same before, where the only one who does is the run itself or finalize.
_DONE_BEFORE = frozenset({"RecordSuccess", "RecordSkipped", "RecordFailure", "ReleaseLock", "CloseRecord"})
_ANNOUNCED_BEFORE = error_names.spelled("aws-sdk:sfn", "ExecutionAlreadyExists")
_UNKNOWN_EXECUTION = error_names.spelled("aws-sdk:sfn", "ExecutionDoesNotExist")
# What they start may outlive them.
_STARTERS = frozenset({"HealthCheck", "RunStep", "InvokeFunction"})
# They look after what is at work: for a run whose lock is taken over, and for this one.
_CLOSERS = frozenset({"CloseClaim", "StopTask", "DescribeTask"})
_OPEN = {
    "run_id": RUN_ID,
    "execution": EXECUTION,
    "trigger": "schedule",
    "request": "{}",
    "status": "RUNNING",
    "started_at": STARTED_AT,
    "artifacts": f"runs/prod/2026/11/22/{RUN_ID}/",
}


@dataclass(frozen=True)
class Path:
    """A run in which one Task meets one error.

    Attributes:
        machine: the file of its definition.
        state: the Task.
        error: what its call fails with.
        occurrence: which call of the Task fails, from 1.
        lasting: whether all that come after it fail too.
        lost: whether only the answer is lost: what the call was to start has begun, and is at work until somebody ends it.
    """

    machine: str
    state: str
    error: str
    occurrence: int
    lasting: bool
    lost: bool = False

    def __str__(self) -> str:
        calls = f"call {self.occurrence}{' and all after it' if self.lasting else ''}"
        return f"{self.machine}: {calls} of {self.state} fails with {self.error}{', though it started' if self.lost else ''}"


def task_states(machine: str) -> dict[str, Any]:
    """The Tasks of a definition, by name, those of a Map among them."""
    return {name: dict(state) for _, name, state in tasks(render.load(machine))}


def paths(machine: str, state: str, *, every: bool = False) -> Iterator[Path]:
    """Every path through a Task. An error that is not retried ends a Task at once, whether it lasts or not.

    Args:
        every: with each error by its name; else with one for each way in which the Task treats them, which is all that a definition can
            tell apart.
    """
    definition = task_states(machine)[state]
    retried = {error for retrier in definition.get("Retry", []) for error in retrier["ErrorEquals"]}
    caught = {error for catcher in definition.get("Catch", []) for error in catcher["ErrorEquals"]}
    errors = error_names.of_call(definition["Resource"]) | retried | caught - {error_names.CATCH_ALL} | {UNKNOWN}
    told_apart = sorted(errors) if every else _told_apart(definition, errors)
    for occurrence in range(1, _calls(machine, state) + 1):
        for error in told_apart:
            yield Path(machine, state, error, occurrence, lasting=False)
            if error in retried:
                yield Path(machine, state, error, occurrence, lasting=True)
        for error in told_apart if state in _STARTERS else []:
            yield Path(machine, state, error, occurrence, lasting=False, lost=True)


@cache
def _calls(machine: str, state: str) -> int:
    """How often a Task is called where nothing fails."""
    with mock_aws():
        return [call.state for call in _execute(make_cloud(), machine, state).calls].count(state)


def _told_apart(state: dict[str, Any], errors: frozenset[str]) -> list[str]:
    """One error for each way in which a Task treats them: by which of its retriers and by which of its catchers."""
    kinds: dict[tuple[int | None, ...], str] = {}
    for error in sorted(errors):
        handlers = (state.get("Retry", []), state.get("Catch", []))
        kinds.setdefault(tuple(next((n for n, h in enumerate(hs) if error in h["ErrorEquals"]), None) for hs in handlers), error)
    return list(kinds.values())


def walk(path: Path, definition: dict[str, Any] | None = None) -> str | None:
    """Runs a path; what is violated, or None.

    Args:
        path: see there.
        definition: in place of the project's own.
    """
    state = task_states(path.machine)[path.state]
    conditional = path.error.endswith(".ConditionalCheckFailedException")
    fault = Fault(
        path.error,
        times=None if path.lasting else 1,
        after=path.occurrence - 1,
        performed=path.lost or (conditional and path.state in _DONE_BEFORE) or path.error in _ANNOUNCED_BEFORE,
    )
    # By what the error means, not by what the definition makes of it: what passes changes nothing.
    passes = path.error in error_names.passing(state["Resource"]) | error_names.perhaps_passing(state["Resource"])
    ends = path.lasting or not passes
    unreleased = path.state == "ReleaseLock" and ends and not conditional
    if path.machine == RUN:
        # The run cannot know that nobody is at work for it any more.
        of_this_run = path.occurrence > (2 if path.state == "DescribeTask" else 1)
        unreleased = unreleased or (ends and (path.state == "ReadOutcome" or (path.state in ("CloseClaim", "StopTask") and of_this_run)))
        unreleased = unreleased or (path.lasting and path.state == "DescribeTask" and of_this_run)
    else:
        unreleased = (
            unreleased or (ends and path.state in ("ReadLock", "CloseClaim", "StopTask")) or (path.lasting and path.state == "DescribeTask")
        )
    untold = ends and path.state == "Announce" and path.error not in _ANNOUNCED_BEFORE
    undisturbed = _undisturbed(path.machine, path.state)
    with mock_aws():
        cloud = make_cloud()
        if definition is not None:
            cloud.definitions[path.machine] = definition
        if path.lasting and path.error in _UNKNOWN_EXECUTION:
            cloud.forgets = True
        try:
            # An execution that never ends is an AssertionError of the interpreter.
            execution = _execute(cloud, path.machine, path.state, {path.state: fault})
            assert execution.states.count(path.state) > 0
            if not ends and not path.lost:
                assert _came_to(cloud, execution) == undisturbed, f"it came to {_came_to(cloud, execution)}"
            if path.machine == ANNOUNCE:
                endings.assert_announced(cloud, execution, missed=path.state if ends and not conditional else None)
            else:
                check = endings.assert_ended if path.machine == RUN else endings.assert_finalized
                check(cloud, execution, untold=untold, unreleased=unreleased)
        except AssertionError as exc:
            return f"{path}: {exc}"
    return None


def _came_to(cloud: Cloud, execution: Execution) -> tuple[str | None, ...]:
    """The end of an execution, and what the run's record says of it."""
    return (execution.error, *(record["status"]["S"] for record in cloud.records() if record["run_id"]["S"] == RUN_ID))


@cache
def _undisturbed(machine: str, state: str) -> tuple[str | None, ...]:
    """What the same execution comes to where nothing fails."""
    with mock_aws():
        cloud = make_cloud()
        return _came_to(cloud, _execute(cloud, machine, state))


def _execute(cloud: Cloud, machine: str, state: str, faults: dict[str, Fault] | None = None) -> Execution:
    """A run that comes to a state, and to those of a step a second time for a second attempt."""
    if machine == ANNOUNCE:
        ended.leave(cloud, ended.FAILED, ended.node("model.shop.orders", owner={"S": "finance"}))
        return cloud.announce(RUN_KEY, faults)
    if machine == FINALIZE:
        cloud.put(RUN_KEY, **_OPEN)
        cloud.hold_lock(EXECUTION, RUN_ID)
        cloud.containers.start(containers.key(RUN_ID, 1, "build", 1))
        return cloud.finalize(endings.event(status="ABORTED"), faults)
    if state in ("ReadLock", "DescribeHolder", "RecordSkipped", "TakeOverLock"):
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "ABORTED" if state == "TakeOverLock" else "RUNNING"
        if cloud.forgets:
            del cloud.statuses[OTHER_EXECUTION]
    elif state in _CLOSERS:
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "ABORTED"
        cloud.containers.start(containers.key(OTHER_RUN, 1, "build", 1))
        cloud.attempts["1"] = Attempt(None, "States.Timeout")
    elif state in ("DescribeResumed", "ReadResumed"):
        resumable.leave(cloud)
    elif state in ("RecordFailure", "Announce"):
        cloud.attempts["1"] = fails("Dbt.ModelError", 10)
    elif state in ("HealthCheck", "RunStep", "InvokeFunction", "ReadOutcome"):
        cloud.attempts["0" if state == "HealthCheck" else "1"] = [fails("Dbt.Interrupted", 40), SUCCEEDS]
    compute = {"compute": "lambda", "on_timeout": "fargate"} if state == "InvokeFunction" else {}
    if state == "InvokeFunction":
        cloud.attempts["1"] = [fails("Dbt.WarehouseUnavailable", 20), fails("Dbt.Interrupted", 40), SUCCEEDS]
    if state not in ("HealthCheck", "ReadOutcome"):
        cloud.configure(health_check={**cloud.config()["health_check"], "enabled": False})
    if state in ("DescribeResumed", "ReadResumed"):
        return cloud.run({"resume": OTHER_RUN}, faults)
    return cloud.run({"steps": [{"name": "build", "commands": ["build"], **compute}]}, faults)


def main() -> int:
    """Walks every path, with every error by its name, and says what was violated."""
    found = [path for machine in render.DEFINITIONS for state in task_states(machine) for path in paths(machine, state, every=True)]
    violations = [violation for path in found if (violation := walk(path))]
    print(*violations, f"explored {len(found)} paths, {len(violations)} violations", sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
