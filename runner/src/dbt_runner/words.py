"""How numbers, times and other people's texts are written for people: on a terminal, in a report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from dbt_runner.events import BAD_STATUSES

# What a warehouse's message may hold and a terminal would obey: whole escape sequences (CSI; OSC, DCS and other strings up to their end,
# in seven and in eight bits) and control characters, among them the carriage return and the backspace, which write over what is there.
# And what changes how other characters are shown, or is not shown at all: marks, embeddings and isolates of direction, separators
# that are no line breaks, tags, byte order marks. Tabs and line breaks stay, and so do the joiners of scripts and emoji.
# https://www.ecma-international.org/publications-and-standards/standards/ecma-48/ https://www.unicode.org/reports/tr9/
_CONTROLS = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]+[0-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    r"|[\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# Half of a character, which no stream can encode.
_SURROGATES = re.compile("[\ud800-\udfff]")
# Statuses that are neither good nor bad: somebody should know, nobody has to act.
ODD_STATUSES = frozenset({"SKIPPED", "warn", "skipped"})


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 30ms, 0.4s, 12s, 2m 05s, 1h 03m, 2d 01h; empty for None."""
    if seconds is None:
        return ""
    if 0.0005 <= seconds < 0.095:
        return f"{seconds * 1000:.0f}ms"
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
    order = sorted(counts, key=lambda status: (status not in BAD_STATUSES, status not in ODD_STATUSES, status))
    return ", ".join(f"{counts[status]:,} {status}" for status in order if counts[status])


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: 1 node, 2 nodes, 1,234 nodes."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def clean(text: str) -> str:
    """A text without what a terminal would obey or hide; tabs become four spaces, halves of characters the replacement character."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text)).expandtabs(4)


def one_line(text: str | None, limit: int) -> str:
    """The first `limit` characters of a text, on one line."""
    line = " ".join(clean(text or "").split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
