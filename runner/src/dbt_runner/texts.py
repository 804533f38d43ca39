"""Makes text from dbt, drivers and the warehouse fit for UTF-8, JSON, DynamoDB and a terminal.

The worker calls this before it sends a text, and the supervisor calls it again for every text that it decodes: the worker is not trusted.
"""

from __future__ import annotations

import re
from typing import Any

# Control characters other than tab, line feed and carriage return, and UTF-16 surrogates. A surrogate has no UTF-8 encoding: DynamoDB,
# S3 and files refuse it. NUL and escape sequences change what a terminal or a log viewer shows.
_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
ELLIPSIS = "…"


def fit(text: str) -> str:
    """The text with every unfit character replaced by U+FFFD. Two surrogates that form a pair become the character that they encode."""
    if not _UNFIT.search(text):
        return text
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNFIT.sub(REPLACEMENT, text)


def fit_tree(value: Any) -> Any:
    """`fit` for every text in a JSON value, keys included."""
    if isinstance(value, str):
        return fit(value)
    if isinstance(value, dict):
        return {fit_tree(key): fit_tree(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [fit_tree(inner) for inner in value]
    return value


def without_middle(text: str, most: int) -> str:
    """At most `most` characters: the beginning and the end, with an ellipsis for what was between them.

    The ellipsis marks the cut, so that a mask can look for the part of a secret that is left beside it.
    """
    if len(text) <= most:
        return text
    head = (most - len(ELLIPSIS)) // 2
    return text[:head] + ELLIPSIS + text[len(text) - (most - len(ELLIPSIS) - head) :]
