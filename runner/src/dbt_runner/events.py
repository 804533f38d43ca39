"""What the worker tells the supervisor: one JSON object a line over a pipe, and nothing else.

The messages are about nodes and commands, not about dbt: another engine can stand behind the same pipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dbt_runner.masking import Mask
from dbt_runner.texts import without_middle

if TYPE_CHECKING:
    from dbt_runner.warning_tally import DbtWarning

# Statuses as dbt names them. https://docs.getdbt.com/reference/artifacts/run-results-json
ERROR_STATUSES = frozenset({"error", "runtime error", "partial success"})
FAIL_STATUSES = frozenset({"fail"})
BAD_STATUSES = ERROR_STATUSES | FAIL_STATUSES
# The node need not run again. Not so after `skipped`, nor after anything that dbt may yet name.
DONE_STATUSES = frozenset({"success", "pass", "warn", "no-op"})
# Characters that the supervisor keeps of what the worker tells. It masks before it cuts. The middle of a long text is left out: a
# traceback has its reason at its end.
MAX_MESSAGE, MAX_FAILURE, MAX_CAUSE, MAX_RELATION, MAX_LOG_LINE, MAX_WARNING = 16_384, 4_000, 500, 2_000, 100_000, 1_000
# Of a microbatch model: batches, those of them with a message, and characters of each message. A thousand batches are about 110 KB of
# an item; six weeks of hours, or almost three years of days.
MAX_BATCHES, MAX_BATCH_MESSAGES, MAX_BATCH_MESSAGE = 1_000, 100, 300


@dataclass(frozen=True)
class Failure:
    """An exception: its class, the classes that it inherits from, its text, and what can be told of it without reading that.

    Attributes:
        codes: by their kind, see dbt_runner.evidence.
        causes: what it was raised from or after, the nearest first; these have no causes of their own.
    """

    type: str
    bases: tuple[str, ...]
    message: str
    codes: Mapping[str, str] = field(default_factory=dict)
    causes: tuple[Failure, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The class and those that it inherits from, the nearest first."""
        return self.bases if self.type in self.bases else (self.type, *self.bases)

    @property
    def chain(self) -> tuple[Failure, ...]:
        """The exception itself and its causes."""
        return (self, *self.causes)

    @staticmethod
    def from_fields(fields: Mapping[str, Any] | None) -> Failure | None:
        """What asdict made of a failure, or of None."""
        if fields is None:
            return None
        causes = tuple(cause for raw in fields["causes"] if (cause := Failure.from_fields(raw)) is not None)
        return Failure(**{**fields, "bases": tuple(fields["bases"]), "causes": causes})


