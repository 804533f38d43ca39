"""Whatever is killed, whenever: nothing that succeeded runs twice, nothing is lost, and in the end all is as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbt_runner.node_writer import FLUSH_SECONDS
from dbt_runner.store import Store
from faults.containers import aws
from faults.kills import Campaign, Figures

# From the statement that counts an execution to its commit, the event, the pipe and the write: on a machine with much to do.
_ON_THE_WAY_SECONDS = 3.0

pytestmark = pytest.mark.xdist_group("kills")


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[tuple[Store, str]]:
    with aws(tmp_path / "aws") as found:
        yield found


def assert_held(figures: Figures, figure: Callable[[str], None]) -> None:
    figure(f"kill anywhere: {figures}")
    assert figures.unfinished == []
    assert figures.doubles == []
    assert figures.different == []
    assert figures.unrecorded == []
    assert max(figures.lost, default=0.0) < FLUSH_SECONDS + _ON_THE_WAY_SECONDS


def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    audit: tuple[Store, str], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    campaign = Campaign(*audit, tmp_path, width=2, seed=309)
    campaign.run("r-0", kills=2)
    assert campaign.figures.kills.total() >= 1
    assert_held(campaign.figures, figure)


@pytest.mark.slow
def test_sixty_kills_anywhere_in_runs_of_sixty_nodes(audit: tuple[Store, str], tmp_path: Path, figure: Callable[[str], None]) -> None:
    campaign = Campaign(*audit, tmp_path, width=7, seed=2026)
    number = 0
    while campaign.figures.kills.total() < 60:
        campaign.run(f"r-{number}", kills=8)
        number += 1
    assert len(campaign.figures.kills) == 9, "each signal to each target"
    assert_held(campaign.figures, figure)
