"""How a process of the image starts, for the stand-ins of ECS and Lambda.

What an applied task definition or function says is what starts here, word for word, but for the path of the interpreter, which is
this one's. The constants are what the module writes there; `tests/terraform` holds its plans against them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_PYTHON = "/opt/dbt-runner/bin/python3"
_ISOLATED = (_PYTHON, "-I", "-B", "-u")
TASK_ENTRY_POINT = (*_ISOLATED, "-m", "dbt_runner")
FUNCTION_ENTRY_POINT = (*_ISOLATED, "-m", "awslambdaric")
FUNCTION_COMMAND = ("dbt_runner.lambda_handler.handler",)
WORKING_DIRECTORY = "/"
HOME = "/nonexistent"


def on_this_machine(command: Sequence[str]) -> list[str]:
    """A command line of the image as this machine can start it."""
    return [sys.executable if index == 0 and word == _PYTHON else word for index, word in enumerate(command)]
