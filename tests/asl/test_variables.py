"""Variables reach dbt as the caller wrote them: through the command line, the execution's input, the state machine, the record and YAML."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from dbt.config.utils import parse_cli_yaml_string
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from asl.endings import assert_failed, assert_succeeded
from asl.fakes import RUN_ID, Cloud, make_cloud
from asl.resumable import leave, result
from dbt_runner import variables
from dbt_runner.cli.runs import _document
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.request import validate_input
from dbt_runner.run_records import asked
from security.fuzzing import bounded

# What JSON, YAML 1.1, JSONata and their numbers have each their own mind about.
TELLING: dict[str, Any] = {
    "small": 0.00001,
    "smallest": 5e-324,
    "largest": 1.7976931348623157e308,
    "third": 1 / 3,
    "whole float": 1.0,
    "round": 1e22,
    "nothing": -0.0,
    "16 digits": 1234567890123456,
    "beyond a double": 12345678901234567890,
    "emoji": "\U0001f600 and \u00e9",
    "escape": "\\U0001f600 \\ud83d \\n",
    "controls": "\x00\x07\x1b\x7f\x85\u2028\ufeff\t\r\n",
    "words": [
        "yes",
        "no",
        "on",
        "~",
        "null",
        "1e-05",
        "0o7",
        "0x1f",
        "12:30:45",
        "2026-11-22",
        "<<",
        "=",
        "!!python/name:os.system",
        "&a",
        "*a",
    ],
    "<<": {"merged": False},
    "": [None, True, False, {}, [], ""],
    "k" * 1100: {"q" * 2000: 1},
    "{{ env_var('X') }}": "${table} {% $x %} 'single' \"double\" #",
}
_characters = st.characters(exclude_categories=["Cs"])
_numbers = st.integers() | st.integers(min_value=10**14, max_value=10**40) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(_characters, max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(_characters, max_size=10), inner, max_size=5),
    max_leaves=25,
)
objects = st.dictionaries(st.text(_characters, max_size=20), _values, max_size=8)


def same(one: object, other: object) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are three values, and 0.0 and -0.0 are two."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return one == other


def read_by_dbt(document: dict[str, Any]) -> Any:
    """What dbt makes of `--vars`."""
    return parse_cli_yaml_string(variables.for_dbt(document), "vars")


def sent(text: str, **more: Any) -> Any:
    """The input of an execution as the command line makes it, and as Step Functions gives it to the state machine."""
    document = {**_document("hourly", (), None, text, False, None), **more}
    validate_input(document)
    return json.loads(json.dumps({**document, "vars": variables.text_of(document["vars"])}))


def recorded(cloud: Cloud) -> dict[str, Any]:
    (record,) = [record for record in cloud.records() if record["run_id"]["S"] == RUN_ID]
    found: dict[str, Any] = json.loads(record["request"]["S"])
    return found


@settings(parent=bounded(60))
@given(objects)
@example(TELLING)
def test_dbt_reads_every_value_as_it_is(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert same(variables.parse(text), document)
    assert same(variables.parse(variables.text_of(document)), document)
    assert same(read_by_dbt(document), document)


@settings(parent=bounded(4))
@given(objects)
@example(TELLING)
def test_every_value_comes_through_all_stations(document: dict[str, Any]) -> None:
    with mock_aws():
        cloud = make_cloud()
        assert_succeeded(cloud, cloud.run(sent(json.dumps(document))))
        request = recorded(cloud)
    expected = {"day": "today", "depth": 1, **document}
    assert same(variables.of_record(request), expected)
    assert same(dict(asked(request)["vars"]), expected)
    assert same(read_by_dbt(variables.of_record(request)), expected)


@pytest.mark.parametrize("given_as", ["text", "object"])
def test_a_resumed_run_has_the_same_variables(cloud: Cloud, given_as: str) -> None:
    texts = {"vars": json.dumps(TELLING), "job_vars": '{"depth": 12345678901234567890}'}
    of_an_older_version = {"vars": {"day": "yesterday", "share": 0.25}}
    kept = {"job": "hourly", "steps": [{"name": "build", "commands": ["build"], "on_failure": "fail", "timeout_seconds": 60}]}
    leave(cloud, result("build", "FAILED"), request=json.dumps({**kept, **(texts if given_as == "text" else of_an_older_version)}))
    assert_succeeded(cloud, cloud.run({"resume": "other"}))
    expected = {"depth": 12345678901234567890, **TELLING} if given_as == "text" else of_an_older_version["vars"]
    assert same(variables.of_record(recorded(cloud)), expected)


@pytest.mark.parametrize("value", [1, 123456789012345, -7, 0.5, 0.00001, 1e-9, "1e400", True, None, [1, {"a": 0.1}]])
def test_an_object_keeps_what_fifteen_digits_hold(cloud: Cloud, value: Any) -> None:
    assert_succeeded(cloud, cloud.run({"job": "hourly", "vars": {"it": value}}))
    assert same(variables.of_record(recorded(cloud))["it"], value)


@pytest.mark.parametrize("value", [1234567890123456, 12345678901234567890, 2**53 + 1, -(10**22), 1e300, 1 / 3, 0.1 + 0.2])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [{"deep": [value]}]], ids=["flat", "deep"])
def test_an_object_with_a_number_that_would_be_rounded_is_refused(cloud: Cloud, value: Any, wrap: Any) -> None:
    record = assert_failed(cloud, cloud.run({"job": "hourly", "vars": {"it": wrap(value)}}), "Dbt.InvalidRequest")
    assert "more than 15 digits" in record["cause"]["S"] and "give vars as text" in record["cause"]["S"]
    assert cloud.started == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("day: 1", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ('"a"', "must be a JSON object"),
        ('{"a": NaN}', "NaN"),
        ('{"a": [Infinity]}', "Infinity"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": {"b": 1e400}}', "vars.a.b: is inf"),
        ('{"a": 1, "a": 2}', "the name 'a' twice"),
        ('{"a": ["\\ud83d"]}', "vars.a[0]: has half of a surrogate pair"),
        ('{"\\udc00": 1}', "surrogate"),
        ('{"a": ' + "9" * 1001 + "}", "1,001 digits"),
        ('{"a": ' + "[" * 33 + "]" * 33 + "}", "more than 32 levels"),
        ('{"a": ' + "[" * 20_000 + "]" * 20_000 + "}", "more than 32 levels"),
        ('{"a": "' + "x" * 50_000 + '"}', "must not be longer than 50,000 characters"),
    ],
    ids=lambda value: value[:20],
)
def test_what_json_or_a_station_does_not_know_is_refused_by_name(text: str, says: str) -> None:
    for refuse in (
        variables.parse,
        lambda text: variables.of_record({"vars": text}),
        lambda text: validate_input({"job": "x", "vars": text}),
    ):
        with pytest.raises(TypedError) as refused:
            refuse(text)
        assert refused.value.kind is INVALID_REQUEST and says in refused.value.message
    with pytest.raises(TypedError, match="job's vars"):
        variables.of_record({"job_vars": text})


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {1: 2}, {"a": object()}, {"a": b"x"}, {"a": {1, 2}}, {"a": "\udc80"}, {"a": 10**1100}],
    ids=["nan", "inf", "name", "object", "bytes", "set", "surrogate", "long"],
)
def test_what_is_no_json_is_refused_in_a_library_call_too(value: Any) -> None:
    with pytest.raises(TypedError) as refused:
        variables.text_of(value if isinstance(value, dict) else {"a": value})
    assert refused.value.kind is INVALID_REQUEST


def test_the_longest_variables_fit_into_a_variable_of_the_state_machine() -> None:
    """The record stands in a variable as JSON, holds the request as text, and that the variables."""
    longest = variables.text_of({"a": '"' * ((variables.MAX_CHARACTERS - 10) // 2)})
    record = json.dumps({"request": {"S": json.dumps({"vars": longest})}})
    assert len(longest) > variables.MAX_CHARACTERS - 4
    assert len(record) < 256 * 1024 * 0.8
