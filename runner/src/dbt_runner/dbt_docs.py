"""The page of `docs generate --static`, made such that it shows what a project says and does nothing else.

The worker makes the page from dbt's own index.html, in which it replaces two placeholders by manifest.json and catalog.json. These hold
what models and the warehouse say: names, comments, descriptions, which the page shows as HTML. And the worker runs the team's code, which
may write any page. So the supervisor takes only the data from it, and puts that into dbt's page by itself.

A policy (CSP) lets the page run dbt's script, by its digest, and load nothing: a script, an event handler or an address in a description
runs nothing and calls nobody. It cannot stop a link that a reader follows.
https://developer.mozilla.org/docs/Web/HTTP/Guides/CSP
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html.parser import HTMLParser
from importlib import metadata

# As dbt/task/docs/generate.py replaces them.
_PLACEHOLDERS = (b'"MANIFEST.JSON INLINE DATA"', b'"CATALOG.JSON INLINE DATA"')
_HEAD = b"<head>"


def template() -> bytes:
    """dbt's own page, as it is installed here: dbt strips the file before it puts data in (`load_file_contents` of dbt_common)."""
    return bytes(metadata.distribution("dbt-core").locate_file("dbt/task/docs/index.html").read_bytes()).strip()  # type: ignore[attr-defined]


def sealed(page: bytes, of: bytes | None = None) -> bytes:
    """dbt's page with the data of this one, and a policy by which it runs dbt's scripts alone and loads nothing.

    Args:
        page: what `docs generate --static` wrote.
        of: dbt's own page without data; the installed one when it is None.

    Raises:
        ValueError: the page is not that one with two JSON objects in it.
    """
    own = template() if of is None else of
    parts = _around(own)
    document = b"".join(_with_data(parts, _data(page, parts)))
    head, found, rest = document.partition(_HEAD)
    if not found:
        raise ValueError("dbt's page has no head")
    return head + found + f'<meta http-equiv="Content-Security-Policy" content="{_policy(document)}">'.encode() + rest


def _around(own: bytes) -> Sequence[bytes]:
    """What stands before, between and behind the two places for data."""
    before, first, rest = own.partition(_PLACEHOLDERS[0])
    between, second, behind = rest.partition(_PLACEHOLDERS[1])
    if not (first and second):
        raise ValueError("dbt's page has no place for data: this version of dbt makes it in another way")
    return before, between, behind


def _data(page: bytes, around: Sequence[bytes]) -> list[str]:
    """The JSON of the manifest and of the catalog."""
    text, place, found = page.decode(), 0, []
    decoder = json.JSONDecoder()
    for part in around[:-1]:
        fixed = part.decode()
        if not text.startswith(fixed, place):
            raise ValueError("the page is not dbt's own: it was changed where there is no data")
        value, place = decoder.raw_decode(text, place + len(fixed))
        found.append(json.dumps(value))
    if text[place:] != around[-1].decode():
        raise ValueError("the page is not dbt's own: it goes on behind the data")
    return found


def _with_data(around: Sequence[bytes], data: Sequence[str]) -> list[bytes]:
    # Inside of a script, < begins what could end it. JSON knows it only in strings, where an escape means the same.
    safe = [text.replace("<", "\\u003c").encode() for text in data]
    return [around[0], safe[0], around[1], safe[1], around[2]]


def _policy(document: bytes) -> str:
    scripts = _Scripts()
    scripts.feed(document.decode())
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts.found)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


class _Scripts(HTMLParser):
    """The texts of a page's inline scripts, as a browser takes them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.found: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "script":
            self._inside = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] += data
