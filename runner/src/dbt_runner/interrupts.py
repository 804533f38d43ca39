"""SIGTERM and SIGINT as one question: has somebody asked this attempt to stop? And SIGALRM as another: is its time over?

Reading a release may be broken off at any point; writing the outcome may not. So a signal is only remembered, except where
the code says that it may raise at once.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

from dbt_runner.errors import INTERRUPTED, TypedError

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


class Interrupts:
    """Takes over SIGTERM, SIGINT and SIGALRM of the main thread while it is entered.

    Args:
        seconds: when this time is over, counted from entering, that is an interrupt of its own; None for no such limit.

    Attributes:
        requested: whether the attempt has to stop, for whichever reason.
        expired: whether that is because its time is over.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self.requested = False
        self.expired = False
        self._raising = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        if self._seconds is not None:
            # A timer of zero is none.
            signal.setitimer(signal.ITIMER_REAL, max(self._seconds, 0.001))
        return self

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, a signal raises where the code stands, once. One that arrived before raises on entering.

        Raises:
            TypedError: Dbt.Interrupted.
        """
        self._raising = True
        try:
            if self.requested:
                raise _interrupted("an earlier signal")
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        # What came first is why; dbt is being stopped by then.
        self.expired = self.expired or (number == signal.SIGALRM and not self.requested)
        self.requested = True
        if self._raising:
            self._raising = False
            raise _interrupted(signal.Signals(number).name)


def _interrupted(why: str) -> TypedError:
    return TypedError(INTERRUPTED, "the attempt was asked to stop, or its time was over, while dbt was not running", why)
