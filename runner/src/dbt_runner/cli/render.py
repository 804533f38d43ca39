"""What people see of runs: tables, durations, progress.

On a terminal it is rich's: colours, a live view, and as many columns as the window has. Anywhere else it is plain text, aligned
and never wrapped or cut.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dbt_runner.errors import ERRORS
from dbt_runner.events import BAD_STATUSES
from dbt_runner.runs import EnvironmentStatus, NodeResultRow, Outcome, Run, RunDetail, StepResult
from dbt_runner.store import Item

_PLAIN_WIDTH = 10_000
_NODES_PER_LINE = 50
_FAILED_NODES_IN_PROGRESS = 10
_LAST_NODES = 8

_GOOD = frozenset({"SUCCEEDED", "success", "pass"})
_BAD = frozenset({"FAILED", "INCOMPLETE", "TIMED_OUT", "ABORTED"}) | BAD_STATUSES
_ODD = frozenset({"SKIPPED", "warn", "skipped"})
_ACTIVE = frozenset({"STARTING", "RUNNING"})

# Escape sequences and control characters, which a warehouse's message may hold and a terminal would obey. Tabs and line breaks stay.
_CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# --- words -----------------------------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4s, 12s, 2m 05s, 1h 03m, 2d 01h; empty for None."""
    if seconds is None:
        return ""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def local_time(moment: str, *, zone: bool = True) -> str:
    """A time of the store (ISO 8601, UTC) in the local time zone: 2026-11-22 11:00:05 CET, or 2026-11-22 11:00 without the zone."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z" if zone else "%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Bytes as people say them: 812 B, 1.5 KiB, 18.0 MiB."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def counts_of(counts: Mapping[str, int]) -> str:
    """Numbers of nodes by status, the bad ones first: 1 error, 29 success."""
    order = sorted(counts, key=lambda status: (status not in BAD_STATUSES, status not in _ODD, status))
    return ", ".join(f"{counts[status]:,} {status}" for status in order if counts[status])


def _clean(text: str) -> str:
    return _CONTROLS.sub("", text).expandtabs(4)


def _one_line(text: str | None, limit: int) -> str:
    line = " ".join(_clean(text or "").split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _styled(status: str) -> Text:
    style = next((s for words, s in ((_GOOD, "green"), (_BAD, "red"), (_ODD, "yellow"), (_ACTIVE, "cyan")) if status in words), "dim")
    return Text(status, style=style)


def _elapsed(run: Run) -> str:
    if run.seconds is not None or run.ended_at is not None:
        return duration(run.seconds)
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(run.started_at)).total_seconds()))


# --- printing --------------------------------------------------------------------------------------------------------


def is_terminal(stream: TextIO | None = None) -> bool:
    return (stream or sys.stdout).isatty()


def write(*parts: RenderableType, stream: TextIO | None = None) -> None:
    """Prints to `stream` (standard output): in colours on a terminal, as plain unwrapped text anywhere else."""
    stream = stream or sys.stdout
    if is_terminal(stream):
        _console(stream).print(*parts, sep="\n")
        return
    buffer = io.StringIO()
    plain = Console(file=buffer, width=_PLAIN_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    plain.print(*parts, sep="\n")
    # Cells are padded to their column's width, also in the last column.
    stream.writelines(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())
    stream.flush()


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, markup=False, emoji=False)


@dataclass(frozen=True)
class _Column:
    """A column: `whole` ones keep their width as long as the window allows it, a `cut` one gets what is left, the others wrap."""

    header: str
    right: bool = False
    whole: bool = False
    cut: bool = False


class _Rows:
    """A table without lines, which makes the best of the width it gets."""

    _NARROWEST = 6
    _NARROWEST_CUT = 20

    def __init__(self, columns: Sequence[_Column], rows: Iterable[Sequence[str | Text]]) -> None:
        self._rows = [[cell if isinstance(cell, Text) else Text(_clean(cell)) for cell in row] for row in rows]
        filled = [i for i, _ in enumerate(columns) if any(row[i].plain for row in self._rows)]
        self._columns = [columns[i] for i in filled]
        self._rows = [[row[i] for i in filled] for row in self._rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [max(cell_len(column.header), *(cell_len(row[i].plain) for row in self._rows)) for i, column in enumerate(self._columns)]
        gaps = len(widths) - 1
        gap = 2 if sum(widths) + 2 * gaps <= options.max_width else 1
        least = sum(
            width if column.whole else min(width, self._NARROWEST_CUT if column.cut else self._NARROWEST)
            for column, width in zip(self._columns, widths, strict=True)
        )
        whole_fits = least + gap * gaps <= options.max_width
        table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        for column, width in zip(self._columns, widths, strict=True):
            if column.cut:
                left = options.max_width - (sum(widths) - width) - gap * gaps
                cut_width = min(width, max(self._NARROWEST_CUT, left))
                table.add_column(column.header, no_wrap=True, overflow="ellipsis", width=cut_width)
            else:
                table.add_column(
                    column.header, justify="right" if column.right else "left", no_wrap=column.whole and whole_fits, overflow="fold"
                )
        for row in self._rows:
            table.add_row(*row)
        yield table


def _facts(pairs: Iterable[tuple[str, str | Text | None]]) -> Table:
    """Names and values below each other; those without a value are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            grid.add_row(name, value if isinstance(value, Text) else _clean(value))
    return grid


