"""What an environment's callers may ask for holds in the state machine, the runner and the command line.

The state machine reads the text of a command, the runner its words: the first may refuse more than the second, never less.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import jsonata
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

from asl import render
from asl.endings import assert_failed, assert_succeeded
from asl.fakes import OTHER_RUN, Cloud, make_cloud
from asl.resumable import leave, result
from dbt_runner import callers, config, request
from dbt_runner.errors import INVALID_REQUEST, TypedError
from runner.conftest import config_of
from security.fuzzing import bounded

OPEN = {"steps": True, "inline": True, "operations": [], "overrides": True}
DEFAULT = {**OPEN, "inline": False}
DROP = {**DEFAULT, "operations": ["drop_schemas"]}
JOBS_ONLY = {"steps": False, "inline": False, "operations": [], "overrides": False}

# SQL of the caller's own, as dbt would take it, in each spelling that a shell's words allow.
INLINE = [
    "show --inline 'drop table orders'",
    "show --inline='drop table orders'",
    "show --inline-direct 'drop table orders'",
    "show --inline-direct='drop table orders'",
    "compile --inline \"{{ run_query('drop table orders') }}\"",
    "dbt compile --inline=x",
    "  show   --inline x",
    'show "--inline" x',
    "show '--inline' x",
    'show "--inline=drop table orders"',
    'show --in""line x',
    "show --in''line x",
    "show --in\\line x",
    "show \\-\\-inline x",
    "show -\"-inl\"'ine' x",
    "show --limit 5 --inline x",
    "show --select a --inline x",
    "show --output json --inline-dir\\ect x",
    "show --inline\\ x",
    "show -x --inline x",
]
OPERATIONS = [
    "run-operation run_query --args '{sql: drop table orders}'",
    "run-operation dbt.run_query --args '{sql: drop table orders}'",
    "run-operation --args '{sql: drop table orders}' run_query",
    "run-operation statement",
    "dbt run-operation drop_schema",
    'run-operation "run_query"',
    'run-"operation" run_query',
    "  'dbt' run\\-operation run_query",
]
# With operations = ["drop_schemas"] the name alone is not enough: it must be the macro.
NOT_THAT_MACRO = [
    "run-operation run_query",
    "run-operation other.drop_schemas",
    "run-operation drop_schemas_all",
    "run-operation DROP_SCHEMAS",
    "run-operation --args drop_schemas run_query",
    "run-operation -q drop_schemas",
    "run-operation",
]
HARMLESS = ["build --select inline", "show --select orders --limit 5", "compile --select orders", "list --select path:models/inline.sql"]


def steps(*commands: Any) -> dict[str, Any]:
    return {"steps": [{"name": "fix", "commands": list(commands)}]}


def environment(requests: Mapping[str, Any]) -> config.EnvironmentConfig:
    return config.parse(json.dumps({**config_of("prod"), "requests": requests}))


def runner_refuses(document: Mapping[str, Any], requests: Mapping[str, Any]) -> bool:
    """What the runner says of the request, and the command line before it starts anything."""
    try:
        request.check_caller(environment(requests), request.validate_input(document))
    except TypedError as exc:
        assert exc.kind is INVALID_REQUEST
        return True
    return False


@cache
def _rules() -> tuple[tuple[Any, str], ...]:
    choices = render.load("dbt_run.asl.json")["States"]["CheckRequest"]["Choices"]
    ours = [choice for choice in choices if "(requests." in json.dumps(choice.get("Assign", {}))]
    return tuple((jsonata.Jsonata(choice["Condition"][2:-2]), choice["Assign"]["cause"]) for choice in ours)


def machine_refuses(document: Mapping[str, Any], requests: Mapping[str, Any]) -> bool:
    """Whether one of the state machine's conditions about callers is true, by another interpreter than the one that runs it below."""
    found = False
    for condition, _ in _rules():
        frame = condition.create_frame()
        frame.bind("request", document)
        frame.bind("config", {"requests": requests})
        found = found or condition.evaluate(None, frame) is True
    return found


HELD_BY = {"state machine": machine_refuses, "runner and command line": runner_refuses}
held_by = pytest.mark.parametrize("refuses", HELD_BY.values(), ids=HELD_BY.keys())


@pytest.mark.attack("callers")
@held_by
@pytest.mark.parametrize("command", INLINE + OPERATIONS)
def test_a_caller_runs_no_sql_of_their_own(command: str, refuses: Callable[..., bool]) -> None:
    assert refuses(steps(command), DEFAULT)
    assert refuses(steps("parse", command), DEFAULT)
    assert refuses({**steps("parse"), "steps": [*steps("parse")["steps"], {"name": "b", "commands": ["build", command]}]}, DEFAULT)


@pytest.mark.attack("callers")
@pytest.mark.parametrize("command", NOT_THAT_MACRO)
def test_a_caller_runs_no_other_macro_than_those_named(command: str) -> None:
    assert runner_refuses(steps(command), DROP)


