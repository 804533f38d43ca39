"""The services that the state machines call, for the second interpreter of the definitions.

The table, the topic, the metrics and the event bus are moto's, so every expression of a definition is evaluated by a real implementation
of DynamoDB's, and every call is checked by botocore against the service's model. ECS is a fake that holds what it is given against the
contract of the container and then does what the test says a container does. A parameter that no service would accept is a fault of the
definition and ends the test, not the run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import boto3
import jsonschema
from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError
from botocore.session import get_session
from botocore.validate import ParamValidator
from jsonata import Jsonata
from jsonata.parser import Parser
from sfnx import testing

from asl import containers, error_names, render
from asl.containers import Container, Containers, Ending
from dbt_runner.errors import LOCK_LOST

REGION = "eu-central-1"
ENVIRONMENT = render.SAMPLE["environment"]
TABLE = render.SAMPLE["table"]

# What the interpreter calls the execution that it runs.
RUN_ID = "execution"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:machine:execution"
OTHER_RUN = "other"
OTHER_EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:machine:other"

STARTED_AT = "2026-11-22T10:00:00.123Z"
STARTED_MILLIS = 1795341600123
NOW = "2026-11-22T10:00:05.000Z"
NOW_MILLIS = 1795341605000
RUN_KEY = f"RUN#{STARTED_AT}#{RUN_ID}"

EARLIER_AT = "2026-11-22T08:00:00.456Z"
EARLIER_MILLIS = 1795334400456
EARLIER_KEY = f"RUN#{EARLIER_AT}#{OTHER_RUN}"

OVERRIDES_LIMIT = 8192
# Far more than any execution of the tests has to wait.
MOST_WAITS = 150

REFUSED_CLAIM = LOCK_LOST.exit_code
# Lambda did not run the function: all that its model names.
REFUSED_BY_LAMBDA = error_names.spelled("lambda", *error_names.modelled("lambda", "Invoke"))
# A task whose state has run out of its time has been at work for longer than this.
_TASK_SECONDS = 660

Item = dict[str, Any]


FUNCTION = {
    "function": "arn:aws:lambda:eu-central-1:123456789012:function:analytics-prod:7",
    "timeout_seconds": 900,
    "memory": 2048,
    "log_group": "/aws/lambda/analytics-prod",
}


def config(**changes: object) -> dict[str, Any]:
    """The CONFIG of an environment, as docs/architecture.md shows it."""
    step = {"on_failure": "fail", "timeout_seconds": 3600, "compute": "fargate", "on_timeout": "fail"}
    return {
        "schema": 2,
        "name": "analytics",
        "environment": ENVIRONMENT,
        "region": REGION,
        "account": "123456789012",
        "table": TABLE,
        "bucket": "analytics-audit-123456789012-eu-central-1",
        "state_machine": "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod:live",
        "finalize": "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod-finalize",
        "topic": render.SAMPLE["topic"],
        "warehouse": {"type": "postgres", "settings": {}, "identity": {}},
        "compute": {
            "type": "fargate",
            "sizes": [{"cpu": 1024, "memory": 4096}],
            "spot": True,
            "architecture": "ARM64",
            "on_timeout": "fail",
            "lambda": {"memory": 2048, "timeout_seconds": 900, "ephemeral_storage": 1024, "reserved_concurrency": None, "vpc": True},
        },
        "health_check": {"enabled": True, "compute": "fargate", "timeout_seconds": 60},
        "retry": {"max_attempts": 3, "interval_seconds": 30, "backoff_rate": 2},
        "overlap": "skip",
        "timeout_seconds": 14400,
        "slim_ci": {"state_target": None, "schema_suffixes": None},
        "requests": {"steps": True, "inline": False, "operations": [], "overrides": True},
        "jobs": {
            "hourly": {
                "schedule": "rate(1 hour)",
                "timezone": "UTC",
                "enabled": True,
                "vars": '{"day": "today", "depth": 1}',
                "full_refresh": False,
                "steps": [
                    {"name": "freshness", "commands": ["source freshness"], **step, "on_failure": "continue"},
                    {"name": "build", "commands": ["build --select tag:hourly"], **step},
                ],
            },
        },
        "roles": {role: f"arn:aws:iam::123456789012:role/{role}" for role in ("states", "task", "warehouse", "execution")},
        "ecs": {
            "cluster": "arn:aws:ecs:eu-central-1:123456789012:cluster/analytics-prod",
            "task_definition": "arn:aws:ecs:eu-central-1:123456789012:task-definition/analytics-prod:7",
            "container": "dbt",
            "subnets": ["subnet-1", "subnet-2"],
            "security_groups": ["sg-1"],
            "assign_public_ip": "DISABLED",
            "log_group": "/analytics/prod/runner",
        },
        "lambda": FUNCTION,
        **changes,
    }


@dataclass(frozen=True)
class Fault:
    """A call that fails.

    Attributes:
        error, cause: as the state sees them.
        times: how many calls of the state fail; None for all that come.
        after: how many calls pass before.
        performed: whether the service had done what it was asked, and only its answer was lost: what was started is at work.
    """

    error: str
    cause: str = "told to fail"
    times: int | None = None
    after: int = 0
    performed: bool = False

    def hits(self, call: int) -> bool:
        """Whether the state's call of this number, from 1, fails."""
        return call > self.after and (self.times is None or call <= self.after + self.times)


