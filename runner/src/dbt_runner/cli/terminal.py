"""How anything is shown in a terminal: tables, facts, sections, colours.

On a terminal it is rich's: colours, a live view, and as many columns as the window has. Anywhere else it is plain text, aligned
and never wrapped or cut.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dbt_runner.cli.guard import harmless, unguarded
from dbt_runner.events import BAD_STATUSES
from dbt_runner.words import ODD_STATUSES, clean

_PLAIN_WIDTH = 10_000

_GOOD = frozenset({"SUCCEEDED", "success", "pass"})
_BAD = frozenset({"FAILED", "INCOMPLETE", "TIMED_OUT", "ABORTED"}) | BAD_STATUSES
_ACTIVE = frozenset({"STARTING", "RUNNING"})


def styled(status: str) -> Text:
    """A status in its colour."""
    style = next(
        (s for words, s in ((_GOOD, "green"), (_BAD, "red"), (ODD_STATUSES, "yellow"), (_ACTIVE, "cyan")) if status in words), "dim"
    )
    return Text(status, style=style)


def is_terminal(stream: TextIO | None = None) -> bool:
    return (stream or sys.stdout).isatty()


def write(*parts: RenderableType, stream: TextIO | None = None) -> None:
    """Prints to `stream` (standard output): in colours on a terminal, as plain unwrapped text anywhere else."""
    stream = stream or sys.stdout
    parts = tuple(Cleaned(part) for part in parts)
    if is_terminal(stream):
        console_of(stream).print(*parts, sep="\n")
        return
    written = io.StringIO()
    plain = Console(file=written, width=_PLAIN_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    plain.print(*parts, sep="\n")
    # Cells are padded to their column's width, also in the last column.
    stream.writelines(f"{harmless(line.rstrip())}\n" for line in written.getvalue().split("\n")[:-1])
    stream.flush()


def console_of(stream: TextIO) -> Console:
    """A console whose control codes reach the terminal. What it prints must be `Cleaned`."""
    return Console(file=unguarded(stream), highlight=False, markup=False, emoji=False)


class Cleaned:
    """Anything that rich shows, without what a terminal would obey in its text. What rich itself adds (colours, the live view) stays."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        part = console.render_str(self._part) if isinstance(self._part, str) else self._part
        for segment in console.render(part, options):
            if segment.control:
                yield segment
            else:
                style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
                yield Segment(harmless(segment.text), style)


@dataclass(frozen=True)
class Column:
    """A column: `whole` ones keep their width as long as the window allows it, a `cut` one gets what is left, the others wrap."""

    header: str
    right: bool = False
    whole: bool = False
    cut: bool = False


class Rows:
    """A table without lines, which makes the best of the width it gets."""

    _NARROWEST = 6
    _NARROWEST_CUT = 20

    def __init__(self, columns: Sequence[Column], rows: Iterable[Sequence[str | Text]]) -> None:
        self._rows = [[cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row] for row in rows]
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


def facts(pairs: Iterable[tuple[str, str | Text | None]]) -> Table:
    """Names and values below each other; those without a value are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            grid.add_row(name, value if isinstance(value, Text) else clean(value))
    return grid


def section(title: str, *parts: RenderableType | None) -> Iterator[RenderableType]:
    """The parts that there are, below an empty line and their title; nothing where there are none."""
    present = [part for part in parts if part is not None]
    if present:
        yield Text("")
        if title:
            yield Text(title, style="bold")
        yield from present
