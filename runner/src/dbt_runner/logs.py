"""The container's log: one JSON object a line on stdout, as CloudWatch Logs Insights reads it best."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

from dbt_runner.masking import Mask
from dbt_runner.store import now


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
        said = {"message": self._mask.text(message), **self._context, **self._mask.tree(fields)}
        line = json.dumps({"time": now(), "level": level, **said}, default=lambda value: self._mask.text(str(value)))
        with self._lock:
            print(line, file=self._stream, flush=True)
