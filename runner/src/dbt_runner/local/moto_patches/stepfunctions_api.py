"""Step Functions' control plane: what the Terraform provider, our CLI and callers of an alias ask for."""

from __future__ import annotations

import copy
import json
import random
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions.exceptions import InvalidExecutionInput
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


@patch("stepfunctions-api.validate-definition", PATCHES)
def validate_definition(patch: Patch) -> None:
    """moto has no ValidateStateMachineDefinition, which the provider calls at plan time.

    AWS answers OK or FAIL with diagnostics. Here the diagnostics are those of moto's parser.
    """

    def validate_state_machine_definition(self: Any) -> Any:
        diagnostics = []
        try:
            AmazonStateLanguageParser.parse(self._get_param("definition"))
        except Exception as exc:  # the parser raises whatever its grammar rules happen to raise
            message = f"{type(exc).__name__}: {exc}"[:1000]
            diagnostics.append({"severity": "ERROR", "code": "SCHEMA_VALIDATION_FAILED", "message": message, "location": "/"})
        return ActionResult({"result": "FAIL" if diagnostics else "OK", "diagnostics": diagnostics, "truncated": False})

    patch.set(StepFunctionResponse, "validate_state_machine_definition", validate_state_machine_definition)


@patch("stepfunctions-api.list-versions", PATCHES)
def list_versions(patch: Patch) -> None:
    """moto has no ListStateMachineVersions, from which the provider reads the version it published (newest first)."""

    def list_state_machine_versions(self: Any) -> Any:
        machine = self.stepfunction_backend.describe_state_machine(self._get_param("stateMachineArn"))
        newest_first = sorted(machine.versions.values(), key=lambda published: published.version, reverse=True)
        return ActionResult(
            {
                "stateMachineVersions": [
                    {"stateMachineVersionArn": published.arn, "creationDate": published.creation_date} for published in newest_first
                ]
            }
        )

    patch.set(StepFunctionResponse, "list_state_machine_versions", list_state_machine_versions)


@patch("stepfunctions-api.delete-version", PATCHES)
def delete_version(patch: Patch) -> None:
    """moto has no DeleteStateMachineVersion, with which the provider destroys a published state machine.

    AWS succeeds when the version does not exist.
    """

    def delete_state_machine_version(self: Any) -> Any:
        machine_arn, _, number = self._get_param("stateMachineVersionArn").rpartition(":")
        for machine in self.stepfunction_backend.state_machines:
            if machine.arn == machine_arn:
                machine.versions.pop(int(number), None)
        return EmptyResult()

    patch.set(StepFunctionResponse, "delete_state_machine_version", delete_state_machine_version)


@dataclass(frozen=True)
class _Target:
    """What a state machine ARN, which may end in a version or an alias, stands for."""

    machine: Any
    definition_of: Any
    version_arn: str | None = None
    alias_arn: str | None = None


def _resolve(backend: Any, arn: str) -> _Target:
    parts = arn.split(":")
    if len(parts) == 7:
        machine = backend.describe_state_machine(arn)
        return _Target(machine, machine)
    machine_arn, qualifier = ":".join(parts[:7]), parts[7]
    if qualifier.isnumeric():
        return _Target(backend.describe_state_machine(machine_arn), backend.describe_state_machine(arn), version_arn=arn)
    routes = backend.describe_state_machine_alias(arn).routing_configuration
    [route] = random.choices(routes, weights=[route["weight"] for route in routes])
    version_arn = route["stateMachineVersionArn"]
    return _Target(
        backend.describe_state_machine(machine_arn), backend.describe_state_machine(version_arn), version_arn=version_arn, alias_arn=arn
    )


