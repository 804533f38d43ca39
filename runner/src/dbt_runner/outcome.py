"""What an attempt came to: one typed error or none, from node results and exception types, never from an exit code or a text."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dbt_runner import diagnosis, memory, node_summary
from dbt_runner.errors import (
    ACCESS_DENIED,
    COMPILATION_ERROR,
    INTERRUPTED,
    INVALID_REQUEST,
    MODEL_ERROR,
    NOTHING_SELECTED,
    OUT_OF_MEMORY,
    RUNNER_ERROR,
    STALE_SOURCE,
    TEST_FAILURE,
    TIMEOUT,
    WAREHOUSE_UNAVAILABLE,
    ErrorKind,
    TypedError,
)
from dbt_runner.events import BAD_STATUSES, ERROR_STATUSES, FAIL_STATUSES, CommandResult, Failure, NodeResult, StepReport
from dbt_runner.masking import Mask
from dbt_runner.request import Command
from dbt_runner.warehouses import ADAPTERS, Verdict

MAX_FAILURES = 10
# Characters of a failed node's reason in a message: alone, and before what ended its command beside it.
_NODE_REASON, _NODE_REASON_BEFORE_ANOTHER = 300, 120
# Of a text that an exception and a node share by more than chance.
_RECOGNISED = 20
_EXPIRED = "the supervisor stopped it in time to say so before Lambda ends the function"

# Exceptions that end a command before or beside its nodes, by the name of the class or of one that it inherits from; the first
# match counts, so the specific ones come first. Sources: dbt_common.exceptions, dbt.exceptions, dbt.cli.exceptions,
# dbt.adapters.exceptions (dbt-core 1.11).
_EXCEPTIONS: Sequence[tuple[str, ErrorKind]] = (
    ("KeyboardInterrupt", INTERRUPTED),
    ("MemoryError", OUT_OF_MEMORY),
    ("WouldReplace", COMPILATION_ERROR),
    ("DbtUsageException", INVALID_REQUEST),
    ("InvalidSelectorError", INVALID_REQUEST),
    # What the adapter's table does not know: nothing says that it would pass, so somebody has to look at the connection.
    ("FailedToConnectError", ACCESS_DENIED),
    ("CompilationError", COMPILATION_ERROR),
    ("ParsingError", COMPILATION_ERROR),
    ("DependencyError", COMPILATION_ERROR),
    ("DbtConfigError", COMPILATION_ERROR),
    ("DbtSelectorsError", COMPILATION_ERROR),
    ("DbtValidationError", COMPILATION_ERROR),
    ("SchemaConfigError", COMPILATION_ERROR),
    ("YamlLoadError", COMPILATION_ERROR),
    # A file of the project; the worker names it.
    ("UnicodeDecodeError", COMPILATION_ERROR),
    ("DbtReferenceError", COMPILATION_ERROR),
    ("DbtDatabaseError", MODEL_ERROR),
    # Whatever else dbt refuses: a selector that selectors.yml does not have, a broken contract, ...
    ("DbtRuntimeError", COMPILATION_ERROR),
)
# They say what became of the process and not of the project: the nodes that had failed by then do not explain them.
_NOT_OF_THE_PROJECT = (INTERRUPTED, OUT_OF_MEMORY)
# What failed nodes mean, the first match counts. A source that could not be asked is named before those that are stale.
_KINDS_OF_NODES: Sequence[tuple[ErrorKind, Callable[[NodeResult], bool]]] = (
    (MODEL_ERROR, lambda node: node.status in ERROR_STATUSES and node.resource_type not in (*node_summary.TESTS, "source", "operation")),
    (TEST_FAILURE, lambda node: node.resource_type in node_summary.TESTS or node.status in FAIL_STATUSES),
    (STALE_SOURCE, lambda node: node.resource_type == "source" and node.status == "error"),
    (MODEL_ERROR, lambda node: True),
)
# What adapters make of their drivers' exceptions, or let through as it is.
_FROM_WAREHOUSE = ("FailedToConnectError", "DbtDatabaseError", "DbtRuntimeError", "")


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        error: None on success.
        message: for the person who has to act; empty on success.
        why: the evidence for the error's kind.
        counts: number of nodes by dbt's status.
        failures: the first nodes that failed.
        fault: of a health check that failed, where the fault lies (dbt_runner.diagnosis).
    """

    error: ErrorKind | None
    message: str = ""
    why: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[NodeResult] = ()
    fault: str | None = None

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0


