"""Runs that start at the same moment: one of them has the environment, the others give way.

The definition itself on the first interpreter, over HTTP, with one thread for each execution. Its containers are real processes that
write nothing but when they came and went, and their outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults import starts
from faults.starts import Environment, wait_for


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    with starts.environment(tmp_path) as found:
        yield found


@pytest.mark.parametrize("number", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_of_runs_that_start_at_once_one_is_executed(environment: Environment, number: int, figure: Callable[[str], None]) -> None:
    assert len(environment.start(number)) == number
    wait_for(lambda: environment.statuses()["RUNNING"] <= 1, "all but one have ended")
    wait_for(lambda: [place for word, _, place in environment.told() if word == "came"] == ["0", "1"], "its step has begun")
    assert environment.records() == {"RUNNING": 1, "SKIPPED": number - 1}
    (environment.folder / "go").touch()
    wait_for(lambda: not environment.statuses()["RUNNING"], "the last one has ended")
    assert environment.statuses() == {"SUCCEEDED": number}
    assert environment.records() == {"SUCCEEDED": 1, "SKIPPED": number - 1}
    assert environment.lock() is None
    told = environment.told()
    assert [(word, place) for word, _, place in told] == [("came", "0"), ("went", "0"), ("came", "1"), ("went", "1")]
    assert len({run_id for _, run_id, _ in told}) == 1
    figure(f"{number} starts at once: executed 1, gave way {number - 1}")
