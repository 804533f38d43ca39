"""How failed nodes are counted and what is said of each, in one place: causes, reports, messages and metrics have the same numbers.

A node counts as dbt's own summary counts it: `error`, `fail` and their kin have failed, tests that could not be run included.
https://docs.getdbt.com/reference/artifacts/run-results-json
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from dbt_runner.events import BAD_STATUSES, ERROR_STATUSES

TESTS = frozenset({"test", "unit_test"})
_MOST_NAMED = 3
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'\s*File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>.*)')
# Where a Python model's own code is not: libraries, the interpreter, what an adapter generates around the model.
_NOT_THE_PROJECT = re.compile(r"site-packages|dist-packages|/lib/python3|<frozen |<string>")


class Counted(Protocol):
    """What is needed of a node: a NodeResult of an attempt, or a row of the audit trail."""

    @property
    def unique_id(self) -> str: ...
    @property
    def resource_type(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str | None: ...


def failed(nodes: Iterable[Counted]) -> list[Counted]:
    """The nodes that failed, by dbt's rules."""
    return [node for node in nodes if node.status in BAD_STATUSES]


def summary(bad: Sequence[Counted], nodes: Sequence[Counted], limit: int = 300) -> str:
    """How many nodes failed, of how many, and why the first ones did.

    Args:
        bad: those that failed, the ones to name first.
        nodes: all of the command.
        limit: characters of each reason.
    """
    groups = list(dict.fromkeys(_group(node) for node in bad))
    total, what, kinds = len(nodes), "nodes", ""
    if len(groups) > 1:
        numbers = {group: sum(_group(node) == group for node in bad) for group in groups}
        kinds = f" ({', '.join(f'{number} {group if number != 1 else group[:-1]}' for group, number in numbers.items())})"
    elif groups[0] in ("tests", "sources"):
        total, what = sum(_group(node) == groups[0] for node in nodes), groups[0]
    broken = sum(node.status in ERROR_STATUSES and node.resource_type in TESTS for node in bad)
    if what == "tests" and broken:
        kinds = f" ({broken} of them could not be run)"
    named = "; ".join(f"{node.unique_id}: {reason(node.message or '', limit) or node.status}" for node in bad[:_MOST_NAMED])
    more = f"; and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
    return f"{len(bad)} of {total} {what} failed{kinds}: {named}{more}"


def is_traceback(message: str) -> bool:
    return _TRACEBACK in message


def reason(message: str, limit: int = 300) -> str:
    """What a person needs of a node's message, on one line.

    Of a Python traceback that is the exception with its text, then the nearest frame of the project. Of anything else it is the
    beginning: dbt's first line often only names the node again, the second one says what is wrong.
    """
    if is_traceback(message):
        return _of_traceback(message, limit)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:2])[:limit]


def _of_traceback(message: str, limit: int) -> str:
    # The last traceback is that of the exception that got out; those before it are its causes.
    head, _, text = message.rpartition(_TRACEBACK)
    indent = len(head) - len(head.rstrip(" "))
    frame = ""
    raised: list[str] = []
    for line in text.splitlines()[1:]:
        body = line[indent:] if not line[:indent].strip() else line.strip()
        found = _FRAME.match(line)
        if found and not raised:
            if not _NOT_THE_PROJECT.search(found["file"]):
                frame = f"line {found['line']}, in {found['function'].strip()}"
        elif body and not body.startswith(" "):
            raised.append(body)
        elif raised and body.strip():
            raised.append(body.strip())
    said = " ".join(raised)
    where = f" ({frame})" if frame else ""
    return f"{said[: limit - len(where)]}{where}" if said else " ".join(message.split())[:limit]


def _group(node: Counted) -> str:
    if node.resource_type in TESTS:
        return "tests"
    return {"model": "models", "operation": "hooks", "source": "sources"}.get(node.resource_type, "nodes")