# --- runs ------------------------------------------------------------------------------------------------------------


def run_list(runs: Sequence[Run]) -> RenderableType:
    """Runs as a table, in the order given."""
    if not runs:
        return Text("no runs", style="dim")
    columns = (
        _Column("started", whole=True),
        _Column("run", whole=True),
        _Column("job"),
        _Column("status", whole=True),
        _Column("error"),
        _Column("release"),
        _Column("nodes", right=True, whole=True),
        _Column("duration", right=True, whole=True),
    )
    return _Rows(columns, (_run_row(run) for run in runs))


def _run_row(run: Run) -> Sequence[str | Text]:
    nodes = sum(sum(step.counts.values()) for step in run.steps)
    return (
        local_time(run.started_at, zone=False),
        run.run_id,
        run.job or "",
        _styled(run.status),
        (run.error or "").removeprefix("Dbt."),
        run.release or "",
        f"{nodes:,}" if nodes else "",
        _elapsed(run),
    )


def run_record(detail: RunDetail) -> RenderableType:
    """All that is known of a run."""
    run = detail.run
    owner = ERRORS[run.error].owner if run.error in ERRORS else None
    known = {step.step for step in run.steps}
    not_run = ", ".join(step.name for step in run.plan if step.name not in known) if run.ended_at else ""
    facts = _facts(
        (
            ("Run", run.run_id),
            ("Environment", run.environment),
            ("Status", _styled(run.status)),
            ("Error", f"{run.error} (who acts: {owner})" if owner else run.error),
            ("Cause", run.cause),
            ("Job", run.job),
            ("Release", run.release),
            ("Trigger", run.trigger),
            ("Reason", run.reason),
            ("Variables", json.dumps(run.vars) if run.vars else None),
            ("Full refresh", "yes" if run.full_refresh else None),
            ("Started", local_time(run.started_at)),
            ("Duration", _elapsed(run)),
            ("Artifacts", run.artifacts),
            ("Not run", not_run),
        )
    )
    parts: list[RenderableType] = [facts]
    parts += _section("", _step_table(run.steps) if run.steps else None)
    parts += _section("", _node_table(detail.nodes) if detail.nodes else None)
    parts += _section("Failures", *_failures(detail))
    parts += _section("Artifacts", _artifact_table(run, detail.outcomes) if any(o.artifacts for o in detail.outcomes) else None)
    return Group(*parts)


def run_status(detail: RunDetail) -> RenderableType:
    """A run at a glance: where it is, and what finished last."""
    run = detail.run
    facts = _facts(
        (
            ("Run", run.run_id),
            ("Status", Text.assemble(_styled(run.status), _since(run))),
            ("Error", run.error),
            ("Cause", run.cause),
            ("Job", run.job),
            ("Release", run.release),
        )
    )
    last = sorted((node for node in detail.nodes if node.ended_at), key=lambda node: node.ended_at or "")[-_LAST_NODES:]
    parts: list[RenderableType] = [facts]
    parts += _section("", _step_table(run.steps) if run.steps else None)
    parts += _section("Last nodes", _node_table(last) if last else None)
    return Group(*parts)


