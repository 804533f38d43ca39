"""dbt's warnings: each once, counted, within bounds, without secrets."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from dbt_runner import report
from dbt_runner.audit import Evidence, outcome_item, outcome_size
from dbt_runner.claim import Claim
from dbt_runner.cli import render
from dbt_runner.events import Warned, masked
from dbt_runner.intake import Intake
from dbt_runner.masking import Mask
from dbt_runner.outcome import Outcome
from dbt_runner.request import AttemptKey
from dbt_runner.run_records import Run, RunDetail, detail_from, outcome_from
from dbt_runner.warning_tally import MAX_WARNINGS, REST, DbtWarning, WarningTally, merged
from dbt_runner.wire import encode
from runner import projects
from runner.report_runs import CONFIG

KEY = AttemptKey("prod", "r-1", 1, "build", 1)


def tally(*warned: Warned) -> tuple[DbtWarning, ...]:
    found = WarningTally()
    for each in warned:
        found.add(each)
    return found.warnings()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["A", "B"]), st.integers(0, 40))))
def test_each_warning_comes_once_with_the_count_of_the_command_that_gave_it_most(given: list[tuple[int, str, int]]) -> None:
    found = tally(*(Warned(command, event, f"text {number}") for command, event, number in given))
    counts = Counter((command, event, f"text {number}") for command, event, number in given)
    expected: dict[tuple[str, str], int] = {}
    for (_, event, text), number in counts.items():
        expected[event, text] = max(expected.get((event, text), 0), number)
    named = [each for each in found if each.event != REST]
    assert len(named) == min(len(expected), MAX_WARNINGS)
    assert all(expected[each.event, each.text] == each.count for each in named)
    assert sum(each.count for each in found) == sum(expected.values()), "none is lost"


def test_what_dbt_counts_itself_is_added_to_the_first_of_its_kind() -> None:
    first, second, other = Warned(0, "XDeprecation", "a"), Warned(0, "XDeprecation", "b"), Warned(0, "Other", "c")
    summary = (Warned(0, "XDeprecation", "", 12), Warned(0, "Unsaid", "", 3))
    found = tally(first, second, other, *summary)
    assert [(each.text, each.count) for each in found] == [("a", 11), ("b", 1), ("c", 1), ("Unsaid", 3)]


def test_ten_thousand_different_warnings_take_a_bounded_place() -> None:
    found = tally(*(Warned(0, "JinjaLogWarning", f"{number} " + "x" * 900) for number in range(10_000)))
    assert (len(found), found[-1].event, found[-1].count) == (MAX_WARNINGS + 1, REST, 10_000 - MAX_WARNINGS)
    item = outcome_item(KEY, Claim(1, "me"), Outcome(None, ""), Evidence("", "", 0.0, warnings=found))
    assert len(item["warnings"]) == MAX_WARNINGS + 1 and outcome_size(item) < 32_000


def test_a_warning_is_masked_before_it_is_cut() -> None:
    secret = "hunter2-hunter2"
    for before in range(950, 1_010):
        said = masked(Warned(0, "JinjaLogWarning", "y" * before + secret + "z" * 2_000), Mask({secret}))
        assert isinstance(said, Warned) and "hunter" not in said.text and len(said.text) <= 1_100


@pytest.mark.parametrize("command", [1, -1, 7])
def test_a_warning_of_a_command_that_does_not_run_is_not_believed(command: int, tmp_path: Any) -> None:
    from dbt_runner.events import CommandStarted, StepReport

    intake = Intake(projects.spec(tmp_path, ["build", "test"]), StepReport(), Mask())
    intake.take(encode(CommandStarted(0)).encode())
    for place in (0, command):
        intake.take(json.dumps({"type": "Warned", "command": place, "event": "A", "text": f"of {place}"}).encode())
    assert [each.text for each in intake.warnings()] == ["of 0"]
    assert intake.left_out()


def test_several_attempts_tell_each_warning_once() -> None:
    a, b, rest = (
        {"event": "A", "text": "a", "count": 2},
        {"event": "B", "text": "b", "count": 1},
        {"event": REST, "text": "r", "count": 9},
    )
    assert merged([[a, rest], [{**a, "count": 5}, b]]) == (DbtWarning("A", "a", 5), DbtWarning("B", "b", 1), DbtWarning(REST, "r", 9))


def test_people_see_them_in_show_and_in_the_report() -> None:
    warnings = [DbtWarning("UnusedResourceConfigPath", "There are 2 unused <b>paths</b>", 3)]
    item = outcome_item(KEY, Claim(1, "me"), Outcome(None, ""), Evidence("", "", 0.0, warnings=warnings))
    outcome = outcome_from({name: value for name, value in item.items() if value is not None})
    run = Run("r-1", "prod", "arn", "SUCCEEDED", True, "2026-11-23T01:00:00.000Z", "2026-11-23T01:01:00.000Z")
    detail: RunDetail = detail_from(run, (outcome,), (), datetime(2026, 11, 23, tzinfo=UTC))
    console = Console(file=StringIO(), width=120)
    console.print(render.run_record(detail))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Warnings of dbt" in shown and "UnusedResourceConfigPath" in shown and "There are 2 unused <b>paths</b>" in shown
    page = report.render(report.find(report.Sources(detail, CONFIG)), now=datetime(2026, 11, 23, 2, tzinfo=UTC))
    assert "Warnings of dbt" in page and "There are 2 unused &lt;b&gt;paths" in page
