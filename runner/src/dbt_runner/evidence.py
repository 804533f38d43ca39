"""What an exception says by its classes and codes, as far as it can be told without importing the driver it came from.

dbt's adapters raise their own exceptions "from" the driver's, so the chain of causes has what the outermost one has lost.
"""

from __future__ import annotations

import errno
import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dbt_runner.events import Failure

_MAX_CAUSES = 8
_UNSPECIFIC = (object, BaseException, Exception)


def describe(exc: BaseException) -> Failure:
    """An exception and its causes as data. Raises nothing."""
    own, *causes = [_link(link) for link in _chain(exc)]
    return replace(own, causes=tuple(causes))


def _link(exc: BaseException) -> Failure:
    # An exception of the team's code or a driver may compute its text and its attributes, and fail at that.
    try:
        text = str(exc)
    except Exception as other:
        text = f"(its text cannot be had: {type(other).__name__})"
    try:
        known = codes(exc)
    except Exception:
        known = {}
    return Failure(type(exc).__name__, _bases(exc), text, known)


def codes(exc: BaseException) -> dict[str, str]:
    """The codes that an exception brings, by their kind.

    sqlstate: psycopg2's pgcode, redshift_connector's field C, Snowflake's sqlstate. errno: Snowflake's. aws, http: botocore's
    error code and the status. reason, http: Google's. oauth: RFC 6749's error. athena: `category.type`; retryable: Athena's
    and Google's own word. os: the name of an OSError's errno.
    """
    found: dict[str, Any] = {}
    module = type(exc).__module__
    if module.startswith("snowflake."):
        # The specific one first; -1 is the connector's word for none.
        number = getattr(exc, "errno", None)
        found["errno"] = f"{number:06d}" if isinstance(number, int) and number > 0 else None
    if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError):
        found["os"] = errno.errorcode.get(exc.errno or 0)
    found["sqlstate"] = getattr(exc, "pgcode", None) or getattr(exc, "sqlstate", None) or _redshift_code(exc)
    response = getattr(exc, "response", None)
    if isinstance(response, Mapping):
        found["aws"] = response.get("Error", {}).get("Code")
        found["http"] = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if module.startswith("google."):
        found.update(_of_google(exc))
    if getattr(exc, "error_category", None) is not None:
        found["athena"] = f"{getattr(exc, 'error_category', '')}.{getattr(exc, 'error_type', '')}"
    if isinstance(retryable := getattr(exc, "retryable", None), bool):
        found["retryable"] = str(retryable).lower()
    return {kind: str(value) for kind, value in found.items() if value is not None}


def _redshift_code(exc: BaseException) -> object:
    """redshift_connector raises what the server sent: a dictionary of the protocol's fields."""
    fields = exc.args[0] if exc.args else None
    return fields.get("C") if isinstance(fields, dict) else None


def _of_google(exc: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = {}
    errors = getattr(exc, "errors", None)
    if isinstance(errors, (list, tuple)) and errors and isinstance(errors[0], Mapping):
        found["reason"] = errors[0].get("reason")
    code = getattr(exc, "code", None)
    if code is not None and not callable(code):
        found["http"] = int(code)
    # google.auth keeps the answer of the token service as its second argument.
    if len(exc.args) > 1:
        answer = exc.args[1]
        if isinstance(answer, str):
            try:
                answer = json.loads(answer)
            except ValueError:
                answer = None
        if isinstance(answer, Mapping):
            error = answer.get("error")
            if isinstance(error, Mapping):
                found["http"] = error.get("code")
            else:
                found["oauth"] = error
    return found


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(seen) <= _MAX_CAUSES:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _bases(exc: BaseException) -> tuple[str, ...]:
    return tuple(cls.__name__ for cls in type(exc).__mro__ if cls not in _UNSPECIFIC)
