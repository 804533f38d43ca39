"""What of a secret is secret by itself: its lines, what JSON in it holds, and the passwords in connection strings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

_DEEPEST = 8
_TELLING = r"pass|pwd|secret|token|key|credential|private|bearer|signature"
# Keys whose values are secret; the others (host, port, engine, ...) are words that a log may need.
_SECRET_KEY = re.compile(_TELLING, re.IGNORECASE)
# Keys whose values are words also below a key that tells: {"credentials": {"username": ..., "password": ...}}.
_PLAIN_KEY = re.compile(
    r"user(_?name)?|login|host(_?name)?|port|engine|db(_?name)?|database|schema|account|warehouse|role|region|type|scopes?|algorithm|alg"
    r"|version|format|(created|updated|expires|expiry|valid)\w*|description",
    re.IGNORECASE,
)
_NAMES = ("name", "key", "id", "variable")
_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")
# user:password@ of a URL. The password may hold an @ or a / that is not quoted.
_OF_URL = re.compile(r"://[^:/?#@\s]*:(?:(?=([^@/?#\s]+)@)|)(?=(.+)@)")
# user/password@ of Oracle.
_OF_ORACLE = re.compile(r"(?:^|thin:)[^/:@\s]+/([^@\s]+)@")
# Of libpq, ODBC, ADO.NET, JDBC, the query of a URL, INI, TOML and YAML.
_OF_PAIR = re.compile(
    rf"(?:{_TELLING})[\w.-]*[\"']?\s*[=:]\s*"
    r"(?:\{((?:[^}]|\}\})*)\}|'((?:[^'\\]|\\.|'')*)'|\"((?:[^\"\\]|\\.|\"\")*)\"|(([^;&\s,]+)[^;&\n]*))",
    re.IGNORECASE,
)
# What may stand before the secret itself. RFC 7235
_SCHEME = re.compile(r"(?:Basic|Bearer|Token|ApiKey)\s+(\S+)\s*", re.IGNORECASE)


def pieces(value: str) -> Iterator[str]:
    """The value itself and what of it is secret by itself."""
    yield from _pieces(value, _DEEPEST, secret=False)


def _pieces(value: str, depth: int, *, secret: bool) -> Iterator[str]:
    yield value
    yield value.strip()
    if depth <= 0:
        return
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if not _ARMOUR.fullmatch(line.strip()))
    if scheme := _SCHEME.fullmatch(value):
        yield scheme[1]
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        yield from _of_connection(value)
        return
    # Of a list or a text no key could tell what is secret in it.
    yield from _told_by_key(document, depth - 1, secret=secret or isinstance(document, (list, str)))


def _told_by_key(document: Any, depth: int, *, secret: bool) -> Iterator[str]:
    if isinstance(document, dict):
        named = any(isinstance(document.get(name), str) and _SECRET_KEY.search(document[name]) for name in _NAMES)
        for key, value in document.items():
            tells = bool(_SECRET_KEY.search(key)) or (secret and not _PLAIN_KEY.fullmatch(key)) or (named and key == "value")
            yield from _told_by_key(value, depth - 1, secret=tells)
    elif isinstance(document, list):
        for value in document:
            yield from _told_by_key(value, depth - 1, secret=secret)
    elif isinstance(document, str):
        if secret:
            yield from _pieces(document, depth - 1, secret=True)
        else:
            yield from _of_connection(document)
    elif secret and isinstance(document, (int, float)) and not isinstance(document, bool):
        yield str(document)


def _of_connection(value: str) -> Iterator[str]:
    found = [group for pattern in (_OF_URL, _OF_ORACLE, _OF_PAIR) for match in pattern.finditer(value) for group in match.groups()]
    for password in filter(None, found):
        yield from {password, password.strip(), unquote(password)}
        yield from {password.replace("}}", "}"), re.sub(r"\\(.)", r"\1", password), password.replace("''", "'").replace('""', '"')}
