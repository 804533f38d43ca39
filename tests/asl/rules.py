"""What a definition must hold beyond its schema: one function a rule, each yielding where it is broken and what to do about it.

The rules read what the schema lets through; `check` runs both. They know the project (which integrations, which environment variables
of the container), so they refuse more than Step Functions does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from asl import error_names, expressions
from asl.machine import Machine, Place, Promise, Scope, State, is_terminal, places, reachable, scopes, tasks, transitions

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "asl.schema.json").read_text(encoding="utf-8"))

# Of the 8,192 characters that all overrides of a task may have together. What is constant must leave room for what is not.
OVERRIDES_LIMIT = 2048
RUN_TASK = "runTask.sync"
COMMANDS = (["check"], ["step"])
# What a function's event holds: what a container has in its variables.
POINTER = frozenset({"run_key", "step", "attempt"})
ENVIRONMENT = frozenset({"DBT_RUNNER_RUN_KEY", "DBT_RUNNER_STEP", "DBT_RUNNER_ATTEMPT"})
# The variables that hold names and keys. The request and CONFIG are not among them: their size has no bound.
ENVIRONMENT_VARIABLES = frozenset({"record", "position", "attempt"})


@dataclass(frozen=True)
class Finding:
    """A rule that a definition breaks, where, and how."""

    rule: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.message}"


Found = Iterator[tuple[str, str]]
Rule = Callable[[Machine], Found]


def check(definition: Mapping[str, Any], promise: Promise, partition: str) -> list[Finding]:
    """Everything that is wrong with a definition: by the schema, or, where the schema has nothing to say, by the rules."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    errors = [Finding("schema", error.json_path, error.message) for error in validator.iter_errors(definition)]
    if errors:
        return errors
    machine = Machine(definition, promise, partition)
    return [Finding(rule.__name__, where, message) for rule in RULES for where, message in rule(machine)]


# Transitions


def targets_exist(machine: Machine) -> Found:
    """Every StartAt, Next and Default names a state of its own scope."""
    for scope in scopes(machine.definition):
        if scope.start not in scope.states:
            yield scope.where or "StartAt", f"there is no state {scope.start}"
        for name, state in scope.states.items():
            for transition in transitions(name, state):
                if transition.target not in scope.states:
                    yield name, f"there is no state {transition.target} in the same scope"


def names_are_unique(machine: Machine) -> Found:
    """No two states of a definition have one name, whatever their scopes."""
    seen: set[str] = set()
    for scope in scopes(machine.definition):
        for name in scope.states:
            if name in seen:
                yield name, "another scope has a state of this name"
            seen.add(name)


def states_are_reachable(machine: Machine) -> Found:
    """Every state can be entered."""
    for scope in scopes(machine.definition):
        for name in sorted(set(scope.states) - reachable(scope, scope.start)):
            yield name, f"cannot be reached from {scope.start}"


def states_can_end(machine: Machine) -> Found:
    """From every state a terminal state can be reached."""
    for scope in scopes(machine.definition):
        for name in scope.states:
            if not any(is_terminal(scope.states[other]) for other in reachable(scope, name)):
                yield name, "no state that ends anything can be reached from here"


# Expressions


def delimiters_are_closed(machine: Machine) -> Found:
    """A string is an expression as a whole, or not at all."""
    for place in places(machine.definition):
        text = place.text
        if (expressions.OPEN in text or expressions.CLOSE in text) and expressions.code(text) is None:
            yield place.where, f"must begin with {expressions.OPEN} and end with {expressions.CLOSE}, or hold neither"


def expressions_parse(machine: Machine) -> Found:
    """Every expression is JSONata."""
    for place in places(machine.definition):
        code = expressions.code(place.text)
        if code is not None:
            try:
                expressions.parse(code)
            except ValueError as exc:
                yield place.where, f"does not parse: {exc}"


def eval_is_not_called(machine: Machine) -> Found:
    """Step Functions has no $eval."""
    for place, expression in _parsed(machine):
        if "eval" in expression.variables:
            yield place.where, "Step Functions refuses $eval; $parse reads JSON"


