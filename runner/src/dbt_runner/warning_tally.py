"""What dbt warned of, each warning once and counted: deprecations, configuration that matches nothing, warnings of the project's own.

dbt says a deprecation once and counts it in a summary at the end. Other warnings come again with each command of a step, and from each
node that they are about. What people need is each of them once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dbt_runner.events import Warned

# Warnings that an outcome names; the rest it counts.
MAX_WARNINGS = 20
# Warnings that are told apart while a step runs, and commands whose counts are.
_MAX_KINDS = 1_000
_MAX_COUNT = (1 << 63) - 1
REST = "more"


@dataclass(frozen=True)
class DbtWarning:
    """A warning of dbt's.

    Attributes:
        event: dbt's name of its kind, such as UnusedResourceConfigPath; REST for all that did not fit.
        count: how often dbt gave it in the command that gave it most.
    """

    event: str
    text: str
    count: int


@dataclass
class WarningTally:
    """Counts the warnings of one step."""

    _counts: dict[tuple[str, str], Counter[int]] = field(default_factory=dict)
    _totals: dict[str, Counter[int]] = field(default_factory=dict)
    _untold: int = 0

    def add(self, warned: Warned) -> None:
        """Takes a warning; one without a text is dbt's own count of its kind for a command."""
        kept: dict[Any, Counter[int]] = self._counts if warned.text else self._totals
        key = (warned.event, warned.text) if warned.text else warned.event
        if key not in kept and len(kept) >= _MAX_KINDS:
            self._untold += warned.count
            return
        kept.setdefault(key, Counter())[warned.command] += warned.count

    def warnings(self, most: int = MAX_WARNINGS) -> tuple[DbtWarning, ...]:
        """The warnings in the order in which they came first."""
        counts = {key: max(by_command.values()) for key, by_command in self._counts.items()}
        for event, totals in self._totals.items():
            said = [key for key in counts if key[0] == event]
            unsaid = max(totals.values()) - sum(counts[key] for key in said)
            if unsaid > 0:
                key = said[0] if said else (event, event)
                counts[key] = counts.get(key, 0) + unsaid
        return shortened((DbtWarning(event, text, min(number, _MAX_COUNT)) for (event, text), number in counts.items()), most, self._untold)


def shortened(warnings: Iterable[DbtWarning], most: int = MAX_WARNINGS, untold: int = 0) -> tuple[DbtWarning, ...]:
    """The first of them, and in place of the others one that counts them."""
    found = list(warnings)
    rest = sum(warning.count for warning in found[most:]) + untold
    kinds = len(found[most:])
    said = f"{kinds} further warnings, which the log has" if kinds else "further warnings, which the log has"
    return (*found[:most], *([DbtWarning(REST, said, min(rest, _MAX_COUNT))] if rest else []))


def merged(outcomes: Iterable[Iterable[Mapping[str, Any]]]) -> tuple[DbtWarning, ...]:
    """The warnings of several attempts, each once, with the highest of its counts.

    Args:
        outcomes: the `warnings` of each attempt, as its outcome has them.
    """
    counts: dict[tuple[str, str], int] = {}
    for warnings in outcomes:
        for warning in warnings:
            key = str(warning.get("event", "")), str(warning.get("text", ""))
            counts[key] = max(counts.get(key, 0), int(warning.get("count", 1)))
    # What did not fit comes last.
    ordered = sorted(counts.items(), key=lambda each: each[0][0] == REST)
    return tuple(DbtWarning(event, text, number) for (event, text), number in ordered)
