"""What another process of the same user can change about this one, and how it is put right again.

The kernel lets a process set the resource limits, the priority and the processors of any other one of its user, whether or not that one
may be looked into: PR_SET_DUMPABLE is no matter there. https://man7.org/linux/man-pages/man2/prlimit.2.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LIMITS = tuple(sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}))
# Neither glibc nor Python has these calls: https://man7.org/linux/man-pages/man2/ioprio_set.2.html
_IO_PRIORITY = {"x86_64": (251, 252), "aarch64": (30, 31)}.get(platform.machine()) if sys.platform == "linux" else None
_IOPRIO_WHO_PROCESS = 1


class Changed(Exception):
    """Something was changed and could not be put right; the message says what."""


@dataclass(frozen=True)
class ProcessState:
    """The state of this process at one moment: compare it later with `restore`."""

    limits: tuple[tuple[int, int], ...]
    nice: int
    io_priority: int
    scheduler: tuple[int, int]
    processors: frozenset[int]

    @classmethod
    def now(cls) -> ProcessState:
        """That of this process, on Linux; elsewhere of its limits and priority only."""
        linux = sys.platform == "linux"
        return cls(
            limits=tuple(resource.getrlimit(limit) for limit in _LIMITS),
            nice=os.getpriority(os.PRIO_PROCESS, 0),
            io_priority=_io_priority(),
            scheduler=(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) if linux else (0, 0),
            processors=frozenset(os.sched_getaffinity(0)) if linux else frozenset(),
        )

    def restore(self) -> None:
        """Puts right what differs. A limit's hard value and a priority that were lowered need rights that this process does not have.

        Raises:
            Changed: something differs still.
        """
        wrong = self._differences()
        for _, put_right in wrong:
            with contextlib.suppress(OSError, ValueError):
                put_right()
        if wrong and (left := self._differences()):
            raise Changed(f"another process changed this one's {', '.join(what for what, _ in left)}")

    def _differences(self) -> list[tuple[str, Callable[[], Any]]]:
        found = ProcessState.now()
        differences: list[tuple[str, Callable[[], Any]]] = [
            (f"resource limit {limit}", lambda limit=limit, value=value: resource.setrlimit(limit, value))  # type: ignore[misc]
            for limit, value, is_now in zip(_LIMITS, self.limits, found.limits, strict=True)
            if value != is_now
        ]
        # The scheduler comes first: who is idle may not always change its priority.
        if found.scheduler != self.scheduler:
            policy, priority = self.scheduler
            differences.append(("scheduler", lambda: os.sched_setscheduler(0, policy, os.sched_param(priority))))
        if found.nice != self.nice:
            differences.append(("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, self.nice)))
        if found.io_priority != self.io_priority:
            differences.append(("priority of input and output", lambda: _io_priority(self.io_priority)))
        if found.processors != self.processors:
            differences.append(("processors", lambda: os.sched_setaffinity(0, self.processors)))
        return differences


def _io_priority(new: int | None = None) -> int:
    """That of this process, after it was set where a new one is given; 0 where the number of the call is not known."""
    if _IO_PRIORITY is None:
        return 0
    put, get = _IO_PRIORITY
    call = ctypes.CDLL(None, use_errno=True).syscall
    if new is not None:
        call(put, _IOPRIO_WHO_PROCESS, 0, new)
    found: int = call(get, _IOPRIO_WHO_PROCESS, 0)
    return found
