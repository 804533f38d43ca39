"""The container's log: one JSON object a line on stdout, as CloudWatch Logs Insights reads it best."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

from dbt_runner.store import now


class JsonLog:
    """Writes log lines that all carry the same context (run, step, attempt). Thread-safe.

    Args:
        context: fields of every line.
        stream: where the lines go; stdout when None.
    """

    def __init__(self, context: Mapping[str, Any], stream: TextIO | None = None) -> None:
        self._context = dict(context)
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def info(self, message: str, **fields: Any) -> None:
        self.write("info", message, **fields)

    def warning(self, message: str, **fields: Any) -> None:
        self.write("warning", message, **fields)

    def error(self, message: str, **fields: Any) -> None:
        self.write("error", message, **fields)

    def write(self, level: str, message: str, **fields: Any) -> None:
        line = json.dumps({"time": now(), "level": level, "message": message, **self._context, **fields}, default=str)
        with self._lock:
            print(line, file=self._stream, flush=True)