def from_error(exc: TypedError, report: StepReport | None = None, *, fault: str | None = None) -> Outcome:
    """The outcome of an attempt that the runner itself had to end.

    Args:
        fault: of a health check, where the fault lies.
    """
    nodes = list(report.nodes.values()) if report else []
    return Outcome(exc.kind, exc.message, exc.why, _counts(nodes), _failures(nodes), fault)


def not_recorded(outcome: Outcome, results: int, artifacts: bool) -> Outcome:
    """The outcome of an attempt of which AWS did not take all that it leaves.

    Another attempt runs what the table does not call done. So it may follow when artifacts are all that is missing: it makes them
    again, and executes nothing. It must not when results are missing, because it would execute their nodes a second time.

    Args:
        results: how many node results are in the log only.
        artifacts: whether the artifacts are nowhere.
    """
    if not results and not artifacts:
        return outcome
    what = " and ".join([f"{results} node results"] * (results > 0) + ["the artifacts"] * artifacts)
    said = f"AWS did not take {what}" + (
        f"; dbt's own end: {outcome.error.name}: {outcome.message}" if outcome.error else "; dbt succeeded"
    )
    error = outcome.error
    if error is None or error.retryable:
        error = RUNNER_ERROR if results else INTERRUPTED
    if results:
        said += "; the log has the results, and a resume would execute their nodes again"
    return replace(outcome, error=error, message=said, why=outcome.why or "writes failed until the attempt's patience was over")


def classify(report: StepReport, commands: Sequence[Command], warehouse: str, *, goes_on: bool = False) -> Outcome:
    """Says what became of a step, from what its worker reported and how it ended.

    Args:
        report: what the supervisor saw.
        commands: the step's commands, for the messages and for what may select nothing.
        warehouse: the adapter's type, which knows the warehouse's own errors.
        goes_on: whether a step that outgrows its compute goes on elsewhere.
    """
    nodes = list(report.nodes.values())
    error, message, why = _error(report, commands, nodes, warehouse, goes_on)
    return Outcome(error, message, why, _counts(nodes), _failures(nodes))


def classify_probe(report: StepReport, warehouse: str) -> Outcome:
    """Says what a health check found: the connection is all that can have failed.

    Args:
        report: what the supervisor saw.
        warehouse: the adapter's type.
    """
    failed = next((result.exception for result in report.commands if not result.success), None)
    stage = sum(result.success for result in report.commands)
    if report.finished and report.commands and report.commands[-1].success:
        return Outcome(None)
    if report.timed_out or report.expired:
        return Outcome(
            WAREHOUSE_UNAVAILABLE,
            "the warehouse did not answer in the health check's time",
            "the supervisor stopped the probe at its deadline",
            fault=diagnosis.fault_without_answer(stage),
        )
    if failed is not None:
        # A need that the warehouse denied is no exception of its driver.
        denied = Verdict(ACCESS_DENIED, "the warehouse's own answer") if "fault" in failed.codes else None
        verdict = denied or _meaning(failed, warehouse)
        if verdict.kind in (MODEL_ERROR, RUNNER_ERROR) or (failed.type == "DbtRuntimeError" and verdict.kind is COMPILATION_ERROR):
            # Whatever else the driver raised, or the adapter made of it: no connection, no run, and nothing says that it will pass.
            verdict = Verdict(ACCESS_DENIED, verdict.why)
        what = "did not answer" if verdict.kind is WAREHOUSE_UNAVAILABLE else "refused the connection" if stage == 0 else "refused"
        fault = diagnosis.fault_of(stage, verdict.kind, failed)
        return Outcome(verdict.kind, f"the warehouse {what}: {node_summary.reason(failed.message)}", verdict.why, fault=fault)
    if report.finished:
        return Outcome(RUNNER_ERROR, "the health check ended without a result; the log has its last lines", "no stage of the probe ended")
    return classify(report, (), warehouse)


def masked(ended: Outcome, mask: Mask) -> Outcome:
    """The outcome without secrets; its nodes have none, since the supervisor masks what it hears."""
    return replace(ended, message=mask.text(ended.message), why=mask.text(ended.why))


def without_credential(ended: Outcome, fault: TypedError | None) -> Outcome:
    """The outcome of an attempt whose broker could not serve its worker.

    Drivers say that there are no credentials, whatever the reason; where it was an outage of AWS, another attempt can help.

    Args:
        ended: the outcome, as the driver's exceptions tell it.
        fault: what kept the broker from serving, Dbt.AccessDenied or Dbt.WarehouseUnavailable; None when nothing did.
    """
    if fault is None or ended.error is not ACCESS_DENIED:
        return ended
    at_fault = diagnosis.fault_of_credential(fault) if ended.fault else None
    return replace(
        ended, fault=at_fault, error=fault.kind, message=f"{fault.message}; then {ended.message}", why=f"{fault.why}; {ended.why}"
    )