@dataclass(frozen=True)
class Attempt:
    """What a container does with one attempt of a step.

    Attributes:
        outcome: attributes of the outcome item that it writes; None where it leaves none.
        error, cause: how the Task fails; no error where the container exits with 0. After States.Timeout it is still at work.
        ending: what it does when it is stopped.
    """

    outcome: Item | None
    error: str | None = None
    cause: str = ""
    ending: Ending = "interrupted"

    @property
    def goes_on(self) -> bool:
        """Whether the container is still at work when its state has ended."""
        return self.error == "States.Timeout"

    @property
    def works(self) -> bool:
        """Whether the container comes as far as its claim: one that ECS could not start has no exit code."""
        return (
            self.outcome is not None
            or "TaskFailedToStart" not in self.cause
            or '"Name": "dbt", "LastStatus": "STOPPED", "ExitCode"' in self.cause
        )


SUCCEEDS = Attempt({"exit_code": {"N": "0"}, "counts": {"M": {"success": {"N": "3"}, "skipped": {"N": "1"}}}, "seconds": {"N": "1.5"}})


def stopped(exit_code: int | None, *, code: str = "EssentialContainerExited", reason: str = "", container_reason: str = "") -> str:
    """The Cause of States.TaskFailed: the stopped task as ECS describes it, with the container of a security agent before ours."""
    ours: Item = {"Name": "dbt", "LastStatus": "STOPPED"}
    if exit_code is not None:
        ours["ExitCode"] = exit_code
    if container_reason:
        ours["Reason"] = container_reason
    return json.dumps(
        {
            "TaskArn": "arn:aws:ecs:eu-central-1:123456789012:task/analytics-prod/0123",
            "LastStatus": "STOPPED",
            "StopCode": code,
            "StoppedReason": reason or "Essential container in task exited",
            "Containers": [{"Name": "aws-guardduty-agent", "ExitCode": 0, "LastStatus": "STOPPED"}, ours],
        }
    )


def fails(error: str, exit_code: int, message: str = "what happened") -> Attempt:
    """The runner wrote how the attempt failed and exited accordingly."""
    outcome = {
        "exit_code": {"N": str(exit_code)},
        "error": {"S": error},
        "message": {"S": message},
        "counts": {"M": {"error": {"N": "1"}}},
        "seconds": {"N": "2"},
    }
    return Attempt(outcome, "States.TaskFailed", stopped(exit_code))


def dies(cause: str) -> Attempt:
    """The task ended and left no outcome; `cause` is what ECS says of it."""
    return Attempt(None, "States.TaskFailed", cause)


