"""What is left of an escape next to a cut, told from a word of the text by the character of the secret that it began to write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from html.entities import html5

_TO_LOWER = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz")
# Backslashes are doubled by each layer, so the comparison goes without them.
_LEFT_OUT = bytes([*range(32), 127]) + b"\\"
_LEADING_ZEROS = re.compile(rb"(^|#x?|u\{)0+")
_DOUBLED = "'\"`{}$]%"
_NAMES: dict[str, list[str]] = {}
for _name, _text in html5.items():
    if _name.endswith(";") and len(_text) == 1:
        _NAMES.setdefault(_text, []).append(_name)


def bare(gap: bytes) -> bytes:
    """A text as it is compared with escapes: in lower case, without backslashes and control characters."""
    return gap.translate(_TO_LOWER, _LEFT_OUT)


def is_residue(rest: bytes, ways: Sequence[set[bytes]], fits: Callable[[bytes, bytes], bool]) -> bool:
    """Whether a text is made of whole characters, in any of their ways, and then a piece of an escape of the next one.

    Args:
        rest: the text.
        ways: of the characters, from the part of the secret on.
        fits: whether a text begins with another, or ends with it where the text is read backwards.
    """
    return any(_is_written(text, ways, fits) for text in {rest, _LEADING_ZEROS.sub(rb"\1", rest)})


def _is_written(rest: bytes, ways: Sequence[set[bytes]], fits: Callable[[bytes, bytes], bool]) -> bool:
    if not rest:
        return True
    for number, written in enumerate(ways):
        if any(len(way) > 1 and len(rest) < len(way) and fits(way, rest) for way in written):
            return True
        if number == len(ways) - 1:
            return False
        # Only characters that the search ignores come before the last one, so none of them is a word.
        whole = max((way for way in written if fits(rest, way)), key=len, default=b"")
        rest = rest[len(whole) :] if fits is bytes.startswith else rest[: len(rest) - len(whole)]
        if not rest:
            return True
    return False


def _written(character: str) -> Iterator[str]:
    """How escapes write a character, with one more layer around it."""
    if len(character) != 1:
        # The other case of a few characters has two.
        return
    code = ord(character)
    ways = [
        character,
        f"\\u{code:04x}",
        f"\\u{{{code:x}}}",
        f"\\U{code:08x}",
        f"\\{code:03o}",
        f"%u{code:04x}",
        f"&#{code};",
        f"&#x{code:x};",
        "".join(f"%{byte:02x}" for byte in character.encode(errors="replace")),
        "".join(f"\\x{byte:02x}" for byte in character.encode(errors="replace")),
        "".join(f"\\{byte:03o}" for byte in character.encode(errors="replace")),
        f"\\x{code:02x}",
        *(f"&{name}" for name in _NAMES.get(character, ())),
        *([character * 2] if character in _DOUBLED else []),
        *([json.dumps(character)[1:-1]] if character < " " else []),
    ]
    for way in ways:
        yield way
        if way[0] == "&":
            yield way.replace("&", "&amp;")
        elif way[0] == "%":
            yield way.replace("%", "%25")
        elif way[0] == "\\":
            yield from (way.replace("\\", slash) for slash in ("&#92;", "&#x5c;", "%5c"))


@lru_cache(maxsize=1024)
def ways_of(letter: str) -> set[bytes]:
    """In how many ways a character of either case may be written."""
    return {bare(way.encode(errors="replace")) for case in {letter, letter.lower(), letter.upper()} for way in _written(case)}
