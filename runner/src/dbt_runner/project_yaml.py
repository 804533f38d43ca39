"""A dbt project's YAML, read without trusting it: each refusal names the file, and no file costs more than its length.

Aliases let a file of a few lines stand for billions of values ("billion laughs"), and deep nesting ends a parser's recursion. dbt checks
neither, so publishing does before dbt reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbt_runner.errors import INVALID_REQUEST, TypedError

if TYPE_CHECKING:
    from yaml.nodes import Node

# What the aliases of one file may expand to, and how deep its values may lie. The largest schema files of public projects hold some 100,000
# values.
MAX_VALUES = 1_000_000
MAX_DEPTH = 200


def read(path: Path, shown: Path | None = None) -> Mapping[str, Any]:
    """The keys and values of a YAML file; empty for an empty file.

    Args:
        shown: what to call the file in a message, where it is not `path`.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file.
    """
    name = shown or path
    try:
        document = _load(path.read_bytes(), str(name))
    except OSError as exc:
        raise _refused(name, f"cannot be read: {exc.strerror}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _refused(name, "must hold keys and values")
    return document


def check(content: bytes, name: Path | str) -> None:
    """Refuses YAML that dbt could not read, or only at a cost out of all proportion to its length.

    Text that is no YAML at all passes: dbt's own message for it names the file and the line.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file.
    """
    text = decode(content, name)
    # Composing is half the price of reading. Most files have no alias and are flat, which is seen without it.
    if "&" in text or _may_be_deep(text):
        _compose(text, name)


def decode(content: bytes, name: Path | str) -> str:
    """The text of a file that dbt reads.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file and the line, when it is not UTF-8 or holds a NUL.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise _refused(name, f"is not UTF-8: byte 0x{content[exc.start]:02x} in line {line}; save it as UTF-8") from exc
    if "\0" in text:
        raise _refused(name, f"holds a NUL in line {text.count(chr(10), 0, text.index(chr(0))) + 1}; save it as UTF-8 text")
    return text


def _load(content: bytes, name: str) -> Any:
    import yaml

    text = decode(content, name)
    _compose(text, name)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        # Without PyYAML's excerpt: a file that leads elsewhere could hold a secret.
        mark = getattr(exc, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        raise _refused(name, f"cannot be read: {getattr(exc, 'problem', None) or type(exc).__name__}{place}") from None
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as exc:
        # PyYAML's constructors raise whatever an impossible date, number or key makes of them.
        raise _refused(name, f"holds a value that YAML cannot have ({type(exc).__name__})") from None


def _compose(text: str, name: Path | str) -> None:
    import yaml

    # libyaml where PyYAML was built with it, as dbt does: many times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _refused(name, f"nests its values more than {MAX_DEPTH} deep")
        if "&" in text:
            for node in yaml.compose_all(text, Loader=loader):
                if _expanded(node, {}) > MAX_VALUES:
                    raise _refused(name, f"holds more than {MAX_VALUES:,} values, because its aliases repeat one another; write them out")
    except RecursionError as exc:
        raise _refused(name, "nests its values too deep") from exc
    except (yaml.YAMLError, ValueError):
        # dbt, or safe_load, says what is wrong with it and where.
        return


def _expanded(node: Node, known: dict[int, int]) -> int:
    """How many values a node stands for once its aliases are written out; an alias that leads to itself stands for too many."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1
        children = getattr(node, "value", None)
        if not isinstance(children, list):
            children = []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _may_be_deep(text: str) -> bool:
    if text.count("[") + text.count("{") > MAX_DEPTH:
        return True
    # Each level of a block takes a space at least, or a dash and a space in one line.
    return any(len(line) - len(line.lstrip(" -?:")) > MAX_DEPTH for line in text.splitlines())


def _refused(name: Path | str, problem: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"{name} {problem}")
