"""What the mask looks for in a view: secrets, reduced to the characters that all encodings keep, and their parts next to a cut."""

from __future__ import annotations

import base64
import re
import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import compress
from typing import Literal

from dbt_runner.masking import views
from dbt_runner.masking.residues import bare, is_residue, ways_of
from dbt_runner.masking.views import View

# A shorter value occurs in too many words that are not secret. To mask them would reveal the value and spoil the text.
SHORTEST = 8
# What is looked up of a secret: its first and last characters. One of a short value's eight may be ignored.
_EDGE = 7
# Blocks of four bytes: wherever the seven of an edge are in a text, one whole block is among them.
_BLOCK = 4
_CONTROLS = bytes([*range(32), 127])
_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
# Most encodings of non-ASCII characters differ in these characters' bytes alone, so a secret of mostly ASCII is searched without them.
# White space, backslashes and "+", a space in URLs, come and go with line wraps and quoting.
_IGNORED_IN_ASCII = _CONTROLS + b" \\+" + bytes(range(128, 256))
_IGNORED_IN_WIDE = _CONTROLS + b" "
# The longest rest of an escape next to a cut, and the longest gap that is looked at for one.
_RESIDUE = 24
# Where a database, dbt or a log has cut a text. https://www.postgresql.org/docs/current/protocol-error-fields.html
_CUT = re.compile(
    rb"""['"`()\[\]]{0,2} ?(?:(?:\.{3,}|\xe2\x80\xa6|\\u2026|&hellip;)[\])]?|[\[(<](?:truncated|cut|snip|omitted)[^\])>]{0,20}[\])>])""",
    re.IGNORECASE,
)
# Between words, other than the indent of a line that goes on: the beginning of a secret and then a word is not a cut secret.
_SPACES = re.compile(rb"[^\s] +[^\s]")
_CUT_IN_JSON = re.compile(_CUT.pattern + rb'|"', re.IGNORECASE)


class Needle:
    """One form of a secret.

    Attributes:
        data: the form, in UTF-8.
        folded: what is looked for.
    """

    def __init__(self, data: bytes, folded: bytes, ignored: bytes) -> None:
        self.data = data
        self.folded = folded
        self._ignored = ignored

    @cached_property
    def places(self) -> list[int]:
        """Where each byte of `folded` is in `data`."""
        return _kept(self.data, self._ignored)

    @property
    def around(self) -> tuple[bytes, bytes]:
        """What of the form is ignored at its beginning and at its end."""
        return self.data[: self.places[0]], self.data[self.places[-1] + 1 :]

    def goes_on(self, at: int, rest: bytes) -> bool:
        """Whether a text may be what is left of the form behind its first characters, up to a cut.

        Args:
            at: the number of bytes of `folded` before it.
            rest: the text, without control characters and backslashes and in lower case.
        """
        begin = self.places[at - 1] + 1
        end = self.places[at] + 1 if at < len(self.places) else len(self.data)
        return is_residue(rest, self._ways(begin, end), bytes.startswith)

    def began(self, at: int, rest: bytes) -> bool:
        """The same of a text from a cut to the last characters of the form, of which there are `at`."""
        first = len(self.places) - at
        begin = self.places[first - 1] if first else 0
        return is_residue(rest, self._ways(begin, self.places[first])[::-1], bytes.endswith)

    def _ways(self, begin: int, end: int) -> list[set[bytes]]:
        """In how many ways each character of a part of the form may be written."""
        text = self.data[begin : min(end, begin + 8 * _RESIDUE)].decode(errors="ignore")
        return [ways_of(letter) for letter in text]


