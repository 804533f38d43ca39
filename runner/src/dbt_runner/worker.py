"""The worker: the child process that imports dbt once and runs a step's commands in order.

It is started by the supervisor with a WorkerSpec on its standard input and reports over a pipe. It has no credentials but the
warehouse's, and writes nowhere but into the attempt's folder and to the pipe. Its one argument is the supervisor's process id.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from dbt_runner.diagnosis import unmet
from dbt_runner.events import (
    BAD_STATUSES,
    ERROR_STATUSES,
    CommandResult,
    CommandStarted,
    EarlierCommand,
    Failure,
    Finished,
    LogLine,
    Message,
    NodeResult,
    Parsed,
    Secret,
    WorkerSpec,
    encode,
)
from dbt_runner.evidence import describe

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult

_PR_SET_PDEATHSIG = 1
# dbt's levels that are passed on, as the container's log calls them.
_LOGGED_LEVELS = {"info": "info", "warn": "warning", "error": "error"}
# Events that dbt fires while it handles a node's exception, which is lost afterwards: the result has its text only.
_WITH_EXCEPTION = frozenset({"CatchableExceptionOnRun", "GenericExceptionOnRun", "InternalErrorOnRun"})
_OPERATION = "operation"
_OPERATION_FAILED = frozenset({"RunningOperationCaughtError", "RunningOperationUncaughtError"})
# dbt's events about its parse cache. It may refuse it for several reasons, and after it began to use it.
_PARSE_EVENTS = frozenset({"PartialParsingEnabled", "UnableToPartialParse", "ParsedFileLoadFailed"})
# What dbt and its adapters allocate stays, by far the most of it: looking for garbage less often saves a tenth of a step's processor time
# and costs 5 % of its memory. https://docs.python.org/3/library/gc.html#gc.set_threshold
GC_THRESHOLDS = (50_000, 20, 100)
# dbt's own logging costs a third of a warm run and says nothing that the events do not say.
_QUIET = (
    "--log-level",
    "none",
    "--log-level-file",
    "none",
    "--no-use-colors",
    "--no-version-check",
    "--no-send-anonymous-usage-stats",
)


class Worker:
    """Runs the commands of one step and reports every node as it finishes.

    Args:
        spec: what to do.
        events: the pipe to the supervisor, line-buffered.
        log: dbt.log, a readable log for the artifacts.
    """

    def __init__(self, spec: WorkerSpec, events: TextIO, log: TextIO) -> None:
        self._spec = spec
        self._events = events
        self._log = log
        self._lock = threading.Lock()
        self._command = 0
        self._earlier = EarlierCommand()
        self._done: frozenset[str] = frozenset()
        self._left_out: set[str] = set()
        self._reported: set[str] = set()
        self._batches: set[tuple[int, str]] = set()
        self._operation_error = ""
        self._failures: dict[str, Failure] = {}
        self._parse_reasons: list[str] | None = None

    def listen_to_drivers(self) -> None:
        """Has the warehouse's drivers tell what they make of their credentials, from now on."""
        from dbt_runner.warehouses import driver_secrets

        driver_secrets.listen(
            self._spec.warehouse,
            lambda secret: self._send(Secret(secret)),
            lambda concern: self._send(LogLine("warning", concern)),
        )

    def run(self) -> bool:
        """Runs the commands that no earlier attempt finished until one fails; True when all succeeded."""
        before: int | None = None
        for index, words in enumerate(self._spec.commands):
            earlier = self._spec.earlier[index] if self._spec.earlier else EarlierCommand()
            if earlier.finished:
                continue
            if before is not None:
                self._keep_run_results(before)
            before = self._command = index
            self._earlier = earlier
            self._done = frozenset(node.unique_id for node in earlier.done)
            self._left_out = set()
            self._reported = set()
            self._operation_error = ""
            self._failures = {}
            self._parse_reasons = None
            self._send(CommandStarted(index))
            result = self._invoke(index, [*words, *self._spec.arguments, *_QUIET])
            self._send(result)
            if not result.success:
                return False
        return True

    def probe(self) -> bool:
        """Opens the warehouse's connection and asks what has to be asked, one command result a stage; True when all was well."""
        from dbt_runner.probe import probe
        from dbt_runner.warehouses.inquiry import NeedNotMet

        moments = [time.monotonic()]

        def ended(exception: Failure | None = None) -> None:
            moments.append(time.monotonic())
            self._send(CommandResult(len(moments) - 2, exception is None, moments[-1] - moments[-2], exception=exception))

        try:
            probe(self._spec, ended)
        except NeedNotMet as exc:
            ended(unmet(str(exc), exc.fault))
            return False
        except Exception as exc:
            ended(describe(exc))
            return False
        return True

    def _invoke(self, index: int, arguments: list[str]) -> CommandResult:
        started = time.monotonic()
        try:
            answer = self._run_dbt(arguments)
        except KeyboardInterrupt as exc:
            result = CommandResult(index, False, time.monotonic() - started, exception=describe(exc))
        else:
            selected = self._report_results(answer)
            exception = describe(answer.exception) if answer.exception is not None else None
            result = CommandResult(index, answer.success, round(time.monotonic() - started, 3), selected, exception)
        if self._parse_reasons is not None:
            self._send(Parsed(index, self._parse_reasons))
        self._complete_run_results()
        return result

    def _run_dbt(self, arguments: list[str]) -> dbtRunnerResult:
        from dbt.cli.main import dbtRunner, dbtRunnerResult

        from dbt_runner import dbt_hooks

        runner = dbtRunner(callbacks=[self._on_event])
        apart = self._spec.apart and self._spec.executing[self._command]
        with dbt_hooks.finding_seeds(), contextlib.ExitStack() as stack:
            try:
                if apart:
                    stack.enter_context(dbt_hooks.staying_apart())
                if self._earlier.done:
                    self._left_out = stack.enter_context(dbt_hooks.leaving_out(self._done))
            except dbt_hooks.UnknownDbt as exc:
                return dbtRunnerResult(success=False, exception=exc)
            return runner.invoke(arguments)

    def _on_event(self, event: Any) -> None:
        """dbt's callback, on whichever thread the event arose. Debug events are by far the most: they cost two look-ups."""
        info = event.info
        if info.name in _PARSE_EVENTS:
            self._on_parse(info.name, event.data)
        if info.name == "NodeFinished":
            # A batch of a microbatch model ends as its model does, on the same thread and right after its own event.
            batch = (threading.get_ident(), event.data.node_info.unique_id)
            if batch in self._batches:
                self._batches.remove(batch)
            else:
                self._report(_from_event(event.data, self._command))
        elif info.name in _WITH_EXCEPTION:
            self._keep_exception(event.data.node_info.unique_id)
        elif info.level in _LOGGED_LEVELS:
            if info.name == "LogBatchResult":
                self._batches.add((threading.get_ident(), event.data.node_info.unique_id))
            if info.name in _OPERATION_FAILED:
                self._operation_error = event.data.exc
                self._keep_exception(_OPERATION)
            node = event.data.node_info.unique_id if "node_info" in event.data.DESCRIPTOR.fields_by_name else ""
            # One write for the whole line: several threads come here at once.
            self._log.write(f"{info.ts.ToJsonString()} {info.level:<5} {info.msg}\n")
            if info.msg.strip():
                self._send(LogLine(_LOGGED_LEVELS[info.level], info.msg, node))

    def _keep_exception(self, unique_id: str) -> None:
        """Keeps the exception that this thread is handling: dbt calls back from inside of its except clause."""
        exc = sys.exception()
        if exc is not None:
            self._failures[unique_id] = describe(exc)

    def _on_parse(self, name: str, data: Any) -> None:
        reasons = self._parse_reasons = self._parse_reasons or []
        if name == "UnableToPartialParse":
            reasons.append(data.reason)
        elif name == "ParsedFileLoadFailed":
            reasons.append(f"the saved manifest could not be read: {data.exc}")

    def _report(self, result: NodeResult) -> None:
        self._reported.add(result.unique_id)
        if result.status in ERROR_STATUSES:
            key = _OPERATION if result.unique_id not in self._failures and result.resource_type == "operation" else result.unique_id
            result = replace(result, failure=self._failures.get(key))
        if result.unique_id in self._done and result.status not in BAD_STATUSES:
            # Its result stands: it was compiled only, or skipped together with all that was selected.
            return
        if self._spec.executing[self._command] or result.status in BAD_STATUSES:
            self._send(result)

    def _report_results(self, answer: dbtRunnerResult) -> int | None:
        """Reports what dbt counts as a result but announced no event for; returns how many nodes were selected."""
        results = getattr(answer.result, "results", None)
        if results is None:
            return None
        if self._spec.commands[self._command][0] == "run-operation":
            for result in results:
                self._report(_from_operation(result, self._command, self._operation_error))
            return None
        for result in results:
            if result.node.unique_id not in self._reported:
                self._report(_from_result(result, self._command))
        if not self._spec.executing[self._command]:
            return None
        return len({result.node.unique_id for result in results if result.node.resource_type != "operation"} | self._left_out)

    def _complete_run_results(self) -> None:
        """Adds what was left out to the command's run_results.json, if it wrote one."""
        path = Path(self._spec.artifacts) / "run_results.json"
        if not self._left_out or not path.exists():
            return
        from dbt_runner.resume import merge_run_results

        done = [node for node in self._earlier.done if node.unique_id in self._left_out]
        path.write_text(json.dumps(merge_run_results(json.loads(path.read_text()), done, self._earlier.seconds)))

    def _keep_run_results(self, index: int) -> None:
        """Moves a command's run_results.json aside: the next one overwrites it, or writes none that could pass for its own."""
        source = Path(self._spec.artifacts) / "run_results.json"
        if source.exists():
            kept = Path(self._spec.artifacts) / f"command-{index}"
            kept.mkdir(exist_ok=True)
            source.replace(kept / source.name)

    def _send(self, message: Message) -> None:
        line = encode(message)
        with self._lock:
            print(line, file=self._events, flush=True)