def input_is_named(machine: Machine) -> Found:
    """No expression reads `$$`, which Step Functions leaves without a value."""
    for place, expression in _parsed(machine):
        if "$" in expression.variables:
            yield place.where, "$$ has no value; read $states.input"


def context_is_not_read(machine: Machine) -> Found:
    """No expression reads a bare name or `$` at its top level, where Step Functions has no context and refuses the definition."""
    for place, expression in _parsed(machine):
        if expression.reads_context:
            yield place.where, "there is no context here; begin with $states or a variable"


def states_is_not_assigned(machine: Machine) -> Found:
    """Nobody assigns `states`: Step Functions does."""
    for name, assigned in _assigned(machine):
        if "states" in assigned:
            yield name, "states is the name of what Step Functions itself provides"
    for place, expression in _parsed(machine):
        if "states" in expression.bound:
            yield place.where, "$states is what Step Functions itself provides"


def states_has_the_field(machine: Machine) -> Found:
    """`$states.result` and `$states.errorOutput` are read only where they are, and never `$states` as a whole."""
    for place, expression in _parsed(machine):
        for field in sorted(expression.states - place.states_fields):
            yield place.where, f"$states.{field} does not exist here" if field else "name the field of $states"


def names_are_no_functions(machine: Machine) -> Found:
    """No variable has the name of a function of JSONata: which of the two an expression means may change with its version."""
    for name, assigned in _assigned(machine):
        for variable in sorted(assigned & expressions.BUILT_IN):
            yield name, f"${variable} is a function of JSONata; name the variable otherwise"
    for place, expression in _parsed(machine):
        for variable in sorted((expression.bound | expression.parameters) & expressions.BUILT_IN):
            yield place.where, f"${variable} is a function of JSONata; name the variable otherwise"


def variables_are_assigned(machine: Machine) -> Found:
    """A variable is read only where every path that leads there has assigned it."""
    known = _assigned_on_every_path(machine)
    # "" and "$" are `$` and `$$`, `eval` has a rule of its own. A function's name is a variable where somebody assigns it.
    always = {"", "$", "states", "eval"} | expressions.FUNCTIONS.difference(*(assigned for _, assigned in _assigned(machine)))
    for place, expression in _parsed(machine):
        for name in sorted(expression.variables - known[place.scope.where, place.state] - always):
            yield place.where, f"${name} is not assigned on every path to this state"


def inner_names_are_new(machine: Machine) -> Found:
    """A branch or a Map assigns no variable of the scope around it: Step Functions refuses it, and the outer one would not change."""
    for scope in scopes(machine.definition):
        outer: set[str] = set()
        around = scope.outer
        while around is not None:
            for state in around.states.values():
                outer |= _assigned_by(state)
            around = around.outer
        for name, state in scope.states.items():
            for variable in sorted(_assigned_by(state) & outer):
                yield name, f"{variable} is a variable of the scope around this one"


# Errors


def catch_all_is_last(machine: Machine) -> Found:
    """In a Catch, States.ALL stands alone and last."""
    for name, state in _with_errors(machine, "Catch"):
        for position, catcher in enumerate(state["Catch"]):
            errors = catcher["ErrorEquals"]
            if error_names.CATCH_ALL in errors and (len(errors) > 1 or position < len(state["Catch"]) - 1):
                yield f"{name}.Catch[{position}]", "States.ALL must be alone in the last catcher"


def retries_name_errors(machine: Machine) -> Found:
    """No Retry has a wildcard: what is retried has a name."""
    for name, state in _with_errors(machine, "Retry"):
        for position, retrier in enumerate(state["Retry"]):
            for error in sorted(error_names.WILDCARDS.intersection(retrier["ErrorEquals"])):
                yield f"{name}.Retry[{position}]", f"{error} would retry what cannot succeed; name the errors"


def retries_are_bounded(machine: Machine) -> Found:
    """Every Retry says how often, how long at most, and spreads its attempts."""
    for name, state in _with_errors(machine, "Retry"):
        for position, retrier in enumerate(state["Retry"]):
            for field in ("MaxAttempts", "MaxDelaySeconds", "JitterStrategy"):
                if field not in retrier:
                    yield f"{name}.Retry[{position}]", f"{field} is missing"


