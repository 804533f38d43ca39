"""Runs a process without any capability, as the image's user runs.

CI runs as root, whom mode bits do not stop. A process whose bounding set is empty keeps root's files and loses CAP_DAC_OVERRIDE,
CAP_KILL, CAP_SYS_PTRACE and all others, so that it meets the same refusals as the image's user.
https://man7.org/linux/man-pages/man7/capabilities.7.html
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

_WITHOUT_CAPABILITIES = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


def command(arguments: Sequence[str]) -> list[str]:
    """The command line that runs `arguments` without capabilities.

    Raises:
        RuntimeError: the caller is root and setpriv (util-linux) is not installed; without it the test would prove nothing.
    """
    if os.geteuid() != 0:
        return list(arguments)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RuntimeError("setpriv is not on PATH: install util-linux, or run the tests as a user other than root")
    return [setpriv, *_WITHOUT_CAPABILITIES, *arguments]