def _from_event(data: Any, command: int) -> NodeResult:
    """A NodeFinished event, field by field: converting the whole message costs fifteen times as much."""
    node, result = data.node_info, data.run_result
    response = result.adapter_response.fields if result.HasField("adapter_response") else {}
    rows = int(response["rows_affected"].number_value) if "rows_affected" in response else -1
    return NodeResult(
        command=command,
        unique_id=node.unique_id,
        resource_type=node.resource_type,
        name=node.node_name,
        status=result.status,
        message=result.message or "",
        started_at=_utc(node.node_started_at),
        ended_at=_utc(node.node_finished_at),
        seconds=round(result.execution_time, 3),
        thread=result.thread,
        relation=node.node_relation.relation_name,
        rows=rows if rows >= 0 else None,
        failures=result.num_failures or None,
    )


def _from_result(result: Any, command: int) -> NodeResult:
    started_at, ended_at = _span(result)
    return NodeResult(
        command=command,
        unique_id=result.node.unique_id,
        resource_type=str(result.node.resource_type),
        name=result.node.name,
        status=str(result.status),
        message=result.message or "",
        started_at=started_at,
        ended_at=ended_at,
        seconds=round(result.execution_time, 3),
        thread=result.thread_id,
        relation=getattr(result.node, "relation_name", None) or "",
        failures=getattr(result, "failures", None) or None,
    )