@patch("stepfunctions-api.start-execution", PATCHES)
def start_execution(patch: Patch) -> None:
    """moto starts neither an alias nor a version, and calls an execution without a name `None`.

    AWS runs the definition and role of the version to which the alias points, and makes a name up.
    """

    def start(
        self: Any, state_machine_arn: str, name: str | None = None, execution_input: str | None = None, trace_header: Any = None
    ) -> Any:
        target = _resolve(self, state_machine_arn)
        name = name or str(uuid.uuid4())
        self._validate_name(name)
        execution_input = execution_input or "{}"
        try:
            json.loads(execution_input)
        except ValueError as exc:
            raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{exc}'") from exc
        already_running = target.machine._handle_name_input_idempotency(name, execution_input)
        if already_running is not None:
            return already_running
        # The execution keeps the definition with which it began, under the ARN by which the machine is known.
        snapshot = copy.copy(target.definition_of)
        snapshot.arn, snapshot.executions = target.machine.arn, []
        execution = Execution(
            name=name,
            sm_type=snapshot.sm_type,
            role_arn=snapshot.roleArn,
            exec_arn=f"{target.machine.arn.replace(':stateMachine:', ':execution:')}:{name}",
            account_id=self.account_id,
            region_name=self.region_name,
            state_machine=snapshot,
            start_date=datetime.now(UTC),
            cloud_watch_logging_session=None,
            input_data=execution_input,
            trace_header=trace_header,
            activity_store={},
        )
        execution.version_arn, execution.alias_arn = target.version_arn, target.alias_arn
        target.machine.executions.append(execution)
        execution.start()
        return execution

    patch.set(StepFunctionsParserBackend, "start_execution", start)


def _qualifiers(execution: Any) -> dict[str, str]:
    arns = {
        "stateMachineVersionArn": getattr(execution, "version_arn", None),
        "stateMachineAliasArn": getattr(execution, "alias_arn", None),
    }
    return {key: arn for key, arn in arns.items() if arn}


@patch("stepfunctions-api.describe-execution", PATCHES)
def describe_execution(patch: Patch) -> None:
    """moto leaves out the stop date of a timed-out execution, the version and alias with which one was started, and the
    quotes around an output that is a string.

    On AWS the output is always JSON.
    """
    original = StepFunctionResponse.describe_execution

    def describe(self: Any) -> Any:
        response = original(self)
        execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
        response.result.update(_qualifiers(execution), redriveCount=0, inputDetails={"included": True})
        if response.result["status"] != "RUNNING":
            response.result["stopDate"] = execution.stop_date
        if response.result["status"] == "SUCCEEDED":
            response.result["output"] = json.dumps(execution.output)
        return response

    patch.set(StepFunctionResponse, "describe_execution", describe)


@patch("stepfunctions-api.list-executions", PATCHES)
def list_executions(patch: Patch) -> None:
    """moto lists no executions of an alias and leaves out the stop date of a timed-out one.

    AWS lists those that were started with the version or alias, or all for the plain ARN.
    """

    def list_all(self: Any) -> Any:
        arn = self._get_param("stateMachineArn")
        machine = _resolve(self.stepfunction_backend, arn).machine
        executions, next_token = self.stepfunction_backend.list_executions(
            machine.arn,
            status_filter=self._get_param("statusFilter"),
            max_results=self._get_int_param("maxResults"),
            next_token=self._get_param("nextToken"),
        )
        items = []
        for execution in executions:
            if arn != machine.arn and arn not in _qualifiers(execution).values():
                continue
            item = {
                "executionArn": execution.execution_arn,
                "name": execution.name,
                "startDate": execution.start_date,
                "stateMachineArn": machine.arn,
                "status": execution.status,
                "redriveCount": 0,
                **_qualifiers(execution),
            }
            if execution.status != "RUNNING":
                item["stopDate"] = execution.stop_date
            items.append(item)
        return ActionResult({"executions": items, "nextToken": next_token})

    patch.set(StepFunctionResponse, "list_executions", list_all)


@patch("stepfunctions-api.stop-execution", PATCHES)
def stop_execution(patch: Patch) -> None:
    """moto drops the error and cause that StopExecution gives, and answers before there is a stop date.

    AWS keeps both in the execution, and leaves one that has ended already as it is.
    """

    def stop(self: Any) -> Any:
        execution = self.stepfunction_backend.describe_execution(self._get_param("executionArn"))
        if execution.status == "RUNNING":
            execution.stop(stop_date=datetime.now(UTC), error=self._get_param("error"), cause=self._get_param("cause"))
        return ActionResult({"stopDate": execution.stop_date or datetime.now(UTC)})

    patch.set(StepFunctionResponse, "stop_execution", stop)
