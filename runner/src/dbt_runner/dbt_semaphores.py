"""dbt where the kernel has no shared semaphores, as on AWS Lambda, which mounts no /dev/shm.

dbt takes its locks (of the manifest, of connections, of its thread pool's queue) from multiprocessing, but uses them among threads
of one process only. Where a semaphore cannot be made, locks of threading do, and nothing else is changed. This has to happen before
dbt is imported: its Manifest class keeps the method that makes its lock. tests/runner/test_lambda_worker.py fails when dbt no longer
needs this, or needs more.
"""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing.context import BaseContext


def replace_missing() -> bool:
    """Has multiprocessing give out locks of threading if it has none of its own; whether that was so."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError):
        # ENOSYS from sem_open, or a Python that was built without it. https://docs.python.org/3/library/multiprocessing.html
        BaseContext.Lock = lambda _context: threading.Lock()  # type: ignore[method-assign, assignment, return-value]
        BaseContext.RLock = lambda _context: threading.RLock()  # type: ignore[method-assign, assignment, return-value]
        return True
    return False
