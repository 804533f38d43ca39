"""Rows of docs/aws-behaviours.md that the two implementations can show by themselves, and what of a run shows them.

What a patch or a shim of this project does is left out: it is no second opinion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from second_aws.engine import FIRST, SECOND
from second_aws.paths import Path
from terraform.tool import ROOT

PAGE = ROOT / "docs" / "aws-behaviours.md"
_COLUMN = 3
_SAID = re.compile(r"; (?:moto and ministack|moto, not ministack|ministack, not moto|neither moto nor ministack)$")


@dataclass(frozen=True)
class Seen:
    """What one implementation has done: the paths of each scenario, and the answers to the probes."""

    paths: Mapping[str, tuple[Path, ...]]
    probes: Mapping[str, str]

    def of(self, scenario: str, machine: str = "dbt_run") -> list[Path]:
        return [path for path in self.paths[scenario] if path.machine == machine]


def _one_is_executed(seen: Seen) -> bool:
    return sum("RecordStart" in path.steps for path in seen.of("prod/four_starts")) == 1


def _no_catch(seen: Seen) -> bool:
    return all(path.status == "ABORTED" and path.steps[-1] == "RunStep" for path in seen.of("prod/abort"))


def _takes_over(seen: Seen) -> bool:
    """An unknown owner and one that has ended: both are found out."""
    return all("TakeOverLock" in path.steps for name in ("prod/dead_owner", "busy/ended_owner") for path in seen.of(name))


def _tells_of_ends(seen: Seen) -> bool:
    return all(seen.of(name, "finalize") for name in ("prod/abort", "prod/failing_model", "prod-2/no_object"))


def _starts_once(seen: Seen) -> bool:
    again, late = seen.probes["start_again_while_it_runs"], seen.probes["start_again_after_its_end"]
    return (again, late) == ("the same execution", "ExecutionAlreadyExists")


def _writes_on_condition(seen: Seen) -> bool:
    written = seen.probes["write_over_an_object_that_must_be_new"], seen.probes["write_over_an_object_that_has_changed"]
    return written == ("412", "412")


# By how the row begins.
ROWS: Mapping[str, Callable[[Seen], bool]] = {
    "A payload, a variable and a task's result have 256 KiB": lambda seen: (
        seen.probes["result_of_300_000_characters"] == "States.DataLimitExceeded"
    ),
    "StartExecution with the name and input of a running execution": _starts_once,
    "DescribeExecution knows an execution for 90 days": _takes_over,
    "An execution that is aborted or times out runs no Catch": _no_catch,
    "A status change is sent to EventBridge": _tells_of_ends,
    "A condition and its write are one step": _one_is_executed,
    "`If-None-Match: *` and `If-Match` make a write conditional": _writes_on_condition,
}


def said(page: str) -> dict[str, str]:
    """What the page says of the two implementations, by row; rows that say nothing of them are left out."""
    found: dict[str, str] = {}
    for line in page.splitlines():
        cells = line.strip("|").split(" | ")
        if line.startswith("| ") and len(cells) > _COLUMN and (words := _SAID.search(cells[_COLUMN].strip())):
            begins = [begin for begin in ROWS if cells[0].strip().startswith(begin)]
            found[begins[0] if begins else cells[0].strip()] = words[0].removeprefix("; ")
    return found


def shown(seen: Mapping[str, Seen]) -> dict[str, str]:
    """What a run has shown, in the words of the page."""
    words = {
        (True, True): "moto and ministack",
        (True, False): "moto, not ministack",
        (False, True): "ministack, not moto",
        (False, False): "neither moto nor ministack",
    }
    return {begin: words[shows(seen[FIRST]), shows(seen[SECOND])] for begin, shows in ROWS.items()}


def write(page: str, answers: Mapping[str, str]) -> str:
    """The page with what a run has shown in the place of what it said."""
    lines = page.splitlines(keepends=True)
    for begin, words in answers.items():
        [at] = [number for number, line in enumerate(lines) if line.startswith(f"| {begin}")]
        cells = lines[at].split(" | ")
        cells[_COLUMN] = f"{_SAID.sub('', cells[_COLUMN])}; {words}"
        lines[at] = " | ".join(cells)
    return "".join(lines)