@pytest.mark.attack("callers")
@held_by
@pytest.mark.parametrize("command", [*HARMLESS, "parse --no-partial-parse", "dbt build", 'par"se" --vars-free', "parse parse"])
def test_where_only_jobs_run_a_caller_brings_no_steps(command: str, refuses: Callable[..., bool]) -> None:
    assert refuses(steps(command), JOBS_ONLY)
    assert refuses(steps("parse", command), JOBS_ONLY)


@pytest.mark.attack("callers")
@held_by
@pytest.mark.parametrize("field", callers.OVERRIDES)
def test_where_jobs_run_as_they_are_a_caller_changes_nothing(field: str, refuses: Callable[..., bool]) -> None:
    value: Any = {"release": "1", "vars": {}, "full_refresh": False, "defer_to": "current", "schema_suffix": "a"}[field]
    more = {"defer_to": "current"} if field == "schema_suffix" else {}
    assert refuses({"job": "hourly", field: value, **more}, JOBS_ONLY)


@pytest.mark.control("callers")
@held_by
@pytest.mark.parametrize("command", INLINE + OPERATIONS)
def test_with_inline_the_same_commands_pass(command: str, refuses: Callable[..., bool]) -> None:
    assert not refuses(steps(command), OPEN)


@held_by
def test_what_is_allowed_passes(refuses: Callable[..., bool]) -> None:
    for command in HARMLESS:
        assert not refuses(steps(command), DEFAULT), command
    assert not refuses(steps("run-operation drop_schemas --args 'suffix: pr_1'"), DROP)
    assert not refuses({"job": "hourly", "reason": "x", "trigger": "cli"}, JOBS_ONLY)
    assert not refuses({"resume": "r-1"}, JOBS_ONLY)
    # What `dbt-runner check` asks for.
    assert not refuses(steps("parse"), JOBS_ONLY)
    assert not refuses({"job": "hourly", "vars": {"a": 1}, "full_refresh": True, "release": "1"}, DEFAULT)


@bounded(150)
@given(
    words=st.lists(
        st.sampled_from(
            ["show", "compile", "run-operation", "--inline", "--inline=x", "--inline-direct", "x", "drop_schemas", "a b", "--select"]
        ),
        max_size=4,
    ),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["''", '""', "\\"])), max_size=6),
)
def test_what_the_runner_refuses_the_state_machine_refuses_too(words: list[str], cuts: list[tuple[int, str]]) -> None:
    text = shlex.join(words)
    for place, quotes in cuts:
        text = text[:place] + quotes + text[place:]
    try:
        request.parse_command(text, "x")
    except TypedError:
        return  # no command, whatever the environment allows
    assert machine_refuses(steps(text), DEFAULT) or not runner_refuses(steps(text), DEFAULT), text


def test_every_flag_of_dbt_that_takes_sql_is_known() -> None:
    """A flag of another version of dbt that takes SQL in another name would pass all of this."""
    from dbt.cli.main import cli

    free_text = set()
    for verb in request.VERBS:
        command: Any = cli
        for word in verb:
            command = command.commands[word]
        for parameter in command.params:
            if type(parameter.type).__name__ in ("StringParamType", "YAML", "SqlParseOptionsType"):
                free_text |= {name for name in parameter.opts if name not in request._OWNED_FLAGS}
    assert {name for name in free_text if not name.startswith(callers.INLINE)} == {
        "--args",  # of run-operation, whose macros are named
        "--deprecated-favor-state",
        "--selector",  # a name
        "--sqlparse",  # limits of a parser
        "macro",
    }


# The machine as a whole


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with mock_aws():
        yield make_cloud()


@pytest.mark.attack("callers")
@pytest.mark.parametrize(
    ("asked", "requests", "says"),
    [
        (steps(INLINE[0]), DEFAULT, "requests.inline"),
        (steps('show --in""line x'), {}, "requests.inline"),
        (steps(OPERATIONS[0]), DEFAULT, "requests.operations"),
        (steps("build"), JOBS_ONLY, "requests.steps"),
        ({"job": "hourly", "vars": {"a": "1; drop table orders"}}, JOBS_ONLY, "requests.overrides"),
        (steps(["show --inline x"]), JOBS_ONLY, "requests.steps"),
        (steps({"show": "--inline"}, 5, None), JOBS_ONLY, "requests.steps"),
    ],
)
def test_the_run_is_refused_before_it_has_the_lock(cloud: Cloud, asked: Any, requests: Any, says: str) -> None:
    cloud.configure(requests=requests)
    execution = cloud.run(asked)
    record = assert_failed(cloud, execution, "Dbt.InvalidRequest")
    assert says in record["cause"]["S"]
    assert "AcquireLock" not in execution.states
    assert cloud.started == []


@pytest.mark.control("callers")
def test_where_it_is_allowed_it_runs(cloud: Cloud) -> None:
    cloud.configure(requests=OPEN)
    assert_succeeded(cloud, cloud.run(steps(INLINE[0], OPERATIONS[0])))


