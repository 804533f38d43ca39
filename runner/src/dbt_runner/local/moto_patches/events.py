"""EventBridge: the events that Step Functions sends of its executions, and rules that start something."""

from __future__ import annotations

import copy
import json
import logging
import queue
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

import moto.events.models as events_models
from jsonpath_ng.ext.parser import parse as parse_json_path
from moto.sns import sns_backends
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

from dbt_runner.local.moto_patches.registry import Patch, patch
from dbt_runner.local.moto_patches.stepfunctions_engine import epoch_milliseconds

PATCHES: list[Patch] = []

_log = logging.getLogger(__name__)


class EventQueue:
    """Delivers events in the order in which they happen, in a thread of its own, as EventBridge works beside its senders."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._deliver_all, name="event-bus", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Deliver what is in the queue and end the thread; what is put in later is dropped."""
        with self._lock:
            if self._thread is not None:
                self._events.put(None)
                self._thread.join()
                self._thread = None

    def put(self, event: dict[str, Any]) -> None:
        if self._thread is not None:
            self._events.put(event)

    def _deliver_all(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                _deliver(event)
            except Exception:  # one event that cannot be delivered must not keep the next from arriving
                _log.exception("an event could not be delivered: %s", event.get("detail-type"))


event_queue = EventQueue()


def _deliver(event: dict[str, Any]) -> None:
    bus = events_models.events_backends[event["account"]][event["region"]].event_buses["default"]
    for rule in list(bus.rules.values()):
        # A rule with a schedule has no pattern; moto's empty pattern would match everything.
        if rule.state == "ENABLED" and rule.event_pattern.get_pattern():
            rule.send_to_targets(event)


def _status_change(execution: Any, status: str) -> dict[str, Any]:
    # A number, as moto keeps the time of every event; `_as_delivered` writes it as EventBridge does.
    now = datetime.now(UTC).timestamp()
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Step Functions Execution Status Change",
        "source": "aws.states",
        "account": execution.account_id,
        "time": now,
        "ingestion-time": now,
        "region": execution.region_name,
        "resources": [execution.exec_arn],
        "detail": {
            "executionArn": execution.exec_arn,
            "stateMachineArn": execution.state_machine_arn,
            "stateMachineVersionArn": getattr(execution, "version_arn", None),
            "stateMachineAliasArn": getattr(execution, "alias_arn", None),
            "name": execution.name,
            "status": status,
            "startDate": epoch_milliseconds(execution.start_date),
            "stopDate": epoch_milliseconds(execution.stop_date) if execution.stop_date else None,
            "input": execution.execution_input,
            "inputDetails": {"included": True},
            "output": None if execution.output is None else json.dumps(execution.output),
            "outputDetails": None if execution.output is None else {"included": True},
            "error": execution.error,
            "cause": execution.cause,
            "redriveCount": 0,
            "redriveDate": None,
            "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": None,
        },
    }


@patch("events.execution-status", PATCHES)
def execution_status(patch: Patch) -> None:
    """moto sends no event when an execution starts or ends.

    AWS sends `Step Functions Execution Status Change` with every status, also for ABORTED and TIMED_OUT, which no state
    of the execution itself can handle.
    """
    original_start, original_terminated = Execution.start, BaseExecutionWorkerCommunication.terminated
    announcing = threading.Lock()

    def start(self: Any) -> None:
        # First the event: a short execution ends before `start` returns.
        event_queue.put(_status_change(self, "RUNNING"))
        original_start(self)

    def terminated(self: Any) -> None:
        original_terminated(self)
        with announcing:
            if getattr(self.execution, "_end_announced", False):
                return
            self.execution._end_announced = True
        event_queue.put(_status_change(self.execution, self.execution.status))

    patch.set(Execution, "start", start)
    patch.set(BaseExecutionWorkerCommunication, "terminated", terminated)


def _as_delivered(event: dict[str, Any]) -> dict[str, Any]:
    moment = event["time"]
    if not isinstance(moment, str):
        moment = datetime.fromtimestamp(float(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**event, "time": moment}


def _target_input(target: dict[str, Any], event: dict[str, Any]) -> str:
    event = _as_delivered(event)
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        matches = parse_json_path(target["InputPath"]).find(event)
        return json.dumps(matches[0].value if matches else None)
    if "InputTransformer" in target:
        transformer = target["InputTransformer"]
        body = events_models.EventTemplateParser.parse(
            input_template=transformer["InputTemplate"], input_paths_map=transformer.get("InputPathsMap", {}), event=event
        )
        return body if isinstance(body, str) else json.dumps(body)
    return json.dumps({key: value for key, value in event.items() if key != "ingestion-time"})


@patch("events.targets", PATCHES)
def targets(patch: Patch) -> None:
    """moto raises NotImplementedError at a rule target that is a state machine or a topic, and skips the targets after it.

    EventBridge starts an execution, or publishes, with the event or what the target makes of it.
    """
    original = events_models.Rule.send_to_targets

    def send_to_targets(self: Any, original_event: dict[str, Any], transform_input: bool = True) -> None:
        services = {target["Id"]: target["Arn"].split(":")[2] for target in self.targets}
        rest = copy.copy(self)
        rest.targets = [target for target in self.targets if services[target["Id"]] not in ("states", "sns")]
        if rest.targets:
            original(rest, original_event, transform_input)
        if not self.event_pattern.matches_event(original_event):
            return
        for target in self.targets:
            _, _, _, region, account, *_ = target["Arn"].split(":")
            if services[target["Id"]] == "states":
                name = f"{original_event['id']}_{uuid.uuid4()}"
                stepfunctions_parser_backends[account][region].start_execution(target["Arn"], name, _target_input(target, original_event))
            elif services[target["Id"]] == "sns":
                sns_backends[account][region].publish(message=_target_input(target, original_event), arn=target["Arn"])

    patch.set(events_models.Rule, "send_to_targets", send_to_targets)
