"""A pull request's check: its tree as a release that nobody can promote, and a run that builds what it changes beside the current release.

The tree is published, not promoted. The run compares with what is current, builds into schemas of its own, and takes the rest from
the environment's tables; docs/releases.md tells the whole of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbt_runner import runs
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import ENVIRONMENT_BUSY, ERRORS, NOTHING_SELECTED, RUNNER_ERROR, TypedError
from dbt_runner.events import BAD_STATUSES
from dbt_runner.runs import NodeResultRow, RunDetail
from dbt_runner.store import Store

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

STEP = "ci"
COMMANDS = ("build --select state:modified+",)
_AGAIN_SECONDS = 15.0


@dataclass(frozen=True)
class Check:
    """How a check ended.

    Attributes:
        environment: where it ran.
        release: the version that the tree was published as; None when it was not.
        error: as the run has it, or why there was none; None for a check that passed.
        message: for the person who has to act; empty for a check that passed.
        detail: the run; None when none was started.
    """

    environment: str
    release: str | None
    error: str | None
    message: str
    detail: RunDetail | None

    @property
    def passed(self) -> bool:
        return self.error is None

    @property
    def exit_code(self) -> int:
        return ERRORS.get(self.error, RUNNER_ERROR).exit_code if self.error else 0

    @property
    def nodes(self) -> Sequence[NodeResultRow]:
        """What the run's commands left of each node, hooks left out."""
        nodes = self.detail.nodes if self.detail else ()
        return [node for node in nodes if node.resource_type != "operation" or node.status in BAD_STATUSES]


def refused(environment: str, release: str | None, exc: TypedError) -> Check:
    """A check that came to no run."""
    return Check(environment, release, exc.kind.name, exc.message, None)


def judged(environment: str, release: str, detail: RunDetail) -> Check:
    """What a run's end means for the pull request. One that changes no node has nothing that could be wrong."""
    run = detail.run
    if run.status == "SKIPPED":
        return Check(environment, release, ENVIRONMENT_BUSY.name, run.cause or "another run holds the environment", detail)
    if run.error in (None, NOTHING_SELECTED.name) and run.exit_code in (0, NOTHING_SELECTED.exit_code):
        return Check(environment, release, None, "", detail)
    return Check(environment, release, run.error or RUNNER_ERROR.name, run.cause or f"the run is {run.status}", detail)


def request(release: str, commands: Sequence[str], defer_to: str, schema_suffix: str, **more: Any) -> dict[str, Any]:
    """The input of a check's run.

    Args:
        release: the version that the tree was published as.
        more: other fields of the input; those that say nothing are left out.
    """
    return {
        "steps": [{"name": STEP, "commands": list(commands)}],
        "release": release,
        "defer_to": defer_to,
        "schema_suffix": schema_suffix,
        "trigger": "ci",
        **{name: value for name, value in more.items() if value},
    }


def run(
    store: Store,
    stepfunctions: SFNClient,
    config: EnvironmentConfig,
    document: dict[str, Any],
    *,
    watch: Callable[[Iterator[RunDetail]], RunDetail],
    say: Callable[[str], None],
    patience_seconds: float,
    interval: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> RunDetail:
    """Runs a check to its end; while another run holds the environment, it is started again and again.

    Args:
        document: the input, see `request`.
        watch: consumes the run's states until it has ended, and returns the last one.
        say: is told what happens next.
        patience_seconds: for how long an environment may be held by others.
        interval: seconds between two looks at the run.

    Raises:
        TypedError: as runs.start_run.
    """
    give_up = clock() + patience_seconds
    while True:
        started = runs.start_run(stepfunctions, config, document)
        say(f"run {started.run_id} builds what release {document['release']} changes")
        detail = watch(runs.follow(store, stepfunctions, config, started, interval=interval))
        busy = detail.run.status == "SKIPPED" or detail.run.error == ENVIRONMENT_BUSY.name
        if not busy or clock() >= give_up:
            return detail
        say(f"another run holds {config.environment}: trying again in {_AGAIN_SECONDS:.0f} s")
        sleep(_AGAIN_SECONDS)