def test_the_defaults_are_terraform_s() -> None:
    assert environment(DEFAULT).requests == config.Requests()


@pytest.mark.parametrize("missing", [None, {}, {"steps": True}, {**DEFAULT, "operations": [1]}])
def test_settings_that_cannot_be_read_are_no_settings(missing: Any) -> None:
    with pytest.raises(TypedError, match="terraform apply"):
        environment(missing)


def test_values_that_are_no_boolean_allow_nothing() -> None:
    odd = {"steps": "true", "inline": "yes", "operations": [], "overrides": 1}
    assert config.parse(json.dumps({**config_of("prod"), "requests": odd})).requests == config.Requests(False, False, (), False)


@pytest.mark.attack("callers")
@pytest.mark.parametrize(("command", "requests"), [(INLINE[0], DEFAULT), (OPERATIONS[0], DEFAULT), ("build", JOBS_ONLY)])
def test_a_run_from_before_is_not_resumed(cloud: Cloud, command: str, requests: Any) -> None:
    left_by_caller(cloud, command)
    cloud.configure(requests=requests)
    execution = cloud.run({"resume": OTHER_RUN})
    assert "no longer takes" in assert_failed(cloud, execution, "Dbt.InvalidRequest")["cause"]["S"]
    assert "AcquireLock" not in execution.states


@pytest.mark.control("callers")
def test_a_run_from_before_is_resumed_where_its_steps_are_taken(cloud: Cloud) -> None:
    left_by_caller(cloud, INLINE[0])
    cloud.configure(requests=OPEN)
    assert_succeeded(cloud, cloud.run({"resume": OTHER_RUN}))


@pytest.mark.parametrize("asked", [{"job": "hourly"}, {"resume": OTHER_RUN}], ids=["job", "resume"])
def test_a_job_s_own_steps_are_not_bound(cloud: Cloud, asked: dict[str, str]) -> None:
    jobs = cloud.config()["jobs"]
    jobs["hourly"]["steps"][1]["commands"] = [INLINE[0], OPERATIONS[0]]
    cloud.configure(requests=JOBS_ONLY, jobs=jobs)
    leave(cloud, result("health_check"), result("build", "FAILED", error="Dbt.ModelError"))
    assert_succeeded(cloud, cloud.run(asked))


# The runner, where the state machine let a run through


class Books:
    """An audit store with one environment."""

    table = "analytics-audit"

    def __init__(self, requests: Mapping[str, Any]) -> None:
        self._config = {"config": json.dumps({**config_of("prod"), "requests": requests})}

    def get(self, pk: str, sk: str) -> dict[str, Any]:
        return self._config


def load(plan: Mapping[str, Any], requests: Mapping[str, Any]) -> request.AttemptRequest:
    written_out = {"on_failure": "fail", "timeout_seconds": 60}
    plan = {"vars": {}, "full_refresh": False, **plan, "steps": [{**step, **written_out} for step in plan["steps"]]}
    item = {"request": json.dumps(plan), "execution": "arn", "release": "1", "artifacts": "runs/"}
    books: Any = Books(requests)
    return request.load(books, request.AttemptKey("prod", "r-1", 1, "fix", 1), item)


@pytest.mark.attack("callers")
@pytest.mark.parametrize("of", [{}, {"resume": "r-0"}], ids=["run", "resume"])
@pytest.mark.parametrize(
    ("plan", "requests"),
    [
        (steps("parse", INLINE[10]), DEFAULT),
        (steps(OPERATIONS[2]), DEFAULT),
        (steps(NOT_THAT_MACRO[4]), DROP),
        (steps("build"), JOBS_ONLY),
    ],
)
def test_the_runner_holds_it_by_itself(plan: dict[str, Any], requests: Any, of: dict[str, str]) -> None:
    with pytest.raises(TypedError) as raised:
        load({**plan, **of}, requests)
    assert raised.value.kind is INVALID_REQUEST
    assert raised.value.message.startswith("steps[0].commands[")


@pytest.mark.attack("callers")
@pytest.mark.parametrize("change", [{"vars": {"a": 1}}, {"full_refresh": True}])
def test_the_runner_takes_no_changes_where_there_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(TypedError, match=r"requests\.overrides"):
        load({**steps("parse"), **change}, {**DEFAULT, "overrides": False})


@pytest.mark.control("callers")
def test_the_runner_runs_them_where_they_are_allowed_and_in_jobs() -> None:
    assert load(steps(INLINE[0]), OPEN).step is not None
    assert load({"job": "hourly", "resume": "r-0", **steps(INLINE[0], OPERATIONS[0]), "vars": {"a": 1}}, JOBS_ONLY).step is not None


def left_by_caller(cloud: Cloud, command: str) -> None:
    """The record of a run of steps of a caller's own."""
    own = {**steps(command), "vars": {}, "full_refresh": False}
    leave(cloud, result("health_check"), result("fix", "FAILED", error="Dbt.ModelError"), request=json.dumps(own), job=None)
