"""Views of a text: what it says when escapes are undone, and when base64 or hexadecimal in it is decoded, with the way back.

A view does not claim to be the right reading of a text. It is searched for secrets only, so a wrong reading costs time and nothing else.
All views of a text together have at most VIEWED times its length, whatever the text is.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from html.entities import html5
from itertools import accumulate, compress, pairwise
from typing import Protocol

# JSON in JSON in JSON has three layers of escapes. The last layers of a hostile text with more stay as they are.
PASSES = 8
# base64 of hexadecimal of base64, and one more.
NESTED = 4
# An upper bound for the bytes of all views by the bytes of the text; tests/security/test_masking.py holds hostile texts against it.
VIEWED = 64


class Places(Protocol):
    """Where the bytes of a view come from."""

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        """The part of the parent's bytes that made the view's bytes from start to end."""


class View:
    """One reading of a text, as bytes.

    Attributes:
        data: UTF-8, or whatever base64 and hexadecimal hold.
        grouped: it was decoded from groups of characters, so that there may be half a group next to a cut of the text.
    """

    __slots__ = ("_make_places", "_parent", "_places", "data", "grouped")

    def __init__(
        self, data: bytes, parent: View | None = None, places: Callable[[], Places] | None = None, *, grouped: bool = False
    ) -> None:
        self.data = data
        self.grouped = grouped
        self._parent = parent
        self._make_places = places
        self._places: Places | None = None

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """The part of the text from which the view's bytes from start to end were read."""
        if self._parent is None or self._make_places is None:
            return start, end
        # Nearly no view has a hit, so the way back is only computed for one that has.
        if self._places is None:
            self._places = self._make_places()
        return self._parent.origin(*self._places(start, end))


def views(data: bytes) -> Iterator[View]:
    """The text itself and then other views of it, as far as the limit allows."""
    left = VIEWED * len(data)
    for view in _layers(View(data), NESTED):
        left -= len(view.data)
        if left < 0:
            break
        yield view


def _layers(view: View, nested: int) -> Iterator[View]:
    """A view, what undoing its escapes makes of it layer by layer, and what base64 and hexadecimal in it hold."""
    yield view
    last = view
    for _ in range(PASSES):
        decoded = unescaped(last.data)
        if decoded == last.data:
            break
        last = View(decoded, last, lambda data=last.data: _edits_of(data), grouped=view.grouped)  # type: ignore[misc]
        yield last
    if nested:
        # Layers between these two are left out: no pass changes what is base64 or hexadecimal already.
        seen: tuple[bytes, bytes] | None = None
        for base in (view, last) if last is not view else (view,):
            picked = _base64_in(base.data), _hexadecimal_in(base.data)
            if picked != seen and (held := _held(base, *picked)) is not None:
                yield held
                if (text := _text_within(held)) is not None:
                    yield from _layers(text, nested - 1)
            seen = picked


# --- escapes ---------------------------------------------------------------------------------------------------------------

_HEX = "[0-9A-Fa-f]"
# What follows a backslash in JSON, Python, JavaScript, C, Rust and SQL; in either case, since a text may be in capitals.
_BACKSLASHED = (
    rf"[uU][dD][89ABab]{_HEX}{{2}}\\+[uU][dD][C-Fc-f]{_HEX}{{2}}"
    rf"|U00(?:0{_HEX}|10){_HEX}{{4}}|[uU]{_HEX}{{4}}|[uUxX]\{{{_HEX}{{1,6}}\}}|[xX]{_HEX}{{2}}"
    r"""|[0-3][0-7]{2}|[abefnrtvNRT0"']|\r?\n"""
)
# One layer of the escapes of JSON and programming languages, URLs, HTML and XML, and of what SQL, CSV, shells and templates double.
_ESCAPE = re.compile(
    (
        rf"\\(?:\\*)(?:N\{{[A-Z0-9 -]{{2,88}}\}}|{_BACKSLASHED})?"
        rf"|%(?:{_HEX}{{2}}|[uU][dD][89ABab]{_HEX}{{2}}%[uU][dD][C-Fc-f]{_HEX}{{2}}|[uU]{_HEX}{{4}}|%)"
        rf"|&(?:#[0-9]{{1,10}};?|#[xX]{_HEX}{{1,8}};?|[A-Za-z][A-Za-z0-9]{{1,31}};)"
        r"""|'(?:"'"'|')|"(?:'"'"|")|``|\{\{|\}\}|\$\$|\]\]"""
    ).encode()
)
_HTML_NAMES = {name.lower(): text for name, text in html5.items()} | html5


