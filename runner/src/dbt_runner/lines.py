"""Cuts a stream of bytes into lines with bounded memory and in time linear to its length."""

from __future__ import annotations


class Lines:
    """The lines of one stream.

    Args:
        most: bytes of a line. Of a longer one everything after the limit is dropped, up to its end.
        whole: a longer line is dropped in full: a part of it means nothing.

    Attributes:
        cut: how many lines were longer.
    """

    def __init__(self, most: int, *, whole: bool) -> None:
        self._most = most
        self._whole = whole
        self._parts: list[bytes] = []
        self._size = 0
        self.cut = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in a chunk, without their line breaks; an empty chunk ends the stream."""
        if not chunk:
            return self._end() if self._size else []
        first, *others = chunk.split(b"\n")
        self._add(first)
        if not others:
            return []
        lines = self._end()
        for line in others[:-1]:
            self._add(line)
            lines += self._end()
        self._add(others[-1])
        return lines

    def _add(self, part: bytes) -> None:
        room = self._most - self._size
        if part and room > 0:
            self._parts.append(part[:room])
        self._size += len(part)

    def _end(self) -> list[bytes]:
        line, too_long = b"".join(self._parts), self._size > self._most
        self._parts.clear()
        self._size = 0
        self.cut += too_long
        return [] if too_long and self._whole else [line]
