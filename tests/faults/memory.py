"""A real limit of memory for processes: a cgroup where this machine lets us make one, so that the kernel itself kills."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limit:
    """A limit that holds for every process whose id is written to `procs`, and for its children from then on.

    Attributes:
        by: who kills: the kernel, or a watcher that does as it would.
    """

    procs: Path
    by: str


@contextlib.contextmanager
def limited(size: int) -> Iterator[Limit]:
    """A limit of so many bytes. Where no cgroup can be made (no root, or none of memory), a watcher kills what grows beyond it."""
    group = _group(size)
    if group is None:
        with _watched(size) as limit:
            yield limit
        return
    try:
        yield Limit(group / "cgroup.procs", "the kernel")
    finally:
        _remove(group)


def _group(size: int) -> Path | None:
    """A new cgroup with the limit; None where there can be none."""
    for parent, limit, swap in (
        # https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
        (_CGROUPS / "memory", "memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", size)),
        # https://docs.kernel.org/admin-guide/cgroup-v2.html
        (_CGROUPS, "memory.max", ("memory.swap.max", 0)),
    ):
        group = parent / f"dbt-runner-test-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(size))
            with contextlib.suppress(OSError):
                (group / swap[0]).write_text(str(swap[1]))
            if int((group / limit).read_text()) <= size:
                return group
        except OSError:
            pass
        _remove(group)
    return None


def _remove(group: Path) -> None:
    """A group can be removed when its processes are gone."""
    for _ in range(200):
        try:
            group.rmdir()
            return
        except OSError:
            time.sleep(0.02)


@contextlib.contextmanager
def _watched(size: int) -> Iterator[Limit]:
    with tempfile.TemporaryDirectory() as folder:
        procs, stop = Path(folder, "procs"), threading.Event()
        procs.touch()

        def watch() -> None:
            while not stop.wait(0.01):
                known = {int(line) for line in procs.read_text().split()}
                used = {pid: _resident(pid) for pid in known}
                if sum(used.values()) > size:
                    # The kernel picks the largest, too.
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(max(used, key=lambda pid: used[pid]), signal.SIGKILL)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield Limit(procs, "a watcher")
        finally:
            stop.set()
            watcher.join()


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
