"""The interpreter of state machines: its clients, the shape of what it sends and receives, and its errors."""

from __future__ import annotations

import functools
import json
import threading
from datetime import UTC, datetime
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from moto.stepfunctions.parser.api import HistoryEventType, TaskTimedOutEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name import error_equals_decl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk as aws_sdk
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import StateTaskServiceCallback
from moto.stepfunctions.parser.asl.eval.callback.callback import HeartbeatTimeoutError
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.parse import preprocessor
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import boto_client
from moto.stepfunctions.parser.backend.execution import Execution

from dbt_runner.local.clients import boto3_client
from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


class EngineClients:
    """The clients with which Task states call the other services, one a service and region.

    moto's `boto_client_for` makes a new client for each call and each poll (20 to 50 ms of CPU) and reads its port from
    MOTO_PORT at every call. That variable would have to be set for the whole process; `connect` takes its place.
    """

    def __init__(self) -> None:
        self._endpoint: str | None = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def connect(self, endpoint: str | None) -> None:
        """Send what Task states call to this server from now on; None when it is gone."""
        with self._lock:
            self._endpoint = endpoint
            self._clients.clear()

    def client(self, *, service_name: str, region_name: str, **_: Any) -> Any:
        with self._lock:
            if self._endpoint is None:
                raise RuntimeError("a Task state calls a service, but no local stack is up")
            key = (service_name, region_name)
            if key not in self._clients:
                self._clients[key] = boto3_client(service_name, self._endpoint, region_name)
            return self._clients[key]


engine_clients = EngineClients()


@patch("stepfunctions-engine.clients", PATCHES)
def clients(patch: Patch) -> None:
    """moto's engine calls the port in MOTO_PORT (5000 without it), with a new client each time and unchecked parameters.

    AWS refuses an unknown or ill-typed parameter.
    """
    # Where boto_client_for looks boto3 up: its many importers hold the function itself, which therefore stays as it is.
    patch.set(boto_client, "boto3", engine_clients)


@patch("stepfunctions-engine.parse-once", PATCHES)
def parse_once(patch: Patch) -> None:
    """moto parses a definition whenever it runs it: 0.5 s of CPU for the longest one here, which is more than the run itself takes.

    The tree is kept, which nothing changes. What is made of it is not: a Map keeps in its component where it is.
    """
    original = AmazonStateLanguageParser.parse

    @functools.lru_cache(maxsize=64)
    def tree_of(definition: str) -> Any:
        return original(definition)[1]

    def parse(definition: str) -> tuple[Any, Any]:
        tree = tree_of(definition)
        return preprocessor.Preprocessor().visit(tree), tree

    patch.set(AmazonStateLanguageParser, "parse", staticmethod(parse))


@functools.cache
def _service_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _operation(task: Any, service: str | None, action: str | None) -> Any:
    model = _service_model(task._get_boto_service_name(service))
    wanted = task._get_boto_service_action(action).replace("_", "").lower()
    return next((model.operation_model(name) for name in model.operation_names if name.lower() == wanted), None)


def _without_datetimes(value: Any, encode: Any) -> Any:
    if isinstance(value, datetime):
        return encode(value)
    if isinstance(value, dict):
        return {key: _without_datetimes(item, encode) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_datetimes(item, encode) for item in value]
    return value


