"""The decoder and all that stands behind it take any bytes: a typed message within bounds or ValueError, and an outcome that fits."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import audit, events, intake, outcome, wire
from dbt_runner.claim import Claim
from dbt_runner.events import (
    Batch,
    CommandResult,
    CommandStarted,
    Failure,
    Finished,
    LogLine,
    Message,
    NodeResult,
    Parsed,
    ParseNotHeld,
    Secret,
    StepReport,
    Warned,
    WorkerSpec,
)
from dbt_runner.intake import Intake
from dbt_runner.logs import MAX_LINE, JsonLog
from dbt_runner.masking import Mask
from dbt_runner.request import AttemptKey, parse_command
from dbt_runner.store.attribute_values import marshal, unmarshal
from dbt_runner.texts import fit, fit_tree, without_middle
from security.fuzzing import bounded

KEY = AttemptKey("prod", "r-1", 1, "build", 1)
COMMANDS = [parse_command("build", "commands"), parse_command("test", "commands")]
PAYLOAD_BYTES = 262_144

# Any text, lone surrogates and control characters included.
texts = st.text(st.characters(exclude_categories=()), max_size=40)
numbers = st.one_of(st.integers(), st.floats(), st.booleans(), st.none())
values = st.recursive(
    st.one_of(texts, numbers), lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)), max_leaves=6
)
NAMES = sorted(
    {
        field.name
        for kind in (NodeResult, Batch, CommandResult, Parsed, LogLine, Warned, Secret, Failure)
        for field in dataclasses.fields(kind)
    }
)
KINDS = ("NodeResult", "CommandResult", "CommandStarted", "Parsed", "ParseNotHeld", "LogLine", "Warned", "Secret", "Finished")

failures = st.builds(
    Failure,
    texts,
    st.lists(texts, max_size=3).map(tuple),
    texts,
    st.dictionaries(texts, texts, max_size=3),
    st.lists(st.builds(Failure, texts, st.lists(texts, max_size=2).map(tuple), texts), max_size=2).map(tuple),
)
indexes = st.integers(0, 3)
moments = st.sampled_from(["", "2026-11-22T00:00:00.000Z", "2026-11-23T00:00:00.000Z"])
counts = st.one_of(st.none(), st.integers(0, wire.MAX_COUNT))
seconds = st.floats(0, 1e7)
statuses = st.one_of(st.sampled_from(sorted(events.BAD_STATUSES | events.DONE_STATUSES)), texts)
batches = st.builds(Batch, moments, moments, st.sampled_from(["success", "error", "skipped"]), texts, st.integers(0, 10**6).map(float))
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        NodeResult,
        command=indexes,
        unique_id=texts.filter(bool),
        resource_type=st.sampled_from(["model", "test", "source", "operation"]),
        name=texts,
        status=statuses,
        message=texts,
        seconds=seconds,
        rows=counts,
        failures=counts,
        failure=st.one_of(st.none(), failures),
        batches=st.lists(batches, max_size=3).map(tuple),
        batches_total=st.integers(0, 5000),
    ),
    st.builds(CommandResult, indexes, st.booleans(), seconds, counts, st.one_of(st.none(), failures)),
    st.builds(CommandStarted, indexes),
    st.builds(Parsed, indexes, st.lists(texts, max_size=3)),
    st.builds(ParseNotHeld, indexes),
    st.builds(LogLine, st.sampled_from(["info", "warning", "error"]), texts, texts),
    st.builds(Warned, indexes, texts, texts, st.integers(1, wire.MAX_COUNT)),
    st.builds(Secret, texts),
    st.builds(Finished),
)
raw_messages = st.fixed_dictionaries({"type": st.one_of(st.sampled_from(KINDS), values)}).flatmap(
    lambda kind: st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), values, max_size=8).map(lambda fields: {**fields, **kind})
)


def lines_of(message: object) -> bytes:
    return json.dumps(message, default=str).encode()


raw_lines = st.one_of(st.binary(max_size=200), raw_messages.map(lines_of), messages.map(lambda message: wire.encode(message).encode()))


def check(value: Any) -> None:
    """Every part of a message is what its type says, and fit for UTF-8, JSON and DynamoDB."""
    if isinstance(value, str):
        assert value == fit(value)
        value.encode()
    elif isinstance(value, float):
        assert math.isfinite(value) and 0 <= value <= wire.MAX_SECONDS
    elif isinstance(value, int):
        assert 0 <= value <= wire.MAX_COUNT
    elif isinstance(value, dict):
        for key, inner in value.items():
            check(key)
            check(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check(inner)
    else:
        assert value is None


@pytest.mark.attack("pipe")
@bounded(600)
@given(raw_lines)
def test_any_bytes_are_a_message_within_bounds_or_a_value_error(line: bytes) -> None:
    try:
        message = wire.decode(line)
    except ValueError:
        return
    assert type(message).__name__ in KINDS
    if not isinstance(message, Secret):
        check(dataclasses.asdict(message))


@bounded(300)
@given(messages)
def test_a_message_of_the_worker_arrives_as_it_was_but_for_what_is_unfit(message: Message) -> None:
    found = wire.decode(wire.encode(message).encode())
    if isinstance(message, Secret):
        assert found == message
        return
    expected = fit_tree(dataclasses.asdict(message))
    if isinstance(message, NodeResult):
        expected["seconds"] = round(message.seconds, 3)
        expected["status"] = found.status  # type: ignore[union-attr]  # as it is, or unknown
        assert expected["status"] in (fit(message.status), wire.UNKNOWN)
    elif isinstance(message, CommandResult):
        expected["seconds"] = round(message.seconds, 3)
    elif isinstance(message, Warned):
        expected["event"] = found.event  # type: ignore[union-attr]  # the same
        assert expected["event"] in (fit(message.event), wire.UNKNOWN)
    assert fit_tree(dataclasses.asdict(found)) == expected
    assert wire.decode(wire.encode(found)) == found


def test_the_longest_message_of_an_honest_worker_is_within_the_limit_of_a_line() -> None:
    long = "\U0001f9e8" * 200_000
    cause = Failure(long, (long,) * 100, long, dict.fromkeys(map(str, range(100)), long))
    worst = dataclasses.replace(cause, causes=(cause,) * 20)
    batches = events.kept_batches([Batch("2026-11-22T00:00:00.000Z", "2026-11-23T00:00:00.000Z", "error", long, 1.0)] * 5_000)
    node = NodeResult(0, "\u2713" * wire.MAX_ID, long, long, long, long, long, long, 1.0, long, long, 1, 1, worst, batches, 5_000)
    for message in (node, CommandResult(0, False, 1.0, 1, worst), Parsed(0, [long] * 100), LogLine("info", long, long), Secret(long)):
        kind = type(message)
        line = wire.encode(message).encode()
        size = len(line)
        assert size <= wire.MAX_LINE, kind
        found = type(wire.decode(line))
        assert found is kind


def spec(commands: int = len(COMMANDS), *, probe: bool = False) -> WorkerSpec:
    words = [command.words for command in COMMANDS[:commands]]
    return WorkerSpec(-1, words, [True] * commands, [], "", "", "", "", "", "", probe=probe)


def outcome_of(report: StepReport) -> dict[str, Any]:
    ended = outcome.classify(report, COMMANDS, "duckdb")
    evidence = audit.Evidence(
        "2026-11-23T01:00:00.000Z", "2026-11-23T01:00:01.000Z", 1.0, ["build", "test"], report.commands, left_out=report.left_out
    )
    return audit.outcome_item(KEY, Claim(1001, "me"), ended, evidence)


@pytest.mark.attack("pipe")
@bounded(150)
@given(st.lists(raw_lines, max_size=30), st.booleans(), st.integers(-15, 3), st.booleans())
def test_any_stream_of_messages_ends_in_an_outcome_within_its_limits(
    lines: list[bytes], in_order: bool, returncode: int, interrupted: bool
) -> None:
    report = StepReport()
    taken = Intake(spec(), report, Mask(["s3cret-of-the-team"]))
    if in_order:
        lines = [wire.encode(CommandStarted(0)).encode(), *lines]
    for line in lines:
        taken.take(line)
    report.returncode, report.interrupted, report.left_out = returncode, interrupted, taken.left_out()
    item = outcome_of(report)
    assert audit.outcome_size(item) < PAYLOAD_BYTES
    json.dumps(item, allow_nan=False, ensure_ascii=False).encode()
    assert unmarshal(marshal(item))["exit_code"] == item["exit_code"]
    for node in report.nodes.values():
        assert node.unique_id and len(node.message) <= events.MAX_MESSAGE
    if item["error"] is None:
        assert report.finished and [result.index for result in report.commands] == [0, 1]
        assert not any(node.status in events.BAD_STATUSES for node in report.nodes.values())


@pytest.mark.attack("pipe")
def test_what_is_kept_of_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_NODES", 50)
    monkeypatch.setattr(intake, "MAX_KEPT", 20_000)
    report = StepReport()
    taken = Intake(spec(), report, Mask())
    taken.take(wire.encode(CommandStarted(0)).encode())
    for number in range(60):
        failure = Failure("E", ("E",), "y" * 1000, {"sqlstate": "08006"}, (Failure("C", ("C",), "z" * 1000),))
        taken.take(wire.encode(NodeResult(0, f"m{number}", "model", "m", "error", "x" * 1000, failure=failure)).encode())
    kept = sum(len(node.message) + len(node.failure.message) for node in report.nodes.values() if node.failure)
    assert len(report.nodes) < 50 and kept < 20_000
    last = list(report.nodes.values())[-1]
    assert last.failure is not None and last.failure.codes == {"sqlstate": "08006"}, "what decides over another attempt is kept"
    assert taken.left_out() == [f"{60 - len(report.nodes)} node results beyond the limit of an attempt"]


@pytest.mark.attack("pipe")
def test_secrets_and_log_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MAX_SECRETS", 10)
    monkeypatch.setattr(intake, "MAX_LOG_BYTES", 500)
    mask = Mask()
    taken = Intake(spec(), StepReport(), mask)
    for number in range(20):
        taken.take(wire.encode(Secret(f"secret-number-{number:03}")).encode())
        taken.take(wire.encode(Secret("secret-number-000")).encode())
    assert mask.text("secret-number-009") != "secret-number-009" and mask.text("secret-number-010") == "secret-number-010"
    passed = [taken.take(wire.encode(LogLine("info", "x" * 100)).encode()) for _ in range(10)]
    assert sum(message is not None for message in passed) == 5
    assert taken.left_out() == [
        "5 log lines beyond the limit of an attempt",
        "10 secrets beyond the limit of an attempt, which are not masked",
    ]


@pytest.mark.attack("pipe")
def test_what_the_mask_stumbles_over_does_not_pass_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, report = Mask(), StepReport()
    monkeypatch.setattr(mask, "text", lambda text: {}[text])
    taken = Intake(spec(), report, mask)
    taken.take(wire.encode(CommandStarted(0)).encode())
    assert taken.take(wire.encode(NodeResult(0, "a", "model", "a", "success", "text")).encode()) is None
    assert not report.nodes and taken.left_out() == ["1 messages that could not be masked"]


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("indexes", [[1], [0, 2], [0, 0], [5], [0, 1, 2]])
def test_a_health_check_takes_its_stages_in_their_order(indexes: list[int]) -> None:
    report = StepReport()
    taken = Intake(spec(0, probe=True), report, Mask())
    for index in indexes:
        taken.take(wire.encode(CommandResult(index, True, 1.0)).encode())
    assert [result.index for result in report.commands] == list(range(len(report.commands)))


@bounded(200)
@given(texts)
def test_a_fit_text_is_one_for_utf_8_json_and_the_store(text: str) -> None:
    found = fit(text)
    assert json.loads(json.dumps(found, ensure_ascii=False).encode()) == found
    assert unmarshal(marshal({"text": found}))["text"] == found
    assert fit(found) == found
    assert not set(found) & {chr(code) for code in (0, 7, 8, 27, 127, 0x9B)}


def test_fit_keeps_what_is_good_and_joins_pairs() -> None:
    assert fit("a\tb\r\nc ✓ 🧨") == "a\tb\r\nc ✓ 🧨"
    assert fit("\ud83e\udde8 \ud83d") == "🧨 \ufffd"


@bounded(100)
@given(texts, st.integers(3, 50))
def test_a_text_without_its_middle_has_both_ends(text: str, most: int) -> None:
    found = without_middle(text, most)
    assert len(found) <= most
    assert found == text or (text.startswith(found.split("…")[0]) and text.endswith(found[-1]))


# --- log lines ---------------------------------------------------------------------------------------------------------


@pytest.mark.attack("pipe")
@bounded(40)
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=20), st.integers(1, 60_000))
def test_no_line_of_the_log_is_longer_than_its_limit_and_nothing_is_lost(text: str, times: int) -> None:
    out = io.StringIO()
    JsonLog({"run_id": "r" * 80}, out).error("the outcome could not be written", outcome={"message": text * times})
    lines = out.getvalue().splitlines()
    assert all(len(line.encode()) < MAX_LINE for line in lines)
    told = [json.loads(line) for line in lines]
    assert all(line["message"] == "the outcome could not be written" and line["level"] == "error" for line in told)
    whole = told[0] if len(told) == 1 else json.loads("".join(line["continued"] for line in told))
    assert whole["outcome"]["message"] == fit(text * times)
    assert [line.get("part", 1) for line in told] == list(range(1, len(told) + 1))


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("most", [10, 5_000, 300_000])
def test_results_that_could_not_be_written_are_all_in_the_log(most: int) -> None:
    out = io.StringIO()
    results = [dataclasses.asdict(NodeResult(0, f"m{number}", "model", "m", "error", "✓" * most)) for number in range(60)]
    JsonLog({"run_id": "r-1"}, out).listed("error", "node results could not be written", "results", results, error="E")
    lines = out.getvalue().splitlines()
    assert all(len(line.encode()) < MAX_LINE for line in lines)
    found, pieces = [], ""
    for line in map(json.loads, lines):
        if "continued" in line:
            pieces += line["continued"]
            if line["part"] == line["parts"]:
                found += json.loads(pieces)["results"]
                pieces = ""
        else:
            found += line["results"]
    assert found == json.loads(json.dumps(results))


def test_a_context_of_any_length_leaves_room_for_the_line(tmp_path: Path) -> None:
    out = io.StringIO()
    JsonLog({"run_id": "✓" * 100_000}, out).info("✓" * 100_000, text="\\" * 300_000)
    assert all(len(line.encode()) < MAX_LINE for line in out.getvalue().splitlines())
