"""The tools of the second AWS, without it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from second_aws import behaviours, commands, refusals
from second_aws.paths import waits, without_waiting

LOOP = ["AcquireLock", "! Held", "ReadLock", "Overlap"]


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (["A", "Wait", "A"], ["A"]),
        (["A", "B", "Wait", "A", "B", "Wait", "A", "B", "C"], ["A", "B", "C"]),
        ([*LOOP, "Queue", *LOOP, "Queue", "AcquireLock", "RecordStart"], [*LOOP, "Queue", "AcquireLock", "RecordStart"]),
        (["A", "Backoff", "A", "Backoff", "A"], ["A", "Backoff", "A", "Backoff", "A"]),
        (["A", "Wait", "B"], ["A", "Wait", "B"]),
    ],
)
def test_a_loop_that_polls_is_taken_once(steps: list[str], left: list[str]) -> None:
    assert without_waiting(steps, frozenset({"Wait", "Queue"})) == left


@given(st.lists(st.sampled_from("ABCD"), max_size=12))
def test_a_path_without_waits_stays_as_it_is(steps: list[str]) -> None:
    assert without_waiting(steps, frozenset({"Wait"})) == steps


@given(st.lists(st.sampled_from("ABCD"), min_size=1, max_size=4, unique=True), st.integers(0, 5))
def test_how_often_it_polls_is_no_matter(block: list[str], times: int) -> None:
    polled = block + ["Wait", *block] * times
    assert without_waiting(polled, frozenset({"Wait"})) == block


def test_attempts_are_counted() -> None:
    assert "Queue" in waits() and "Backoff" not in waits()


def test_the_page_names_both_roles_of_every_command() -> None:
    assert len(commands.documented()) > 20
    assert {may["operator"] for may in commands.documented().values()} == {True, False}


def test_each_attempt_of_the_matrix_has_a_name_of_its_own() -> None:
    names = Counter([*map(str, refusals.attempts("table", "bucket")), *(a.what for a in refusals.assumptions())])
    assert [name for name, times in names.items() if times > 1] == []


@pytest.mark.parametrize("role", ["deployer", "operator", "task", "states", "warehouse"])
def test_each_fence_has_a_control(role: str) -> None:
    attempts = [attempt for attempt in refusals.attempts("table", "bucket") if attempt.role == role]
    assert {attempt.refuse for attempt in attempts} == {True, False}


def test_the_page_says_of_each_behaviour_whether_both_show_it() -> None:
    assert set(behaviours.said(behaviours.PAGE.read_text(encoding="utf-8"))) == set(behaviours.ROWS)


def test_what_a_run_has_shown_is_written_into_the_page() -> None:
    page = behaviours.PAGE.read_text(encoding="utf-8")
    answers = dict.fromkeys(behaviours.ROWS, "neither moto nor ministack")
    written = behaviours.write(page, answers)
    assert behaviours.said(written) == answers
    assert behaviours.write(written, behaviours.said(page)) == page