@dataclass(frozen=True)
class Started:
    """A task that RunTask has started, or an invocation of the function.

    Attributes:
        command, environment: of the container; of a function what they would be there.
        lock: the lock at that moment.
        size: CPU units and MiB; of a function no units.
        capacity: the capacity provider; LAMBDA for a function.
        outcome: what it writes; None where it leaves nothing.
    """

    command: list[str]
    environment: dict[str, str]
    lock: Item | None
    size: tuple[int, int]
    capacity: str
    outcome: Item | None

    @property
    def place(self) -> int:
        """The place of its step; 0 is the health check."""
        return int(self.environment["DBT_RUNNER_STEP"])

    @property
    def attempt(self) -> int:
        return int(self.environment["DBT_RUNNER_ATTEMPT"])


@dataclass
class Cloud:
    """An environment with its table, topic, cluster and executions.

    Attributes:
        dynamodb, sns, cloudwatch, events: clients of moto's services.
        attempts: by step place ("0" is the health check); a step that is not named succeeds. A list has one for each call of RunTask, the
            last of them for all that follow.
        statuses: of executions by ARN; one that is not named does not exist.
        before: called before a state's call is answered, each time; for what others do in the meantime.
        started: the tasks, in order.
        notifications: the messages published, in order.
        chats: the same for the topic of chat channels, each of the form that is shown there.
        announced: the run items that announce was started for, by the execution's name.
        metrics: the requests that put metrics, in order.
        published: the entries put on the event bus, in order.
        archived: the rows written to the bucket, by key.
        waits: the seconds waited, in order.
        random: what $random gives.
        definitions: by file name, what to run in place of the project's own.
        containers: who is at work.
    """

    dynamodb: Any
    sns: Any
    cloudwatch: Any
    events: Any
    attempts: dict[str, Attempt | list[Attempt]] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=lambda: {EXECUTION: "RUNNING"})
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    on_wait: Callable[[], None] | None = None
    started: list[Started] = field(default_factory=list)
    notifications: list[Item] = field(default_factory=list)
    chats: list[Item] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)
    metrics: list[Item] = field(default_factory=list)
    published: list[Item] = field(default_factory=list)
    archived: dict[str, Item] = field(default_factory=dict)
    waits: list[int] = field(default_factory=list)
    random: float = 0.5
    definitions: dict[str, Item] = field(default_factory=dict)
    forgets: bool = False
    """Whether the execution that holds the lock is one that Step Functions no longer knows."""
    start_date: str | float = EARLIER_AT
    """When any execution that is described began, as Step Functions puts it."""
    unprocessed: list[Sequence[str]] = field(default_factory=list)
    """For each batchGetItem to come: the sort keys that it leaves unread."""
    _asked: dict[str, int] = field(default_factory=dict)
    _elapsed: float = 0.0
    _answer_is_lost: bool = False

    def __post_init__(self) -> None:
        self.containers = Containers(self.dynamodb, lambda: NOW_MILLIS / 1000 + self._elapsed)

    def run(self, given: object, faults: Mapping[str, Fault] | None = None) -> testing.Execution:
        """Runs dbt_run with an input."""
        return self._interpret("dbt_run.asl.json", given, faults or {})

    def finalize(self, event: Item, faults: Mapping[str, Fault] | None = None) -> testing.Execution:
        """Runs finalize with a status change event."""
        return self._interpret("finalize.asl.json", event, faults or {})

    def announce(self, key: str, faults: Mapping[str, Fault] | None = None) -> testing.Execution:
        """Runs announce for a run item."""
        return self._interpret("announce.asl.json", {"key": key}, faults or {})

    def put(self, sort_key: str, **attributes: str | int) -> None:
        """Writes an item of the environment; a text as S, a number as N."""
        kinds: Item = {key: {"N": str(value)} if isinstance(value, int) else {"S": value} for key, value in attributes.items()}
        self.dynamodb.put_item(TableName=TABLE, Item={"pk": {"S": f"ENV#{ENVIRONMENT}"}, "sk": {"S": sort_key}, **kinds})

    def promote(self, version: str | None, **attributes: str | int) -> None:
        """Moves the pointer; without a version it is as before the first promotion."""
        key: Item = {"pk": {"S": f"POINTER#{ENVIRONMENT}"}, "sk": {"S": "RELEASE#CURRENT"}}
        if version is None:
            self.dynamodb.delete_item(TableName=TABLE, Key=key)
            return
        found = {"version": version, "project": "shop", "promoted_at": "2026-11-20T08:00:00.000Z", "promoted_by": "ci", **attributes}
        kinds: Item = {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in found.items()}
        self.dynamodb.put_item(TableName=TABLE, Item={**key, **kinds})

    def delete(self, sort_key: str) -> None:
        """Deletes an item of the environment."""
        self.dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": f"ENV#{ENVIRONMENT}"}, "sk": {"S": sort_key}})

    def items(self) -> list[Item]:
        """Every item of the table, in a fixed order."""
        found: list[Item] = self.dynamodb.scan(TableName=TABLE)["Items"]
        return sorted(found, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))

    def records(self) -> list[Item]:
        """The run items of the environment."""
        return [item for item in self.items() if item["pk"]["S"] == f"ENV#{ENVIRONMENT}" and item["sk"]["S"].startswith("RUN#")]

    def passes(self, seconds: float) -> None:
        """Lets time pass."""
        self._elapsed += seconds

    def lock(self) -> Item | None:
        """The lock item."""
        return self._item("LOCK")

    def configure(self, **changes: object) -> None:
        """Changes fields of the environment's CONFIG."""
        self.put("CONFIG", config=json.dumps(config(**changes)))

    def config(self) -> dict[str, Any]:
        """The environment's CONFIG."""
        item = self._item("CONFIG")
        assert item is not None
        found: dict[str, Any] = json.loads(item["config"]["S"])
        return found

    def hold_lock(
        self,
        owner: str = OTHER_EXECUTION,
        run_id: str = OTHER_RUN,
        lease_until: int = NOW_MILLIS // 1000 + 3600,
        since: str = "2026-11-22T09:00:00.000Z",
    ) -> None:
        """Has an execution hold the lock."""
        self.put("LOCK", owner=owner, run_id=run_id, since=since, lease_until=lease_until)

    def _interpret(self, name: str, given: object, faults: Mapping[str, Fault]) -> testing.Execution:
        calls: dict[str, int] = {}

        def answer(call: testing.Call) -> object:
            calls[call.state] = calls.get(call.state, 0) + 1
            if call.state in self.before:
                self.before[call.state]()
            fault = faults.get(call.state)
            if fault is None or not fault.hits(calls[call.state]):
                return self._answer(call)
            if fault.performed:
                self._answer_is_lost = True
                with contextlib.suppress(testing.Failure):
                    self._answer(call)
                self._answer_is_lost = False
            raise testing.Failure(fault.error, fault.cause)

        def wait(ended: testing.Wait) -> None:
            assert ended.seconds is not None
            self.waits.append(ended.seconds)
            assert len(self.waits) <= MOST_WAITS, "it goes round and round"
            if self.on_wait:
                self.on_wait()
            self._elapsed += ended.seconds

        clock = {"now": lambda: NOW, "millis": lambda: int(NOW_MILLIS + self._elapsed * 1000), "random": lambda: self.random}
        definition = self.definitions.get(name) or render.load(name)
        _check(json.dumps(definition))
        # The interpreter checks a definition and parses its expressions whenever it runs it, which takes as long as the run.
        with patch.object(testing, "check"), patch.object(Jsonata, "get_parser", _parser):
            return testing.run(definition, given, answer, functions=clock, on_wait=wait, start_time=STARTED_AT)

    def _answer(self, call: testing.Call) -> object:
        service, action = error_names.integration(call.resource)
        assert isinstance(call.arguments, dict)
        if service == "ecs":
            assert action == "runTask.sync"
            return self._run_task(call.arguments)
        if service == "lambda":
            assert action == "invoke"
            return self._invoke(call.arguments)
        if service == "aws-sdk:sfn":
            return (self._start_execution if action == "startExecution" else self._describe_execution)(call.arguments)
        if service == "events":
            return self._put_events(call.arguments)
        if service == "aws-sdk:s3":
            assert action == "putObject"
            return self._put_object(call.arguments)
        if service == "aws-sdk:ecs":
            _validate("ecs", action[:1].upper() + action[1:], call.arguments)
            return {"stopTask": self.containers.stop_task, "describeTasks": self.containers.describe_tasks}[action](call.arguments)
        client = {"sns": self.sns, "aws-sdk:cloudwatch": self.cloudwatch}.get(service, self.dynamodb)
        changes_lock = action in ("deleteItem", "updateItem") and call.arguments["Key"]["sk"]["S"] == "LOCK"
        lock = self.lock() if changes_lock else None
        result = _request(client, service, action, call.arguments)
        if changes_lock:
            self.containers.lock_moved(lock, self.lock())
            self._lock_moved(lock, self.lock())
        if action == "publish":
            self._take_message(call.arguments)
        if action == "putMetricData":
            self.metrics.append(call.arguments)
        if action == "batchGetItem" and self.unprocessed:
            return self._leave_unread(result, call.arguments)
        return result

    def _lock_moved(self, before: Item | None, after: Item | None) -> None:
        """Nobody loses a lock while its execution goes on and its lease lasts, but by its own doing."""
        if before is None or before["owner"]["S"] == EXECUTION or before["owner"] == (after or {}).get("owner"):
            return
        live = self.statuses.get(before["owner"]["S"]) in ("RUNNING", "PENDING_REDRIVE")
        if live and int(before["lease_until"]["N"]) >= NOW_MILLIS / 1000 + self._elapsed:
            self.containers.violations.append(f"the lock of run {before['run_id']['S']}, which goes on, was taken")

    def _take_message(self, arguments: Item) -> None:
        """Amazon Q Developer shows what has its form, and drops everything else without a word."""
        if arguments["TopicArn"] != render.SAMPLE["chat_topic"]:
            self.notifications.append(arguments)
            return
        message = json.loads(arguments["Message"])
        jsonschema.validate(message, _chat_schema(), cls=jsonschema.Draft202012Validator)
        self.chats.append(message)

    def _put_events(self, arguments: Item) -> Item:
        """Step Functions takes an object as the detail and hands it on as text."""
        entries = [{**entry, "Detail": json.dumps(entry["Detail"])} for entry in arguments["Entries"]]
        self.published += arguments["Entries"]
        return _request(self.events, "events", "putEvents", {"Entries": entries})

    def _leave_unread(self, result: Item, arguments: Item) -> Item:
        left = self.unprocessed.pop(0)
        keys = [key for key in arguments["RequestItems"][TABLE]["Keys"] if key["sk"]["S"] in left]
        read = [item for item in result["Responses"][TABLE] if item["sk"]["S"] not in left]
        return {"Responses": {TABLE: read}, "UnprocessedKeys": {TABLE: {"Keys": keys}} if keys else {}}

    def _put_object(self, arguments: Item) -> Item:
        """An object whose body is JSON, which Step Functions writes out as text."""
        _validate("s3", "PutObject", {**arguments, "Body": json.dumps(arguments["Body"]).encode()}, camel=False)
        assert arguments["Bucket"] == render.SAMPLE["bucket"]
        self.archived[arguments["Key"]] = arguments["Body"]
        return {"ETag": "1"}

    def _start_execution(self, arguments: Item) -> Item:
        """Starts announce, as far as a run is concerned: what has its name has run before."""
        _validate("stepfunctions", "StartExecution", arguments)
        assert arguments["StateMachineArn"] == render.SAMPLE["announce"]
        if arguments["Name"] in self.announced:
            raise testing.Failure("Sfn.ExecutionAlreadyExistsException", f"Execution Already Exists: '{arguments['Name']}'")
        self.announced[arguments["Name"]] = json.loads(arguments["Input"])["key"]
        return {"ExecutionArn": f"{arguments['StateMachineArn']}:{arguments['Name']}", "StartDate": NOW}

    def _describe_execution(self, arguments: Item) -> Item:
        _validate("stepfunctions", "DescribeExecution", arguments)
        arn = arguments["ExecutionArn"]
        if arn not in self.statuses:
            raise testing.Failure("Sfn.ExecutionDoesNotExistException", f"Execution Does Not Exist: '{arn}'")
        return {"ExecutionArn": arn, "Status": self.statuses[arn], "StartDate": self.start_date}

    def _run_task(self, arguments: Item) -> Item:
        """Holds the call against the container's interface, then does what the attempt says."""
        _validate("ecs", "RunTask", arguments)
        assert len(json.dumps(arguments["Overrides"])) < OVERRIDES_LIMIT
        (container,) = arguments["Overrides"]["ContainerOverrides"]
        environment = {variable["Name"]: variable["Value"] for variable in container["Environment"]}
        does = self._next_attempt(environment["DBT_RUNNER_STEP"])
        if does.error not in (None, "States.TaskFailed", "States.Timeout"):
            raise testing.Failure(does.error, does.cause)
        size = (int(arguments["Overrides"]["Cpu"]), int(arguments["Overrides"]["Memory"]))
        (strategy,) = arguments["CapacityProviderStrategy"]
        given = Started(container["Command"], environment, self.lock(), size, strategy["CapacityProvider"], does.outcome)
        began = self._perform(given, does)
        if does.goes_on:
            self._elapsed += _TASK_SECONDS
        if began.exit_code == REFUSED_CLAIM:
            raise testing.Failure("States.TaskFailed", containers.named(stopped(REFUSED_CLAIM), began))
        if does.error is not None:
            raise testing.Failure(does.error, containers.named(does.cause, began))
        description: Item = json.loads(containers.named(stopped(0), began))
        return description

    def _invoke(self, arguments: Item) -> Item:
        """The same for the function's event. The handler answers whatever the attempt came to; what it cannot answer is an error."""
        event = arguments["Payload"]
        _validate("lambda", "Invoke", {**arguments, "Payload": json.dumps(event)}, camel=False)
        function = self.config()["lambda"]
        assert arguments["FunctionName"] == function["function"]
        assert {name: type(value) for name, value in event.items()} == {"run_key": str, "step": int, "attempt": int}
        place = str(event["step"])
        environment = {"DBT_RUNNER_RUN_KEY": event["run_key"], "DBT_RUNNER_STEP": place, "DBT_RUNNER_ATTEMPT": str(event["attempt"])}
        does = self._next_attempt(place)
        if does.error in REFUSED_BY_LAMBDA:
            raise testing.Failure(does.error, does.cause)
        command = ["check"] if place == "0" else ["step"]
        given = Started(command, environment, self.lock(), (0, function["memory"]), "LAMBDA", does.outcome)
        began = self._perform(given, does, function["timeout_seconds"])
        if began.exit_code == REFUSED_CLAIM:
            return _answer_of_function(REFUSED_CLAIM)
        if does.goes_on:
            self._elapsed += function["timeout_seconds"] + 60
        if does.error not in (None, "States.TaskFailed") or (does.error and does.outcome is None):
            raise testing.Failure(does.error, containers.named(does.cause, began))
        return _answer_of_function(0 if does.outcome is None else int(does.outcome["exit_code"]["N"]))

    def _perform(self, started: Started, does: Attempt, seconds: float | None = None) -> Container:
        """Does what an attempt does to the table, as far as it comes while its state waits for it."""
        record = self._item(started.environment["DBT_RUNNER_RUN_KEY"])
        assert record is not None
        step = (
            "health_check" if started.place == 0 else json.loads(record["request"]["S"], strict=False)["steps"][started.place - 1]["name"]
        )
        key = containers.key(RUN_ID, started.place, step, started.attempt)
        began = self.containers.start(key, seconds=seconds, works=does.works, ending=does.ending)
        goes_on = does.goes_on or self._answer_is_lost
        refused = began.exit_code == REFUSED_CLAIM
        self.started.append(replace(started, outcome=None) if goes_on or refused else started)
        if not goes_on and not refused:
            self.containers.end(began, does.outcome, 0)
        return began

    def _item(self, sort_key: str) -> Item | None:
        """An item of the environment."""
        key = {"pk": {"S": f"ENV#{ENVIRONMENT}"}, "sk": {"S": sort_key}}
        item: Item | None = self.dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item")
        return item

    def _next_attempt(self, place: str) -> Attempt:
        given = self.attempts.get(place, SUCCEEDS)
        asked = self._asked.get(place, 0)
        self._asked[place] = asked + 1
        return given if isinstance(given, Attempt) else given[min(asked, len(given) - 1)]


