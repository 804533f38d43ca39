"""What /proc says of a process that may be gone by the time it is asked."""

from __future__ import annotations

import os
from pathlib import Path


def status_of(pid: int) -> tuple[str, int] | None:
    """The state of a process (R, S, Z, ...) and its parent's id; None when it is gone. Where there is no /proc, S and 0."""
    try:
        os.kill(pid, 0)
        if not Path("/proc/self/stat").exists():
            return "S", 0
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, FileNotFoundError):
        return None
    return state, int(parent)


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended: a zombie has."""
    status = status_of(pid)
    return status is not None and status[0] != "Z"
