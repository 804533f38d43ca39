"""Evidence of memory that ran out: what the kernel counted, and the limit that it holds processes to.

A SIGKILL alone says nothing: an operator, the platform and the team's own code send the same signal. On Linux only; elsewhere nothing is
known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# A cgroup without a limit says so by "max" (version 2) or by a number beyond any machine (version 1).
_NO_LIMIT = 1 << 60
# Resident memory never reaches the limit itself: page tables, the page cache and the supervisor count, too.
_NEAR = 0.9


@dataclass(frozen=True)
class _Group:
    """The memory cgroup of this process, in the files of its version.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """

    folder: Path
    events: str
    limit: str

    def kills(self) -> int | None:
        return _counter(self.folder / self.events, "oom_kill")

    def limit_mib(self) -> int | None:
        limit = _number(self.folder / self.limit)
        return limit >> 20 if limit is not None and limit < _NO_LIMIT else None


class OutOfMemoryKills:
    """Counts the kernel's out-of-memory kills around this process, from now on."""

    def __init__(self) -> None:
        self._before = _kills()

    def since(self) -> int | None:
        """How many there were since; None where the kernel does not tell."""
        where, number = _kills()
        if number is None:
            return None
        known, before = self._before
        return number - before if where == known and before is not None else number


def limit_mib() -> int | None:
    """The memory, in MiB, that this process and its children may use together; None where the kernel does not tell.

    Without a limit of their own, it is that of the machine: a task of Fargate and a function of Lambda each have one to themselves.
    """
    limits = [limit for group in _groups() if (limit := group.limit_mib()) is not None]
    total = _counter(Path("/proc/meminfo"), "MemTotal:")
    return min([*limits, *([total >> 10] if total is not None else [])], default=None)


def ran_out(kills: int | None, peak_mib: int, limit_mib: int | None) -> bool:
    """Whether a process that got SIGKILL was killed for its memory.

    Args:
        kills: what `OutOfMemoryKills.since` says.
        peak_mib: the most resident memory that the process had.
        limit_mib: what `limit_mib` says.
    """
    return bool(kills) or (limit_mib is not None and peak_mib >= _NEAR * limit_mib)


def _kills() -> tuple[Path | None, int | None]:
    """The kernel's count, and where it is from. The whole machine's count only where no cgroup has one."""
    for group in _groups():
        if (number := group.kills()) is not None:
            return group.folder, number
    everywhere = Path("/proc/vmstat")
    return everywhere, _counter(everywhere, "oom_kill")


def _groups() -> list[_Group]:
    """The cgroups that may be this process's: as /proc names it, and as a container without a namespace of its own sees it."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += [_Group(folder, "memory.events", "memory.max") for folder in (_CGROUPS / path.lstrip("/"), _CGROUPS)]
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            found += [_Group(folder, "memory.oom_control", "memory.limit_in_bytes") for folder in (root / path.lstrip("/"), root)]
    return found


def _counter(path: Path, name: str) -> int | None:
    """A number of a file that has a name and a number a line."""
    try:
        fields = (line.split() for line in path.read_text().splitlines())
        return next((int(line[1]) for line in fields if line[:1] == [name] and len(line) > 1), None)
    except (OSError, ValueError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
