"""The manifest of another release, as dbt's --state and --defer want it: parsed here, for the target on which that release was built.

A release's own manifest was made with a connection to nowhere, so that its relations are nobody's. What the environment has built of it
follows from its profile, which only a run of the environment has.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dbt_runner import admission, outcome, profile, release, worker_spec
from dbt_runner.errors import TypedError
from dbt_runner.events import StepReport, WorkerSpec
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask
from dbt_runner.parse_cache import ParseCache
from dbt_runner.request import AttemptRequest
from dbt_runner.store import Store


class Stores(NamedTuple):
    """The audit store: for what has to be read, however long it takes, and for what is not worth the wait."""

    patient: Store
    hasty: Store


def prepare(
    stores: Stores,
    asked: AttemptRequest,
    version: str,
    folder: Path,
    log: JsonLog,
    mask: Mask,
    work: Callable[[WorkerSpec, ParseCache], StepReport],
) -> tuple[Path, release.ReleaseMeta]:
    """Parses a release for `profile.of_state`.

    Args:
        version: which one.
        folder: must not exist yet.
        mask: knows the secrets, which no cache may hold.
        work: has a worker do what a spec says, and gives what it parsed to the cache.

    Returns:
        The folder with its manifest.json, and what the release is.

    Raises:
        TypedError: Dbt.InvalidRequest, Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt, or whatever the parse came to.
    """
    meta = admission.admit(stores.patient, asked, version, "defer_to")
    log.info("parsing the release to compare with", release=version)
    target, artifacts = profile.of_state(asked), folder / "target"
    artifacts.mkdir(parents=True)
    fetched = release.fetch(stores.patient, version, folder / "project")
    admission.require_same(meta, fetched)
    target.write(folder / "profiles", fetched.project)
    cache = ParseCache(stores.hasty, asked, fetched, target, artifacts, log, mask)
    cache.fetch()
    report = work(worker_spec.of_parse(asked, target, folder, fetched.project, artifacts), cache)
    found = outcome.classify(report, [worker_spec.PARSE], asked.config.warehouse.type)
    if found.error is not None:
        raise TypedError(found.error, f"release {version}, with which this run compares: {found.message}", found.why)
    cache.keep()
    return artifacts, meta
