"""The two definitions: valid as files, valid when rendered, and within the schema and the rules of the project."""

from __future__ import annotations

import json

import pytest

from asl import render, rules
from asl.machine import Promise, tasks

PROMISES = {
    # A failure of RecordFailure is answered by finalize. What comes after it finds the run recorded: a lock that is not released is taken
    # over, because its owner no longer runs, and finalize announces a failed run that was not announced.
    "dbt_run.asl.json": Promise(
        recorders=frozenset({"RecordSuccess", "RecordSkipped", "RecordFailure"}),
        answered=frozenset({"RecordFailure", "ReleaseLock", "Announce"}),
    ),
    # finalize is what answers for the other machine; where it fails itself, its own execution shows it.
    "finalize.asl.json": Promise(
        recorders=frozenset({"CloseRecord"}),
        answered=frozenset({"FindRecord", "CloseRecord", "ReadLock", "CloseClaim", "StopTask", "DescribeTask", "ReleaseLock", "Announce"}),
    ),
    # The run is recorded and over. What announce could not tell fails its own execution in the end.
    "announce.asl.json": Promise(
        recorders=frozenset(),
        answered=frozenset({"ReadRun", "ReadOutcome", "RecordJob", "Measure", "Publish", "ArchiveRun", "Tell", "TellChat", "TellOwner"}),
    ),
}
each = pytest.mark.parametrize("name", render.DEFINITIONS)


def test_every_definition_is_tested() -> None:
    assert {path.name for path in render.FOLDER.glob("*.json")} == set(render.DEFINITIONS) == set(PROMISES)


@each
def test_definition_keeps_the_schema_and_the_rules_before_rendering(name: str) -> None:
    definition = json.loads(render.source(name))
    assert [str(finding) for finding in rules.check(definition, PROMISES[name], "${partition}")] == []


@each
@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_definition_keeps_the_schema_and_the_rules_when_rendered(name: str, partition: str) -> None:
    definition = render.load(name, {**render.SAMPLE, "partition": partition})
    assert [str(finding) for finding in rules.check(definition, PROMISES[name], partition)] == []


@each
def test_definition_uses_the_known_placeholders_alone(name: str) -> None:
    assert render.placeholders(render.source(name)) == render.PLACEHOLDERS[name]


@each
def test_definition_names_nothing_of_an_account(name: str) -> None:
    text = render.source(name)
    assert "arn:aws" not in text
    assert "123456789012" not in text


@each
def test_states_of_a_promise_exist(name: str) -> None:
    states = {state: body for _, state, body in tasks(json.loads(render.source(name)))}
    promise = PROMISES[name]
    assert promise.recorders | promise.answered <= set(states)
    for recorder in promise.recorders:
        assert states[recorder]["Resource"].endswith((":dynamodb:putItem", ":dynamodb:updateItem"))
    for answered in promise.answered:
        assert states[answered]["Type"] == "Task"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{%{ 'a': 1 }%}", id="directive"),
        pytest.param("${table.name}", id="attribute"),
        pytest.param("${upper(table)}", id="function"),
        pytest.param("${table", id="unclosed"),
        pytest.param("${tabel}", id="unknown name"),
        pytest.param("no placeholder", id="value without a use"),
    ],
)
def test_text_that_terraform_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(render.TemplateError):
        render.render(text, {"table": "t"})


def test_rendering_replaces_placeholders_and_keeps_escapes() -> None:
    assert render.render("${table} {% $x %} $${table} %%{", {"table": "t"}) == "t {% $x %} ${table} %{"
