"""What leaves a command through its streams: text that neither a terminal nor a CI system obeys.

The commands print what others wrote: messages of dbt and the warehouse, names in a release, branches of git, items of the audit
store. They all come by here, errors of click and tracebacks included, because the streams themselves are guarded. Only rich's own control
codes on a terminal pass by, and rich is given cleaned text (terminal.py).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from dbt_runner.words import clean

# GitHub Actions obeys a line that begins with ::, GitHub and Azure Pipelines obey ##[ and ##vso[ anywhere in it, TeamCity ##teamcity[.
# https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
_LINE_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)
_COMMAND = re.compile(r"#(?=#\w*\[)")


def harmless(text: str) -> str:
    """A text that terminals and CI systems only show: no control characters, and a space in what would be a command to CI."""
    return _COMMAND.sub("# ", _LINE_COMMAND.sub(r"\1: ", clean(text)))


def exact_json(value: Any, *, indent: int | None = 2) -> str:
    """JSON with the value as it is, in characters that `harmless` leaves alone."""
    text = json.dumps(value, indent=indent)
    # What is not ASCII is escaped already, and so are all control characters but this one. ## stands in strings only.
    return text.replace("\x7f", "\\u007f").replace("##", "#\\u0023")


class Guarded(io.TextIOBase):
    """A text stream that passes on only what is harmless. It has no `buffer`, so that nothing writes past it by accident.

    Attributes:
        raw: the stream behind it, for rich's own control codes and for files that are printed as they are.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw
        self._blank = True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.raw.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.raw.errors

    def write(self, text: str, /) -> int:
        # A piece that goes on with a line begins none, for those that read lines.
        self.raw.write(harmless(text) if self._blank else harmless(f"x{text}")[1:])
        _, line_break, line = text.rpartition("\n")
        self._blank = (self._blank or bool(line_break)) and not line.strip()
        return len(text)

    def flush(self) -> None:
        self.raw.flush()

    def isatty(self) -> bool:
        return self.raw.isatty()

    def fileno(self) -> int:
        return self.raw.fileno()

    def writable(self) -> bool:
        return True


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Guards standard output and standard error in this block."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Guarded(before[0]), Guarded(before[1])
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout, sys.stderr = before


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind a guarded one, or the stream itself."""
    return stream.raw if isinstance(stream, Guarded) else stream