def make_cloud() -> Cloud:
    """A new environment with a CONFIG and a current release. Call it inside moto's mock."""
    dynamodb, sns, cloudwatch, events = _clients()
    dynamodb.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    for name in ("topic", "chat_topic"):
        topic = sns.create_topic(Name=render.SAMPLE[name].rpartition(":")[2])["TopicArn"]
        assert topic == render.SAMPLE[name]
    cloud = Cloud(dynamodb, sns, cloudwatch, events)
    cloud.put("CONFIG", config=json.dumps(config()))
    cloud.promote("1.4.2")
    return cloud


def _answer_of_function(exit_code: int) -> Item:
    return {"StatusCode": 200, "ExecutedVersion": "7", "Payload": {"exit_code": exit_code, "error": None}}


class _Parser(Parser):  # type: ignore[misc]  # jsonata-python has no types.
    """JSONata's parser, which parses what it has seen before no second time."""

    def parse(self, expression: str, regex_engine: object) -> Any:
        return _parsed(expression, regex_engine)


@cache
def _parser() -> _Parser:
    return _Parser()


@cache
def _parsed(expression: str, regex_engine: object) -> Any:
    return Parser().parse(expression, regex_engine)


@cache
def _chat_schema() -> Item:
    """The form of a message for chat channels."""
    schema: Item = json.loads((Path(__file__).parent / "chat.schema.json").read_text(encoding="utf-8"))
    return schema


