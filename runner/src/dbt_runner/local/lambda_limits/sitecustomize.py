"""In every Python process of a local Lambda sandbox: a semaphore that cannot be made, as where there is no /dev/shm.

Python imports it by its name from PYTHONPATH, before any code of the process runs.
"""

from __future__ import annotations

import _multiprocessing  # type: ignore[import-not-found]  # C, without types
import errno
import os


class SemLock:
    """What `_multiprocessing.SemLock` is on Lambda: there to be imported, and refused by the kernel."""

    SEM_VALUE_MAX = 2147483647

    def __init__(self, *_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


_multiprocessing.SemLock = SemLock
