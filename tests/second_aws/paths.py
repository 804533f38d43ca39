"""What an execution did, in a form that two implementations can be compared by: its states in order, and where it failed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from flow.support import wait_for
from second_aws.engine import Engine
from terraform.tool import ROOT

MACHINES = {"dbt_run": "", "finalize": "-finalize", "announce": "-announce"}
_ENDS = ("ExecutionAborted", "ExecutionFailed", "ExecutionSucceeded", "ExecutionTimedOut")
_ENDED_BADLY = ("ABORTED", "FAILED", "TIMED_OUT")
_STARTED_BEFORE = ("Announce", "! Sfn.ExecutionAlreadyExistsException")
# Its waits are as many as attempts that failed; those of the others are as many as it takes.
_COUNTED = {"Backoff"}


@dataclass(frozen=True)
class Path:
    """The way of one execution: the states that it entered, `! <error>` where a task failed, and its end."""

    machine: str
    steps: tuple[str, ...]
    status: str
    error: str | None

    def __str__(self) -> str:
        return f"{self.machine}: {' > '.join(self.steps)} = {self.status} {self.error or ''}".rstrip()


def of_run(engine: Engine, environment: str, execution: str) -> tuple[Path, ...]:
    """The paths of a run, and of the finalize and announce executions that followed it, once all have ended."""
    run = engine.stack.execution_ended(execution)
    paths = [of_execution(engine, "dbt_run", execution)]
    machines = {name: f"dbt-{environment}{suffix}" for name, suffix in MACHINES.items()}
    if run["status"] in _ENDED_BADLY:
        paths += [_following(engine, "finalize", machines["finalize"], execution)]
    if any("Announce" in path.steps for path in paths):
        # A run that was skipped is not announced.
        paths += [_following(engine, "announce", machines["announce"], execution)]
    return tuple(paths)


def _following(engine: Engine, kind: str, machine: str, execution: str) -> Path:
    run_id = execution.rsplit(":", 1)[1]
    client = engine.client("stepfunctions")
    arn = execution.rsplit(":", 2)[0].replace(":execution", ":stateMachine") + f":{machine}"

    def look() -> str | None:
        for page in client.get_paginator("list_executions").paginate(stateMachineArn=arn):
            for found in page["executions"]:
                if run_id in client.describe_execution(executionArn=found["executionArn"])["input"] and found["status"] != "RUNNING":
                    return str(found["executionArn"])
        return None

    return of_execution(engine, kind, wait_for(f"{kind} of {run_id} on {engine.name}", look, 60))


def of_execution(engine: Engine, machine: str, execution: str) -> Path:
    """The path of an execution that has ended."""
    described = engine.client("stepfunctions").describe_execution(executionArn=execution)
    steps = without_waiting(list(_steps(_history(engine, execution))), waits())
    # The run's own announce has ended by now or has not: either way it is not started twice.
    kept = [step for before, step in zip(["", *steps], steps, strict=False) if (before, step) != _STARTED_BEFORE]
    return Path(machine, tuple(kept), described["status"], described.get("error"))


def _history(engine: Engine, execution: str) -> Iterator[Mapping[str, Any]]:
    more: dict[str, str] = {}
    while True:
        answer = engine.client("stepfunctions").get_execution_history(executionArn=execution, maxResults=1000, **more)
        yield from answer["events"]
        if "nextToken" not in answer:
            return
        more = {"nextToken": answer["nextToken"]}


def _steps(events: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for event in events:
        if "stateEnteredEventDetails" in event:
            yield event["stateEnteredEventDetails"]["name"]
        elif event["type"] in _ENDS:
            # What stands behind it is the way in which an engine ends its tasks.
            return
        elif event["type"] in ("TaskFailed", "TaskTimedOut", "TaskSubmitFailed", "LambdaFunctionFailed", "EvaluationFailed"):
            [details] = (value for key, value in event.items() if key.endswith("Details"))
            yield f"! {details.get('error')}"


@cache
def waits() -> frozenset[str]:
    """The Wait states that poll: how often they do is a matter of time."""
    found = set()
    for machine in MACHINES:
        states = json.loads((ROOT / "asl" / f"{machine}.asl.json").read_text())["States"]
        found |= {name for name, state in states.items() if state["Type"] == "Wait"}
    return frozenset(found - _COUNTED)


def without_waiting(steps: Sequence[str], waiting: frozenset[str]) -> list[str]:
    """A path in which a loop that polls is taken once: a wait and what came after it are left out where the same came before it."""
    path: list[str] = []
    for step in steps:
        path.append(step)
        for at in range(len(path) - 1, 0, -1):
            if path[at] in waiting:
                block = path[at + 1 :]
                if block and path[at - len(block) : at] == block and at >= len(block):
                    del path[at:]
                break
    return path
