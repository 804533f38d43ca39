"""IAM's evaluation of a request, turned round: is there any request that a role's policies allow and of which a claim says that it
cannot be? None is a proof over all requests, where a simulation only samples.

A request is an action, a resource, a caller and context keys, each of which may be absent. Statements allow by AWS's rules:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html. What a statement allows is taken apart into
cells: one pattern for the action, one for the resource, one for each key. In a cell nearly everything that a claim asks is decided by
comparing two patterns; what is left is decided by Z3.

What is simplified allows more than AWS does, never less, so that a proof holds: a policy variable is read as a wildcard, an ARN is compared
as one text, and of a key with several values one is looked at. For ForAllValues that is exact: the fewer values, the easier it is true.
Anything else that IAM knows and this module does not is an error, not a guess.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import z3

_ANY = z3.AllChar(z3.ReSort(z3.StringSort()))
_VARIABLE = re.compile(r"\$\{[^}]*\}")
_KNOWN = {"Sid", "Effect", "Action", "Resource", "Condition", "Principal"}
_GUESSES = 500
_TESTS = {"StringEquals", "StringLike", "ArnEquals", "ArnLike", "Bool"}
# What a number is compared with is read as one text, so that a question can ask for exactly that bound.
_BOUNDS = {"NumericLessThanEquals": "<= "}


@dataclass(frozen=True)
class Witness:
    """A request that is allowed: what a broken claim is shown by. `keys` has the context keys that are present."""

    action: str
    resource: str
    principal: str
    keys: Mapping[str, str]


class Text:
    """A text of which only a pattern is known; a pattern without wildcards is the text itself."""

    def __init__(self, name: str, pattern: str = "*") -> None:
        self.variable = z3.String(name)
        self.pattern = pattern
        self._asked = {pattern}

    def known(self) -> Any:
        """What is known, for the solver."""
        return _matches(self.variable, self.pattern)

    def simplest(self) -> list[str]:
        """The simplest texts that it could be, judging by what was asked of it."""
        texts = {re.sub(r"[*?]", filler, pattern) for pattern in self._asked for filler in ("", "x")}
        return sorted(text for text in texts if _regex(self.pattern).fullmatch(text))

    def like(self, patterns: Iterable[str]) -> Any:
        """Whether it is one of these patterns, with IAM's * and ?."""
        possible = [pattern for pattern in patterns if _meet(pattern, self.pattern)]
        if any(_covers(pattern, self.pattern) for pattern in possible):
            return z3.BoolVal(True)
        self._asked.update(possible)
        return z3.Or(*[_matches(self.variable, pattern) for pattern in possible])


class Request:
    """The requests of a cell. `keys` holds what is known of context keys: the pattern of one that is there, None for one that is not."""

    def __init__(self, action: str, resource: str, principal: str, keys: Mapping[str, str | None]) -> None:
        self.action = Text("action", action.lower())
        self.resource = Text("resource", resource)
        # The caller, for trust policies: its kind and its name, such as Service:ecs-tasks.amazonaws.com.
        self.principal = Text("principal", principal)
        self._keys = {key: (z3.BoolVal(known is not None), Text(f"value of {key}", known or "*")) for key, known in keys.items()}

    def present(self, key: str) -> Any:
        """Whether a context key is there."""
        return self._key(key)[0]

    def has(self, key: str, *patterns: str) -> Any:
        """Whether a key is there with a value that is one of the patterns."""
        present, value = self._key(key)
        return z3.And(present, value.like(patterns))

    def does(self, *patterns: str) -> Any:
        """Whether the action is one of these patterns."""
        return self.action.like([pattern.lower() for pattern in patterns])

    def on(self, *patterns: str) -> Any:
        """Whether the resource is one of these patterns."""
        return self.resource.like(patterns)

    def by(self, *patterns: str) -> Any:
        """Whether the caller is one of these patterns."""
        return self.principal.like(patterns)

    def such_that(self, formula: Any) -> Witness | None:
        """A request of this cell of which the formula is true.

        Raises:
            RuntimeError: the solver gave up, so nothing is proven.
        """
        formula = z3.simplify(formula)
        if z3.is_false(formula):
            return None
        texts = [self.action, self.resource, self.principal, *(text for _, text in self._keys.values())]
        # Solvers are slow at inventing texts, so the simplest ones are tried first; that finds most witnesses, and proves nothing.
        for guess in itertools.islice(itertools.product(*(text.simplest() for text in texts)), _GUESSES):
            chosen = [(text.variable, z3.StringVal(value)) for text, value in zip(texts, guess, strict=True)]
            left = z3.simplify(z3.substitute(formula, *chosen))
            if not z3.is_false(left) and (found := self._solve(left, *(variable == value for variable, value in chosen))):
                return found
        return self._solve(formula, *(text.known() for text in texts))

    def _solve(self, *formulas: Any) -> Witness | None:
        solver = z3.Solver()
        solver.set("timeout", 20_000)
        solver.add(*formulas)
        answer = solver.check()
        if answer == z3.unknown:
            raise RuntimeError(f"nothing is proven: {solver.reason_unknown()}")
        return self._read(solver.model()) if answer == z3.sat else None

    def _read(self, model: Any) -> Witness:
        def read(text: Text) -> str:
            return str(model.eval(text.variable, model_completion=True).as_string())

        keys = {key: read(text) for key, (present, text) in self._keys.items() if z3.is_true(model.eval(present, model_completion=True))}
        return Witness(read(self.action), read(self.resource), read(self.principal), keys)

    def _key(self, key: str) -> tuple[Any, Text]:
        key = key.lower()
        return self._keys.setdefault(key, (z3.Bool(f"has {key}"), Text(f"value of {key}")))


