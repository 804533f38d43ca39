"""Where an attempt runs, as far as that makes a difference to it: a task of ECS has all it needs, a function of Lambda does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dbt_runner import release
from dbt_runner.outages import PATIENCE_SECONDS
from dbt_runner.release import Release
from dbt_runner.store import Store

# ECS sends SIGKILL 120 s after SIGTERM at the latest. dbt gets most of a normal 30 s to cancel its queries.
GRACE_SECONDS = 25.0


@dataclass(frozen=True)
class Compute:
    """What runs an attempt.

    Attributes:
        name: as the outcome calls it.
        task: by which name it is known; None where ECS says it.
        seconds: after this long from its start the attempt has to stop, in order to be able to say so; None for no such limit.
        lifetime_seconds: after this long from its start it is ended from outside; None where nobody does that.
        grace_seconds: how long dbt may take to stop when it is asked to.
        closing_seconds: how long writing down what became of it may take after dbt's end, should AWS be out of order.
        fetch: gets a release, as `release.fetch` does; the project may lie elsewhere than asked.
        variables: the team's variables that are not in the process's environment yet.
    """

    name: str = "fargate"
    task: str | None = None
    seconds: float | None = None
    lifetime_seconds: float | None = None
    grace_seconds: float = GRACE_SECONDS
    closing_seconds: float = PATIENCE_SECONDS
    fetch: Callable[[Store, str, Path], Release] = lambda store, version, folder: release.fetch(store, version, folder)
    variables: Callable[[], Mapping[str, str]] = dict


FARGATE = Compute()
