"""Single faults of a definition, each with the check that must find it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asl.machine import Promise

Definition = dict[str, Any]

PARTITION = "${partition}"
PROMISE = Promise(
    recorders=frozenset({"RecordSuccess", "RecordFailure", "RecordRead", "RecordUnread"}), answered=frozenset({"RecordFailure"})
)
GOOD = Path(__file__).parent / "good.asl.json"


@dataclass(frozen=True)
class Fault:
    """A change that makes the good definition a bad one.

    Attributes:
        name: what is wrong.
        rule: the rule that says so, or `schema`.
        where: how the place begins of which it says so.
        plant: makes the change.
    """

    name: str
    rule: str
    where: str
    plant: Callable[[Definition], None]


def good() -> Definition:
    """The definition that breaks no rule."""
    definition: Definition = json.loads(GOOD.read_text(encoding="utf-8"))
    return definition


def put(path: str, value: object) -> Callable[[Definition], None]:
    """Sets a value; the path is given as `States/Step/Retry/0/MaxAttempts`."""

    def plant(definition: Definition) -> None:
        parent, key = _locate(definition, path)
        parent[key] = value

    return plant


def drop(path: str) -> Callable[[Definition], None]:
    """Takes a value away."""

    def plant(definition: Definition) -> None:
        parent, key = _locate(definition, path)
        del parent[key]

    return plant


def insert(path: str, value: object) -> Callable[[Definition], None]:
    """Puts a value before the first of a list."""

    def plant(definition: Definition) -> None:
        parent, key = _locate(definition, path)
        parent[key].insert(0, value)

    return plant


def without(path: str, value: str) -> Callable[[Definition], None]:
    """Takes a value out of a list."""

    def plant(definition: Definition) -> None:
        parent, key = _locate(definition, path)
        parent[key].remove(value)

    return plant


def _as_function(**arguments: object) -> Callable[[Definition], None]:
    """Makes the task an invocation, with one argument wrong."""

    def plant(definition: Definition) -> None:
        step = definition["States"]["Step"]
        step["Resource"] = f"arn:{PARTITION}:states:::lambda:invoke"
        payload = {"run_key": "{% $record.sk.S %}", "step": "{% $position %}", "attempt": 1}
        step["Arguments"] = {"FunctionName": "{% $config.lambda.function %}", "Payload": payload, **arguments}
        step["Retry"][0]["ErrorEquals"] = ["Lambda.ServiceException"]
        step["Catch"] = [step["Catch"][-1]]

    return plant


def _locate(definition: Definition, path: str) -> tuple[Any, str | int]:
    *parents, last = path.split("/")
    found: Any = definition
    for name in parents:
        found = found[int(name) if isinstance(found, list) else name]
    return found, int(last) if isinstance(found, list) else last


_CONTAINER = "States/Step/Arguments/Overrides/ContainerOverrides/0"
_INNER = "States/Layers/ItemProcessor/States"

FAULTS = (
    # Structure
    Fault("no query language", "schema", "$", drop("QueryLanguage")),
    Fault("JSONPath", "schema", "$.QueryLanguage", put("QueryLanguage", "JSONPath")),
    Fault("JSONPath of one state", "schema", "$.States.Step", put("States/Step/QueryLanguage", "JSONPath")),
    Fault("misspelt field", "schema", "$.States.Step", put("States/Step/TimeoutSecond", 5)),
    Fault("field of another type of state", "schema", "$.States.More", put("States/More/Resource", "arn:x")),
    Fault("unknown type of state", "schema", "$.States.More.Type", put("States/More/Type", "Switch")),
    Fault("Parameters", "schema", "$.States.Step", put("States/Step/Parameters", {"a": 1})),
    Fault("ResultPath", "schema", "$.States.Step", put("States/Step/ResultPath", "$.x")),
    Fault("ResultSelector", "schema", "$.States.Step", put("States/Step/ResultSelector", {"a": 1})),
    Fault("InputPath", "schema", "$.States.Both", put("States/Both/InputPath", "$.x")),
    Fault("OutputPath", "schema", "$.States.Succeeded", put("States/Succeeded/OutputPath", "$.x")),
    Fault("Result", "schema", "$.States.Prepare", put("States/Prepare/Result", {})),
    Fault("ItemsPath", "schema", "$.States.Layers", put("States/Layers/ItemsPath", "$.x")),
    Fault("Iterator", "schema", "$.States.Layers", put("States/Layers/Iterator", {})),
    Fault("TimeoutSecondsPath", "schema", "$.States.Step", put("States/Step/TimeoutSecondsPath", "$.x")),
    Fault("key of JSONPath", "schema", "$.States.Step", put("States/Step/Arguments/Cluster.$", "$.x")),
    Fault("Variable in a Choice", "schema", "$.States.More", put("States/More/Choices/0/Variable", "$.x")),
    Fault("Choice rule without Next", "schema", "$.States.More", drop("States/More/Choices/0/Next")),
    Fault("Choice rule without Condition", "schema", "$.States.More", drop("States/More/Choices/0/Condition")),
    Fault("Choice without Default", "schema", "$.States.More", drop("States/More/Default")),
    Fault("Fail with Next", "schema", "$.States.Failed", put("States/Failed/Next", "Succeeded")),
    Fault("Fail without a Cause", "schema", "$.States.Failed", drop("States/Failed/Cause")),
    Fault("neither Next nor End", "schema", "$.States.Both", drop("States/Both/Next")),
    Fault("both Next and End", "schema", "$.States.Both", put("States/Both/End", True)),
    Fault("End that is false", "schema", f"$.{_INNER.replace('/', '.')}.RecordRead", put(f"{_INNER}/RecordRead/End", False)),
    Fault("timeout in words", "schema", "$.States.Step", put("States/Step/TimeoutSeconds", "sixty")),
    Fault("heartbeat in words", "schema", "$.States.Step", put("States/Step/HeartbeatSeconds", "60")),
    Fault("timeout of zero", "schema", "$.States.Step", put("States/Step/TimeoutSeconds", 0)),
    Fault("Wait for two things", "schema", "$.States.Both", put("States/Both/Branches/1/States/Right/Timestamp", "2026-01-01T00:00:00Z")),
    Fault("unknown jitter", "schema", "$.States.Step.Retry", put("States/Step/Retry/0/JitterStrategy", "SOME")),
    Fault("no error in a Retry", "schema", "$.States.Step.Retry", put("States/Step/Retry/0/ErrorEquals", [])),
    Fault("Catch without Next", "schema", "$.States.Step", drop("States/Step/Catch/0/Next")),
    Fault("Catch with ResultPath", "schema", "$.States.Step", put("States/Step/Catch/0/ResultPath", "$.x")),
    Fault("Map without a processor", "schema", "$.States.Layers", drop("States/Layers/ItemProcessor")),
    Fault("unknown mode of a Map", "schema", "$.States.Layers", put("States/Layers/ItemProcessor/ProcessorConfig/Mode", "FAST")),
    Fault(
        "execution type of an inline Map",
        "schema",
        "$.States.Layers",
        put("States/Layers/ItemProcessor/ProcessorConfig/ExecutionType", "STANDARD"),
    ),
    Fault(
        "no type of execution in a distributed Map",
        "schema",
        "$.States.Layers",
        put("States/Layers/ItemProcessor/ProcessorConfig/Mode", "DISTRIBUTED"),
    ),
    Fault("variable that is no name", "schema", "$.States.Prepare", put("States/Prepare/Assign/run-id", 1)),
    # Transitions
    Fault("StartAt nowhere", "targets_exist", "StartAt", put("StartAt", "Begin")),
    Fault("Next nowhere", "targets_exist", "Step", put("States/Step/Next", "Nowhere")),
    Fault("Default nowhere", "targets_exist", "More", put("States/More/Default", "Nowhere")),
    Fault("Catch nowhere", "targets_exist", "Step", put("States/Step/Catch/0/Next", "Nowhere")),
    Fault("Choice nowhere", "targets_exist", "More", put("States/More/Choices/0/Next", "Nowhere")),
    Fault("Next out of a Map", "targets_exist", "Read", put(f"{_INNER}/Read/Next", "Both")),
    Fault("StartAt of a branch nowhere", "targets_exist", "Both.Branches[0]", put("States/Both/Branches/0/StartAt", "Middle")),
    Fault("one name twice", "names_are_unique", "Left", put("States/Both/Branches/1/States/Left", {"Type": "Succeed"})),
    Fault("unreachable state", "states_are_reachable", "Orphan", put("States/Orphan", {"Type": "Succeed"})),
    Fault("unreachable state in a Map", "states_are_reachable", "Orphan", put(f"{_INNER}/Orphan", {"Type": "Succeed"})),
    Fault("endless loop", "states_can_end", "Loop", put("States/Loop", {"Type": "Pass", "Next": "Loop"})),
    # Expressions
    Fault("unclosed delimiter", "delimiters_are_closed", "Succeeded.Output", put("States/Succeeded/Output/layers", "{% $layers ")),
    Fault(
        "expression inside of a text",
        "delimiters_are_closed",
        "Succeeded.Output",
        put("States/Succeeded/Output/layers", "run {% $run_id %}"),
    ),
    Fault(
        "space before the delimiter", "delimiters_are_closed", "Succeeded.Output", put("States/Succeeded/Output/layers", " {% $layers %}")
    ),
    Fault(
        "expression that does not parse", "expressions_parse", "Succeeded.Output", put("States/Succeeded/Output/layers", "{% $layers.( %}")
    ),
    Fault(
        "Condition that does not parse", "expressions_parse", "More.Choices[0]", put("States/More/Choices/0/Condition", "{% $position < %}")
    ),
    Fault("$eval", "eval_is_not_called", "Failed.Cause", put("States/Failed/Cause", "{% $eval('1') & $cause %}")),
    Fault("$$", "input_is_named", "Failed.Cause", put("States/Failed/Cause", "{% $$.cause & $cause %}")),
    Fault("states assigned", "states_is_not_assigned", "Prepare", put("States/Prepare/Assign/states", 1)),
    Fault("$states bound", "states_is_not_assigned", "Prepare", put("States/Prepare/Assign/total", "{% ( $states := 1; $states ) %}")),
    Fault(
        "result in Arguments",
        "states_has_the_field",
        "RecordSuccess.Arguments",
        put("States/RecordSuccess/Arguments/x", "{% $states.result.a %}"),
    ),
    Fault(
        "result of a Choice", "states_has_the_field", "More.Choices[0]", put("States/More/Choices/0/Condition", "{% $states.result = 1 %}")
    ),
    Fault(
        "errorOutput outside of a Catch",
        "states_has_the_field",
        "Failed.Cause",
        put("States/Failed/Cause", "{% $states.errorOutput.Cause %}"),
    ),
    Fault(
        "result in a Catch", "states_has_the_field", "Step.Catch[1]", put("States/Step/Catch/1/Assign/cause", "{% $states.result.Cause %}")
    ),
    Fault("$states as a whole", "states_has_the_field", "Step.Catch[1]", put("States/Step/Catch/1/Assign/cause", "{% $string($states) %}")),
    Fault("bare name", "context_is_not_read", "Succeeded.Output", put("States/Succeeded/Output/x", "{% record.sk %}")),
    Fault("bare context", "context_is_not_read", "Succeeded.Output", put("States/Succeeded/Output/x", "{% $count($) %}")),
    Fault(
        "context in a function", "context_is_not_read", "Prepare", put("States/Prepare/Assign/total", "{% $map([1], function($n) { $ }) %}")
    ),
    Fault("bare name in an object", "context_is_not_read", "Prepare", put("States/Prepare/Assign/total", "{% { 'a': sk } %}")),
    # error() came with JSONata 2.1 only: what hides nothing today may hide something tomorrow.
    Fault("variable of a newer function's name", "names_are_no_functions", "Prepare", put("States/Prepare/Assign/error", "x")),
    Fault("variable of a catcher", "names_are_no_functions", "Step", put("States/Step/Catch/1/Assign/assert", "x")),
    Fault(
        "variable of Step Functions' function",
        "names_are_no_functions",
        "Prepare",
        put("States/Prepare/Assign/total", "{% ( $uuid := 1; $uuid ) %}"),
    ),
    Fault(
        "parameter of a function's name",
        "names_are_no_functions",
        "Prepare.Assign",
        put("States/Prepare/Assign/total", "{% ( $f := function($type) { $type }; $f(1) ) %}"),
    ),
    Fault("variable that nobody assigns", "variables_are_assigned", "Succeeded.Output", put("States/Succeeded/Output/x", "{% $never %}")),
    Fault("variable that one path assigns", "variables_are_assigned", "Failed.Cause", drop("States/Step/Catch/0/Assign/cause")),
    Fault("variable of a Map read outside", "variables_are_assigned", "Succeeded.Output", put("States/Succeeded/Output/x", "{% $found %}")),
    Fault(
        "variable read where it is assigned",
        "variables_are_assigned",
        "Prepare.Assign",
        put("States/Prepare/Assign/total", "{% $position %}"),
    ),
    Fault(
        "function that does not exist", "variables_are_assigned", "Succeeded.Output", put("States/Succeeded/Output/x", "{% $sumOf([1]) %}")
    ),
    Fault(
        "bound after it is read", "variables_are_assigned", "Prepare.Assign", put("States/Prepare/Assign/total", "{% ( $a; $a := 1 ) %}")
    ),
    Fault(
        "parameter outside of its function",
        "variables_are_assigned",
        "Prepare.Assign",
        put("States/Prepare/Assign/total", "{% ( $f := function($n) { $n }; $n ) %}"),
    ),
    Fault("variable of the machine assigned in a Map", "inner_names_are_new", "Read", put(f"{_INNER}/Read/Assign/position", 1)),
    # Errors
    Fault(
        "States.ALL first",
        "catch_all_is_last",
        "Step.Catch[0]",
        insert(
            "States/Step/Catch",
            {"ErrorEquals": ["States.ALL"], "Assign": {"failure": "Dbt.RunnerError", "cause": "x"}, "Next": "RecordFailure"},
        ),
    ),
    Fault(
        "States.ALL with another",
        "catch_all_is_last",
        "Step.Catch[1]",
        put("States/Step/Catch/1/ErrorEquals", ["States.ALL", "States.Timeout"]),
    ),
    Fault("Retry of States.ALL", "retries_name_errors", "Step.Retry[0]", put("States/Step/Retry/0/ErrorEquals", ["States.ALL"])),
    Fault(
        "Retry of States.TaskFailed",
        "retries_name_errors",
        "Step.Retry[0]",
        put("States/Step/Retry/0/ErrorEquals", ["ECS.ServerException", "States.TaskFailed"]),
    ),
    Fault("Retry without MaxAttempts", "retries_are_bounded", "Step.Retry[0]", drop("States/Step/Retry/0/MaxAttempts")),
    Fault("Retry without MaxDelaySeconds", "retries_are_bounded", "Step.Retry[0]", drop("States/Step/Retry/0/MaxDelaySeconds")),
    Fault("Retry without jitter", "retries_are_bounded", "Step.Retry[0]", drop("States/Step/Retry/0/JitterStrategy")),
    Fault(
        "error caught twice",
        "errors_have_one_place",
        "Step.Catch[1]",
        insert(
            "States/Step/Catch",
            {"ErrorEquals": ["AmazonECS.Unknown"], "Assign": {"failure": "Dbt.RunnerError", "cause": "x"}, "Next": "RecordFailure"},
        ),
    ),
    Fault(
        "error that does not exist", "error_names_are_known", "Step.Catch[0]", put("States/Step/Catch/0/ErrorEquals", ["AmazonECS.Unknwon"])
    ),
    Fault(
        "error of another service",
        "error_names_are_known",
        "Step.Retry[0]",
        put("States/Step/Retry/0/ErrorEquals", ["DynamoDB.ThrottlingException"]),
    ),
    Fault(
        "error of the other integration of a service",
        "error_names_are_known",
        "RecordSuccess.Catch[0]",
        insert("States/RecordSuccess/Catch", {"ErrorEquals": ["DynamoDb.ConditionalCheckFailedException"], "Next": "Succeeded"}),
    ),
    Fault(
        "error that nothing catches", "error_names_are_known", "Step.Catch[0]", put("States/Step/Catch/0/ErrorEquals", ["States.Runtime"])
    ),
    Fault(
        "error of a task in a Map's Catch",
        "error_names_are_known",
        "Layers.Catch[0]",
        insert(
            "States/Layers/Catch",
            {
                "ErrorEquals": ["DynamoDB.ThrottlingException"],
                "Assign": {"failure": "Dbt.RunnerError", "cause": "x"},
                "Next": "RecordFailure",
            },
        ),
    ),
    Fault("Task without Retry", "passing_errors_are_retried", "RecordSuccess", drop("States/RecordSuccess/Retry")),
    Fault("Task of a Map without Retry", "passing_errors_are_retried", "Read", drop(f"{_INNER}/Read/Retry")),
    Fault(
        "Retry without the base class",
        "passing_errors_are_retried",
        "RecordSuccess",
        without("States/RecordSuccess/Retry/0/ErrorEquals", "DynamoDB.AmazonDynamoDBException"),
    ),
    Fault(
        "Retry without what may pass",
        "passing_errors_are_retried",
        "Step",
        without("States/Step/Retry/0/ErrorEquals", "ECS.ConflictException"),
    ),
    Fault(
        "base class of the other integration",
        "error_names_are_known",
        "RecordSuccess.Retry[0]",
        insert("States/RecordSuccess/Retry/0/ErrorEquals", "DynamoDB.DynamoDbException"),
    ),
    Fault(
        "error that the service's model lacks",
        "error_names_are_known",
        "Step.Retry[0]",
        insert("States/Step/Retry/0/ErrorEquals", "ECS.ThrottlingException"),
    ),
    Fault(
        "one spelling of two",
        "errors_are_spelled_in_full",
        "RecordSuccess.Retry[0]",
        without("States/RecordSuccess/Retry/0/ErrorEquals", "DynamoDB.InternalServerError"),
    ),
    Fault(
        "one spelling of two in a Catch",
        "errors_are_spelled_in_full",
        "RecordSuccess.Catch[0]",
        insert(
            "States/RecordSuccess/Catch",
            {
                "ErrorEquals": ["DynamoDB.RequestLimitExceeded"],
                "Assign": {"failure": "Dbt.RunnerError", "cause": "x"},
                "Next": "RecordFailure",
            },
        ),
    ),
    Fault(
        "typed error that does not exist",
        "typed_errors_are_known",
        "Step.Catch[0]",
        put("States/Step/Catch/0/Assign/failure", "Dbt.NoCapacity"),
    ),
    Fault("Fail with an error of its own", "typed_errors_are_known", "Failed", put("States/Failed/Error", "Failed")),
    Fault("Task without Catch", "failures_are_caught", "RecordSuccess", drop("States/RecordSuccess/Catch")),
    Fault("Task that catches some errors", "failures_are_caught", "Step", drop("States/Step/Catch/1")),
    Fault("Catch that records nothing", "failures_are_answered", "Step", put("States/Step/Catch/0/Next", "Failed")),
    Fault(
        "recorder that goes on unrecorded",
        "failures_are_answered",
        "RecordSuccess",
        insert("States/RecordSuccess/Catch", {"ErrorEquals": ["DynamoDB.ThrottlingException"], "Next": "Succeeded"}),
    ),
    Fault("Task without Catch in a Map", "failures_are_caught", "Read", drop(f"{_INNER}/Read/Catch")),
    # Time
    Fault("execution without a timeout", "execution_has_timeout", "TimeoutSeconds", drop("TimeoutSeconds")),
    Fault("Task without a timeout", "tasks_have_timeouts", "RecordSuccess", drop("States/RecordSuccess/TimeoutSeconds")),
    Fault("heartbeat above the timeout", "heartbeats_are_shorter", "Step", put("States/Step/HeartbeatSeconds", 601)),
    Fault("heartbeat as long as the timeout", "heartbeats_are_shorter", "Step", put("States/Step/HeartbeatSeconds", "{% 600 %}")),
    # Integrations
    Fault("partition in a Resource", "resources_are_known", "Step", put("States/Step/Resource", "arn:aws:states:::ecs:runTask.sync")),
    Fault(
        "service that is not used",
        "resources_are_known",
        "RecordSuccess",
        put("States/RecordSuccess/Resource", "arn:${partition}:states:::sqs:sendMessage"),
    ),
    Fault(
        "misspelt action",
        "resources_are_known",
        "RecordSuccess",
        put("States/RecordSuccess/Resource", "arn:${partition}:states:::dynamodb:putItm"),
    ),
    Fault(
        "action with a capital",
        "resources_are_known",
        "RecordSuccess",
        put("States/RecordSuccess/Resource", "arn:${partition}:states:::dynamodb:PutItem"),
    ),
    Fault("overrides that leave no room", "overrides_are_small", "Step", put(f"{_CONTAINER}/Name", "x" * 3000)),
    Fault(
        "command in the overrides",
        "overrides_follow_the_contract",
        "Step",
        put(f"{_CONTAINER}/Command", ["step", "--request", "{% $record %}"]),
    ),
    Fault(
        "variable too many",
        "overrides_follow_the_contract",
        "Step",
        insert(f"{_CONTAINER}/Environment", {"Name": "DBT_RUNNER_REQUEST", "Value": "x"}),
    ),
    Fault("variable missing", "overrides_follow_the_contract", "Step", drop(f"{_CONTAINER}/Environment/2")),
    Fault(
        "request in the environment",
        "overrides_follow_the_contract",
        "Step",
        put(f"{_CONTAINER}/Environment/0/Value", "{% $string($states.input) %}"),
    ),
    Fault(
        "results in the environment",
        "overrides_follow_the_contract",
        "Step",
        put(f"{_CONTAINER}/Environment/1/Value", "{% $string($layers) %}"),
    ),
    Fault("role of a function", "payloads_follow_the_contract", "Step", _as_function(Qualifier="$LATEST")),
    Fault("request in the payload", "payloads_follow_the_contract", "Step", _as_function(Payload={"request": "{% $record %}"})),
    Fault(
        "results in the payload",
        "payloads_follow_the_contract",
        "Step",
        _as_function(Payload={"run_key": "{% $string($layers) %}", "step": 1, "attempt": 1}),
    ),
    Fault("no size in the overrides", "overrides_follow_the_contract", "Step", drop("States/Step/Arguments/Overrides/Memory")),
    Fault("role in the overrides", "overrides_follow_the_contract", "Step", put("States/Step/Arguments/Overrides/TaskRoleArn", "arn")),
)