def _from_operation(result: Any, command: int, error: str) -> NodeResult:
    """The result of run-operation, which names its macro and says only in an event what went wrong."""
    started_at, ended_at = _span(result)
    return NodeResult(
        command=command,
        unique_id=result.unique_id,
        resource_type="operation",
        name=result.unique_id.rsplit(".", 1)[-1],
        status=str(result.status),
        message=result.message or error,
        started_at=started_at,
        ended_at=ended_at,
        seconds=round(result.execution_time, 3),
        thread=result.thread_id,
    )


def _span(result: Any) -> tuple[str, str]:
    """When a result's node began and ended, as far as dbt timed it."""
    timing = [t for t in result.timing if t.started_at and t.completed_at]
    if not timing:
        return "", ""
    return _utc(min(t.started_at for t in timing).isoformat()), _utc(max(t.completed_at for t in timing).isoformat())


def _utc(moment: str) -> str:
    """dbt writes UTC without saying so; the store wants milliseconds and Z."""
    if not moment:
        return ""
    from datetime import UTC, datetime

    from dbt_runner.store import timestamp

    parsed = datetime.fromisoformat(moment)
    return timestamp(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))


def _die_with_the_supervisor(supervisor: int) -> None:
    """Has the kernel kill this process when its parent dies, by SIGKILL too: nobody would hear what it runs on with. On Linux only.

    https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html

    Args:
        supervisor: the parent's process id.

    Raises:
        OSError: the kernel refused.
        SystemExit: the parent has died before it could be asked for that.
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:
        sys.exit(f"the supervisor (process {supervisor}) is gone: nothing was executed")


def main() -> None:
    gc.set_threshold(*GC_THRESHOLDS)
    _die_with_the_supervisor(int(sys.argv[1]))
    # A parent that ignores SIGINT would pass that on; being interruptible is how the worker cancels its queries.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from dbt_runner import dbt_semaphores
    from dbt_runner.warehouses import snowflake_login

    dbt_semaphores.replace_missing()
    snowflake_login.ask_at_each_login(os.environ)
    spec = WorkerSpec.from_json(sys.stdin.read())
    # What the team's code starts must not keep the pipe open after the worker.
    os.set_inheritable(spec.events_fd, False)
    with os.fdopen(spec.events_fd, "w", buffering=1) as events, open(spec.log_file, "a", buffering=1) as log:
        worker = Worker(spec, events, log)
        worker.listen_to_drivers()
        succeeded = worker.probe() if spec.probe else worker.run()
        print(encode(Finished()), file=events, flush=True)
    _end(0 if succeeded else 1)


def _end(exit_code: int) -> NoReturn:
    """Ends the process when what is left to do is done: adapters close their connections.

    The interpreter would look through everything for cycles first, 0.2 s of each step, and a driver's library tell on stderr what it
    finds then.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    main()
