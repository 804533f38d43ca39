"""What people open after a run: its report, and the project's documentation. The attempt that ends the run publishes both.

The state machine closes the run's record right after that attempt, and a task of its own for the report would be billed for a minute. So
the attempt says how the run is about to be closed. Where that turns out otherwise (it is tried again, it could not be recorded), the next
attempt writes the report anew, or `dbt-runner report` sees that it is not that of the run's record, and makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbt_runner import dbt_docs, promotion, report, runs
from dbt_runner.config import EnvironmentConfig
from dbt_runner.outcome import Outcome
from dbt_runner.request import HEALTH_CHECK, AttemptKey
from dbt_runner.run_records import Run, StepResult, run_from, seconds_between
from dbt_runner.store import Item, Store, documentation_key, timestamp

DOCUMENTATION = "static_index.html"
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Ending:
    """An attempt that has ended, as far as it is known what follows.

    Args:
        run: the run item.
        result: what the attempt came to.
        outcome: the same, as the item that was written.
        folder: with the artifacts that the attempt keeps.
    """

    key: AttemptKey
    config: EnvironmentConfig
    run: Item
    result: Outcome
    outcome: Mapping[str, Any]
    folder: Path


def publish_report(store: Store, ending: Ending) -> list[str]:
    """Writes the run's report, if the run ends here, or would if the attempt is not repeated.

    Returns:
        Its key; nothing where the run goes on.
    """
    now = datetime.now(UTC)
    run = _about_to_be(ending, timestamp(now))
    if run is None:
        return []
    detail = runs.detail_of(store, run, now=now)
    before = [outcome.step for outcome in detail.outcomes]
    detail = replace(detail, run=replace(detail.run, steps=(*_kept(run, ending.key, before), *detail.run.steps)))
    found = report.find(report.from_attempt(store, ending.config, detail, ending.folder))
    page = report.render(found, now=now, written_by=f"{_name(ending.key)}, attempt {ending.key.attempt}")
    key = f"{ending.run['artifacts']}{report.FILE}"
    store.upload_body(page.encode(), key, _HTML)
    return [key]


def publish_documentation(store: Store, ending: Ending) -> list[str]:
    """Writes what `docs generate --static` made, if that is what the attempt did: for its release, and as the current one if it is that.

    Returns:
        The keys.

    Raises:
        ValueError: the page is not dbt's own with data in it.
    """
    file = ending.folder / DOCUMENTATION
    if ending.result.error or not file.is_file():
        return []
    environment, version = ending.key.environment, str(ending.run["release"])
    keys = [documentation_key(environment, version)]
    standing = promotion.current(store, environment)
    if standing is not None and standing.version == version:
        keys.append(documentation_key(environment))
    page = dbt_docs.sealed(file.read_bytes())
    for key in keys:
        store.upload_body(page, key, _HTML)
    return keys


def _about_to_be(ending: Ending, moment: str) -> Run | None:
    """The run as the state machine will close it; None where it goes on."""
    run, key = run_from(ending.config, ending.run), ending.key
    failed = ending.result.error is not None and (key.position == 0 or run.plan[key.position - 1].on_failure != "continue")
    if not failed and key.position != len(run.plan):
        return None
    release = ending.outcome.get("release") or {}
    run = replace(
        run,
        status="FAILED" if failed else "SUCCEEDED",
        ended_at=moment,
        seconds=seconds_between(run.started_at, moment),
        release_digest=release.get("digest"),
        git_commit=release.get("git_commit"),
        image=ending.outcome.get("image"),
        versions=ending.outcome.get("versions") or {},
    )
    if failed and ending.result.error is not None:
        run = replace(run, error=ending.result.error.name, cause=f"{key.name}: {ending.result.message}"[:1000])
    return run


def _kept(run: Run, key: AttemptKey, with_outcome: list[str]) -> list[StepResult]:
    """Steps before this one that have no attempt: what a run that this one resumes had done already."""
    before = [step.name for step in run.plan[: max(0, key.position - 1)]]
    return [
        StepResult(name, "SUCCEEDED", 0, None, f"done by run {run.resumed_from}", {}, 0.0)
        for name in before
        if run.resumed_from and name not in with_outcome
    ]


def _name(key: AttemptKey) -> str:
    return "the health check" if key.name == HEALTH_CHECK else f"step {key.name}"
