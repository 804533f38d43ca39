"""The module on two independent implementations of AWS: each scenario takes the same way through the state machines on both."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from second_aws import behaviours
from second_aws.campaign import Results
from second_aws.engine import FIRST, SECOND
from second_aws.scenarios import Paths, names

pytestmark = [pytest.mark.slow, pytest.mark.terraform, pytest.mark.xdist_group("second-aws")]


def paths(results: Results, engine: str, scenario: str) -> Paths:
    found = results.played[engine][scenario]
    if isinstance(found, Exception):
        raise AssertionError(f"{scenario} on {engine}") from found
    return found


@pytest.mark.parametrize("scenario", names())
def test_both_implementations_take_the_same_path(results: Results, scenario: str) -> None:
    first, second = paths(results, FIRST, scenario), paths(results, SECOND, scenario)
    assert [*map(str, first)] == [*map(str, second)]


def test_no_scenario_is_empty(results: Results, figure: Callable[[str], None]) -> None:
    compared = [len(paths(results, FIRST, scenario)) for scenario in names()]
    assert all(compared) and len(compared) >= 15
    differ = sum(results.played[FIRST][scenario] != results.played[SECOND][scenario] for scenario in names())
    figure(f"second AWS: {len(compared)} scenarios, {sum(compared)} paths compared, {differ} differences")
    seconds = ", ".join(f"{what} {took:.0f} s" for what, took in results.seconds.items())
    figure(f"second AWS, time: {seconds}")


def test_the_page_says_which_behaviours_both_show(results: Results) -> None:
    """UPDATE_BEHAVIOURS=1 writes the column."""
    seen = {
        engine: behaviours.Seen({scenario: paths(results, engine, scenario) for scenario in names()}, results.probed[engine])
        for engine in (FIRST, SECOND)
    }
    shown, page = behaviours.shown(seen), behaviours.PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_BEHAVIOURS"):
        page = behaviours.write(page, shown)
        behaviours.PAGE.write_text(page, encoding="utf-8")
    assert behaviours.said(page) == shown
