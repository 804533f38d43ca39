"""How an execution ends: once, at once, and with everything in place when its status says so."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Any

from moto.stepfunctions.parser.api import ExecutionStatus, HistoryEventType
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext, EventManager
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded, ProgramError, ProgramStopped, ProgramTimedOut
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []

_closing = threading.Lock()
_FINAL_EVENTS = (
    HistoryEventType.ExecutionSucceeded,
    HistoryEventType.ExecutionFailed,
    HistoryEventType.ExecutionAborted,
    HistoryEventType.ExecutionTimedOut,
)
# An execution is asked to stop when its worker may not have begun; parsing a definition takes well under a second.
_WORKER_START_SECONDS = 10.0


@patch("stepfunctions-lifecycle.end-is-final", PATCHES)
def end_is_final(patch: Patch) -> None:
    """In moto an aborted or timed-out execution can still become FAILED, when the state that it left raises an error.

    AWS never changes a status that is final.
    """

    def only_while_running(original: Any) -> Any:
        def change(self: Any, *args: Any, **kwargs: Any) -> None:
            with self._state_mutex:
                if self._program_state is None or self.is_running():
                    original(self, *args, **kwargs)

        return change

    patch.set(Environment, "set_error", only_while_running(Environment.set_error))
    patch.set(Environment, "set_timed_out", only_while_running(Environment.set_timed_out))


@patch("stepfunctions-lifecycle.history-ends", PATCHES)
def history_ends(patch: Patch) -> None:
    """In moto the states that an abort or timeout cuts off go on adding events to the history.

    On AWS the event that ends the execution is the last one.
    """
    original = EventManager.add_event
    ended = threading.Lock()

    def add_event(self: Any, context: Any, event_type: Any, *args: Any, **kwargs: Any) -> Any:
        with ended:
            if getattr(self, "_ended", False):
                return context.last_published_event_id
            self._ended = event_type in _FINAL_EVENTS
        return original(self, context, event_type, *args, **kwargs)

    patch.set(EventManager, "add_event", add_event)


def _close(execution: Any) -> None:
    """Write the end of an execution down. The status comes last: whoever sees it finds the output or error as well."""
    env = execution.exec_worker.env
    with _closing:
        if execution.stop_date is not None:
            return
        state = env.program_state()
        if isinstance(state, ProgramEnded):
            status = ExecutionStatus.SUCCEEDED
            execution.output = env.states.get_input()
        elif isinstance(state, ProgramStopped):
            status = ExecutionStatus.ABORTED
            execution.error, execution.cause = state.error, state.cause
            _add_final_event(env, HistoryEventType.ExecutionAborted, {"error": state.error, "cause": state.cause})
        elif isinstance(state, ProgramTimedOut):
            status = ExecutionStatus.TIMED_OUT
            _add_final_event(env, HistoryEventType.ExecutionTimedOut, {})
        elif isinstance(state, ProgramError):
            status = ExecutionStatus.FAILED
            details = state.error or {}
            execution.error, execution.cause = details.get("error"), details.get("cause")
        else:
            raise RuntimeError(f"an execution ended in the state {type(state).__name__}")
        execution.stop_date = datetime.now(UTC)
        execution.exec_status = status


def _add_final_event(env: Any, event_type: Any, details: dict[str, str | None]) -> None:
    name = event_type.value[0].lower() + event_type.value[1:] + "EventDetails"
    env.event_manager.add_event(
        context=EventHistoryContext.of_program_start(),
        event_type=event_type,
        event_details=EventDetails(**{name: {key: value for key, value in details.items() if value is not None}}),
    )


@patch("stepfunctions-lifecycle.status-comes-last", PATCHES)
def status_comes_last(patch: Patch) -> None:
    """moto sets the status of an ended execution before its output, error and cause.

    On AWS a DescribeExecution that says SUCCEEDED has the output.
    """

    def reflect(self: Any) -> None:
        _close(self.execution)

    patch.set(BaseExecutionWorkerCommunication, "_reflect_execution_status", reflect)


@patch("stepfunctions-lifecycle.stop-at-once", PATCHES)
def stop_at_once(patch: Patch) -> None:
    """moto's StopExecution waits for the state that is running, fails before the first state, and drops error and cause.

    On AWS the execution is ABORTED when StopExecution answers; what its states still do has no effect on it.
    """

    def stop(self: Any, stop_date: datetime, error: str | None, cause: str | None) -> None:
        deadline = time.monotonic() + _WORKER_START_SECONDS
        while (self.exec_worker.env is None or self.exec_worker.env.program_state() is None) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.exec_worker.env.set_stop(stop_date=stop_date, error=error, cause=cause)
        if isinstance(self.exec_worker.env.program_state(), ProgramStopped):
            self.exec_worker._execution_communication.terminated()

    patch.set(Execution, "stop", stop)
