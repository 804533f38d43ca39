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
import math
import os
import re
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
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
    ParseNotHeld,
    Secret,
    Warned,
    WorkerSpec,
)
from dbt_runner.evidence import describe
from dbt_runner.microbatch import BatchResults
from dbt_runner.texts import fit
from dbt_runner.wire import MAX_COUNT, encode

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunnerResult

_PR_SET_PDEATHSIG = 1
# What dbt says of an event that it cannot serialise (dbt_common.events.base_types), and the events that then hold what the project says.
_UNSERIALISABLE = "Unable to parse logging event dictionary"
_TOLD_BY_THE_PROJECT = ("[JinjaLogInfo]", "[JinjaLogWarning]", "[PrintEvent]")
# dbt's levels that are passed on, as the container's log calls them.
_LOGGED_LEVELS = {"info": "info", "warn": "warning", "error": "error"}
# Events that dbt fires while it handles a node's exception, which is lost afterwards: the result has its text only.
_WITH_EXCEPTION = frozenset({"CatchableExceptionOnRun", "GenericExceptionOnRun", "InternalErrorOnRun"})
_OPERATION = "operation"
_OPERATION_FAILED = frozenset({"RunningOperationCaughtError", "RunningOperationUncaughtError"})
# How long the worker waits for the supervisor to take its parse, which takes milliseconds.
HOLD_SECONDS = 10.0
# Warnings that say how nodes ended, and the event that counts deprecations, each of which dbt says once.
_OF_RESULTS = re.compile(r"Log\w*Result|RunResult\w*|EndOfRunSummary|StatsLine")
_SUMMARY = "DeprecationsSummary"
# dbt's events about its parse cache. It may refuse it for several reasons, and after it began to use it.
_PARSE_EVENTS = frozenset({"PartialParsingEnabled", "UnableToPartialParse", "ParsedFileLoadFailed"})
# What dbt and its adapters allocate stays, by far the most of it: looking for garbage less often saves a tenth of a step's processor time
# and costs 5 % of its memory. https://docs.python.org/3/library/gc.html#gc.set_threshold
GC_THRESHOLDS = (50_000, 20, 100)
# A project's own flags decide neither what the audit has nor what is logged: words of a command win over its flags and over variables.
# dbt's own logging costs a third of a warm run and says nothing that the events do not say. All other flags are the project's choice
# (docs/operations.md), the check of the dbt version that it requires among them.
_QUIET = (
    "--log-level",
    "none",
    "--log-level-file",
    "none",
    "--no-use-colors",
    "--write-json",
    "--no-debug",
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
        self._batch_results = BatchResults()
        self._operation_error = ""
        self._failures: dict[str, Failure] = {}
        self._parse_reasons: list[str] | None = None
        self._has_parsed = False
        self._unserialisable_told = False

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
            self._batch_results = BatchResults(earlier.partial)
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
        kept: list[Any] = []
        try:
            answer = self._run_dbt(arguments, kept)
        except KeyboardInterrupt as exc:
            result = CommandResult(index, False, time.monotonic() - started, exception=describe(exc))
        else:
            selected = self._report_results(answer, kept)
            exception = self._described(answer.exception) if answer.exception is not None else None
            result = CommandResult(index, answer.success, round(time.monotonic() - started, 3), selected, exception)
        self._complete_run_results()
        return result

    def _described(self, exc: BaseException) -> Failure:
        """An exception as data. dbt does not say which file it could not read as UTF-8."""
        failure = describe(exc)
        if not isinstance(exc, UnicodeDecodeError):
            return failure
        root = Path(self._spec.project)
        files = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink())
        name = next((path.relative_to(root) for path in files if exc.object in path.read_bytes()), "a file of the project")
        return replace(failure, message=f"{name} is not UTF-8 ({exc.reason} at byte {exc.start}): save it as UTF-8")

    def _run_dbt(self, arguments: list[str], kept: list[Any]) -> dbtRunnerResult:
        from dbt.cli.main import dbtRunner, dbtRunnerResult

        from dbt_runner import dbt_hooks

        runner = dbtRunner(callbacks=[self._on_event])
        apart = self._spec.apart and self._spec.executing[self._command]
        batches = self._batch_results
        with dbt_hooks.finding_seeds(), dbt_hooks.ending_typed(), dbt_hooks.after_parse(self._hold_parse), contextlib.ExitStack() as stack:
            stack.enter_context(dbt_hooks.batch_by_batch(batches.add, batches.unfinished()))
            stack.enter_context(dbt_hooks.keeping_results(kept))
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
            # dbt sends an event without data where it cannot serialise the node or its result (meta with a key that is no text, a
            # number beyond int32, a lone surrogate). Then the result is taken from what the command returns.
            unique_id = event.data.node_info.unique_id
            # A batch of a microbatch model ends as its model does, on the same thread and right after its own event.
            batch = (threading.get_ident(), unique_id or _current_node())
            if batch in self._batches:
                self._batches.remove(batch)
            elif unique_id and not _is_part_of_others(event.data):
                self._report(_from_event(event.data, self._command))
        elif info.name in _WITH_EXCEPTION:
            self._keep_exception(event.data.node_info.unique_id or _current_node())
        elif info.level in _LOGGED_LEVELS:
            if info.name == "LogBatchResult":
                self._batches.add((threading.get_ident(), event.data.node_info.unique_id or _current_node()))
            if info.name in _OPERATION_FAILED:
                self._operation_error = event.data.exc
                self._keep_exception(_OPERATION)
            node = event.data.node_info.unique_id if "node_info" in event.data.DESCRIPTOR.fields_by_name else ""
            text = self._readable(info)
            # One write for the whole line: several threads come here at once.
            self._log.write(f"{info.ts.ToJsonString()} {info.level:<5} {text}\n")
            if text.strip():
                self._send(LogLine(_LOGGED_LEVELS[info.level], text, node))
            if info.level == "warn":
                self._warn(info.name, text, event.data)

    def _warn(self, name: str, text: str, data: Any) -> None:
        """Tells a warning on its own, unless it only says how a node ended, which the node's result does."""
        if name == _SUMMARY:
            for summary in data.summaries:
                self._send(Warned(self._command, summary.event_name, "", summary.occurrences))
        elif text.strip() and not _OF_RESULTS.fullmatch(name):
            self._send(Warned(self._command, name, text.strip()))

    def _readable(self, info: Any) -> str:
        """An event's text; an empty one for what would only repeat that dbt cannot serialise a node, once for each of its events."""
        text: str = info.msg
        if info.name == "Note" and _UNSERIALISABLE in text and not any(name in text for name in _TOLD_BY_THE_PROJECT):
            told, self._unserialisable_told = self._unserialisable_told, True
            said = "dbt cannot serialise events about some nodes, such as this one; their results are recorded all the same: "
            text = "" if told else said + text[:1000]
        return fit(text)

    def _keep_exception(self, unique_id: str) -> None:
        """Keeps the exception that this thread is handling: dbt calls back from inside of its except clause."""
        exc = sys.exception()
        if exc is not None and unique_id:
            self._failures[unique_id] = failure = describe(exc)
            self._batch_results.keep_failure(failure)

    def _hold_parse(self) -> None:
        """Tells the supervisor that dbt has parsed, and waits until it has taken what dbt left: no node has run yet.

        The wait has an end. What the supervisor takes later than that may be a node's work, so the worker says that it went on.
        """
        if self._has_parsed or self._parse_reasons is None:
            return
        self._has_parsed = True
        self._send(Parsed(self._command, self._parse_reasons))
        if self._spec.replies_fd < 0:
            return
        ready, _, _ = select.select([self._spec.replies_fd], [], [], HOLD_SECONDS)
        if not ready or not os.read(self._spec.replies_fd, 1):
            self._send(ParseNotHeld(self._command))

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
        result = self._batch_results.complete(result)
        if result.unique_id in self._done and result.status not in BAD_STATUSES:
            # Its result stands: it was compiled only, or skipped together with all that was selected.
            return
        if self._spec.executing[self._command] or result.status in BAD_STATUSES:
            self._send(result)

    def _report_results(self, answer: dbtRunnerResult, kept: Sequence[Any]) -> int | None:
        """Reports what dbt counts as a result but announced no event for; returns how many nodes were selected.

        Args:
            kept: the results of the command's nodes, for an answer that has none because of an exception.
        """
        results = getattr(answer.result, "results", None)
        if results is None:
            results = kept or None
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


