"""What every part of a report is made of: tables, names, times, statuses, and other people's texts with a limit to what they may take."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dbt_runner.report.findings import Findings
from dbt_runner.report.markup import Markup, escape, join, tag
from dbt_runner.run_records import Outcome, Run
from dbt_runner.words import one_line

ROWS = 500  # rows of a table whose rows have messages
NAMES = 60  # names in a list
MESSAGE_BYTES = 400_000  # of all messages together, as HTML
WORDS = {
    "STARTING": "is starting",
    "RUNNING": "is running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "SKIPPED": "was skipped",
    "ABORTED": "was aborted",
    "TIMED_OUT": "ran out of time",
    "INCOMPLETE": "incomplete",
    "PENDING": "not begun",
}
KIND = {
    **dict.fromkeys(("SUCCEEDED", "success", "pass"), "good"),
    **dict.fromkeys(("FAILED", "ABORTED", "TIMED_OUT", "INCOMPLETE", "error", "runtime error", "partial success", "fail"), "bad"),
    **dict.fromkeys(("SKIPPED", "warn"), "odd"),
    **dict.fromkeys(("RUNNING", "STARTING"), "active"),
}


@dataclass
class Messages:
    """Other people's texts, as long as there is room for them."""

    left: int = MESSAGE_BYTES
    shortened: int = field(default=0, init=False)

    def whole(self, text: str | None) -> Markup | None:
        """A block with the whole text."""
        if not text:
            return None
        escaped = escape(text.strip())
        if len(escaped.encode()) > self.left:
            return self.line(text)
        self.left -= len(escaped.encode())
        return tag("pre", escaped, tabindex=0, dir="auto")

    def line(self, text: str | None, limit: int = 240) -> Markup | None:
        """The beginning of the text, on one line."""
        if not text:
            return None
        escaped = escape(one_line(text, limit))
        if len(escaped.encode()) > self.left:
            self.shortened += 1
            return None
        self.left -= len(escaped.encode())
        return tag("bdi", escaped)


def table_of(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, visible: bool = True) -> Markup:
    """A table whose first column names its rows. A column whose name begins with # holds numbers; empty columns are left out."""
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    numeric = [i for i in kept if columns[i].startswith("#")]
    head = tag("tr", [tag("th", columns[i].removeprefix("#"), scope="col", class_="number" if i in numeric else None) for i in kept])
    body = [
        tag(
            "tr", [tag("th", row[i], scope="row") if i == 0 else tag("td", row[i], class_="number" if i in numeric else None) for i in kept]
        )
        for row in rows
    ]
    table = tag("table", tag("caption", caption, class_=None if visible else "hidden"), tag("thead", head), tag("tbody", body))
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def pairs_of(facts: Iterable[tuple[str, object]]) -> list[Markup]:
    """Terms and what they are, for a list of definitions; those without a value are left out."""
    return [join(tag("dt", name), tag("dd", tag("bdi", value))) for name, value in facts if value]


def name_of(unique_id: str, name: str) -> Markup:
    """A node's name, with its unique_id to hover where the one does not end in the other."""
    return tag("span", one_line(name, 160), title=None if unique_id.endswith(f".{name}") else one_line(unique_id, 250))


def names_of(names: Iterable[str], most: int = NAMES) -> str:
    """The first names, and how many more there are."""
    all_of_them = [one_line(name, 80) for name in names]
    more = f" and {len(all_of_them) - most:,} more" if len(all_of_them) > most else ""
    return ", ".join(all_of_them[:most]) + more


def status_of(status: str, words: str | None = None) -> Markup:
    """A status in words, with its colour and sign."""
    says = words or (WORDS.get(status, status) if status.isupper() else status)
    return tag("span", says, class_=f"mark {KIND[status]}" if status in KIND else None)


def rest_of(number: int) -> Markup | None:
    """Says how many are left out; None where none is."""
    return (
        tag("p", f"{number:,} more are left out to keep this page small; dbt-runner show lists them.", class_="quiet")
        if number > 0
        else None
    )


def time_of(moment: str) -> Markup:
    """A time of the store, to the second."""
    return tag("time", moment[:19].replace("T", " "), datetime=moment)


def command_to_copy(name: str, run: Run, *arguments: str) -> str:
    """A command to copy; what other people named is quoted for the shell."""
    return shlex.join(["dbt-runner", name, "--environment", run.environment, *arguments])


def started_by(run: Run) -> str:
    """Who or what asked for the run."""
    who = {"schedule": "its schedule", "cli": "the command line", "direct": "a direct call"}
    return who.get(run.trigger or "direct", run.trigger or "")


def failed_attempts(found: Findings) -> list[Outcome]:
    """Of each failed step the last attempt."""
    last = {outcome.step: outcome for outcome in found.sources.detail.outcomes}
    return [outcome for outcome in last.values() if outcome.error]
