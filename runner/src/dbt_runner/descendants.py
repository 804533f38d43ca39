"""The processes that a run leaves behind: found, whoever their parent was, and ended. On Linux.

A process whose parent ends becomes a child of the nearest ancestor that adopts orphans. So everything that a worker has ever started, in
whatever session or group, stays below the process that called `adopt_orphans` as long as that one lives. What outlives it is known by a
mark that no process can take off.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
# A limit that Linux has kept and not used since 2.4: children inherit it, and none can raise it again.
# https://man7.org/linux/man-pages/man2/getrlimit.2.html
_RLIMIT_LOCKS = 10
_MARKED = re.compile(r"^Max file locks +0 +0 ", re.MULTILINE)
_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.01


class StillRunning(Exception):
    """Processes that could not be ended in time; the message names them."""


def adopt_orphans() -> None:
    """Makes every descendant whose parent ends a child of this process. On Linux only.

    https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def mark(pid: int) -> None:
    """Marks a child of this process, and with it all that it will start. On Linux only."""
    if sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, _RLIMIT_LOCKS, (0, 0))


def is_marked(pid: int) -> bool:
    """Whether a process descends from one that was marked."""
    try:
        return _MARKED.search(Path(f"/proc/{pid}/limits").read_text()) is not None
    except OSError:
        return False


def end(
    root: int | None = None, keep: frozenset[int] = frozenset(), only: Callable[[int], bool] = lambda _: True, seconds: float = _SECONDS
) -> int:
    """Kills all descendants of a process, and takes the exit status of those that are children of this one.

    Each round stops all of them before it kills one, so that none can go on starting others, and kills all before it waits for one: the
    status of a traced process is not to be had before its tracer has ended.

    Args:
        root: of the tree; this process where it is None.
        keep: processes that stay, with all their descendants.
        only: of the others, those of which this is true.
        seconds: for how long to try.

    Returns:
        How many were found running.

    Raises:
        StillRunning: some are left after that time.
    """
    root = os.getpid() if root is None else root
    until = time.monotonic() + seconds
    found: set[int] = set()
    while running := set(filter(only, _below(root, keep))):
        found |= running
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in running:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        _reap(root)
        if time.monotonic() > until:
            raise StillRunning(f"processes {sorted(running)[:10]} could not be ended")
        if _below(root, keep) & running:
            time.sleep(_LOOK_AGAIN_SECONDS)
    _reap(root)
    return len(found)


def _reap(root: int) -> None:
    if root == os.getpid():
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _below(root: int, keep: frozenset[int]) -> set[int]:
    """The descendants of a process that have not ended."""
    parents, ended = {}, set()
    for pid, parent, is_over in _processes():
        parents[pid] = parent
        if is_over:
            ended.add(pid)
    found = set()
    for pid in parents:
        line = pid
        while line in parents and line != root and line not in keep:
            line = parents[line]
        if line == root and pid != root and pid not in ended:
            found.add(pid)
    return found


def _processes() -> Iterator[tuple[int, int, bool]]:
    """Each process's number, its parent's, and whether nothing but its status is left of it.

    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    """
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything.
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            state, parent, threads = fields[0], int(fields[1]), int(fields[17])
            # The first thread of a process may end before the others do: then the process is called a zombie, and works.
            yield int(status.parent.name), parent, state in "ZX" and threads <= 1