@dataclass(frozen=True)
class Batch:
    """What became of one batch of a microbatch model.

    Attributes:
        starts_at, ends_at: its window, ISO 8601 in UTC with milliseconds; empty where that cannot say it exactly.
        message: why it failed; empty where it did not, and where others before it in a list have said enough.
    """

    starts_at: str
    ends_at: str
    status: str
    message: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it has to run again: it failed, or dbt left it out after another one had."""
        return self.status not in DONE_STATUSES


@dataclass(frozen=True)
class NodeResult:
    """What became of one node. Times are ISO 8601 in UTC, `seconds` is dbt's own execution time.

    Attributes:
        command: the command's place in its step, from 0.
        rows: rows affected, where the adapter says so.
        failures: failing rows of a test.
        failure: the exception that ended a node with an error, where dbt showed one.
        batches: of a microbatch model, those that failed first, then the others; at most MAX_BATCHES of them.
        batches_total: how many there were.
    """

    command: int
    unique_id: str
    resource_type: str
    name: str
    status: str
    message: str = ""
    started_at: str = ""
    ended_at: str = ""
    seconds: float = 0.0
    thread: str = ""
    relation: str = ""
    rows: int | None = None
    failures: int | None = None
    failure: Failure | None = None
    batches: Sequence[Batch] = ()
    batches_total: int = 0

    @property
    def unfinished(self) -> Sequence[Batch]:
        """The batches that have to run again. Empty where the whole model has to run."""
        left = [batch for batch in self.batches if batch.failed]
        is_known = len(left) < len(self.batches) and all(batch.starts_at and batch.ends_at for batch in left)
        return left if is_known else ()


@dataclass(frozen=True)
class CommandResult:
    """How a command ended.

    Attributes:
        index: the command's place in its step, from 0.
        selected: how many nodes dbt selected for it; None for commands that select none (run-operation, parse, ...).
        exception: what ended it, where that was not the result of a node.
    """

    index: int
    success: bool
    seconds: float
    selected: int | None = None
    exception: Failure | None = None


@dataclass(frozen=True)
class CommandStarted:
    index: int


@dataclass(frozen=True)
class Parsed:
    """How the command read the project: from the parse that an earlier one left, or anew for `reasons` of the engine's own.

    The worker sends this when the engine has parsed and before any node runs, and goes on when the supervisor has answered.
    """

    index: int
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class ParseNotHeld:
    """The worker went on after `Parsed` without an answer: what it left may have changed since, so nothing of it is kept."""

    index: int


@dataclass(frozen=True)
class LogLine:
    """A line for people. Nothing is ever decided by its text."""

    level: str
    message: str
    node: str = ""


@dataclass(frozen=True)
class Warned:
    """A warning of dbt's that is about no result of a node.

    Attributes:
        event: dbt's name of its kind.
        text: empty where dbt only counts the kind.
    """

    command: int
    event: str
    text: str = ""
    count: int = 1


@dataclass(frozen=True)
class Secret:
    """What a driver made of its credentials, told before anything can write it. It goes into the mask, and nowhere else."""

    value: str = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """The worker ran all it had to and is about to exit. Without this message it died."""


@dataclass(frozen=True)
class EarlierCommand:
    """What earlier attempts of the step left of one of its commands.

    Attributes:
        finished: it ended well and need not run again.
        done: of a finished command all results, else those of nodes that need not run again.
        selected: as a finished command reported it; None where that is not known.
        seconds: how long earlier attempts took for it.
        partial: microbatch models that run again, but only some of their batches.
    """

    finished: bool = False
    done: Sequence[NodeResult] = ()
    selected: int | None = None
    seconds: float = 0.0
    partial: Sequence[NodeResult] = ()


@dataclass(frozen=True)
class WorkerSpec:
    """What the worker has to do; it reads this from its standard input.

    Attributes:
        commands: the words of each command.
        replies_fd: where the supervisor answers `Parsed`, with one byte.
        executing: for each command, whether it executes nodes; of one that only compiles them, the failures alone are reported.
        arguments: appended to each command.
        artifacts: folder where each command's run_results.json is kept when the step has several commands.
        probe: open the warehouse's connection instead of running commands.
        earlier: for each command, what earlier attempts left of it; empty in the first attempt.
        apart: the commands may not write to what the release that they compare with has built.
        warehouse: its type; of whose drivers the secrets are told.
    """

    events_fd: int
    commands: Sequence[Sequence[str]]
    executing: Sequence[bool]
    arguments: Sequence[str]
    project: str
    profiles: str
    profile: str
    target: str
    artifacts: str
    log_file: str
    probe: bool = False
    earlier: Sequence[EarlierCommand] = ()
    apart: bool = False
    warehouse: str = ""
    replies_fd: int = -1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> WorkerSpec:
        fields = json.loads(text)
        fields["earlier"] = [
            EarlierCommand(**{**command, **{name: tuple(map(_node, command[name])) for name in ("done", "partial")}})
            for command in fields["earlier"]
        ]
        return WorkerSpec(**fields)


def _node(fields: Mapping[str, Any]) -> NodeResult:
    return NodeResult(**{**fields, "batches": tuple(Batch(**batch) for batch in fields["batches"])})


def kept_batches(batches: Sequence[Batch]) -> Sequence[Batch]:
    """The batches that a result keeps: failed ones first, each group by its windows. Only the first ones keep their messages."""
    ordered = sorted(batches, key=lambda batch: (not batch.failed, batch.starts_at))[:MAX_BATCHES]
    return [*ordered[:MAX_BATCH_MESSAGES], *(replace(batch, message="") for batch in ordered[MAX_BATCH_MESSAGES:])]


Message = NodeResult | CommandResult | CommandStarted | Parsed | ParseNotHeld | LogLine | Warned | Secret | Finished


def masked(message: Message, mask: Mask) -> Message:
    """The message without secrets, and then cut to what is kept of it. What a node is called and how it ended stays as it is."""
    if isinstance(message, NodeResult):
        text, relation = mask.text(message.message), mask.text(message.relation)
        failure = _masked(message.failure, mask)
        batches = tuple(replace(b, message=without_middle(mask.text(b.message), MAX_BATCH_MESSAGE)) for b in message.batches)
        text = without_middle(text, MAX_MESSAGE)
        return replace(message, message=text, relation=relation[:MAX_RELATION], failure=failure, batches=batches)
    if isinstance(message, CommandResult):
        return replace(message, exception=_masked(message.exception, mask))
    if isinstance(message, Parsed):
        return replace(message, reasons=[mask.text(reason)[:MAX_CAUSE] for reason in message.reasons])
    if isinstance(message, LogLine):
        return replace(message, message=without_middle(mask.text(message.message), MAX_LOG_LINE))
    if isinstance(message, Warned):
        return replace(message, text=without_middle(mask.text(message.text), MAX_WARNING))
    return message


def _masked(failure: Failure | None, mask: Mask, longest: int = MAX_FAILURE) -> Failure | None:
    if failure is None:
        return None
    causes = tuple(cause for raw in failure.causes if (cause := _masked(raw, mask, MAX_CAUSE)) is not None)
    codes = {kind: code[:MAX_CAUSE] for kind, code in mask.tree(failure.codes).items()}
    return replace(failure, message=without_middle(mask.text(failure.message), longest), codes=codes, causes=causes)


@dataclass
class StepReport:
    """All that the supervisor knows about the worker of one attempt.

    Attributes:
        nodes: the last result of each node, in the order in which they finished.
        finished: the worker said that it was done.
        returncode: as subprocess has it: the exit code, or minus the signal; None when it was never started.
        interrupted: the supervisor was asked to stop and passed that on.
        expired: ... because the compute's time is over, and not the step's.
        timed_out: the attempt ran out of its time.
        killed: the worker did not react and was killed by the supervisor.
        parsed: how the first command that came that far read the project.
        left_out: what of the worker's messages and output was not taken, in words; a short list.
        warnings: what dbt warned of, each once; a short list.
        memory_limit_mib, oom_kills: as `dbt_runner.memory` tells; None where the kernel does not.
    """

    commands: list[CommandResult] = field(default_factory=list)
    nodes: dict[str, NodeResult] = field(default_factory=dict)
    finished: bool = False
    returncode: int | None = None
    interrupted: bool = False
    expired: bool = False
    timed_out: bool = False
    killed: bool = False
    parsed: Parsed | None = None
    peak_memory_mib: int = 0
    memory_limit_mib: int | None = None
    oom_kills: int | None = None
    left_out: list[str] = field(default_factory=list)
    warnings: Sequence[DbtWarning] = ()
