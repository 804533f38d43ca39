"""SIGTERM and SIGINT as one question: has somebody asked this attempt to stop?

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

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """Takes over SIGTERM and SIGINT of the main thread while it is entered.

    Attributes:
        requested: whether one of them has arrived.
    """

    def __init__(self) -> None:
        self.requested = False
        self._raising = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
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
        self.requested = True
        if self._raising:
            self._raising = False
            raise _interrupted(signal.Signals(number).name)


def _interrupted(why: str) -> TypedError:
    return TypedError(INTERRUPTED, "the task was asked to stop while dbt was not running", why)
