"""The story of a bad release on the local stack: three versions, a run that fails, and the way back."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dbt_runner import config, promotion, publish, release, runs
from dbt_runner.local.session import ADAPTER, AUTHOR, ENVIRONMENT, Say, open_store
from dbt_runner.local.stack import LocalStack, find_module
from dbt_runner.promotion import Promotion
from dbt_runner.runs import RunDetail

GOOD, BROKEN = "1.1.0", "1.2.0"
# What each version adds to the one before it.
_VERSIONS = {
    "1.0.0": "",
    GOOD: "select count(*) as orders from {{ ref('stg_orders') }}",
    BROKEN: "select count(*) as orders from {{ ref('stg_orders') }} where no_such_column = 1",
}


@dataclass(frozen=True)
class Story:
    """What happened.

    Attributes:
        runs: of the good release, of the broken one, and after the rollback.
        promotions: every move of the pointer, the oldest first.
        rollback_seconds: from the rollback's call to the start of the next run, as its record has it.
    """

    runs: tuple[RunDetail, RunDetail, RunDetail]
    promotions: tuple[Promotion, ...]
    rollback_seconds: float


def tell(home: Path, *, say: Say, watch: Callable[[Iterator[RunDetail]], RunDetail]) -> Story:
    """Publishes three versions of the sample project, promotes a broken one, and rolls it back.

    Args:
        home, say, watch: as `session.run_project`.

    Raises:
        TypedError, LocalError: with a message that says what to do. Nothing is left running.
    """
    with tempfile.TemporaryDirectory(prefix="dbt-local-") as folder, ThreadPoolExecutor(1, "publish") as pool:
        candidates = pool.submit(lambda: [_candidate(version, Path(folder, version)) for version in _VERSIONS])
        say("starting the embedded AWS, and packing three versions of the sample project meanwhile")
        with LocalStack(home) as stack:
            store, stepfunctions = open_store(stack), stack.client("stepfunctions")
            environment = config.load(store, ENVIRONMENT)
            for candidate in candidates.result():
                release.commit(store, candidate)
            say(f"published: {', '.join(_VERSIONS)}")

            def run(version: str) -> RunDetail:
                started = runs.start_run(stepfunctions, environment, {"job": "build", "trigger": "local"})
                say(f"run {started.run_id}, while {version} is current")
                return watch(runs.follow(store, stepfunctions, environment, started, interval=0.2))

            for version in ("1.0.0", GOOD):
                promotion.promote(store, ENVIRONMENT, version, by=AUTHOR, reason="release day")
            before = run(GOOD)
            promotion.promote(store, ENVIRONMENT, BROKEN, by=AUTHOR, reason="release day")
            broken = run(BROKEN)
            asked = time.time()
            moved = promotion.rollback(store, ENVIRONMENT, None, by=AUTHOR, reason="orders are broken")
            say(f"rolled back from {moved.previous} to {moved.version}: nothing was built, nothing was applied")
            after = run(moved.version)
            started_at = datetime.fromisoformat(after.run.started_at).timestamp()
            return Story((before, broken, after), tuple(promotion.history(store, ENVIRONMENT)), started_at - asked)


def _candidate(version: str, folder: Path) -> release.Candidate:
    project, work = folder / "shop", folder / "work"
    shutil.copytree(find_module() / "examples" / "local" / "shop", project)
    if _VERSIONS[version]:
        (project / "models" / "order_count.sql").write_text(_VERSIONS[version])
    work.mkdir()
    return publish.parse(publish.pack(project, version, ADAPTER, work, _nothing), AUTHOR, _nothing)


def _nothing(_: str) -> None:
    """Three publishers at once would only confuse."""
