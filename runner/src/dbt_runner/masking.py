"""Keeps secret values out of all that the runner writes: log, node results, outcomes, artifacts.

Whoever obtains a secret tells the mask before anybody else sees the value, and whatever comes from the worker passes it before anything
is cut, stored or printed. What is looked for is the value itself, in the forms that it takes on its way: nothing is guessed.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

# As dbt masks its own secrets.
MASK = "*****"
# A shorter value is found in too many words that are no secret: masking it would tell it, by what is missing, and spoil the rest.
SHORTEST = 8
# Keys of a JSON secret whose values are secret; the others (host, port, engine, ...) are words that a log may need.
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|credential|private", re.IGNORECASE)
# A node's unique_id names it everywhere: in the audit trail, in resume, in other artifacts. It is a name of the project, never a value.
_NODE_ID = re.compile(
    r"(model|seed|snapshot|test|unit_test|source|exposure|metric|semantic_model|saved_query|analysis|operation|macro|doc|group|function)"
    r"(\.[\w-]+)+"
)
# Where a database or dbt has cut a text, which leaves a part of a secret. https://www.postgresql.org/docs/current/protocol-error-fields.html
_CUT = re.compile(r"\.{3,}|…")


class Mask:
    """The secret values of one attempt. They only go in. Thread-safe."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        # Forms by what they begin and by what they end with: one look-up for each place of a text, however many secrets there are.
        # Only grows, by whole sets: who looks up needs no lock.
        self._by_edge: dict[str, frozenset[str]] = {}
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Takes values that are secret from now on; those shorter than SHORTEST are not looked for."""
        forms = {form for value in values for piece in _pieces(value) for form in _forms(piece)}
        with self._lock:
            for form in forms:
                for edge in (form[:SHORTEST], form[-SHORTEST:]):
                    self._by_edge[edge] = self._by_edge.get(edge, frozenset()) | {form}

    def text(self, text: str) -> str:
        """The text without secrets, also where one is cut: at the text's beginning or end, or by an ellipsis."""
        spans = self._spans(text)
        pieces, at = [], 0
        for start, end in spans:
            if start >= at:
                pieces += [text[at:start], MASK]
            at = max(at, end)
        return "".join([*pieces, text[at:]]) if spans else text

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
        """Masks a text file in its place, in one step for whoever reads it meanwhile; JSON stays JSON."""
        text = path.read_bytes().decode(errors="surrogateescape")
        if not self._spans(text):
            return
        masked = self._json(text) if path.suffix == ".json" else self.text(text)
        fresh = path.with_name(f"{path.name}.masked")
        fresh.write_bytes(masked.encode(errors="surrogateescape"))
        fresh.replace(path)

    def occurs_in(self, raw: bytes) -> bool:
        """Whether a secret is somewhere in a file of any kind."""
        return bool(self._spans(raw.decode(errors="surrogateescape")))

    def _json(self, text: str) -> str:
        try:
            return json.dumps(self.tree(json.loads(text)))
        except ValueError:
            # A worker that was killed may have left half a file.
            return self.text(text)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where secrets and their parts are, in order; they may overlap."""
        by_edge = self._by_edge
        if not by_edge:
            return []
        hits = [at for at in range(len(text) - SHORTEST + 1) if text[at : at + SHORTEST] in by_edge]
        if not hits:
            return []
        cuts = [cut.span() for cut in _CUT.finditer(text)]
        begins, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(text)]
        found = set()
        for at in hits:
            edge = at + SHORTEST
            for form in by_edge[text[at:edge]]:
                if text.startswith(form, at):
                    found.add((at, at + len(form)))
                end = ends[min(bisect_left(ends, edge), len(ends) - 1)]
                if form.startswith(text[at:end]):
                    found.add((at, end))
                begin = begins[bisect_right(begins, at) - 1]
                if form.endswith(text[begin:edge]):
                    found.add((begin, edge))
        return sorted(found)


def _pieces(value: str) -> Iterator[str]:
    """What of a secret is secret by itself: the whole, each line of it, and what stands under a telling key if it is JSON."""
    yield value
    yield value.strip()
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines)
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return
    yield from _told_by_key(document)


def _told_by_key(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            if isinstance(value, str) and _SECRET_KEY.search(key):
                yield from _pieces(value)
            elif isinstance(value, (dict, list)):
                yield from _told_by_key(value)
    elif isinstance(document, list):
        for value in document:
            yield from _told_by_key(value)


def _forms(value: str) -> set[str]:
    """A value as it is, and as it is written in URLs, JSON, Python, SQL, HTML and base64."""
    if len(value) < SHORTEST:
        return set()
    raw = value.encode(errors="surrogateescape")
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw)}
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return {
        value,
        *quoted,
        *(re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in quoted),
        *escaped,
        # JSON in JSON.
        *(json.dumps(form)[1:-1] for form in escaped),
        repr(value)[1:-1],
        value.replace("'", "''"),
        html.escape(value),
        *_base64(raw),
    }


def _base64(raw: bytes) -> Iterator[str]:
    """What of a value is the same in every base64 text that holds it, by the three ways in which it can fall into groups of 3 bytes."""
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw).decode().rstrip("=")
        # The first characters also hold bits of what stands before, the last one bits of what comes after.
        core = text[(0, 2, 3)[offset] : len(text) if (offset + len(raw)) % 3 == 0 else -1]
        if len(core) >= SHORTEST:
            yield core
            yield core.translate(str.maketrans("+/", "-_"))