def iso_milliseconds(moment: datetime) -> str:
    """`2026-01-02T03:04:05.678Z`: how Step Functions writes a time into state data."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch_milliseconds(moment: datetime) -> int:
    """How the ECS integration writes a time, and EventBridge the dates of an execution."""
    return int(moment.timestamp() * 1000)


@patch("stepfunctions-engine.parameter-case", PATCHES)
def parameter_case(patch: Patch) -> None:
    """moto passes arguments on as they are written: `Cluster` stays unknown to ecs:runTask, which takes `cluster`.

    In AWS's state machines every parameter begins with a capital, whatever the service's own API says.
    """

    def normalise(
        self: Any, parameters: dict[str, Any], boto_service_name: str | None = None, service_action_name: str | None = None
    ) -> None:
        operation = _operation(self, boto_service_name, service_action_name)
        if operation is not None and operation.input_shape is not None:
            self._to_boto_request(parameters, operation.input_shape)

    patch.set(StateTaskService, "_normalise_parameters", normalise)


@patch("stepfunctions-engine.result-case", PATCHES)
def result_case(patch: Patch) -> None:
    """moto passes results on as boto3 gives them, with small letters and datetimes; DescribeExecution then fails for ever.

    AWS capitalises every member and writes times as text, those of the ECS integration as epoch milliseconds.
    """

    def normalise(self: Any, response: Any, boto_service_name: str | None = None, service_action_name: str | None = None) -> None:
        operation = _operation(self, boto_service_name, service_action_name)
        if operation is not None and operation.output_shape is not None:
            self._from_boto_response(response, operation.output_shape)
        if isinstance(response, dict):
            encode = epoch_milliseconds if self.resource.service_name == "ecs" else iso_milliseconds
            for key, value in list(response.items()):
                response[key] = _without_datetimes(value, encode)

    patch.set(StateTaskService, "_normalise_response", normalise)


@patch("stepfunctions-engine.context-times", PATCHES)
def context_times(patch: Patch) -> None:
    """moto puts a datetime into the context object as the execution's start.

    AWS puts text with milliseconds and `Z`.
    """
    original = Execution.get_start_execution_details

    def details(self: Any) -> Any:
        result = original(self)
        result.start_time = iso_milliseconds(result.start_time)
        return result

    patch.set(Execution, "get_start_execution_details", details)


@patch("stepfunctions-engine.sdk-error-names", PATCHES)
def sdk_error_names(patch: Patch) -> None:
    """moto knows the error prefix of the aws-sdk integration for two services only and takes the raw name for the others.

    AWS uses the name of the Java SDK's client: `Ecs.InvalidParameterException`.
    """
    names = {"ecs": "Ecs", "s3": "S3", "sns": "Sns", "sts": "Sts"}
    patch.set(aws_sdk, "_SERVICE_ERROR_NAMES", {**aws_sdk._SERVICE_ERROR_NAMES, **names})


@patch("stepfunctions-engine.string-escapes", PATCHES)
def string_escapes(patch: Patch) -> None:
    """moto keeps the JSON escapes of a definition's strings: a newline in a literal or expression stays backslash-n.

    AWS decodes the definition as JSON first.
    """

    def decoded(text: str | None) -> str | None:
        if text is None or not (text.startswith('"') and text.endswith('"')):
            return text
        return str(json.loads(text))

    original = preprocessor.Preprocessor._inner_string_of

    def inner_string_of(parser_rule_context: Any) -> str | None:
        return None if original(parser_rule_context) is None else decoded(parser_rule_context.getText())

    def from_string_literal(parser_rule_context: Any) -> str | None:
        return decoded(parser_rule_context.getText())

    patch.set(preprocessor.Preprocessor, "_inner_string_of", staticmethod(inner_string_of))
    patch.set(preprocessor, "from_string_literal", from_string_literal)


@patch("stepfunctions-engine.wildcard-errors", PATCHES)
def wildcard_errors(patch: Patch) -> None:
    """In moto States.ALL catches everything, so that an error in the definition looks as if it had been handled.

    On AWS neither States.Runtime nor States.DataLimitExceeded is caught by a wildcard.
    """
    original = error_equals_decl.ErrorEqualsDecl._eval_body
    terminal = (
        StatesErrorName(typ=StatesErrorNameType.StatesRuntime),
        StatesErrorName(typ=StatesErrorNameType.StatesStatesDataLimitExceeded),
    )

    def evaluate(self: Any, env: Any) -> None:
        error_name = env.stack[-1]
        original(self, env)
        if error_name in terminal and error_name not in self.error_names:
            env.stack[-1] = False

    patch.set(error_equals_decl.ErrorEqualsDecl, "_eval_body", evaluate)


@patch("stepfunctions-engine.heartbeat-error", PATCHES)
def heartbeat_error(patch: Patch) -> None:
    """moto reports a missed heartbeat as States.Timeout; AWS has States.HeartbeatTimeout for it."""
    original = StateTaskServiceCallback._from_error

    def from_error(self: Any, env: Any, ex: Exception) -> Any:
        if not isinstance(ex, HeartbeatTimeoutError):
            return original(self, env=env, ex=ex)
        return FailureEvent(
            env=env,
            error_name=StatesErrorName(typ=StatesErrorNameType.StatesHeartbeatTimeout),
            event_type=HistoryEventType.TaskTimedOut,
            event_details=EventDetails(
                taskTimedOutEventDetails=TaskTimedOutEventDetails(
                    resourceType=self._get_sfn_resource_type(),
                    resource=self._get_sfn_resource(),
                    error=StatesErrorNameType.StatesHeartbeatTimeout.to_name(),
                )
            ),
        )

    patch.set(StateTaskServiceCallback, "_from_error", from_error)
