"""Starts the patched ministack; its settings come in the environment, and it ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    if sys.platform == "linux":
        # A test run that is killed leaves no server behind.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Sandboxes of functions run the checkout's interpreter, not that of this environment.
    sys.executable = os.environ["SECOND_AWS_PYTHON"]

    from ministack import app

    from second_aws.server import functions, permissions, states, tasks

    for part in (states, tasks, functions, permissions):
        part.install()
    app.main()


if __name__ == "__main__":
    main()
