"""The ECS integration of Step Functions: `ecs:runTask.sync` and its errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from moto.ecs.models import ecs_backends
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_ecs
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import StateTaskServiceCallback
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_ecs import StateTaskServiceEcs
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded
from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for

from dbt_runner.local.moto_patches.ecs import board
from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []

# How late an abort is noticed. The end of the task itself is noticed at once.
_ABORT_CHECK_SECONDS = 0.1
_ABANDON_SECONDS = 1.0


class TaskAbandonedError(Exception):
    """The execution, or the state, ended while it waited for a task. It ends a thread of moto; nobody sees it."""


def _failure(state: Any, env: Any, *, name: Any, error: str, cause: str) -> Any:
    details = TaskFailedEventDetails(
        resource=state._get_sfn_resource(), resourceType=state._get_sfn_resource_type(), error=error, cause=cause
    )
    return FailureEvent(
        env=env,
        error_name=name,
        event_type=HistoryEventType.TaskFailed,
        event_details=EventDetails(taskFailedEventDetails=details),
    )


@patch("stepfunctions-ecs.run-task-parameters", PATCHES)
def run_task_parameters(patch: Patch) -> None:
    """moto drops CapacityProviderStrategy, Tags and others of RunTask's parameters; AWS passes all of them on."""
    bindings = state_task_service_ecs._SUPPORTED_API_PARAM_BINDINGS
    more = {"CapacityProviderStrategy", "ClientToken", "Count", "EnableECSManagedTags", "ReferenceId", "StartedBy", "Tags"}
    patch.set(state_task_service_ecs, "_SUPPORTED_API_PARAM_BINDINGS", {**bindings, "runtask": bindings["runtask"] | more})


@patch("stepfunctions-ecs.error-names", PATCHES)
def error_names(patch: Patch) -> None:
    """In moto a refused RunTask is States.Runtime, which AWS lets nobody catch.

    On AWS it is `ECS.` and the error code, which ends in Exception: ECS.ClientException.
    """

    def from_error(self: Any, env: Any, ex: Exception) -> Any:
        if not isinstance(ex, ClientError):
            return StateTaskServiceCallback._from_error(self, env=env, ex=ex)
        code, status = ex.response["Error"]["Code"], ex.response["ResponseMetadata"]["HTTPStatusCode"]
        error = f"ECS.{code.removesuffix('Exception')}Exception"
        cause = f"{ex.response['Error']['Message']} (Service: AmazonECS; Status Code: {status}; Error Code: {code})"
        return _failure(self, env, name=CustomErrorName(error), error=error, cause=cause)

    patch.set(StateTaskServiceEcs, "_from_error", from_error)


@patch("stepfunctions-ecs.sync", PATCHES)
def sync(patch: Patch) -> None:
    """In moto `ecs:runTask.sync` succeeds whatever the exit code, an aborted execution leaves its task running, and a
    second attempt times out at once, because it waits for the first one's token, too.

    On AWS a container that ends with another code than 0, or never starts, raises States.TaskFailed with the task as
    JSON in Cause. When the execution is aborted Step Functions stops the task. Of a Task state's own timeout AWS
    documents no such thing, so that here too the task runs on unless the state machine stops it.
    """

    def build_sync_resolver(
        self: Any, env: Any, resource_runtime_part: Any, normalised_parameters: dict[str, Any], state_credentials: Any
    ) -> Callable[[], dict[str, Any]]:
        submitted = env.stack.pop()["Tasks"][0]
        arn, cluster = submitted["TaskArn"], submitted["ClusterArn"]
        client = boto_client_for(service="ecs", region=resource_runtime_part.region, state_credentials=state_credentials)
        task = _task(arn)

        def wait_for_the_end() -> dict[str, Any]:
            while not board.wait_until_stopped(task, seconds=_ABORT_CHECK_SECONDS):
                if env.is_running():
                    continue
                if isinstance(env.program_state(), ProgramEnded):
                    # The state timed out and goes on without this thread, whose error would count if it came too soon.
                    time.sleep(_ABANDON_SECONDS)
                else:
                    client.stop_task(cluster=cluster, task=arn, reason="Stopped by AWS Step Functions")
                raise TaskAbandonedError(arn)
            response = client.describe_tasks(cluster=cluster, tasks=[arn])
            self._normalise_response(response=response, service_action_name="describe_tasks")
            ended: dict[str, Any] = response["Tasks"][0]
            if any(container.get("ExitCode") != 0 for container in ended["Containers"]):
                name = StatesErrorName(typ=StatesErrorNameType.StatesTaskFailed)
                cause = json.dumps(ended, separators=(",", ":"))
                raise FailureEventException(_failure(self, env, name=name, error="States.TaskFailed", cause=cause))
            return ended

        return wait_for_the_end

    def evaluate_sync(self: Any, env: Any, sync_resolver: Callable[[], dict[str, Any]], **_: Any) -> dict[str, Any]:
        return sync_resolver()

    patch.set(StateTaskServiceEcs, "_build_sync_resolver", build_sync_resolver)
    # Instead of a poll by HTTP every half second, and a thread that waits for a token nobody has.
    patch.set(StateTaskServiceEcs, "_eval_sync", evaluate_sync)


def _task(arn: str) -> Any:
    _, _, _, region, account, _ = arn.split(":", 5)
    backend = ecs_backends[account][region]
    return next(tasks[arn] for tasks in backend.tasks.values() if arn in tasks)
