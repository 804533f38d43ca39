"""The mask of one attempt: its secrets, and text, JSON and files without them."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dbt_runner.masking.needles import SHORTEST, Cuts, Needles, is_short
from dbt_runner.masking.pieces import pieces

__all__ = ["LARGEST_FILE", "MASK", "SHORTEST", "Mask", "too_short"]

# As dbt masks its own secrets.
MASK = "*****"
# A file is read as a whole. Its decoded views are made window by window.
LARGEST_FILE = 512 * 1024 * 1024
_WINDOW = 1024 * 1024
# How many bytes an encoding may take for each of a secret where two windows meet: &amp;#x41; has ten.
_WIDEST = 12
# A node's unique_id names it everywhere: in the audit trail, in resume, in other artifacts. It is a name of the project, never a value.
_NODE_ID = re.compile(
    r"(model|seed|snapshot|test|unit_test|source|exposure|metric|semantic_model|saved_query|analysis|operation|macro|doc|group|function)"
    r"(\.[\w-]+)+"
)


class Mask:
    """The secret values of one attempt. They only go in. Thread-safe."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._needles = Needles()
        self._known: set[str] = set()
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Takes values that are secret from now on; short ones are not looked for, see `too_short`."""
        found = {piece for value in values for piece in pieces(value)}
        with self._lock:
            for piece in sorted(found - self._known):
                self._needles.add(piece)
            self._known |= found

    def text(self, text: str) -> str:
        """The text without secrets, also where one is cut: at the text's beginning or end, or by an ellipsis."""
        data = text.encode(errors="surrogatepass")
        spans = self._spans(data)
        return _masked(data, spans).decode(errors="surrogatepass") if spans else text

    def tree(self, value: Any) -> Any:
        """The same of everything that is text in a JSON value, but for whole names of nodes."""
        masked: Any = value
        if isinstance(value, str):
            masked = value if _NODE_ID.fullmatch(value) else self.text(value)
        elif isinstance(value, dict):
            masked = {self.tree(key): self.tree(item) for key, item in value.items()}
        elif isinstance(value, (list, tuple)):
            masked = type(value)(self.tree(item) for item in value)
        return masked

    def file(self, path: Path) -> None:
        """Masks a text file in place. Readers see the old file or the new one, whole. JSON stays JSON.

        Raises:
            OSError: it is a symbolic link, or cannot be read or written.
            ValueError: it is not a regular file, or larger than LARGEST_FILE.
        """
        data, mode = _read(path)
        is_json = path.suffix == ".json"
        spans = self._spans(data, json=is_json)
        if not spans:
            return
        masked = self._json(data) if is_json else None
        # A new file of a name that cannot be foreseen: what another process has put at a known one could lead anywhere.
        descriptor, fresh = tempfile.mkstemp(prefix=".masked-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, mode)
                file.write(_masked(data, spans) if masked is None else masked)
            Path(fresh).replace(path)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise

    def occurs_in(self, raw: bytes) -> bool:
        """Whether a secret is somewhere in a file of any kind. Parts of secrets do not count: such a file has no cuts."""
        return bool(self._spans(raw, cut=False))

    def _json(self, data: bytes) -> bytes | None:
        """The document without secrets; None where it is not one."""
        try:
            return json.dumps(self.tree(json.loads(data.decode(errors="surrogateescape")))).encode()
        except (ValueError, RecursionError):
            # A worker that was killed may have left half a file.
            return None

    def _spans(self, data: bytes, *, cut: bool = True, json: bool = False) -> list[tuple[int, int]]:
        """Where secrets and their parts are, in order; they may overlap."""
        longest = self._needles.longest
        if not longest or len(data) < SHORTEST - 1:
            return []
        if len(data) <= _WINDOW:
            return sorted(set(self._needles.find(data, Cuts(data, json=json) if cut else None)))
        found: set[tuple[int, int]] = set()
        overlap = _WIDEST * longest
        step = max(_WINDOW, overlap)
        for begin in range(0, len(data), step):
            end = begin + step + overlap
            window = data[begin:end]
            cuts = Cuts(window, begins=begin == 0, ends=end >= len(data), json=json) if cut else None
            found |= {(begin + first, begin + last) for first, last in self._needles.find(window, cuts)}
        return sorted(found)


def too_short(value: str) -> bool:
    """Whether a value is not looked for, because it is found in too many words: with less than eight characters, or nearly so."""
    return is_short(value.strip())


def _read(path: Path) -> tuple[bytes, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path.name} has more than {LARGEST_FILE >> 20} MiB")
    return data, stat.S_IMODE(found.st_mode)


def _masked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    pieces, at = [], 0
    for start, end in spans:
        # No half characters: a span may begin or end among the bytes of one.
        while start > 0 and start < len(data) and data[start] & 0xC0 == 0x80 and data[start - 1] >= 0x80:
            start -= 1
        while end < len(data) and data[end] & 0xC0 == 0x80 and data[end - 1] >= 0x80:
            end += 1
        if start >= at:
            pieces += [data[at:start], MASK.encode()]
        at = max(at, end)
    return b"".join([*pieces, data[at:]])
