"""ECS: tasks that really run and end."""

from __future__ import annotations

import copy
import threading
from typing import Any, Protocol

from moto.core.utils import utcnow
from moto.ecs.exceptions import InvalidParameterException
from moto.ecs.models import EC2ContainerServiceBackend, Task

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


class TaskRunner(Protocol):
    """What runs the containers of moto's tasks."""

    def start(self, task: Any) -> None:
        """Start the container of a new task; called while RunTask is answered, so it must not wait."""

    def stop(self, task: Any) -> None:
        """Begin to end the container of a task whose stop was asked for; must not wait either."""


class TaskBoard:
    """Where tasks change their state: RunTask and StopTask on one side, the runner and who waits for a task on the other."""

    def __init__(self) -> None:
        self.runner: TaskRunner | None = None
        self._changed = threading.Condition()

    def set_pending(self, task: Any) -> None:
        """The state of a new task: no container runs and none has an exit code yet."""
        task.launch_type = task.launch_type or "FARGATE"
        task.created_at = utcnow()
        task.last_status = "PENDING"
        for container in task.containers:
            container.task_arn = task.task_arn
            container.last_status, container.exitCode = "PENDING", None

    def set_running(self, task: Any) -> None:
        with self._changed:
            task.last_status, task.started_at = "RUNNING", utcnow()
            for container in task.containers:
                container.last_status = "RUNNING"
            self._changed.notify_all()

    def ask_to_stop(self, task: Any, *, code: str, reason: str) -> None:
        """Note why a task is to end. Its first reason stays, and a task that has ended stays as it is."""
        with self._changed:
            if task.desired_status != "STOPPED":
                task.desired_status, task.stop_code, task.stopped_reason = "STOPPED", code, reason
        if self.runner is not None and task.last_status != "STOPPED":
            self.runner.stop(task)

    def set_stopped(self, task: Any, *, exit_code: int | None, code: str, reason: str) -> None:
        """The container has ended. `code` and `reason` hold for a task that nobody asked to stop."""
        with self._changed:
            if task.desired_status != "STOPPED":
                task.desired_status, task.stop_code, task.stopped_reason = "STOPPED", code, reason
            for container in task.containers:
                container.last_status, container.exitCode = "STOPPED", exit_code
            task.stopped_at = task.execution_stopped_at = utcnow()
            task.last_status = "STOPPED"
            self._changed.notify_all()

    def wait_until_stopped(self, task: Any, *, seconds: float) -> bool:
        """True when the task has ended, within the given time at most."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(task.last_status == "STOPPED"), timeout=seconds)


board = TaskBoard()


@patch("ecs.container-without-memory", PATCHES)
def container_without_memory(patch: Patch) -> None:
    """moto's RunTask fails when a container has no memory of its own.

    On Fargate the task's memory is what counts.
    """
    original = EC2ContainerServiceBackend._calculate_task_resource_requirements

    def requirements(task_definition: Any) -> Any:
        complete = copy.copy(task_definition)
        complete.container_definitions = [
            {**container, "memory": container.get("memory") or container.get("memoryReservation") or 0, "cpu": container.get("cpu") or 0}
            for container in task_definition.container_definitions
        ]
        return original(complete)

    patch.set(EC2ContainerServiceBackend, "_calculate_task_resource_requirements", staticmethod(requirements))


@patch("ecs.tasks-run", PATCHES)
def tasks_run(patch: Patch) -> None:
    """moto's tasks change their state each time they are described, and are STOPPED with exit code 0 as soon as asked.

    On ECS a task is PENDING until its container runs, and STOPPED when it has ended: RunTask and StopTask only begin that.
    """
    original_run, original_stop = EC2ContainerServiceBackend.run_task, EC2ContainerServiceBackend.stop_task

    def run_task(self: Any, *args: Any, **kwargs: Any) -> Any:
        tasks = original_run(self, *args, **kwargs)
        if board.runner is not None:
            for task in tasks:
                board.set_pending(task)
                board.runner.start(task)
        return tasks

    def stop_task(self: Any, cluster_str: str, task_str: str, reason: str | None) -> Any:
        if board.runner is None:
            return original_stop(self, cluster_str, task_str, reason)
        tasks = self.tasks.get(self._get_cluster(cluster_str).name, {})
        for arn, task in tasks.items():
            if task_str in (arn, arn.rpartition("/")[2]):
                board.ask_to_stop(task, code="UserInitiated", reason=reason or "Task stopped by user")
                return task
        raise InvalidParameterException("The referenced task was not found.")

    patch.set(EC2ContainerServiceBackend, "run_task", run_task)
    patch.set(EC2ContainerServiceBackend, "stop_task", stop_task)
    patch.set(Task, "advance", lambda self: None)