@cache
def _check(definition: str) -> None:
    """The interpreter's own check of a definition, once."""
    testing.check(json.loads(definition))


@cache
def _clients() -> tuple[Any, ...]:
    """Made once, because making a client takes longer than a run; moto answers them wherever its mock is on."""
    session = boto3.Session(region_name=REGION)
    return session.client("dynamodb"), session.client("sns"), session.client("cloudwatch"), session.client("events")


def _request(client: Any, service: str, action: str, arguments: Item) -> Item:
    """Calls a service as Step Functions does, and names its errors as Step Functions does."""
    try:
        result: Item = getattr(client, xform_name(action))(**arguments)
    except ClientError as exc:
        error = exc.response["Error"]
        code = error["Code"] if error["Code"].endswith("Exception") else f"{error['Code']}Exception"
        name = f"{error_names.prefix(service)}.{code}"
        raise testing.Failure(name if name in error_names.of_service(service) else error_names.base(service), error["Message"]) from exc
    except ParamValidationError as exc:
        raise AssertionError(f"{action} would not accept its arguments: {exc}") from exc
    result.pop("ResponseMetadata")
    return result


def _validate(model: str, operation: str, arguments: Item, *, camel: bool = True) -> None:
    """Holds arguments against the input shape of an operation. Step Functions writes the names of ECS and its own API in Pascal case."""
    shape = _model(model).operation_model(operation).input_shape
    arguments = _camel(arguments) if camel else arguments
    report = ParamValidator().validate(arguments, shape)
    unknown = set(arguments) - set(shape.members)
    assert not report.has_errors() and not unknown, f"{operation} would not accept its arguments: {report.generate_report()} {unknown}"


@cache
def _model(service: str) -> Any:
    return get_session().get_service_model(service)


def _camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(item) for key, item in value.items()}
    return [_camel(item) for item in value] if isinstance(value, list) else value