def environment(status: EnvironmentStatus) -> RenderableType:
    """An environment at a glance."""
    release, lock, running = status.release, status.lock, status.running
    if lock is None:
        held = Text("free")
    else:
        held = Text(f"held by run {lock.run_id} since {local_time(lock.since)}")
        if running is None:
            held.append(", which has ended: the next run takes it over")
    facts = _facts(
        (
            ("Environment", status.environment),
            ("Release", _release(status) if release else "none: dbt-runner release promote makes one current"),
            ("Lock", held),
            (
                "Running",
                Text.assemble(running.run.run_id, "  ", _styled(running.run.status), _since(running.run)) if running else "nothing",
            ),
        )
    )
    parts: list[RenderableType] = [facts]
    parts += _section("", _step_table(running.run.steps) if running and running.run.steps else None)
    parts += _section("Last runs", run_list(status.last))
    return Group(*parts)


def _release(status: EnvironmentStatus) -> str | None:
    release = status.release
    if release is None:
        return None
    since = f" since {local_time(release.promoted_at)}" if release.promoted_at else ""
    by = f", by {release.promoted_by}" if release.promoted_by else ""
    before = f" (before it {release.previous})" if release.previous else ""
    return f"{release.version}{since}{by}{before}"


def _since(run: Run) -> str:
    started = local_time(run.started_at)
    return f" after {_elapsed(run)}, started {started}" if run.ended_at else f" for {_elapsed(run)}, since {started}"


def _section(title: str, *parts: RenderableType | None) -> Iterator[RenderableType]:
    """The parts that there are, below an empty line and their title; nothing where there are none."""
    present = [part for part in parts if part is not None]
    if present:
        yield Text("")
        if title:
            yield Text(title, style="bold")
        yield from present


def _step_table(steps: Sequence[StepResult]) -> RenderableType:
    columns = (
        _Column("step", whole=True),
        _Column("status", whole=True),
        _Column("attempts", right=True),
        _Column("nodes"),
        _Column("duration", right=True, whole=True),
        _Column("error", whole=True),
    )
    return _Rows(
        columns,
        (
            (
                step.step,
                _styled(step.status),
                str(step.attempts) if step.attempts else "",
                counts_of(step.counts),
                duration(step.seconds) if step.attempts else "",
                step.error or "",
            )
            for step in steps
        ),
    )


def _node_table(nodes: Sequence[NodeResultRow]) -> RenderableType:
    columns = (
        _Column("step"),
        _Column("type"),
        _Column("node", whole=True),
        _Column("status", whole=True),
        _Column("duration", right=True, whole=True),
        _Column("message", cut=True),
    )
    return _Rows(
        columns,
        (
            (
                node.step,
                node.resource_type,
                node.name,
                _styled(node.status),
                duration(node.seconds),
                _one_line(node.message, 120) if node.failed else "",
            )
            for node in nodes
        ),
    )


def _failures(detail: RunDetail) -> Iterator[RenderableType]:
    """What failed, each with its message in full: first the steps, then the nodes."""
    last = {outcome.step: outcome for outcome in detail.outcomes}
    for step in detail.run.steps:
        if step.error:
            outcome = last.get(step.step)
            message = (outcome.message if outcome else None) or step.message
            yield from _failure(f"step {step.step}, attempt {step.attempts}: {step.error}", message, outcome.why if outcome else None)
    seen = set()
    for node in detail.nodes:
        if node.failed:
            seen.add(node.unique_id)
            yield from _failure(f"{node.unique_id}: {node.status} (step {node.step}, attempt {node.attempt})", node.message)
    for outcome in last.values():
        for failure in outcome.failures:
            if failure["unique_id"] not in seen:
                yield from _failure(f"{failure['unique_id']}: {failure['status']} (step {outcome.step})", failure.get("message"))


def _failure(title: str, *texts: str | None) -> Iterator[RenderableType]:
    yield Text(_clean(title), style="red")
    for text in texts:
        if text:
            yield Padding(Text(_clean(text)), (0, 0, 0, 2))


def _artifact_table(run: Run, outcomes: Sequence[Outcome]) -> RenderableType:
    """Files relative to the run's prefix. The digest's first twelve digits tell two files apart; --json has all of it."""
    prefix = (run.artifacts or "").partition("//")[2].partition("/")[2]
    columns = (_Column("file", whole=True), _Column("size", right=True, whole=True), _Column("sha256", whole=True))
    artifacts = (artifact for outcome in outcomes for artifact in outcome.artifacts)
    return _Rows(columns, ((a["key"].removeprefix(prefix), size(a["bytes"]), a["sha256"][:12]) for a in artifacts))


