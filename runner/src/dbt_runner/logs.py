"""The container's log: one JSON object a line on stdout, as CloudWatch Logs Insights reads it best.

A line has a limit, because Fargate splits longer ones, and half of a JSON object is found by no query. What does not fit is continued
on further lines, so that nothing is lost.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from dbt_runner.masking import Mask
from dbt_runner.store import now
from dbt_runner.texts import fit_tree

# Bytes of a line with its line break. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_awslogs.html
MAX_LINE = 200_000
# Bytes of a list's items on one line of `listed`, so that they stay JSON.
_MAX_ITEMS = 100_000
# Characters of a continued line's message that each of its lines repeats.
_MAX_TITLE = 1_000
# Of a continued line, what stands beside the piece itself: time, level, context and title, escaped.
_ENVELOPE = 20_000


class JsonLog:
    """Writes log lines that all carry the same context (run, step, attempt). Thread-safe.

    Args:
        context: fields of every line.
        stream: where the lines go; stdout when None.
        mask: what must not be in a line.
    """

    def __init__(self, context: Mapping[str, Any], stream: TextIO | None = None, mask: Mask | None = None) -> None:
        self._context = dict(context)
        self._mask = mask or Mask()
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def info(self, message: str, **fields: Any) -> None:
        self.write("info", message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.write("warning", message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        self.write("error", message, **fields)

    def write(self, level: str, message: str, **fields: Any) -> None:
        """Writes one line, or several where it is longer than MAX_LINE.

        Those have `part` (from 1) and `parts`. Their `continued`, put together, are the JSON text of the whole line.
        """
        about = {"time": now(), "level": level}
        said = {"message": self._mask.text(message), **self._context, **self._mask.tree(fields)}
        # json.dumps escapes what is not ASCII, so that characters are bytes.
        line = json.dumps({**about, **fit_tree(said)}, default=lambda value: fit_tree(self._mask.text(str(value))))
        lines = [line] if len(line) < MAX_LINE else list(self._continued(about, str(said["message"]), line))
        with self._lock:
            print(*lines, sep="\n", file=self._stream, flush=True)

    def listed(self, level: str, message: str, name: str, items: Sequence[Any], **fields: Any) -> None:
        """Writes a list of JSON values, as `name`, on as many lines as it takes. None of it is lost."""
        chunks: list[list[Any]] = [[]]
        size = 0
        for item in items:
            length = len(json.dumps(item, default=str))
            if chunks[-1] and size + length > _MAX_ITEMS:
                chunks.append([])
                size = 0
            chunks[-1].append(item)
            size += length
        for part, chunk in enumerate(chunks, 1):
            place = {"part": part, "parts": len(chunks)} if len(chunks) > 1 else {}
            self.write(level, message, **fields, **place, **{name: chunk})

    def _continued(self, about: Mapping[str, Any], message: str, line: str) -> Iterator[str]:
        # Half of MAX_LINE: a piece is JSON already, whose quotes and backslashes are escaped once more.
        step = (MAX_LINE - _ENVELOPE) // 2
        pieces = [line[start : start + step] for start in range(0, len(line), step)]
        context = {name: str(value)[:200] for name, value in self._context.items()}
        for part, piece in enumerate(pieces, 1):
            title = fit_tree(message[:_MAX_TITLE])
            yield json.dumps({**about, "message": title, **context, "part": part, "parts": len(pieces), "continued": piece})