def errors_have_one_place(machine: Machine) -> Found:
    """An error that stands in an earlier retrier or catcher never reaches a later one."""
    for key in ("Retry", "Catch"):
        for name, state in _with_errors(machine, key):
            seen: set[str] = set()
            for position, entry in enumerate(state[key]):
                for error in sorted(seen.intersection(entry["ErrorEquals"])):
                    yield f"{name}.{key}[{position}]", f"{error} stands in an earlier one"
                seen.update(entry["ErrorEquals"])


def passing_errors_are_retried(machine: Machine) -> Found:
    """What is over after a moment ends no Task: every error of that kind, by each of its names, and the base class of what has no name."""
    for _, name, state in tasks(machine.definition):
        retried = {error for retrier in state.get("Retry", []) for error in retrier["ErrorEquals"]}
        try:
            missing = error_names.passing(state["Resource"]) | error_names.perhaps_passing(state["Resource"])
        except KeyError:
            continue  # resources_are_known says it.
        for error in sorted(missing - retried):
            yield name, f"{error} may pass, and is not retried"


def errors_are_spelled_in_full(machine: Machine) -> Found:
    """Where a name decides, it stands in all its spellings: ExecutionDoesNotExist, and with the suffix that Step Functions gives it."""
    for key in ("Retry", "Catch"):
        for name, state in _with_errors(machine, key):
            if state["Type"] != "Task":
                continue
            try:
                service, _ = error_names.integration(state["Resource"])
            except KeyError:
                continue  # resources_are_known says it.
            for position, entry in enumerate(state[key]):
                given = set(entry["ErrorEquals"])
                for spellings in error_names.spellings(service):
                    if given & spellings and not given >= spellings:
                        yield f"{name}.{key}[{position}]", f"{', '.join(sorted(spellings - given))} is the same error"


def failures_are_caught(machine: Machine) -> Found:
    """Every Task has an answer to whatever it may fail with."""
    for _, name, state in tasks(machine.definition):
        if not any(error_names.CATCH_ALL in catcher["ErrorEquals"] for catcher in state.get("Catch", [])):
            yield name, "no Catch of States.ALL"


def error_names_are_known(machine: Machine) -> Found:
    """Every error in a Retry or Catch exists, and can come from that state's own integration."""
    for key in ("Retry", "Catch"):
        for name, state in _with_errors(machine, key):
            known = error_names.LANGUAGE
            if state["Type"] == "Task":
                try:
                    known |= error_names.of_service(error_names.integration(state["Resource"])[0])
                except KeyError:
                    continue  # resources_are_known says it.
            for position, entry in enumerate(state[key]):
                for error in sorted(set(entry["ErrorEquals"]) - known):
                    yield f"{name}.{key}[{position}]", f"{error} is no error of {state.get('Resource', state['Type'])}"


def typed_errors_are_known(machine: Machine) -> Found:
    """Every error of the project's own that a definition names is one of the table."""
    for place in places(machine.definition):
        if place.text.startswith("Dbt.") and place.text not in error_names.TYPED:
            yield place.where, f"{place.text} is not in dbt_runner.errors"
    for name, state in ((name, state) for scope in scopes(machine.definition) for name, state in scope.states.items()):
        error = state.get("Error")
        if state["Type"] == "Fail" and expressions.code(error or "") is None and error not in error_names.TYPED:
            yield name, f"a Fail needs a typed error, not {error}"


def failures_are_answered(machine: Machine) -> Found:
    """Whatever a Task fails with, the run's end is recorded before the execution ends."""
    recorders, answered = machine.promise.recorders, machine.promise.answered
    for scope, name, state in tasks(machine.definition):
        if name in answered:
            continue
        for catcher in state.get("Catch", []):
            if name in recorders and catcher["ErrorEquals"] == [error_names.RECORDED_ALREADY]:
                continue
            for end in sorted(reachable(scope, catcher["Next"], avoiding=recorders)):
                if is_terminal(scope.states[end]):
                    yield name, f"{catcher['ErrorEquals'][0]} leads to {end} without {' or '.join(sorted(recorders))}"