def unescaped(data: bytes) -> bytes:
    """The data without one layer of escapes."""
    return _ESCAPE.sub(lambda escape: _MEANINGS[escape[0]], data)


class _Meanings(dict[bytes, bytes]):
    """What escapes mean. A text has few different ones, many times."""

    _MOST = 8192

    def __missing__(self, escape: bytes) -> bytes:
        meaning = _meaning(escape)
        if len(escape) <= 16:
            if len(self) >= self._MOST:
                self.clear()
            self[escape] = meaning
        return meaning


def _meaning(escape: bytes) -> bytes:
    first = escape[:1]
    if first == b"\\":
        tail = escape.lstrip(b"\\")
        slashes = len(escape) - len(tail)
        # Two backslashes are one; behind an even number of them nothing is escaped.
        return b"\\" * (slashes // 2) + (_backslashed(tail) if slashes % 2 else tail)
    if first == b"%":
        if len(escape) == 12:
            return _pair(escape[2:6], escape[8:])
        return _character(int(escape[2:], 16)) if escape[1:2] in b"uU" else b"%" if escape == b"%%" else bytes([int(escape[1:], 16)])
    if first == b"&":
        name = escape[1:].rstrip(b";").decode()
        if name[0] == "#":
            return _character(int(name[2:], 16) if name[1] in "xX" else int(name[1:]))
        text = _HTML_NAMES.get(f"{name};") or _HTML_NAMES.get(f"{name.lower()};")
        return escape if text is None else text.encode()
    # A shell's '"'"' is one quote, and so is what is doubled.
    return first


def _backslashed(tail: bytes) -> bytes:
    if tail[:1] in (b"\n", b"\r"):
        # A line that goes on.
        return b""
    if len(tail) < 2:
        # The search ignores control characters, so it does not matter which one it is.
        return tail if tail in (b"", b"'", b'"') else b"\n"
    text = tail.decode()
    if b"\\" in tail:
        return _pair(tail[1:5], tail[-4:])
    if text[0] == "N":
        try:
            return unicodedata.lookup(text[2:-1]).encode()
        except KeyError:
            return tail
    if text[0] in "xX":
        return _character(int(text[2:-1], 16)) if text[1] == "{" else bytes([int(text[1:], 16)])
    if text[0] in "uU":
        return _character(int(text[1:].strip("{}"), 16))
    return bytes([int(text, 8) & 0xFF])


def _pair(high: bytes, low: bytes) -> bytes:
    return _character(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)


def _character(code: int) -> bytes:
    return chr(code).encode(errors="surrogatepass") if code < 0x110000 else b""


def _edits_of(data: bytes) -> Edits:
    edits, at, shift = [], 0, 0
    for escape in _ESCAPE.finditer(data):
        start, at = escape.span()
        meaning = _MEANINGS[escape[0]]
        edits.append((start - shift, start - shift + len(meaning), start, at))
        shift += at - start - len(meaning)
    return Edits(edits)


class Edits:
    """Places of a view that is its parent but for some edits.

    Args:
        edits: in order: where an edit is in the view (start, end) and what it stands for in the parent (start, end).
    """

    def __init__(self, edits: Sequence[tuple[int, int, int, int]]) -> None:
        self._edits = edits
        self._starts = [edit[0] for edit in edits]

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        return self._of(start, False), self._of(end - 1, True)

    def _of(self, at: int, end: bool) -> int:
        """Where the byte at this place begins in the parent, or ends."""
        number = bisect_right(self._starts, at) - 1
        if number < 0:
            return at + end
        _, edit_end, in_start, in_end = self._edits[number]
        if at < edit_end:
            return in_end if end else in_start
        return in_end + at - edit_end + end


_MEANINGS = _Meanings()

# --- base64 and hexadecimal ------------------------------------------------------------------------------------------------

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_NOT_BASE64 = bytes(set(range(256)) - set(_BASE64))
_HEX_DIGITS = b"0123456789abcdef"
_NOT_HEX = bytes(set(range(256)) - set(_HEX_DIGITS))
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_LOWER = bytes.maketrans(b"ABCDEF", b"abcdef")
# Eight bytes have eleven characters, of which a line that is wrapped has more.
_SOME_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{11}")
_LEAST_HEX = 14
# What can hold another encoding: bytes of a text, perhaps in UTF-16. Of bytes that mean nothing nearly all runs are shorter.
_TEXT = re.compile(rb"[\x00\t\n\r -~]{11,}(?:[\x80-\xff]{1,4}[\x00\t\n\r -~]+)*")
_NOT_NUL = re.compile(rb"[^\x00]+")
_IS_TEXT = bytes(byte in (0, 9, 10, 13) or 32 <= byte < 127 for byte in range(256))
_SOME_TEXT = b"\x01" * 11
# Between readings that have nothing to do with each other. It is no text, and in no secret.
_BETWEEN = b"\x01|~\x01"
# By how much a group is shifted: base64 falls into groups of four characters in four ways, hexadecimal in two.
_SHIFTS = (*((6, shift) for shift in range(4)), *((4, shift) for shift in range(2)))


def _base64_in(data: bytes) -> bytes:
    """All characters of base64. What stands between them is left out: line breaks, indents, quotes."""
    return data.translate(_TO_STANDARD, _NOT_BASE64) if _SOME_BASE64.search(data) else b""


def _hexadecimal_in(data: bytes) -> bytes:
    """All hexadecimal digits, whatever is between them: spaces, colons, 0x or \\x."""
    digits = data.translate(_LOWER).replace(b"0x", b"").translate(None, _NOT_HEX)
    return digits if len(digits) >= _LEAST_HEX else b""


def _held(parent: View, characters: bytes, digits: bytes) -> View | None:
    """What a text holds if it is base64 or hexadecimal, in all ways in which it can fall into groups, one after the other."""
    readings = [
        *((_from_base64(characters[shift:]) for shift in range(4)) if characters else ()),
        *((binascii.unhexlify(digits[shift : shift + (len(digits) - shift) // 2 * 2]) for shift in range(2)) if digits else ()),
    ]
    if not readings:
        return None
    shifts = [(bits, shift) for bits, shift in _SHIFTS if (characters if bits == 6 else digits)]
    return View(
        _BETWEEN.join(readings), parent, lambda: Readings(parent.data, [len(reading) for reading in readings], shifts), grouped=True
    )


def _from_base64(characters: bytes) -> bytes:
    """Also what is left behind the last whole group; a single character of a group holds no byte."""
    left = len(characters) % 4
    return binascii.a2b_base64(characters + b"=" * (4 - left) if left > 1 else characters[: len(characters) - left])


class Readings:
    """Places of several readings of a text as base64 and hexadecimal.

    Args:
        data: the parent's.
        lengths: of the readings.
        shifts: for each reading, how many bits a character stands for, and how many characters come before the first group.
    """

    def __init__(self, data: bytes, lengths: Sequence[int], shifts: Sequence[tuple[int, int]]) -> None:
        self._shifts = shifts
        self._begins = [0, *accumulate(length + len(_BETWEEN) for length in lengths)]
        self._places = {6: _picked(data, _BASE64), 4: _picked(data.translate(_LOWER), _HEX_DIGITS, b"0x")}

    def __call__(self, start: int, end: int) -> tuple[int, int]:
        number = bisect_right(self._begins, start) - 1
        bits, shift = self._shifts[number]
        places, begin = self._places[bits], self._begins[number]
        first, last = (start - begin) * 8 // bits + shift, -(-(end - begin) * 8 // bits) + shift
        return places[min(first, len(places) - 1)], places[min(last, len(places)) - 1] + 1


def _picked(data: bytes, alphabet: bytes, without: bytes = b"") -> list[int]:
    flags = bytearray(data.translate(bytes(byte in alphabet for byte in range(256))))
    if without:
        for prefix in re.finditer(without, data):
            flags[prefix.start()] = 0
    return list(compress(range(len(data)), flags))


def _text_within(view: View) -> View | None:
    """What of decoded bytes is text; None where nothing is."""
    if _SOME_TEXT not in view.data.translate(_IS_TEXT):
        return None
    # Without the NULs of UTF-16, which would be in the middle of escapes.
    spans = [part.span() for found in _TEXT.finditer(view.data) for part in _NOT_NUL.finditer(view.data, *found.span())]

    def places() -> Edits:
        edits, at = [], 0
        for (_, before), (start, end) in pairwise([(0, 0), *spans]):
            edits.append((at, at, before, start))
            at += end - start
        return Edits(edits)

    return View(b"".join(view.data[start:end] for start, end in spans), view, places, grouped=True)
