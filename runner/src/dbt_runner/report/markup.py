"""HTML that cannot be broken by what it shows: text is escaped unless this module itself made it.

Messages of warehouses, names of nodes and variables of runs are other people's texts. They may hold markup, quotes, NUL, or
characters that turn the direction of the text around.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from dbt_runner.words import clean

# Embeddings, overrides and isolates (Unicode annex 9): they would let a message rewrite what stands beside it. Letters of scripts
# that run from right to left need none of them.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# XML's characters, of which HTML allows no more: no lone surrogates and no noncharacters.
_NOT_TEXT = re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_VOID = frozenset({"meta", "link", "br"})


class Markup(str):
    """Text that is HTML already. Only this module and literals make it."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any text as HTML text or attribute value. Markup stays as it is."""
    if isinstance(text, Markup):
        return text
    plain = _NOT_TEXT.sub("\ufffd", clean(str(text)))
    return Markup(html.escape(_DIRECTIONS.sub(lambda found: f"\\u{ord(found[0]):04x}", plain), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. None and "" among the children and None and False among the attributes are left out.

    Attributes lose a trailing underscore and have "-" for other ones: class_, aria_label; `True` is an attribute without a value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.removesuffix("_").replace("_", "-")
        words.append(key if value is True else f'{key}="{escape(value)}"')
    opening = " ".join(words)
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def join(*parts: object, by: str = "") -> Markup:
    """Parts one after the other; nested ones are gone through, None and "" are left out."""
    return Markup(by.join(_flat(parts)))


def _flat(parts: object) -> list[str]:
    if isinstance(parts, Iterable) and not isinstance(parts, str):
        return [text for part in parts for text in _flat(part)]
    return [] if parts is None or parts == "" else [escape(parts)]