def _error(
    report: StepReport, commands: Sequence[Command], nodes: Sequence[NodeResult], warehouse: str, goes_on: bool
) -> tuple[ErrorKind | None, str, str]:
    succeeded = report.finished and len(report.commands) == len(commands) and all(c.success for c in report.commands)
    if not succeeded:
        if report.timed_out:
            return TIMEOUT, f"the step did not end in its time; {_progress(nodes)}", "the supervisor stopped it at its deadline"
        if report.expired and goes_on:
            return INTERRUPTED, f"the function's time is over; {_progress(nodes)}; the next attempt does the rest on Fargate", _EXPIRED
        if report.expired:
            remedy = 'give it compute = "fargate", or on_timeout = "fargate" to go on there'
            return TIMEOUT, f"the step outgrew the function's time; {_progress(nodes)}; {remedy}", _EXPIRED
        if report.interrupted:
            how = "was killed after its grace period" if report.killed else "was stopped"
            return INTERRUPTED, f"the task was asked to stop; {_progress(nodes)}", f"SIGTERM or SIGINT; the worker {how}"
        if not report.finished:
            return _died(report, nodes)
    failed = next((c for c in report.commands if not c.success), None)
    if failed is not None:
        return _failed_command(failed, _text(commands, failed.index), [n for n in nodes if n.command == failed.index], warehouse)
    contradicted = _contradicted(report, len(commands), nodes)
    if contradicted is not None:
        return contradicted
    empty = next((c for c in report.commands if c.selected == 0), None)
    if empty is not None:
        return (
            NOTHING_SELECTED,
            f"{_text(commands, empty.index)!r} selected no node: check its selection against the release",
            f"command {empty.index} ended well with no results",
        )
    return None, "", ""


def _contradicted(report: StepReport, commands: int, nodes: Sequence[NodeResult]) -> tuple[ErrorKind, str, str] | None:
    """A success that the rest of the evidence denies: where the worker says two things, the worse one counts. None where all agree."""
    if len(report.commands) != commands:
        why = f"results of {len(report.commands)} of {commands} commands, and no failure"
        return RUNNER_ERROR, "dbt ended without a result of each command; the log has its last lines", why
    bad = next((node for node in nodes if node.status in BAD_STATUSES), None)
    if bad is not None:
        why = f"status {bad.status!r} of {bad.unique_id}"
        return RUNNER_ERROR, "dbt reported success of its commands and failure of a node; the log has its last lines", why
    if report.returncode not in (0, None) and not (report.interrupted or report.timed_out):
        why = f"worker's return code {report.returncode} after success of all commands"
        return RUNNER_ERROR, f"dbt reported success, and its process ended badly (return code {report.returncode})", why
    return None


def _died(report: StepReport, nodes: Sequence[NodeResult]) -> tuple[ErrorKind, str, str]:
    code, limit = report.returncode, report.memory_limit_mib
    used = f"peak memory {report.peak_memory_mib} MiB" + (f" of {limit} MiB" if limit is not None else "")
    seen = f"worker's return code {code}, {used}"
    if code != -signal.SIGKILL:
        return RUNNER_ERROR, f"dbt exited without reporting a result; {_progress(nodes)}; the log has its last lines", seen
    if memory.ran_out(report.oom_kills, report.peak_memory_mib, limit):
        counted = f"; the kernel counted {report.oom_kills} out-of-memory kills" if report.oom_kills else ""
        return (
            OUT_OF_MEMORY,
            f"dbt was killed because memory ran out ({used}); {_progress(nodes)}",
            f"SIGKILL that the supervisor did not send; {seen}{counted}",
        )
    # Another attempt costs a few nodes; a verdict without evidence costs the run, where there is no larger size.
    return (
        INTERRUPTED,
        f"dbt was killed by SIGKILL, and nothing shows that memory ran out ({used}); {_progress(nodes)}",
        f"SIGKILL that the supervisor did not send; {seen}",
    )


