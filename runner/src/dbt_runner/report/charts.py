"""The pictures of a report, as SVG: when each step ran, when each node ran on which thread, and what the failures blocked.

Their colours are the page's, light or dark. What they show also stands in the tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dbt_runner.lineage import Lineage
from dbt_runner.report.findings import Blockage, Findings, StepTime, moment, ran
from dbt_runner.report.markup import Markup, tag
from dbt_runner.run_records import NodeResultRow
from dbt_runner.words import duration, one_line

_WIDTH = 1000.0
_LEFT = 64.0
_LETTER = 6.2  # the width of a letter of the labels, in the picture's units
_BAR_LETTER = 5.9  # the same of the names on bars
_LEAST_LETTERS = 6  # a name that is cut shorter says nothing
_MOST_LANES = 64


@dataclass(frozen=True)
class _Band:
    """One attempt of a step on the time axis, seconds since the run's start."""

    label: str
    title: str
    start: float
    end: float
    failed: bool


def steps_strip(found: Findings) -> Markup | None:
    """The attempts of all steps on the run's time axis; None before the first has ended."""
    zero = moment(found.run.started_at)
    bands = list(_bands(found, zero))
    if not bands:
        return None
    axis = _Axis(max(*(band.end for band in bands), moment(found.run.ended_at) - zero if found.run.ended_at else 0.0, 0.001), left=4.0)
    bottom = 34.0
    return _picture(
        "strip",
        "When each step ran",
        "; ".join(band.title for band in bands),
        bottom,
        [_draw_band(band, axis, bottom) for band in bands],
        axis.draw(bottom),
    )


def timeline(found: Findings, time: StepTime) -> Markup:
    """The nodes of a step on its own time axis, from its first node on, a lane for each thread."""
    nodes = [node for node in found.nodes if node.step == time.step and node.started_at and node.ended_at and ran(node)]
    zero = min(moment(node.started_at or "") for node in nodes)
    axis = _Axis(max(*(moment(node.ended_at or "") - zero for node in nodes), 0.001), left=_LEFT)
    lanes = _lanes(nodes)
    number = min(_MOST_LANES, max(lanes.values()) + 1)
    height = 17.0 if number <= 16 else 9.0
    bottom = 2 + number * height
    critical = {node.unique_id for node in time.chain}
    bars = []
    for node in nodes:
        start, end = moment(node.started_at or "") - zero, moment(node.ended_at or "") - zero
        kinds = ("bad" if node.failed else "odd" if node.status == "warn" else "", "path" if node.unique_id in critical else "")
        says = tag("title", f"{one_line(node.name, 100)}: {node.status}, {duration(node.seconds)}")
        left, top, width = axis.x(start), 3 + min(lanes[node.unique_id], number - 1) * height, max(0.8, (end - start) * axis.scale)
        letters = int((width - 8) / _BAR_LETTER) if height > 12 else 0
        bar = {
            "x": _number(left),
            "y": _number(top),
            "width": _number(width),
            "height": _number(height - 2),
            "class_": " ".join(filter(None, kinds)) or None,
        }
        if letters < _LEAST_LETTERS:
            bars.append(tag("rect", says, **bar))
        else:
            name = tag("text", _short(node.name, letters), x=_number(left + 4), y=_number(top + height - 6))
            bars.append(tag("g", says, tag("rect", **bar), name))
    return _picture(
        f"timeline of {time.step}",
        f"When each node of {time.step} ran, by thread",
        f"{len(nodes):,} nodes on {number} threads within {duration(axis.span)}. The table of all nodes holds the same.",
        bottom,
        [tag("line", x1=_LEFT, x2=_WIDTH - 8, y1=_number(2 + i * height), y2=_number(2 + i * height)) for i in range(number + 1)],
        [
            tag("text", f"thread {i + 1}", x=_LEFT - 8, y=_number(2 + i * height + height / 2 + 3.5), class_="lane")
            for i in range(0, number, 1 if height > 12 else 8)
        ],
        tag("g", bars, class_="bars"),
        axis.draw(bottom),
    )


@dataclass(frozen=True)
class _Axis:
    """Seconds from `left` to the picture's right end."""

    span: float
    left: float

    @property
    def scale(self) -> float:
        return (_WIDTH - self.left - 16) / self.span

    def x(self, seconds: float) -> float:
        return self.left + max(0.0, seconds) * self.scale

    def draw(self, bottom: float) -> list[Markup]:
        return [
            tag(
                "g",
                tag("line", x1=_number(self.x(at)), x2=_number(self.x(at)), y1=_number(bottom), y2=_number(bottom + 5)),
                tag("text", "0" if at == 0 else _tick(at), x=_number(self.x(at)), y=_number(bottom + 18), class_="tick"),
            )
            for at in _ticks(self.span)
        ]


def _picture(name: str, title: str, says: str, bottom: float, *parts: object) -> Markup:
    identity = re.sub(r"\W", "-", name)
    picture = tag(
        "svg",
        tag("title", title, id=f"{identity}-title"),
        tag("desc", says, id=f"{identity}-desc"),
        parts,
        viewBox=f"0 0 {_number(_WIDTH)} {_number(bottom + 24)}",
        role="img",
        class_="timeline",
        aria_labelledby=f"{identity}-title {identity}-desc",
    )
    return _scrolling(title, picture)


def _bands(found: Findings, zero: float) -> Iterator[_Band]:
    for outcome in found.sources.detail.outcomes:
        if outcome.started_at and outcome.ended_at:
            label = outcome.step if outcome.attempt == 1 else f"{outcome.step} ({outcome.attempt})"
            how = outcome.error or "succeeded"
            yield _Band(
                label,
                f"{outcome.step}, attempt {outcome.attempt}: {how} after {duration(outcome.seconds)}",
                moment(outcome.started_at) - zero,
                moment(outcome.ended_at) - zero,
                outcome.error is not None,
            )