# Time


def execution_has_timeout(machine: Machine) -> Found:
    """No execution can last forever."""
    if "TimeoutSeconds" not in machine.definition:
        yield "TimeoutSeconds", "is missing"


def tasks_have_timeouts(machine: Machine) -> Found:
    """No Task can last forever."""
    for _, name, state in tasks(machine.definition):
        if "TimeoutSeconds" not in state:
            yield name, "TimeoutSeconds is missing"


def heartbeats_are_shorter(machine: Machine) -> Found:
    """A heartbeat that is not shorter than the timeout is no heartbeat."""
    for _, name, state in tasks(machine.definition):
        heartbeat, timeout = (_constant(state.get(key)) for key in ("HeartbeatSeconds", "TimeoutSeconds"))
        if heartbeat is not None and timeout is not None and heartbeat >= timeout:
            yield name, f"HeartbeatSeconds {heartbeat:g} must be below TimeoutSeconds {timeout:g}"


# Integrations


def resources_are_known(machine: Machine) -> Found:
    """Every Resource is an integration of the project, in the partition of the deployment, and an action of that service."""
    for _, name, state in tasks(machine.definition):
        resource = state["Resource"]
        beginning = f"arn:{machine.partition}:states:::"
        if not resource.startswith(beginning):
            yield name, f"the Resource must begin with {beginning}"
            continue
        try:
            service, action = error_names.integration(resource)
        except KeyError:
            yield name, f"{resource} is no integration that the project uses"
            continue
        method = action.removesuffix(".sync")
        if method[:1].isupper() or method[:1].upper() + method[1:] not in error_names.operations(service):
            yield name, f"{service} has no action {method}"


def overrides_are_small(machine: Machine) -> Found:
    """The constant part of a container's overrides leaves room for the rest."""
    for name, overrides in _overrides(machine):
        length = len(json.dumps(overrides))
        if length > OVERRIDES_LIMIT:
            yield name, f"the overrides have {length} characters before they are evaluated; {OVERRIDES_LIMIT} are allowed"


def overrides_follow_the_contract(machine: Machine) -> Found:
    """A task gets its size, its container its command and the three variables of its interface, which carry names and keys alone."""
    for name, overrides in _overrides(machine):
        containers = overrides.get("ContainerOverrides", [])
        if set(overrides) != {"ContainerOverrides", "Cpu", "Memory"} or len(containers) != 1:
            yield name, "override Cpu, Memory and one container, and nothing else"
            continue
        container = containers[0]
        if set(container) != {"Name", "Command", "Environment"} or container["Command"] not in COMMANDS:
            yield name, f"a container is overridden by its Name, a Command of {COMMANDS} and its Environment"
            continue
        given = [variable["Name"] for variable in container["Environment"]]
        if sorted(given) != sorted(ENVIRONMENT):
            yield name, f"the Environment must be {', '.join(sorted(ENVIRONMENT))}, not {', '.join(given)}"
        for variable in container["Environment"]:
            code = expressions.code(variable["Value"])
            if code is not None:
                read = expressions.parse(code)
                allowed = ENVIRONMENT_VARIABLES | expressions.FUNCTIONS
                for forbidden in sorted(read.variables - allowed):
                    yield f"{name}: {variable['Name']}", f"${forbidden} may be large; pass the run item's key"


def payloads_follow_the_contract(machine: Machine) -> Found:
    """A function gets the same pointer as a container, and nothing that may be large; CONFIG names it with its version."""
    for _, name, state in tasks(machine.definition):
        if not state["Resource"].endswith("lambda:invoke"):
            continue
        arguments = state.get("Arguments", {})
        if set(arguments) != {"FunctionName", "Payload"} or arguments["FunctionName"] != "{% $config.lambda.function %}":
            yield name, "invoke $config.lambda.function with a Payload, and nothing else"
            continue
        payload = arguments["Payload"]
        if not isinstance(payload, dict) or set(payload) != POINTER:
            yield name, f"the Payload must be {', '.join(sorted(POINTER))}"
            continue
        for field, value in payload.items():
            code = expressions.code(value) if isinstance(value, str) else None
            read = expressions.parse(code).variables if code is not None else frozenset[str]()
            for forbidden in sorted(read - ENVIRONMENT_VARIABLES - expressions.FUNCTIONS):
                yield f"{name}: {field}", f"${forbidden} may be large; pass the run item's key"


