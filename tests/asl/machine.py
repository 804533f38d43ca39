"""A definition as the rules read it: scopes, transitions and the places where expressions stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

State = Mapping[str, Any]


@dataclass(frozen=True)
class Promise:
    """What a definition promises about failures.

    Attributes:
        recorders: states that write how the run ended.
        answered: Tasks whose own failure needs no record, because something outside of the execution answers it.
    """

    recorders: frozenset[str]
    answered: frozenset[str]


@dataclass(frozen=True)
class Machine:
    """A definition, with what it cannot say of itself.

    Attributes:
        definition: parsed JSON that the schema has accepted.
        promise: see there.
        partition: the AWS partition in its ARNs; the placeholder before rendering.
    """

    definition: Mapping[str, Any]
    promise: Promise
    partition: str


@dataclass(frozen=True)
class Transition:
    """One way from a state to the next, with the variables that are assigned on it."""

    source: str
    target: str
    assigned: frozenset[str]


@dataclass(frozen=True)
class Scope:
    """The states among which transitions go: the machine's, a branch's or a Map's.

    Attributes:
        where: "" for the machine.
        start: its StartAt.
        states: its states by name.
        outer: the scope around it.
        owner: the state of the outer scope that holds it.
        shares: whether its states see the variables of the outer scope; a distributed Map's do not.
    """

    where: str
    start: str
    states: Mapping[str, State]
    outer: Scope | None = None
    owner: str = ""
    shares: bool = True


@dataclass(frozen=True)
class Place:
    """A string that may be an expression.

    Attributes:
        where: for people, such as `RunStep.Catch[0].Assign.task`.
        text: the string.
        scope, state: where it stands.
        states_fields: the fields that `$states` has there.
    """

    where: str
    text: str
    scope: Scope
    state: str
    states_fields: frozenset[str]


def scopes(definition: Mapping[str, Any]) -> list[Scope]:
    """The machine's scope first, an outer scope always before its inner ones."""
    found = [Scope("", definition["StartAt"], definition["States"])]
    for scope in found:  # Grows while it is read.
        for name, state in scope.states.items():
            for position, branch in enumerate(state.get("Branches", [])):
                found.append(Scope(f"{name}.Branches[{position}]", branch["StartAt"], branch["States"], scope, name))
            if processor := state.get("ItemProcessor"):
                shares = processor.get("ProcessorConfig", {}).get("Mode", "INLINE") == "INLINE"
                found.append(Scope(f"{name}.ItemProcessor", processor["StartAt"], processor["States"], scope, name, shares))
    return found


def tasks(definition: Mapping[str, Any]) -> Iterator[tuple[Scope, str, State]]:
    """Every Task with its name and scope."""
    for scope in scopes(definition):
        for name, state in scope.states.items():
            if state["Type"] == "Task":
                yield scope, name, state


def transitions(name: str, state: State) -> Iterator[Transition]:
    """Every way out of a state."""
    own = frozenset(state.get("Assign", {}))
    for key in ("Next", "Default"):
        if key in state:
            yield Transition(name, state[key], own)
    for entry in (*state.get("Choices", []), *state.get("Catch", [])):
        yield Transition(name, entry["Next"], frozenset(entry.get("Assign", {})))


def is_terminal(state: State) -> bool:
    """Whether the scope can end in this state."""
    return state["Type"] in ("Succeed", "Fail") or state.get("End") is True


def reachable(scope: Scope, start: str, avoiding: Iterable[str] = ()) -> set[str]:
    """The states that can be entered from one, itself included, when some are closed."""
    closed = set(avoiding)
    found: set[str] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        if name in closed or name in found or name not in scope.states:
            continue
        found.add(name)
        pending += [transition.target for transition in transitions(name, scope.states[name])]
    return found


def places(definition: Mapping[str, Any]) -> Iterator[Place]:
    """Every string of every state in which Step Functions looks for an expression."""
    for scope in scopes(definition):
        for name, state in scope.states.items():
            yield from _state_places(scope, name, state)


_ALWAYS = frozenset({"input", "context"})
_WITH_RESULT = frozenset({"Task", "Map", "Parallel"})
# Fields in which nothing is evaluated, or whose entries are places of their own.
_NOT_EVALUATED = frozenset({"Type", "Comment", "Next", "Default", "Resource", "Retry", "Choices", "Catch", "Branches", "ItemProcessor"})
_ENTRY_NOT_EVALUATED = frozenset({"ErrorEquals", "Comment", "Next"})


def _state_places(scope: Scope, name: str, state: State) -> Iterator[Place]:
    for key, value in state.items():
        if key not in _NOT_EVALUATED:
            has_result = key in ("Assign", "Output") and state["Type"] in _WITH_RESULT
            fields = _ALWAYS | {"result"} if has_result else _ALWAYS
            yield from (Place(where, text, scope, name, fields) for where, text in _strings(f"{name}.{key}", value))
    for key, more in (("Choices", frozenset[str]()), ("Catch", frozenset({"errorOutput"}))):
        for position, entry in enumerate(state.get(key, [])):
            for field, value in entry.items():
                if field not in _ENTRY_NOT_EVALUATED:
                    strings = _strings(f"{name}.{key}[{position}].{field}", value)
                    yield from (Place(where, text, scope, name, _ALWAYS | more) for where, text in strings)


def _strings(where: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(f"{where}.{key}", item)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _strings(f"{where}[{position}]", item)
