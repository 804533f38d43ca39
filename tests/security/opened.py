"""Which files of a folder any process opens: by inotify, so that a file that is read and not executed is seen, too."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

# https://man7.org/linux/man-pages/man7/inotify.7.html
_IN_OPEN = 0x20
_HEADER = struct.Struct("iIII")


class Opened:
    """The files that have been opened since they were watched, under the names that were given for them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._names: dict[int, str] = {}
        self._found: set[str] = set()

    def watch(self, files: Iterable[tuple[str, Path]]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        for name, path in files:
            number = libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN)
            if number < 0:
                raise OSError(ctypes.get_errno(), f"inotify_add_watch({path})")
            self._names[number] = name

    def names(self) -> set[str]:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._descriptor, 1 << 16):
                at = 0
                while at < len(data):
                    number, mask, _, length = _HEADER.unpack_from(data, at)
                    at += _HEADER.size + length
                    if mask & _IN_OPEN:
                        self._found.add(self._names[number])
        return self._found


@contextlib.contextmanager
def opened() -> Iterator[Opened]:
    descriptor = ctypes.CDLL(None, use_errno=True).inotify_init1(os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        yield Opened(descriptor)
    finally:
        os.close(descriptor)
