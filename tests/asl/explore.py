"""Every Task of every machine, every error that it can meet, at every call of it: does every run still end as it must?

From the folder of the tests: `python -m asl.explore`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moto import mock_aws
from sfnx.testing import Execution

from asl import ended, endings, error_names, render, resumable
from asl.fakes import EXECUTION, OTHER_EXECUTION, OTHER_RUN, RUN_ID, RUN_KEY, STARTED_AT, SUCCEEDS, Cloud, Fault, fails, make_cloud

RUN, FINALIZE, ANNOUNCE = render.DEFINITIONS
UNKNOWN = "Unheard.Of"
# A failed condition says that somebody had done the same before, where the only one who does is the run itself or finalize.
_DONE_BEFORE = frozenset({"RecordSuccess", "RecordSkipped", "RecordFailure", "ReleaseLock", "CloseRecord"})
_ANNOUNCED_BEFORE = "Sfn.ExecutionAlreadyExistsException"
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
    """

    machine: str
    state: str
    error: str
    occurrence: int
    lasting: bool

    def __str__(self) -> str:
        calls = f"call {self.occurrence}{' and all after it' if self.lasting else ''}"
        return f"{self.machine}: {calls} of {self.state} fails with {self.error}"


def task_states(machine: str) -> dict[str, Any]:
    """The Tasks of a definition, by name."""
    return {name: state for name, state in render.load(machine)["States"].items() if state["Type"] == "Task"}


def paths(machine: str, state: str) -> Iterator[Path]:
    """Every path through a Task. An error that is not retried ends a Task at once, whether it lasts or not."""
    definition = task_states(machine)[state]
    retried = {error for retrier in definition.get("Retry", []) for error in retrier["ErrorEquals"]}
    caught = {error for catcher in definition.get("Catch", []) for error in catcher["ErrorEquals"]}
    errors = error_names.of_call(definition["Resource"]) | retried | caught - {error_names.CATCH_ALL} | {UNKNOWN}
    with mock_aws():
        calls = [call.state for call in _execute(make_cloud(), machine, state).calls].count(state)
    for occurrence in range(1, calls + 1):
        for error in sorted(errors):
            yield Path(machine, state, error, occurrence, lasting=False)
            if error in retried:
                yield Path(machine, state, error, occurrence, lasting=True)


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
        performed=(conditional and path.state in _DONE_BEFORE) or path.error == _ANNOUNCED_BEFORE,
    )
    ends = path.lasting or not any(path.error in retrier["ErrorEquals"] for retrier in state.get("Retry", []))
    unreleased = path.state == "ReleaseLock" and ends and not conditional
    untold = ends and path.state == "Announce" and path.error != _ANNOUNCED_BEFORE
    with mock_aws():
        cloud = make_cloud()
        if definition is not None:
            cloud.definitions[path.machine] = definition
        execution = _execute(cloud, path.machine, path.state, {path.state: fault})
        try:
            assert execution.states.count(path.state) > 0
            if path.machine == ANNOUNCE:
                endings.assert_announced(cloud, execution, missed=path.state if ends and not conditional else None)
            else:
                check = endings.assert_ended if path.machine == RUN else endings.assert_finalized
                check(cloud, execution, untold=untold, unreleased=unreleased)
        except AssertionError as exc:
            return f"{path}: {exc}"
    return None


def _execute(cloud: Cloud, machine: str, state: str, faults: dict[str, Fault] | None = None) -> Execution:
    """A run that comes to a state, and to those of a step a second time for a second attempt."""
    if machine == ANNOUNCE:
        ended.leave(cloud, ended.FAILED, ended.node("model.shop.orders", owner={"S": "finance"}))
        return cloud.announce(RUN_KEY, faults)
    if machine == FINALIZE:
        cloud.put(RUN_KEY, **_OPEN)
        cloud.hold_lock(EXECUTION, RUN_ID)
        return cloud.finalize(endings.event(status="ABORTED"), faults)
    if state in ("ReadLock", "DescribeHolder", "RecordSkipped", "TakeOverLock"):
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "ABORTED" if state == "TakeOverLock" else "RUNNING"
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
    """Walks every path and says what was violated."""
    found = [path for machine in render.DEFINITIONS for state in task_states(machine) for path in paths(machine, state)]
    violations = [violation for path in found if (violation := walk(path))]
    print(*violations, f"explored {len(found)} paths, {len(violations)} violations", sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