def _failed_command(failed: CommandResult, text: str, nodes: Sequence[NodeResult], warehouse: str) -> tuple[ErrorKind, str, str]:
    """The first cause counts: nodes that failed, then what ended the command beside them, such as a hook after them."""
    # Where a second cause follows, each node says less, so that both fit into a record's cause.
    of_nodes = _failed_nodes(nodes, warehouse, _NODE_REASON if failed.exception is None else _NODE_REASON_BEFORE_ANOTHER)
    if failed.exception is None:
        if of_nodes is None:
            return RUNNER_ERROR, f"{text!r} failed, but no node did; the log has its last lines", "no bad result, no exception"
        return of_nodes
    verdict = _meaning(failed.exception, warehouse)
    said = _shortened(failed.exception.message)
    if of_nodes is None or verdict.kind in _NOT_OF_THE_PROJECT:
        return verdict.kind, f"{text!r}: {said}", verdict.why
    if _repeats(said, nodes):
        return _failed_nodes(nodes, warehouse, _NODE_REASON) or of_nodes
    kind, message, why = of_nodes
    return kind, f"{message}; then {text!r}: {said}", f"{why}; then {verdict.why}"


def _repeats(said: str, nodes: Sequence[NodeResult]) -> bool:
    """Whether an exception is that of a node: `show` and --fail-fast end with it."""
    told = [(node_summary.reason(node.message)[:100], node.message) for node in nodes if node.status in BAD_STATUSES]
    return any(len(reason) >= _RECOGNISED and (reason in said or said[:100] in " ".join(message.split())) for reason, message in told)


def _failed_nodes(nodes: Sequence[NodeResult], warehouse: str, limit: int) -> tuple[ErrorKind, str, str] | None:
    """What the nodes that failed say, hooks last: they run before or after the others. None where none failed.

    Args:
        limit: characters of the reason of each node that is named.
    """
    of_the_warehouse = _warehouse_error(nodes, warehouse, limit)
    if of_the_warehouse is not None:
        return of_the_warehouse
    bad = [node for node in nodes if node.status in BAD_STATUSES]
    for kind, is_meant in _KINDS_OF_NODES:
        first = [node for node in bad if is_meant(node)]
        if first:
            named = [*first, *(node for node in bad if not is_meant(node))]
            return kind, node_summary.summary(named, nodes, limit), f"status {first[0].status!r} of {first[0].unique_id}"
    return None


def _warehouse_error(nodes: Sequence[NodeResult], warehouse: str, limit: int) -> tuple[ErrorKind, str, str] | None:
    """What the nodes' own exceptions say: a refusal wherever there is one, an outage where nothing else is wrong.

    Another attempt runs all nodes that have not succeeded, so it is worth it only where it can help each of them.
    """
    bad = [node for node in nodes if node.status in BAD_STATUSES]
    verdicts = [_verdict(node.failure, warehouse) if node.failure else None for node in bad]
    for kind, found in (
        (ACCESS_DENIED, [(n, v) for n, v in zip(bad, verdicts, strict=True) if v is not None and v.kind is ACCESS_DENIED]),
        (WAREHOUSE_UNAVAILABLE, [(n, v) for n, v in zip(bad, verdicts, strict=True) if v is not None and v.kind is WAREHOUSE_UNAVAILABLE]),
    ):
        if found and (kind is ACCESS_DENIED or len(found) == len(bad)):
            node, verdict = found[0]
            first = {id(each) for each, _ in found}
            named = [*(n for n, _ in found), *(n for n in bad if id(n) not in first)]
            return kind, node_summary.summary(named, nodes, limit), f"{verdict.why}, of {node.unique_id}"
    return None


def _verdict(failure: Failure, warehouse: str) -> Verdict | None:
    return ADAPTERS[warehouse].faults.verdict(failure) if warehouse in ADAPTERS else None


def _meaning(failure: Failure, warehouse: str) -> Verdict:
    """What an exception that ended a command says: by the adapter's table if it may have come from the warehouse, else by its class."""
    name, kind = next(((name, kind) for name, kind in _EXCEPTIONS if name in failure.names), ("", RUNNER_ERROR))
    known = _verdict(failure, warehouse) if name in _FROM_WAREHOUSE else None
    return known or Verdict(kind, _evidence(failure))


def _evidence(failure: Failure) -> str:
    return f"exception {failure.type} ({' < '.join(failure.bases)})"


def _counts(nodes: Sequence[NodeResult]) -> dict[str, int]:
    return dict(Counter(n.status for n in nodes))


def _failures(nodes: Sequence[NodeResult]) -> list[NodeResult]:
    return [n for n in nodes if n.status in BAD_STATUSES][:MAX_FAILURES]


def _progress(nodes: Sequence[NodeResult]) -> str:
    return f"{len(nodes)} nodes had finished" if nodes else "no node had finished"


def _text(commands: Sequence[Command], index: int) -> str:
    return commands[index].text if index < len(commands) else "the command"


def _shortened(message: str) -> str:
    return node_summary.reason(message, 600) if node_summary.is_traceback(message) else " ".join(message.split())[:600]
