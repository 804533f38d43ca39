"""Who is at work for a run: containers and invocations, which claim their place by the runner's own code and may outlive their state.

It holds what is promised of them: one of a run is at work at a time, and none while the lock of its run is another one's or free.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from unittest.mock import patch

from botocore.exceptions import ClientError
from sfnx import testing

from asl import render
from dbt_runner import claim
from dbt_runner.errors import LOCK_LOST, TypedError
from dbt_runner.request import AttemptKey
from dbt_runner.store import Store, timestamp

Item = dict[str, Any]
Ending = Literal["interrupted", "killed", "never", "forgotten"]
"""What a container does when it is stopped: says so, is killed, goes on for ever, or is no longer known to ECS when it is looked up."""

ENVIRONMENT = render.SAMPLE["environment"]
TABLE = render.SAMPLE["table"]
CLUSTER = f"analytics-{ENVIRONMENT}"
_TASKS = f"arn:aws:ecs:eu-central-1:123456789012:task/{CLUSTER}/"
_INTERRUPTED = {"exit_code": {"N": "40"}, "error": {"S": "Dbt.Interrupted"}, "message": {"S": "SIGTERM while building"}}


@dataclass
class Container:
    """A container or an invocation that was started.

    Attributes:
        name: the task's ARN; of a function the id of the request.
        holder: its word in the claim; None where it has none and so works not at all.
        ends_by: when it ends by itself, in epoch seconds; None where it does not.
        polls: how often it is still seen to run after it was stopped.
    """

    name: str
    key: AttemptKey
    holder: str | None = None
    ends_by: float | None = None
    ending: Ending = "interrupted"
    status: Literal["RUNNING", "STOPPING", "STOPPED"] = "RUNNING"
    polls: int = 1
    exit_code: int | None = None
    stopped: tuple[str, str] = ("EssentialContainerExited", "Essential container in task exited")


class Containers:
    """All that were started in an environment.

    Args:
        dynamodb: a client.
        clock: the present moment in epoch seconds.

    Attributes:
        violations: what was promised and did not hold, in words.
        stops: the names of the tasks for which StopTask was called.
        unseen: for how many calls to come DescribeTasks does not know the task yet.
    """

    def __init__(self, dynamodb: Any, clock: Callable[[], float]) -> None:
        self._dynamodb = dynamodb
        self._store = Store(dynamodb, None, TABLE, None)  # type: ignore[arg-type]  # nothing here is an object
        self._clock = clock
        self._all: dict[str, Container] = {}
        self.violations: list[str] = []
        self.stops: list[str] = []
        self.unseen = 0

    def start(self, key: AttemptKey, *, seconds: float | None = None, works: bool = True, ending: Ending = "interrupted") -> Container:
        """A container that begins an attempt as the runner does.

        Args:
            seconds: how long a function may take; None for a task of ECS.
            works: whether it comes as far as its claim.
        """
        number = len(self._all) + 1
        new = Container(f"{_TASKS}{number:04}" if seconds is None else f"request-{number:04}", key, ending=ending)
        self._all[new.name] = new
        if seconds is not None:
            new.ends_by = self._clock() + seconds
            seconds = new.ends_by - time.time()
        if works:
            try:
                with patch.object(claim, "now", lambda: timestamp(datetime.fromtimestamp(self._clock(), UTC))):
                    new.holder = claim.take(self._store, key, "fargate" if seconds is None else "lambda", new.name, seconds).holder
            except TypedError as exc:
                assert exc.kind is LOCK_LOST
                self.end(new, None, LOCK_LOST.exit_code)
        others = [other.name for other in self.at_work(key.run_id) if other is not new]
        if new.holder and others:
            self.violations.append(f"{new.name} began while {', '.join(others)} was at work")
        return new

    def end(self, container: Container, outcome: Mapping[str, Any] | None, exit_code: int | None) -> None:
        """It ends by itself, or because it was stopped; an outcome is written as the runner writes it."""
        container.status, container.exit_code = "STOPPED", exit_code
        if outcome is None:
            return
        assert container.holder is not None
        key = {"pk": {"S": container.key.pk}, "sk": {"S": container.key.outcome_sk}}
        named = {"step": {"S": container.key.name}, "attempt": {"N": str(container.key.attempt)}, "holder": {"S": container.holder}}
        try:
            self._dynamodb.put_item(
                TableName=TABLE,
                Item={**key, **named, **outcome},
                ConditionExpression="attribute_not_exists(pk) OR holder = :me",
                ExpressionAttributeValues={":me": named["holder"]},
            )
        except ClientError as exc:
            self.violations.append(f"{container.name} found the outcome of another one: {exc}")

    def at_work(self, run_id: str) -> list[Container]:
        """Those of a run that may write to the warehouse now."""
        return [
            one
            for one in self._all.values()
            if one.key.run_id == run_id
            and one.holder is not None
            and one.status != "STOPPED"
            and (one.ends_by is None or self._clock() < one.ends_by)
        ]

    def lock_moved(self, before: Item | None, after: Item | None) -> None:
        """Holds a change of the lock against who is at work for the run that had it."""
        if before is None or (after is not None and after["owner"] == before["owner"]):
            return
        for one in self.at_work(before["run_id"]["S"]):
            self.violations.append(
                f"the lock of run {one.key.run_id} was {'free' if after is None else 'taken'} while {one.name} was at work"
            )

    # What ECS answers

    def stop_task(self, arguments: Item) -> Item:
        """StopTask: the task begins to end."""
        task = self._find(arguments["Cluster"], arguments["Task"])
        assert len(arguments["Reason"]) <= 255
        self.stops.append(task.name)
        if task.status == "RUNNING":
            task.status, task.stopped = "STOPPING", ("UserInitiated", arguments["Reason"])
        return {"Task": self._description(task)}

    def describe_tasks(self, arguments: Item) -> Item:
        """DescribeTasks for one task, which takes its time to end."""
        (name,) = arguments["Tasks"]
        task = self._find(arguments["Cluster"], name)
        if task.status == "STOPPING":
            task.polls -= 1
            if task.polls < 0 and task.ending != "never":
                self.end(task, _INTERRUPTED if task.ending == "interrupted" else None, 40 if task.ending == "interrupted" else 137)
        if self.unseen > 0 or (task.ending == "forgotten" and task.status == "STOPPED"):
            self.unseen -= 1
            return {"Tasks": [], "Failures": [{"Arn": name, "Reason": "MISSING"}]}
        return {"Tasks": [self._description(task)], "Failures": []}

    def _find(self, cluster: str, name: str) -> Container:
        assert cluster == CLUSTER, cluster
        if name not in self._all:
            raise testing.Failure("Ecs.InvalidParameterException", "The referenced task was not found.")
        return self._all[name]

    def _description(self, task: Container) -> Item:
        ours: Item = {"Name": "dbt", "LastStatus": task.status}
        if task.exit_code is not None:
            ours["ExitCode"] = task.exit_code
        stopping = dict(zip(("StopCode", "StoppedReason"), task.stopped, strict=True)) if task.status != "RUNNING" else {}
        status = "STOPPED" if task.status == "STOPPED" else "RUNNING"
        sidecar = {"Name": "aws-guardduty-agent", "ExitCode": 0, "LastStatus": status}
        return {"TaskArn": task.name, "LastStatus": status, **stopping, "Containers": [sidecar, ours]}


def named(cause: str, container: Container) -> str:
    """The Cause of a failed Task with the name of what has failed."""
    try:
        described = json.loads(cause)
    except ValueError:
        return cause.replace("RequestId: 1 ", f"RequestId: {container.name} ")
    if "TaskArn" not in described:
        return cause.replace("RequestId: 1 ", f"RequestId: {container.name} ")
    return json.dumps({**described, "TaskArn": container.name})


def key(run_id: str, place: int, step: str, attempt: int) -> AttemptKey:
    """Where an attempt stands in the books."""
    return replace(AttemptKey(ENVIRONMENT, run_id, 0, step, attempt), position=place)
