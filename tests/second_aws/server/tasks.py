"""ECS: `runTask.sync` as Step Functions calls it, StopTask that waits for the process, and credentials of the task's role.

The container is a process of the runner: `shim/docker` stands for the Docker SDK.
"""

from __future__ import annotations

import contextvars
import json
import re
import threading
import time
from typing import Any

from ministack.core.responses import get_account_id
from ministack.services import ecs, imds, stepfunctions

from second_aws.server import states
from second_aws.server.sessions import open_session

_POLL_SECONDS = 0.1
_STOP_TIMEOUT_SECONDS = 30
_CREDENTIALS = re.compile(r"/v2/credentials/([\w-]+)")

_ROLE = "role_"

# By the last part of the credentials endpoint's path: the task's role and its id.
_roles: dict[str, tuple[str, str]] = {}


def install() -> None:
    stepfunctions._SERVICE_DISPATCH["arn:aws:states:::ecs:runTask"] = _run_task
    _install_stop()
    _install_credentials()


def _pascal(value: Any) -> Any:
    if isinstance(value, list):
        return [_pascal(part) for part in value]
    if isinstance(value, dict):
        return {key[:1].upper() + key[1:]: _pascal(part) for key, part in value.items() if part is not None}
    return value


def _run_task(resource: str, parameters: dict[str, Any]) -> Any:
    """https://docs.aws.amazon.com/step-functions/latest/dg/connect-ecs.html"""
    execution = states.execution.get()
    status, _, body = ecs._run_task(stepfunctions._pascal_to_camel(parameters))
    answer = json.loads(body or "{}")
    if status >= 400:
        code = answer.get("__type", "Unknown").rsplit("#", 1)[-1].removesuffix("Exception")
        raise stepfunctions._ExecutionError(f"ECS.{code}Exception", answer.get("message", ""))
    if answer.get("failures"):
        raise stepfunctions._ExecutionError("AmazonECS.Unknown", json.dumps(answer["failures"]))
    if ".sync" not in resource:
        return _pascal(answer)
    cluster, [arn] = parameters["Cluster"], [task["taskArn"] for task in answer["tasks"]]
    while True:
        time.sleep(_POLL_SECONDS)
        task = json.loads(ecs._describe_tasks({"cluster": cluster, "tasks": [arn]})[2])["tasks"][0]
        if task["lastStatus"] == "STOPPED":
            break
        if execution is not None and execution["status"] != "RUNNING":
            ecs._stop_task({"cluster": cluster, "task": arn, "reason": "Stopped by AWS Step Functions"})
            raise stepfunctions._ExecutionError("States.Aborted", "")
    task = _pascal(task)
    if any(container.get("ExitCode") != 0 for container in task["Containers"]):
        raise stepfunctions._ExecutionError("States.TaskFailed", json.dumps(task, separators=(",", ":")))
    return task


def _install_stop() -> None:
    """A task is STOPPED when its process has ended, and not before; its exit code is the process's."""
    mark, stop = ecs._maybe_mark_stopped, ecs._stop_task

    def mark_unless_asked(task: dict[str, Any], docker_client: Any = None) -> Any:
        return None if task.get("_asked") else mark(task, docker_client)

    def stop_task(parameters: dict[str, Any]) -> Any:
        task = ecs._resolve_task(parameters.get("task", ""), ecs._resolve_cluster_name(parameters.get("cluster", "default")))
        if not task or task["lastStatus"] == "STOPPED" or not task.get("_docker_ids"):
            return stop(parameters)
        if not task.get("_asked"):
            task["_asked"] = True
            reason, docker = parameters.get("reason", "Task stopped by user"), ecs._get_docker()
            end = threading.Thread(target=contextvars.copy_context().run, args=(_end, task, reason, docker), daemon=True)
            end.start()
        return ecs.json_response({"task": ecs._sanitize(task)})

    ecs._maybe_mark_stopped = mark_unless_asked
    ecs._stop_task = ecs._ACTION_MAP["StopTask"] = stop_task


def _end(task: dict[str, Any], reason: str, docker: Any) -> None:
    container = docker.containers.get(task["_docker_ids"][0])
    container.stop(timeout=_STOP_TIMEOUT_SECONDS)
    ecs._mark_task_stopped(task["taskArn"], task, reason, "UserInitiated", exit_code=container.wait()["StatusCode"])
    ecs._cleanup_task_resources(task, docker)


def _install_credentials() -> None:
    """The endpoint that ECS names in a container's environment gives out the credentials of its task's role."""
    register, handle = ecs._register_metadata, imds.handle_request

    def register_role(
        task_arn: str, cluster_arn: str, definition: dict[str, Any], container: Any, launch: Any, env: dict[str, str], *more: Any
    ) -> Any:
        token = register(task_arn, cluster_arn, definition, container, launch, env, *more)
        _roles[env["AWS_CONTAINER_CREDENTIALS_FULL_URI"].rsplit("/", 1)[1]] = (definition["taskRoleArn"], task_arn.rsplit("/", 1)[1])
        return token

    async def answer(method: str, path: str, headers: Any, body: Any, query: Any) -> Any:
        found = _CREDENTIALS.fullmatch(path)
        if found and found[1].startswith(_ROLE):
            # For the tests: a session of any role.
            return imds._json_resp(open_session(f"arn:aws:iam::{get_account_id()}:role/{found[1].removeprefix(_ROLE)}", "test"))
        if found and found[1] in _roles:
            return imds._json_resp(open_session(*_roles[found[1]]))
        return await handle(method, path, headers, body, query)

    ecs._register_metadata = register_role
    imds.handle_request = answer
