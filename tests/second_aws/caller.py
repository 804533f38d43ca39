"""Calls dbt-runner again and again in one process, under whatever credentials its environment holds.

Reads a JSON array of arguments from each line of standard input, and answers with one line of JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from unittest.mock import patch

from dbt_runner.cli import main


def call(arguments: list[str]) -> dict[str, object]:
    """The exit code and what was said, as the console script has it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), patch.object(sys, "argv", ["dbt-runner", *arguments]):
        try:
            main()
        except SystemExit as exc:
            code = exc.code or 0
    said = {name: stream.buffer.getvalue().decode() for name, stream in (("out", out), ("err", err))}
    return {"arguments": arguments, "code": code, **said}


if __name__ == "__main__":
    decisions = os.environ["SECOND_AWS_DECISIONS"]
    for line in sys.stdin:
        before = os.path.getsize(decisions)
        answer = call(json.loads(line))
        print(json.dumps({**answer, "decisions": [before, os.path.getsize(decisions)]}), flush=True)
