"""What the supervisor believes of its worker's messages: those that fit the spec and each other, within bounds, without secrets.

The worker runs the team's code, and code can write to the pipe. So a message decides nothing that the spec and the messages before it
do not allow: no result of a command that has not begun, no second end of a command, no result after the end. What a hostile worker can
still fake is the results of its own run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from dbt_runner.events import (
    CommandResult,
    CommandStarted,
    Failure,
    Finished,
    LogLine,
    Message,
    NodeResult,
    Parsed,
    ParseNotHeld,
    Secret,
    StepReport,
    Warned,
    WorkerSpec,
    masked,
)
from dbt_runner.masking import Mask
from dbt_runner.texts import fit, without_middle
from dbt_runner.warning_tally import DbtWarning, WarningTally
from dbt_runner.wire import UNKNOWN, decode

# The largest projects that are known have some 10,000 nodes. A node may have a result in each command.
MAX_NODES, MAX_RESULTS = 100_000, 500_000
# Bytes of lines about nodes. Beyond the first limit little is kept of each further node, beyond twice of it nothing.
MAX_KEPT, LITTLE = 32 << 20, 200
# Statuses beside those that dbt has. Outcomes count nodes by status, and the state machine carries those counts.
MAX_STATUSES = 16
# A driver makes a password for every connection that it opens.
MAX_SECRETS, MAX_SECRET_CHARACTERS = 20_000, 8 << 20
MAX_LOG_BYTES = 256 << 20
MAX_STAGES = 10


class Intake:
    """Takes the lines of one worker.

    Args:
        spec: what the worker was told to do.
        report: gets what is believed.
        mask: gets the worker's secrets, and is applied to everything else.
    """

    def __init__(self, spec: WorkerSpec, report: StepReport, mask: Mask) -> None:
        self._spec = spec
        self._report = report
        self._mask = mask
        self._started = -1
        self._running = False
        self._results = 0
        self._kept = 0
        self._logged = 0
        self._statuses: set[str] = set()
        self._secrets: set[str] = set()
        self._secret_characters = 0
        self._refused: Counter[str] = Counter()
        self._warnings = WarningTally()

    def take(self, line: bytes) -> Message | None:
        """The message of a line as it is believed, which the report has by now; None where there is nothing to do about it."""
        try:
            message = decode(line)
        except ValueError:
            # A worker that was killed leaves half a line behind.
            self._refuse("messages that are not of the protocol")
            return None
        if isinstance(message, Secret):
            self._take_secret(message.value)
            return None
        if self._report.finished and not isinstance(message, LogLine):
            self._refuse("messages after the end")
            return None
        if not self._is_in_order(message):
            self._refuse("messages that do not fit the commands of the step")
            return None
        try:
            message = masked(message, self._mask)
        except Exception:
            # Whatever the mask stumbles over, nothing passes it by.
            self._refuse("messages that could not be masked")
            return None
        return self._record(message, len(line))

    def may_log(self, size: int) -> bool:
        """Whether the worker may fill so many more bytes of the log."""
        self._logged += size
        if self._logged > MAX_LOG_BYTES:
            self._refuse("log lines beyond the limit of an attempt")
            return False
        return True

    def left_out(self) -> list[str]:
        """What was not taken, as an outcome says it."""
        return [f"{number} {what}" for what, number in sorted(self._refused.items())]

    def warnings(self) -> tuple[DbtWarning, ...]:
        """What dbt warned of."""
        return self._warnings.warnings()

    def count(self, what: str, number: int) -> None:
        """Counts what was dropped elsewhere."""
        if number:
            self._refused[what] += number

    def _refuse(self, what: str) -> None:
        self._refused[what] += 1

    def _take_secret(self, value: str) -> None:
        if value in self._secrets:
            return
        self._secret_characters += len(value)
        if len(self._secrets) >= MAX_SECRETS or self._secret_characters > MAX_SECRET_CHARACTERS:
            self._refuse("secrets beyond the limit of an attempt, which are not masked")
            return
        self._secrets.add(value)
        # A text that passes the pipe may hold it in either form.
        self._mask.add({value, fit(value)})

    def _is_in_order(self, message: Message) -> bool:
        commands = self._spec.commands
        if isinstance(message, CommandStarted):
            index, failed = message.index, any(not result.success for result in self._report.commands)
            if self._running or failed or not self._started < index < len(commands) or self._is_done(index):
                return False
            self._started, self._running = index, True
        elif isinstance(message, CommandResult):
            if self._spec.probe:
                return message.index == len(self._report.commands) < MAX_STAGES
            if not self._running or message.index != self._started:
                return False
            self._running = False
        elif isinstance(message, (NodeResult, Warned)):
            # Also after the command's end: a thread of dbt may come to its own end later than an interrupted command.
            return message.command == self._started
        elif isinstance(message, Parsed):
            return self._running and message.index == self._started
        elif isinstance(message, ParseNotHeld):
            return message.index == self._started
        elif isinstance(message, Finished):
            return not self._running
        return True

    def _is_done(self, index: int) -> bool:
        return index < len(self._spec.earlier) and self._spec.earlier[index].finished

    def _record(self, message: Message, size: int) -> Message | None:
        report = self._report
        if isinstance(message, NodeResult):
            return self._record_node(message, size)
        if isinstance(message, CommandResult):
            report.commands.append(message)
        elif isinstance(message, Parsed):
            # Only before anything ran: what the warehouse has answered must not decide what later runs start from.
            if report.parsed is not None or self._results:
                return None
            report.parsed = message
        elif isinstance(message, Warned):
            self._warnings.add(message)
        elif isinstance(message, LogLine):
            return message if self.may_log(len(message.message)) else None
        elif isinstance(message, Finished):
            report.finished = True
        return message

    def _record_node(self, node: NodeResult, size: int) -> NodeResult | None:
        report = self._report
        self._results += 1
        self._kept += size
        too_many = self._results > MAX_RESULTS or (len(report.nodes) >= MAX_NODES and node.unique_id not in report.nodes)
        if too_many or self._kept > 2 * MAX_KEPT:
            self._refuse("node results beyond the limit of an attempt")
            return None
        if node.status not in self._statuses:
            if len(self._statuses) >= MAX_STATUSES:
                node = replace(node, status=UNKNOWN)
            else:
                self._statuses.add(node.status)
        if self._kept > MAX_KEPT:
            node = replace(node, message=without_middle(node.message, LITTLE), failure=_little(node.failure), batches=())
        report.nodes[node.unique_id] = node
        return node


def _little(failure: Failure | None) -> Failure | None:
    """What decides over another attempt: the class and its codes."""
    if failure is None:
        return None
    codes = {kind[:LITTLE]: code[:LITTLE] for kind, code in failure.codes.items()}
    return replace(failure, message=without_middle(failure.message, LITTLE), codes=codes, causes=())
