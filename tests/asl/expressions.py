"""What a JSONata expression reads, calls and binds, from the tree that jsonata-python parses it to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonata
from jsonata.parser import Parser

OPEN, CLOSE = "{%", "%}"

# Source: Step Functions developer guide, "Transforming data with JSONata in Step Functions". $eval is JSONata's, but refused there.
_ADDED = frozenset({"partition", "range", "hash", "random", "uuid", "parse", "now", "millis"})
FUNCTIONS = frozenset(jsonata.Jsonata.static_frame.bindings) - {"eval"} | _ADDED
"""What can be called without having been assigned. An assigned variable of one of these names hides the function."""

# Source: docs.jsonata.org, "Functions" (version 2.1), and `_ADDED`. Not taken from the interpreter: it lags behind what AWS may run.
_DOCUMENTED = (
    "abs append assert average base64decode base64encode boolean ceil clone contains count decodeUrl decodeUrlComponent distinct "
    "each encodeUrl encodeUrlComponent error eval exists filter floor formatBase formatInteger formatNumber fromMillis join keys "
    "length lookup lowercase map match max merge millis min not now number pad parseInteger power random reduce replace reverse "
    "round shuffle sift single sort split spread sqrt string substring substringAfter substringBefore sum toMillis trim type "
    "uppercase zip"
)
BUILT_IN = _ADDED | frozenset(_DOCUMENTED.split())
"""The names of JSONata's functions, with those that Step Functions adds. A variable of one of these names hides the function."""


@dataclass(frozen=True)
class Expression:
    """An expression that parses.

    Attributes:
        variables: names that it reads or calls and does not bind itself, JSONata's own functions among them; `$` is "" and `$$` is "$".
        bound: names that it binds with `:=`.
        parameters: the names of its functions' parameters.
        states: the fields of `$states` that it reads; "" where it reads `$states` as a whole.
        reads_context: whether it reads a bare name or `$` where there is no context: outside of paths and filters.
    """

    variables: frozenset[str]
    bound: frozenset[str]
    parameters: frozenset[str]
    states: frozenset[str]
    reads_context: bool


def code(text: str) -> str | None:
    """What stands between the delimiters; None where the text is no expression."""
    if text.startswith(OPEN) and text.endswith(CLOSE) and len(text) >= len(OPEN + CLOSE):
        return text[len(OPEN) : -len(CLOSE)]
    return None


@cache
def parse(source: str) -> Expression:
    """Reads an expression, without its delimiters.

    Raises:
        ValueError: it does not parse.
    """
    try:
        root = jsonata.Jsonata(source).ast
    except jsonata.JException as exc:
        raise ValueError(str(exc)) from exc
    return Expression(
        variables=frozenset(_free(root, frozenset())),
        bound=frozenset(node.lhs.value for node in _walk(root) if node.type == "bind"),
        parameters=frozenset(
            argument.value for node in _walk(root) if node.type == "lambda" for argument in _nodes(getattr(node, "arguments", None))
        ),
        states=frozenset(_states_fields(root)),
        reads_context=_reads_context(root),
    )


def _children(node: Any) -> Iterator[Any]:
    for key, value in vars(node).items():
        if key != "_outer_instance":
            yield from _nodes(value)


def _nodes(value: Any) -> Iterator[Any]:
    if isinstance(value, Parser.Symbol):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _nodes(item)


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in _children(node):
        yield from _walk(child)


def _free(node: Any, bound: frozenset[str]) -> Iterator[str]:
    """The variables that a node reads and that nothing around it binds."""
    if node.type == "variable" and node.value not in bound:
        yield str(node.value)
    if node.type == "lambda":
        # A thunk, which the parser makes of a call in tail position, has no arguments.
        names = frozenset(argument.value for argument in _nodes(getattr(node, "arguments", None)))
        yield from _free(node.body, bound | names)
    elif node.type == "bind":
        # A function may call itself, any other value cannot read the name that it is being given.
        yield from _free(node.rhs, bound | {node.lhs.value} if node.rhs.type == "lambda" else bound)
    elif node.type == "block":
        for expression in node.expressions:
            yield from _free(expression, bound)
            if expression.type == "bind":
                bound = bound | {expression.lhs.value}
    elif node.type == "path":
        for step in node.steps:
            yield from _free(step, bound)
            bound = bound | {name for name in (getattr(step, "focus", None), getattr(step, "index", None)) if isinstance(name, str)}
    else:
        for child in _children(node):
            yield from _free(child, bound)
        return
    # What may follow a value of any kind: [filters] and {groups}.
    for key in ("predicate", "stages", "group"):
        for following in _nodes(getattr(node, key, None)):
            yield from _free(following, bound)


def _reads_context(node: Any, without: bool = True) -> bool:
    """Whether a node reads the context; `without` says that there is none here."""
    if node.type in ("name", "wildcard", "descendant") or (node.type == "variable" and node.value == ""):
        return without
    if node.type == "path":
        return _reads_context(node.steps[0], without) or any(_reads_context(step, False) for step in node.steps[1:])
    if node.type == "lambda":
        return _reads_context(node.body, without)
    if node.type == "bind":
        return _reads_context(node.rhs, without)
    followed = {id(part) for key in ("predicate", "stages", "group") for part in _nodes(getattr(node, key, None))}
    return any(_reads_context(child, without and id(child) not in followed) for child in _children(node))


def _states_fields(root: Any) -> Iterator[str]:
    """The field that follows each `$states`, "" where none does."""
    named = set()
    for node in _walk(root):
        steps = node.steps if node.type == "path" else []
        if len(steps) > 1 and steps[0].type == "variable" and steps[0].value == "states" and steps[1].type == "name":
            named.add(id(steps[0]))
            yield str(steps[1].value)
    for node in _walk(root):
        if node.type == "variable" and node.value == "states" and id(node) not in named:
            yield ""
