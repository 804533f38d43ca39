"""Reads files that the worker left. The worker runs the team's code, so each file can be anything, and can change while it is read.

Only regular files within a size limit are read. Links are not followed: the supervisor resolves `/proc/self` to itself, where the worker
cannot look. Opening never blocks, so that a FIFO or a device cannot stop the supervisor.
https://man7.org/linux/man-pages/man2/open.2.html
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dbt_runner import memory

MIB = 1 << 20
_CHUNK = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unreadable(Exception):
    """A file that is not read, with the reason in words that are safe to store."""


def largest_file() -> int:
    """Bytes of the largest file that is read: an eighth of the memory, between 32 and 128 MiB. A manifest of 5,000 models has 22 MB.

    Masking holds a file and its text at once. Without a limit, one sparse file ends the supervisor before it has written the outcome.
    """
    return min(128 * MIB, max(32 * MIB, _memory() // 8))


def largest_document() -> int:
    """Bytes of the largest JSON file that is parsed: a thirty-second of the memory, between 16 and 128 MiB. `[[],[],...` grows 24-fold."""
    return min(128 * MIB, max(16 * MIB, _memory() // 32))


def copy(path: Path, target: BinaryIO, most: int) -> int:
    """Appends a file's content to `target`, and returns how many bytes those were.

    The file's folder must not be a link either.

    Raises:
        Unreadable: it is no regular file, too large, or changed meanwhile. `target` may hold a part of it.
        FileNotFoundError: there is no such file.
    """
    descriptor = _open(path)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Unreadable("not a regular file")
        if before.st_size > most:
            raise Unreadable(f"{before.st_size:,} bytes, more than {most:,}")
        left = most
        while chunk := os.read(descriptor, min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise Unreadable(f"more than {most:,} bytes")
            target.write(chunk)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unreadable("changed while it was read")
    return most - left


def read(path: Path, most: int) -> bytes:
    """A file's content, as `copy` takes it."""
    import io

    body = io.BytesIO()
    copy(path, body, most)
    return body.getvalue()


def read_object(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; an empty one where there is none that can be read."""
    try:
        document = json.loads(read(path, largest_document()))
    except (OSError, Unreadable, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _open(path: Path) -> int:
    try:
        folder = os.open(path.parent, _FLAGS | os.O_DIRECTORY)
    except NotADirectoryError as exc:
        # O_DIRECTORY with O_NOFOLLOW says this of a link, too.
        raise Unreadable("its folder is none") from exc
    try:
        return os.open(path.name, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as exc:
        # ELOOP for a link, ENXIO for a socket, EACCES for a file without permissions.
        raise Unreadable("a link" if os.path.islink(path) else f"cannot be opened ({os.strerror(exc.errno or 0)})") from exc
    finally:
        os.close(folder)


def _memory() -> int:
    return (memory.limit_mib() or 1024) * MIB