class Index:
    """All needles of one kind. Only grows, so a search needs no lock.

    Args:
        ignored: the bytes that are left out of needles and texts.
    """

    def __init__(self, ignored: bytes) -> None:
        self._ignored = ignored
        self._known: set[bytes] = set()
        self._by_edge: dict[bytes, tuple[Needle, ...]] = {}
        self._blocks: set[int] = set()
        self.longest = 0

    def add(self, data: bytes) -> None:
        """Adds a form of a secret, unless too little is left of it."""
        folded = self.fold(data)
        if len(folded) < _EDGE or folded in self._known:
            return
        self._known.add(folded)
        needle = Needle(data, folded, self._ignored)
        for edge in {folded[:_EDGE], folded[-_EDGE:]}:
            self._by_edge[edge] = (*self._by_edge.get(edge, ()), needle)
            # After the edge itself: the blocks lead another thread to it.
            self._blocks |= {int.from_bytes(edge[at : at + _BLOCK], sys.byteorder) for at in range(_EDGE - _BLOCK + 1)}
        self.longest = max(self.longest, len(data))

    def fold(self, data: bytes) -> bytes:
        """The data in lower case without what is ignored."""
        return data.translate(_LOWER, self._ignored)

    def find(self, view: View, text: bytes, cuts: Cuts | None) -> Iterable[tuple[int, int]]:
        """Where needles are in a text.

        Args:
            view: of the text.
            text: itself.
            cuts: of the text; None where there are none, and parts of secrets are no secret.
        """
        folded = self.fold(view.data)
        blocks = memoryview(folded)[: len(folded) // _BLOCK * _BLOCK].cast("I")
        known = self._blocks
        # No copy and no loop in Python for a view without secrets, as nearly all are.
        return self._matches(view, folded, blocks, text, cuts) if not known.isdisjoint(blocks) else ()

    def _matches(self, view: View, folded: bytes, blocks: memoryview, text: bytes, cuts: Cuts | None) -> Iterator[tuple[int, int]]:
        known = self._blocks
        kept: list[int] = []
        for number, block in enumerate(blocks):
            if block not in known:
                continue
            for at in range(max(0, number * _BLOCK - _EDGE + _BLOCK), number * _BLOCK + 1):
                if needles := self._by_edge.get(folded[at : at + _EDGE]):
                    kept = kept or _kept(view.data, self._ignored)
                    found = [found for needle in needles for found in _whole(needle, at, folded, kept, view)]
                    yield from found
                    if cuts is not None:
                        # Secrets may be alike: of those that are not longer than one that is here as a whole, no part is looked for.
                        known_length = max((end - start for start, end in found), default=0)
                        for needle in needles:
                            yield from _parts(needle, at, folded, kept, view, text, cuts, known_length)


class Cuts:
    """Where a text may have been cut in the middle of a word.

    Args:
        text: of which it is.
        begins, ends: whether the text's own beginning and end are cuts.
        json: the text is JSON, in which each string has a beginning and an end.
    """

    def __init__(self, text: bytes, *, begins: bool = True, ends: bool = True, json: bool = False) -> None:
        self._text, self._begins, self._ends = text, begins, ends
        self._pattern = _CUT_IN_JSON if json else _CUT

    def after(self, at: int) -> int | None:
        """Where the text is cut next, if that is not far from a place."""
        found = self._pattern.search(self._text, at, at + 2 * _RESIDUE)
        if found is not None:
            return found.start()
        return len(self._text) if self._ends and len(self._text) - at <= 2 * _RESIDUE else None

    def before(self, at: int) -> int | None:
        """Where the text goes on after the last cut, if that is not far from a place."""
        begin = max(0, at - 3 * _RESIDUE)
        found = [cut.end() for cut in self._pattern.finditer(self._text, begin, at)]
        return found[-1] if found else 0 if self._begins and at <= 2 * _RESIDUE else None


def _whole(needle: Needle, at: int, folded: bytes, kept: list[int], view: View) -> Iterator[tuple[int, int]]:
    """Where a secret is of which an edge is at a place."""
    form = needle.folded
    for first in {at, at + _EDGE - len(form)}:
        if first >= 0 and folded.startswith(form, first):
            yield view.origin(*_with_edges(needle, kept[first], kept[first + len(form) - 1] + 1, view.data))


def _parts(
    needle: Needle, at: int, folded: bytes, kept: list[int], view: View, text: bytes, cuts: Cuts, longer_than: int
) -> Iterator[tuple[int, int]]:
    """Where a part of a secret is, of which an edge is at a place, and the rest is cut off."""
    form, edge = needle.folded, folded[at : at + _EDGE]
    if form.startswith(edge) and not folded.startswith(form, at):
        length = _common(form, folded[at : at + len(form)])
        start, end = view.origin(kept[at], kept[at + length - 1] + 1)
        if end - start > longer_than and (cut := cuts.after(end)) is not None:
            yield from _part(needle, length, at, kept, view, text, cut, before=False)
    if form.endswith(edge):
        last = at + _EDGE
        first = max(0, last - len(form))
        if folded[first:last] != form:
            length = _common(form[::-1], folded[first:last][::-1])
            start, end = view.origin(kept[last - length], kept[last - 1] + 1)
            if end - start > longer_than and (cut := cuts.before(start)) is not None:
                yield from _part(needle, length, last, kept, view, text, cut, before=True)


def _with_edges(needle: Needle, start: int, end: int, data: bytes) -> tuple[int, int]:
    """A secret's place in a view, with what is ignored at the secret's beginning and end, if the view has that as it is."""
    before, after = needle.around
    if before and data.endswith(before, 0, start):
        start -= len(before)
    if after and data.startswith(after, end):
        end += len(after)
    return start, end


def _part(
    needle: Needle, length: int, at: int, kept: list[int], view: View, text: bytes, cut: int, *, before: bool
) -> Iterator[tuple[int, int]]:
    """A part of a secret that begins behind a cut or ends at one, perhaps with a piece of an escape between the part and the cut.

    Args:
        needle: the secret's form.
        length: how much of it is there.
        at: where in the folded view the part begins; with `before`, where it ends.
        kept: where the bytes of the folded view are in the view.
        view: of the text.
        text: itself.
        cut: where it is.
        before: the cut is before the part.
    """
    for back in range(_BACK):
        known = length - back
        # What is left of a cut escape may look like the secret's next character: the part may be shorter than what they have in common.
        first, last = (kept[at - known], kept[at - 1] + 1) if before else (kept[at], kept[at + known - 1] + 1)
        start, end = _with_edges(needle, first, last, view.data)
        part = view.data[start:end]
        if len(part.decode(errors="ignore")) < SHORTEST:
            return
        if b" " not in needle.data and _SPACES.search(part):
            continue
        (first, last), (start, end) = view.origin(first, last), view.origin(start, end)
        gap = text[cut:first] if before else text[last:cut]
        if rest := bare(gap):
            if view.grouped:
                fits = _HALF_GROUP.fullmatch(gap) is not None
            else:
                fits = needle.began(known, rest) if before else needle.goes_on(known, rest)
            if not fits:
                continue
            start, end = (cut, end) if before else (start, cut)
        yield start, end
        return


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two texts have in common at their beginning."""
    return bisect_left(range(1, min(len(one), len(other)) + 1), True, key=lambda length: one[:length] != other[:length])


def _kept(data: bytes, ignored: bytes) -> list[int]:
    return list(compress(range(len(data)), data.translate(bytes(byte not in ignored for byte in range(256)))))


# Next to a cut, a piece of a group of base64, or a few bytes in hexadecimal that the search ignores.
_HALF_GROUP = re.compile(rb"[A-Za-z0-9+/_=-]{0,4}|(?:[ ,:\\-]{0,3}(?:0?x)?[0-9A-Fa-f]{1,2}){0,5}[ ,:\\0x-]{0,4}")
# How many characters at the end of a part may belong to a cut escape.
_BACK = 4
_NORMAL_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")
# --- forms -----------------------------------------------------------------------------------------------------------------


class Needles:
    """The forms of all secrets. Only grows; `add` is not thread-safe, a search beside it is."""

    def __init__(self) -> None:
        self._ascii = Index(_IGNORED_IN_ASCII)
        self._wide = Index(_IGNORED_IN_WIDE)

    @property
    def longest(self) -> int:
        """The length of the longest form, in bytes."""
        return max(self._ascii.longest, self._wide.longest)

    def add(self, value: str) -> None:
        """Takes a secret."""
        if is_short(value):
            return
        index = self._index(value)
        for data in (*_variants(value), *(_wide_variants(value) if index is self._wide else ())):
            for _ in range(views.PASSES):
                index.add(data)
                # A value may look like an escaped text, which some views show without its escapes.
                decoded = views.unescaped(data)
                if decoded == data:
                    break
                data = decoded
        for core in _base32(_encoded(value)):
            self._ascii.add(core)

    def find(self, text: bytes, cuts: Cuts | None) -> Iterator[tuple[int, int]]:
        """Where secrets and their parts are; see `Index.find`."""
        indexes = [index for index in (self._ascii, self._wide) if index.longest]
        for view in views.views(text):
            for index in indexes:
                yield from index.find(view, text, cuts)

    def _index(self, value: str) -> Index:
        """Where most of a value is non-ASCII or punctuation that is ignored, the rest could be a word."""
        kept = len(self._ascii.fold(_encoded(value)))
        return self._ascii if kept >= _EDGE and 4 * kept >= 3 * len("".join(value.split())) else self._wide


def is_short(value: str) -> bool:
    """Whether too little of a value can be seen for it to be looked for."""
    return len(value) < SHORTEST or len(_encoded(value).translate(None, _CONTROLS + b" ")) < _EDGE


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _variants(value: str) -> Iterator[bytes]:
    """A value as it is, in other case and in Unicode's normal forms."""
    yield _encoded(value)
    if not value.isascii():
        for case in (value, value.lower(), value.upper(), value.casefold(), value.title()):
            yield from (_encoded(unicodedata.normalize(form, case)) for form in _NORMAL_FORMS)


def _wide_variants(value: str) -> Iterator[bytes]:
    """A value in character sets other than UTF-8, and as forms of web pages write it."""
    yield _encoded(value.replace(" ", "+"))
    for charset in ("utf-8", "utf-16-le", "utf-16-be", "latin-1", "cp1252"):
        raw = value.encode(charset, errors="replace")
        # As it is, and as a program shows it that takes it for another character set.
        yield from (raw, raw.decode("latin-1").encode())


def _base32(data: bytes) -> Iterator[bytes]:
    """What of a value is the same in every base32 text that holds it, by the five ways in which it can fall into groups of 5 bytes."""
    for offset in range(5):
        text = base64.b32encode(bytes(offset) + data).rstrip(b"=")
        # The first characters also hold bits of what stands before, the last one bits of what comes after.
        yield text[-(-offset * 8 // 5) : (offset + len(data)) * 8 // 5]