def audit_items(items: Iterable[Item]) -> RenderableType:
    """Items of the audit table by their keys; the nodes of a step are one line."""
    rows: list[tuple[str, str, str]] = []
    nodes: Counter[tuple[str, str]] = Counter()
    for item in items:
        if "unique_id" in item:
            nodes[item["pk"], str(item["step"])] += 1
        else:
            # The first of these that an item has says most about it.
            says = next((str(item[key]) for key in ("error", "status", "version", "exit_code", "run_id") if item.get(key) is not None), "")
            rows.append((item["pk"], item["sk"], f"exit code {says}" if says == "0" else says))
    rows += [(pk, f"NODE#{step}#...", f"{number} nodes") for (pk, step), number in nodes.items()]
    return Group(Text("Audit items", style="bold"), _Rows((_Column("pk"), _Column("sk"), _Column("")), sorted(rows)))


# --- progress --------------------------------------------------------------------------------------------------------


def show_progress(details: Iterable[RunDetail], *, stream: TextIO | None = None) -> RunDetail:
    """Shows a run while it goes on: live on a terminal, where nothing of it stays; anywhere else a line for each change.

    Args:
        details: the run again and again, such as dbt_runner.runs.follow gives it; at least once.

    Returns:
        The last of them.
    """
    stream = stream or sys.stdout
    detail = None
    if is_terminal(stream):
        with Live(console=_console(stream), auto_refresh=False, transient=True) as live:
            for detail in details:
                live.update(run_status(detail), refresh=True)
    else:
        progress = Progress()
        for detail in details:
            stream.writelines(f"{line}\n" for line in progress.lines(detail))
            stream.flush()
    if detail is None:
        raise ValueError("there was no run to show")
    return detail


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


@dataclass
class Progress:
    """Turns what is known of a run now into the lines that say what is new since the last time.

    A line for each change of the run and its steps, for the first failed nodes, and for each fifty nodes of a step.
    """

    clock: Callable[[], str] = _clock
    _run_status: str = ""
    _steps: dict[str, str] = field(default_factory=dict)
    _nodes: dict[str, int] = field(default_factory=dict)
    _failed: set[tuple[str, str, int]] = field(default_factory=set)

    def lines(self, detail: RunDetail) -> list[str]:
        run = detail.run
        news: list[str] = []
        if run.status != self._run_status and not run.ended_at:
            release = f", release {run.release}" if run.release else ""
            news.append(f"run {run.run_id} {run.status}{release}")
        news += self._failed_nodes(detail.nodes)
        for step in run.steps:
            news += self._step(step)
        if run.status != self._run_status and run.ended_at:
            why = ": ".join(part for part in (run.error, _one_line(run.cause, 300)) if part)
            news.append(f"run {run.run_id} {run.status} after {duration(run.seconds)}" + (f": {why}" if why else ""))
        self._run_status = run.status
        return [f"{self.clock()}  {line}" for line in news]

    def _failed_nodes(self, nodes: Iterable[NodeResultRow]) -> Iterator[str]:
        for node in nodes:
            key = (node.step, node.unique_id, node.attempt)
            if node.failed and key not in self._failed:
                self._failed.add(key)
                if len(self._failed) <= _FAILED_NODES_IN_PROGRESS:
                    yield f"node {node.name} {node.status}: {_one_line(node.message, 200)}"
                elif len(self._failed) == _FAILED_NODES_IN_PROGRESS + 1:
                    yield "more nodes failed; dbt-runner show lists them all"

    def _step(self, step: StepResult) -> Iterator[str]:
        state = f"{step.status} {step.attempts}"
        nodes = sum(step.counts.values())
        if state != self._steps.get(step.step) and step.status != "PENDING":
            attempt = f" (attempt {step.attempts})" if step.attempts > 1 else ""
            line = f"step {step.step} {step.status}{attempt}"
            if step.status != "RUNNING":
                line += f" after {duration(step.seconds)}"
                line += f": {counts_of(step.counts)}" if nodes else ""
                line += f": {step.error}" if step.error else ""
            yield line
        if step.status == "RUNNING" and nodes // _NODES_PER_LINE > self._nodes.get(step.step, 0):
            self._nodes[step.step] = nodes // _NODES_PER_LINE
            yield f"step {step.step} {nodes:,} nodes: {counts_of(step.counts)}"
        self._steps[step.step] = state
