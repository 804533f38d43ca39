"""Any JSON is a request or is refused with the name of a field, and what a caller gives as vars reaches dbt as it is."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import request
from dbt_runner.errors import INVALID_REQUEST, TypedError
from security.fuzzing import bounded

FIELDS = ("job", "steps", "resume", "release", "vars", "full_refresh", "defer_to", "schema_suffix", "reason", "trigger", "other", "")
STEP_FIELDS = ("name", "commands", "on_failure", "timeout_seconds", "compute", "on_timeout", "other")
TEXTS = st.one_of(
    st.sampled_from(
        ["build", "hourly", "fail", "fargate", "health_check", "show --inline x", "dbt run -s 'a", "run\n", "1.4.2", "current", "\ud83d"]
    ),
    st.text(st.characters(codec=None), max_size=12),
)
# With NaN and infinity, which Python's json reads although JSON does not know them.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6)
STEPS = st.dictionaries(st.sampled_from(STEP_FIELDS), ANYTHING | st.lists(TEXTS, min_size=1, max_size=3), max_size=4)
NEARLY = st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.lists(STEPS, min_size=1, max_size=3), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@bounded(400)
@given(NEARLY | ANYTHING)
def test_any_input_is_a_request_or_is_refused_by_a_field(document: Any) -> None:
    try:
        found = request.validate_input(document)
    except TypedError as exc:
        assert exc.kind is INVALID_REQUEST
        field, colon, problem = exc.message.partition(": ")
        assert colon and field and problem
        return
    assert found is document


@bounded(200)
@given(
    st.dictionaries(st.text(), JSON, max_size=4), st.sampled_from([{"job": "hourly"}, {"steps": [{"name": "a", "commands": ["build"]}]}])
)
def test_vars_of_any_json_pass_as_they_are(variables: dict[str, Any], asked: dict[str, Any]) -> None:
    text = json.dumps(variables)
    document = {**asked, "vars": variables}
    assert request.validate_input(document)["vars"] is variables
    assert json.dumps(variables) == text


@bounded(400)
@given(
    TEXTS | st.lists(st.sampled_from(["show", "run-operation", "--inline", "'", '"', "\\", "-", "--", " ", "=", "{state}"])).map("".join)
)
def test_any_text_is_a_command_or_is_refused_by_its_field(text: str) -> None:
    try:
        command = request.parse_command(text, "steps[0].commands[0]")
    except TypedError as exc:
        assert exc.kind is INVALID_REQUEST and exc.message.startswith("steps[0].commands[0]: ")
        return
    assert command.verb in request.VERBS and command.words[: len(command.verb)] == command.verb