def _draw_band(band: _Band, axis: _Axis, bottom: float) -> Markup:
    left, right = axis.x(band.start), axis.x(band.end)
    width = max(1.0, right - left)
    letters = int((width - 8) / _LETTER)
    label = band.label if len(band.label) <= letters else f"{band.label[: letters - 1]}…" if letters >= 4 else ""
    return tag(
        "g",
        tag("title", band.title),
        tag(
            "rect", x=_number(left), y=4, width=_number(width), height=_number(bottom - 4), class_="band failed" if band.failed else "band"
        ),
        tag("text", label, x=_number(left + 6), y=_number(bottom / 2 + 6), class_="band-label") if label else None,
    )


def _lanes(nodes: Sequence[NodeResultRow]) -> dict[str, int]:
    """A lane for each node of a step: dbt numbers the threads of each command anew, so its first thread gets the first lane."""
    threads: dict[tuple[int, int], dict[str, int]] = {}
    lanes = {}
    for node in sorted(nodes, key=lambda node: node.started_at or ""):
        of_command = threads.setdefault((node.attempt, node.command), {})
        lanes[node.unique_id] = of_command.setdefault(node.thread or "", len(of_command))
    return lanes


def _tick(seconds: float) -> str:
    """A round moment of an axis: 0.5s, 20s, 5m, 1h 30m."""
    if seconds < 10:
        return f"{seconds:g}s"
    return duration(seconds).replace(" 00s", "").replace(" 00m", "")


def _ticks(span: float) -> list[float]:
    """Six to twelve round moments from 0 on."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200):
        if span / step <= 11:
            return [i * step for i in range(math.floor(span / step) + 1)]
    return [0.0, span]


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _scrolling(label: str, picture: Markup) -> Markup:
    """A picture that is wider than a telephone: it scrolls by itself, also by keyboard."""
    return tag("div", picture, class_="scroll", role="region", aria_label=label, tabindex=0)


# --- what failed, and what that blocked ------------------------------------------------------------------------------


_BOX, _BOX_HEIGHT, _GAP, _ROW, _PASS = 184.0, 42.0, 40.0, 54.0, 24.0


def blocked_graph(graph: Blockage, lineage: Lineage) -> Markup | None:
    """The failed nodes on the left, and to the right of each what waited for it; None when nothing did."""
    if len(graph.layers) < 2:
        return None
    heights = [sum(_ROW if name in graph.statuses else _PASS for name in layer) for layer in graph.layers]
    width = len(graph.layers) * (_BOX + _GAP) - _GAP + 4
    height = max(heights) - (_ROW - _BOX_HEIGHT) + 4
    place: dict[str, tuple[float, float]] = {}  # the left end and the middle
    for column, layer in enumerate(graph.layers):
        top = 2 + (max(heights) - heights[column]) / 2
        for name in layer:
            place[name] = (2 + column * (_BOX + _GAP), top + (_BOX_HEIGHT if name in graph.statuses else _PASS) / 2)
            top += _ROW if name in graph.statuses else _PASS
    picture = tag(
        "svg",
        tag("title", "What failed and what it blocked", id="graph-title"),
        tag("desc", "From left to right: failed nodes, nodes that were skipped because of them, and what people read.", id="graph-desc"),
        [_line([place[name] for name in line]) for line in graph.lines],
        [_box(unique_id, status, place[unique_id], lineage) for unique_id, status in graph.statuses.items() if unique_id in place],
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        width=_number(width),
        height=_number(height),
        role="img",
        class_="graph",
        aria_labelledby="graph-title graph-desc",
    )
    return _scrolling("Graph of what failed and what it blocked", picture)


def _line(places: Sequence[tuple[float, float]]) -> Markup:
    """From the right end of the first box to the left end of the last one, straight through the places between them."""
    (x, y), *rest = places
    x += _BOX
    path = f"M{_number(x)} {_number(y)}"
    for i, (left, middle) in enumerate(rest):
        bend = (left - x) / 2
        path += f"C{_number(x + bend)} {_number(y)} {_number(left - bend)} {_number(middle)} {_number(left)} {_number(middle)}"
        x, y = left, middle
        if i < len(rest) - 1:
            x += _BOX
            path += f"H{_number(x)}"
    return tag("path", d=path, class_="edge")


def _box(unique_id: str, status: str, at: tuple[float, float], lineage: Lineage) -> Markup:
    known = lineage.get(unique_id)
    name = known.name if known else unique_id
    kind = known.resource_type.replace("_", " ") if known else ""
    if known and known.is_test and len(known.parents) == 1:
        kind = _short(f"{kind} of {known.parents[0].rpartition('.')[2]}", 22)
    says = {"skipped": "blocked", "exposure": "reads it"}.get(status, status)
    x, y = at[0], at[1] - _BOX_HEIGHT / 2
    return tag(
        "g",
        tag("title", f"{unique_id}: {status}"),
        tag("rect", x=_number(x), y=_number(y), width=_number(_BOX), height=_number(_BOX_HEIGHT), rx=5),
        tag("text", _short(name), x=_number(x + 10), y=_number(y + 18), class_="name"),
        tag("text", f"{kind}, {says}" if kind else says, x=_number(x + 10), y=_number(y + 34), class_="kind"),
        class_={"skipped": "box", "exposure": "box seen"}.get(status, "box bad"),
    )


def _short(name: str, most: int = 20) -> str:
    """Both ends of a long name: names of one project often begin alike."""
    line = one_line(name, 500)
    return line if len(line) <= most else f"{line[: most // 2 - 1]}…{line[-(most // 2) :]}"