RULES: tuple[Rule, ...] = (
    targets_exist,
    names_are_unique,
    states_are_reachable,
    states_can_end,
    delimiters_are_closed,
    expressions_parse,
    eval_is_not_called,
    input_is_named,
    context_is_not_read,
    states_is_not_assigned,
    states_has_the_field,
    names_are_no_functions,
    variables_are_assigned,
    inner_names_are_new,
    catch_all_is_last,
    retries_name_errors,
    retries_are_bounded,
    errors_have_one_place,
    passing_errors_are_retried,
    errors_are_spelled_in_full,
    failures_are_caught,
    error_names_are_known,
    typed_errors_are_known,
    failures_are_answered,
    execution_has_timeout,
    tasks_have_timeouts,
    heartbeats_are_shorter,
    resources_are_known,
    overrides_are_small,
    overrides_follow_the_contract,
    payloads_follow_the_contract,
)


def _parsed(machine: Machine) -> Iterator[tuple[Place, expressions.Expression]]:
    """The expressions that parse, with their places."""
    for place in places(machine.definition):
        code = expressions.code(place.text)
        if code is not None:
            try:
                yield place, expressions.parse(code)
            except ValueError:
                continue  # expressions_parse says it.


def _assigned_by(state: State) -> frozenset[str]:
    """What a state assigns, on whichever way out."""
    entries = (state, *state.get("Choices", []), *state.get("Catch", []))
    return frozenset(variable for entry in entries for variable in entry.get("Assign", {}))


def _assigned(machine: Machine) -> Iterator[tuple[str, frozenset[str]]]:
    for scope in scopes(machine.definition):
        for name, state in scope.states.items():
            yield name, _assigned_by(state)


def _assigned_on_every_path(machine: Machine) -> dict[tuple[str, str], frozenset[str]]:
    """By scope and state: the variables that every path to the state has assigned."""
    known: dict[tuple[str, str], frozenset[str]] = {}
    for scope in scopes(machine.definition):
        outer = known.get((scope.outer.where, scope.owner), frozenset()) if scope.outer and scope.shares else frozenset[str]()
        for name, assigned in _within(scope, outer).items():
            known[scope.where, name] = assigned
    return known


def _within(scope: Scope, before: frozenset[str]) -> dict[str, frozenset[str]]:
    """Narrows down from "everything is assigned everywhere" until no transition takes anything away."""
    everything = before.union(*(_assigned_by(state) for state in scope.states.values()))
    known = dict.fromkeys(scope.states, everything)
    known[scope.start] = before
    changed = True
    while changed:
        changed = False
        for name, state in scope.states.items():
            for transition in transitions(name, state):
                if transition.target in known:
                    narrowed = known[transition.target] & (known[name] | transition.assigned)
                    changed = changed or narrowed != known[transition.target]
                    known[transition.target] = narrowed
    return known


def _with_errors(machine: Machine, key: str) -> Iterator[tuple[str, State]]:
    for scope in scopes(machine.definition):
        for name, state in scope.states.items():
            if key in state:
                yield name, state


def _overrides(machine: Machine) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _, name, state in tasks(machine.definition):
        if state["Resource"].endswith(RUN_TASK):
            yield name, state.get("Arguments", {}).get("Overrides", {})


def _constant(value: object) -> float | None:
    """The number that a field holds, written as it is or as an expression; None where it is known only at run time."""
    if isinstance(value, int | float):
        return value
    code = expressions.code(value) if isinstance(value, str) else None
    try:
        return None if code is None else float(code)
    except ValueError:
        return None