def _is_part_of_others(data: Any) -> bool:
    """Whether a node is an ephemeral model that was compiled: dbt announces its end, and counts it among no results."""
    return data.node_info.materialized == "ephemeral" and data.run_result.status not in BAD_STATUSES


def _from_event(data: Any, command: int) -> NodeResult:
    """A NodeFinished event, field by field: converting the whole message costs fifteen times as much."""
    node, result = data.node_info, data.run_result
    response = result.adapter_response.fields if result.HasField("adapter_response") else {}
    return NodeResult(
        command=command,
        unique_id=node.unique_id,
        resource_type=node.resource_type,
        name=node.node_name,
        status=result.status,
        message=result.message or "",
        started_at=_utc(node.node_started_at),
        ended_at=_utc(node.node_finished_at),
        seconds=_seconds(result.execution_time),
        thread=result.thread,
        relation=node.node_relation.relation_name,
        rows=_count(response["rows_affected"].number_value) if "rows_affected" in response else None,
        failures=_count(result.num_failures) or None,
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
        seconds=_seconds(result.execution_time),
        thread=result.thread_id,
        relation=getattr(result.node, "relation_name", None) or "",
        rows=_count((getattr(result, "adapter_response", None) or {}).get("rows_affected")),
        failures=_count(getattr(result, "failures", None)) or None,
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
        seconds=_seconds(result.execution_time),
        thread=result.thread_id,
    )


def _current_node() -> str:
    """The unique_id of the node that this thread runs, by dbt's own context variable; empty outside of a node."""
    from dbt_common.events.contextvars import get_node_info

    unique_id = get_node_info().get("unique_id", "")
    return unique_id if isinstance(unique_id, str) else ""


def _seconds(value: Any) -> float:
    """dbt takes times from the wall clock, which may be set back."""
    return round(value, 3) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else 0.0


def _count(value: Any) -> int | None:
    """A number of rows. Adapters say -1 for unknown, and some of them say other things than numbers."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= MAX_COUNT else None


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
    if spec.replies_fd >= 0:
        os.set_inheritable(spec.replies_fd, False)
    with (
        os.fdopen(spec.events_fd, "w", buffering=1, encoding="utf-8") as events,
        open(spec.log_file, "a", buffering=1, encoding="utf-8", errors="replace") as log,
    ):
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