Question = Callable[[Request], Any]


def witness(statements: Iterable[Mapping[str, Any]], question: Question) -> Witness | None:
    """A request that these statements allow and of which the question is true; None when there is none.

    Args:
        statements: of a role's policies, or of its trust policy.

    Raises:
        ValueError: a statement uses what this module does not know.
        RuntimeError: the solver gave up, so nothing is proven.
    """
    for statement in statements:
        for cell in _cells(statement):
            if found := cell.such_that(question(cell)):
                return found
    return None


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _cells(statement: Mapping[str, Any]) -> Iterator[Request]:
    # Without what is denied more is allowed, so that a proof holds.
    if statement["Effect"] == "Deny":
        return
    if statement["Effect"] != "Allow" or statement.keys() - _KNOWN:
        raise ValueError(f"only Allow with {', '.join(sorted(_KNOWN))} is known here: {statement}")
    conditions: dict[str, list[str | None]] = {}
    for operator, tests in sorted(statement.get("Condition", {}).items(), key=lambda item: item[0] == "Null"):
        for key, values in tests.items():
            conditions[key.lower()] = _narrowed(conditions.get(key.lower()), operator, listed(values))
    places = itertools.product(
        listed(statement["Action"]),
        [_VARIABLE.sub("*", resource) for resource in listed(statement.get("Resource", "*"))],
        _principals(statement.get("Principal", "*")),
    )
    for (action, resource, principal), keys in itertools.product(places, itertools.product(*conditions.values())):
        yield Request(action, resource, principal, dict(zip(conditions, keys, strict=True)))


def _narrowed(before: Sequence[str | None] | None, operator: str, values: list[str]) -> list[str | None]:
    """What a condition leaves possible for a key: patterns, and None for its absence.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    if operator == "Null":
        return [None] if values == ["true"] else [known for known in before or ["*"] if known is not None]
    quantifier, _, test = operator.rpartition(":")
    test, if_exists = test.removesuffix("IfExists"), test.endswith("IfExists")
    if before is not None or test not in {*_TESTS, *_BOUNDS} or quantifier not in ("", "ForAllValues", "ForAnyValue"):
        raise ValueError(f"the condition operator {operator}, or two on one key: not known here")
    patterns = [_BOUNDS.get(test, "") + _VARIABLE.sub("*", value) for value in values]
    return [None, *patterns] if quantifier == "ForAllValues" or if_exists else list(patterns)


def _principals(principal: Any) -> list[str]:
    return ["*"] if principal == "*" else [f"{kind}:{name}" for kind, names in principal.items() for name in listed(names)]


# --- patterns ------------------------------------------------------------------------------------------------------------


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "[^\0]"}.get(char) or re.escape(char) for char in pattern), re.DOTALL)


@cache
def _meet(one: str, other: str) -> bool:
    """Whether some text is both patterns."""
    for a, b in ((one, other), (one[::-1], other[::-1])):
        head = min(len(re.match(r"[^*?]*", a)[0]), len(re.match(r"[^*?]*", b)[0]))  # type: ignore[index]  # matches always
        if a[:head] != b[:head]:
            return False
    # reachable[j]: the part of `one` so far and the first j characters of `other` can be the same text.
    reachable = [all(char == "*" for char in other[:j]) for j in range(len(other) + 1)]
    for a in one:
        row = [a == "*" and reachable[0]]
        for j, b in enumerate(other, start=1):
            if a == "*" or b == "*":
                row.append(reachable[j] or row[j - 1])
            else:
                row.append(reachable[j - 1] and ("?" in (a, b) or a == b))
        reachable = row
    return reachable[-1]


@cache
def _covers(wide: str, narrow: str) -> bool:
    """Whether every text that is `narrow` is also `wide`. May say no where it is so: the solver decides then."""
    # A ? is one character, so it must not swallow what stands for a *.
    return _regex(wide).fullmatch(narrow.replace("*", "\0").replace("?", "\1")) is not None


def _matches(variable: Any, pattern: str) -> Any:
    if pattern == "*":
        return z3.BoolVal(True)
    if not re.search(r"[*?]", pattern):
        return variable == z3.StringVal(pattern)
    parts = [
        z3.Star(_ANY) if part == "*" else _ANY if part == "?" else z3.Re(z3.StringVal(part))
        for part in re.split(r"([*?])", pattern)
        if part
    ]
    return z3.InRe(variable, parts[0] if len(parts) == 1 else z3.Concat(*parts))
