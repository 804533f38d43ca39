"""A run's variables: JSON from the caller to dbt, and text wherever something on the way would read numbers by rules of its own.

JSONata has 15 digits for a number, and dbt reads `--vars` as YAML 1.1, in which `1e-05` is a text and an emoji in JSON's escapes is no
character. So the state machine carries the variables as the text that the caller or Terraform wrote, the runner alone reads it, and dbt
gets a text that means the same in YAML. What JSON does not know, or no store can keep, is refused by its name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from dbt_runner.errors import INVALID_REQUEST, TypedError

MAX_CHARACTERS = 50_000
"""Of the JSON, in ASCII. In a variable of Step Functions (256 KiB) it stands in a text in a text: up to four times as long."""
MAX_DEPTH = 32
_MAX_DIGITS = 1000

# What a simple key of YAML may have is 1,024 characters; a longer one is announced by a question mark.
_SIMPLE_KEY = 1000
_EXPONENT = re.compile(r"^(-?\d+)(e.*)$")
_ASTRAL = re.compile("([\U00010000-\U0010ffff])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXAMPLE = '{"day": "2026-11-22"}'


def parse(text: str, field: str = "vars") -> dict[str, Any]:
    """Reads variables that are given as text.

    Args:
        text: a JSON object.
        field: where it stands, for the message.

    Raises:
        TypedError: Dbt.InvalidRequest: no JSON, no object, or a value that `check` refuses.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                _refuse(field, f"has the name {name[:80]!r} twice")
            found[name] = value
        return found

    def constant(name: str) -> NoReturn:
        _refuse(field, f"has the value {name}, which JSON does not know; write it as a text")

    def integer(digits: str) -> int:
        if len(digits) > _MAX_DIGITS:
            _refuse(field, f"has a number of {len(digits):,} digits; {_MAX_DIGITS:,} are allowed")
        return int(digits)

    if len(text) > MAX_CHARACTERS:
        _too_long(field)
    try:
        document = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_int=integer)
    except ValueError as exc:
        raise TypedError(INVALID_REQUEST, f"{field}: is not JSON ({exc}): give an object such as {_EXAMPLE}") from exc
    except RecursionError as exc:
        raise TypedError(INVALID_REQUEST, f"{field}: {_too_deep()}") from exc
    return check(document, field)


def check(document: object, field: str = "vars") -> dict[str, Any]:
    """Makes sure that variables are JSON, and such that every station on the way keeps them.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the value: no object, a number that is none, text that is no Unicode, a type that JSON does
            not know, more than MAX_DEPTH levels or MAX_CHARACTERS characters.
    """
    if not isinstance(document, Mapping):
        _refuse(field, f"must be a JSON object such as {_EXAMPLE}")
    _check(document, field, MAX_DEPTH)
    if len(json.dumps(document)) > MAX_CHARACTERS:
        _too_long(field)
    return dict(document)


def text_of(document: Mapping[str, Any]) -> str:
    """Variables as the text that travels: ASCII, names in order, so that equal variables are the same text.

    Raises:
        TypedError: as `check`.
    """
    return json.dumps(check(document), sort_keys=True)


def of_input(given: object, field: str = "vars") -> dict[str, Any]:
    """Variables as a request has them: as an object or, from everything that has to keep its numbers, as text.

    Raises:
        TypedError: as `parse`.
    """
    return parse(given, field) if isinstance(given, str) else check(given, field)


def of_record(request: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of a run, as its record's request has them: the caller's win over the job's.

    Raises:
        TypedError: as `parse`.
    """
    return {**of_input(request.get("job_vars", {}), "the job's vars"), **of_input(request.get("vars", {}))}


def for_dbt(document: Mapping[str, Any]) -> str:
    """Variables as YAML 1.1 that reads back as the same values: what `--vars` takes."""
    return "".join(_yaml(document))


def _check(value: object, where: str, depth: int) -> None:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            _refuse(where, "has half of a surrogate pair, which is no character")
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                _refuse(where, f"has the name {name!r}; a name in JSON is a text")
            _check(name, f"{where}: a name", depth)
            _check(item, f"{where}.{name[:80]}", _one_less(where, depth))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check(item, f"{where}[{position}]", _one_less(where, depth))
    elif isinstance(value, float):
        if not math.isfinite(value):
            _refuse(where, f"is {value!r}: JSON has no such number, or it is beyond what a double can hold; write it as a text")
    elif isinstance(value, int):
        # bit_length, because a longer one cannot even be printed.
        if value.bit_length() > _MAX_DIGITS * 3.3:
            _refuse(where, f"is a number of more than {_MAX_DIGITS:,} digits")
    elif value is not None:
        _refuse(where, f"is a {type(value).__name__}, which JSON does not know")


def _one_less(where: str, depth: int) -> int:
    if depth == 0:
        _refuse(where.partition(".")[0], _too_deep())
    return depth - 1


def _yaml(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield "{"
        for position, (name, item) in enumerate(value.items()):
            key = _quoted(name)
            yield f"{', ' if position else ''}{'? ' if len(key) > _SIMPLE_KEY else ''}{key}: "
            yield from _yaml(item)
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for position, item in enumerate(value):
            yield ", " if position else ""
            yield from _yaml(item)
        yield "]"
    elif isinstance(value, str):
        yield _quoted(value)
    elif isinstance(value, float):
        # A float has a point in YAML 1.1: 1e-05 is a text.
        yield _EXPONENT.sub(r"\1.0\2", repr(value))
    else:
        yield json.dumps(value)


def _quoted(text: str) -> str:
    """A text in double quotes. JSON writes what is beyond 16 bits as two escapes, YAML as one."""
    parts = _ASTRAL.split(text)  # what stands between them, and each of them, in turn
    inner = (f"\\U{ord(part):08x}" if position % 2 else json.dumps(part)[1:-1] for position, part in enumerate(parts))
    return f'"{"".join(inner)}"'


def _refuse(where: str, problem: str) -> NoReturn:
    raise TypedError(INVALID_REQUEST, f"{where}: {problem}")


def _too_long(field: str) -> NoReturn:
    _refuse(field, f"must not be longer than {MAX_CHARACTERS:,} characters of JSON")


def _too_deep() -> str:
    return f"has more than {MAX_DEPTH} levels of lists and objects"
