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
_QUICK_ROUNDS = 200
# Where others than a run's processes fork meanwhile, so that no look is sure to have seen all.
_EMPTY_LOOKS = 20


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


def end(seconds: float = _SECONDS) -> int:
    """Kills all descendants of this process, which adopts orphans, and takes their exit status.

    It ends when the kernel knows of no child any more: what /proc lists may be over by the time it is read, and what was forked meanwhile
    is not in the list.

    Args:
        seconds: for how long to try.

    Returns:
        How many were found running.

    Raises:
        StillRunning: some are left after that time.
    """
    until = time.monotonic() + seconds
    found: set[int] = set()
    before: set[int] = set()
    while _have_children():
        for _ in range(_QUICK_ROUNDS):
            found |= (children := _children())
            _send(signal.SIGKILL, children)
            if not _have_children():
                return len(found)
        found |= (running := _below(os.getpid()))
        _stop_and_kill(running)
        if time.monotonic() > until:
            raise StillRunning(f"processes {sorted(running)[:10]} could not be ended")
        if running <= before:
            time.sleep(_LOOK_AGAIN_SECONDS)
        before = running
    return len(found)


def end_others(root: int, keep: int, only: Callable[[int], bool], seconds: float = _SECONDS) -> int:
    """Kills descendants of another process.

    Args:
        root: of the tree.
        keep: a process that stays, with all its descendants.
        only: whether a process is killed; called with its number.
        seconds: for how long to try.

    Returns:
        How many were found running.

    Raises:
        StillRunning: some are left after that time.
    """
    until = time.monotonic() + seconds
    found: set[int] = set()
    empty = 0
    while empty < _EMPTY_LOOKS:
        newest = _newest()
        if running := set(filter(only, _below(root, keep))):
            empty = 0
            found |= running
            _stop_and_kill(running)
            if time.monotonic() > until:
                raise StillRunning(f"processes {sorted(running)[:10]} could not be ended")
        elif newest is not None and newest == _newest():
            break  # nothing was forked during the look, so it has seen all
        else:
            empty += 1
    return len(found)


def _stop_and_kill(running: set[int]) -> None:
    """Stops all of them before it kills one, so that none can go on starting others, and kills all before any is waited for: the status of
    a traced process is not to be had before its tracer has ended.
    """
    _send(signal.SIGSTOP, running)
    _send(signal.SIGKILL, running)


def _send(number: signal.Signals, processes: set[int]) -> None:
    for pid in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _have_children() -> bool:
    """Whether this process has a child, after it has taken the status of those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _children() -> set[int]:
    """Those of this process; none where the kernel keeps no such list. It is read in a few microseconds, so that a process which forks
    and ends, again and again, is met before it has done so.

    https://man7.org/linux/man-pages/man5/proc_pid_task_tid_children.5.html
    """
    found: set[int] = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(map(int, listed.read_text().split()))
    return found


def _newest() -> int | None:
    """The number of the process that was created last; None where the kernel does not say.

    https://man7.org/linux/man-pages/man5/proc_loadavg.5.html
    """
    try:
        return int(Path("/proc/loadavg").read_text().split()[-1])
    except (OSError, ValueError, IndexError):
        return None


def _below(root: int, keep: int | None = None) -> set[int]:
    """The descendants of a process that have not ended, without `keep` and its descendants."""
    parents, ended = {}, set()
    for pid, parent, is_over in _processes():
        parents[pid] = parent
        if is_over:
            ended.add(pid)
    found = set()
    for pid in parents:
        line = pid
        while line in parents and line not in (root, keep):
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
