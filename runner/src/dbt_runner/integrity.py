"""Is what lies in the bucket what was recorded? Every byte is read again.

The digests of a run's artifacts stand in the table. Those of a release stand in its item, which a deployer can replace, and in
its release.json and the pins of the environments that took it (see dbt_runner.pins), which nobody overwrites.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from dbt_runner import release
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError
from dbt_runner.store import STEP_PREFIX, Store, release_key, run_pk, sha256_of


@dataclass(frozen=True)
class Check:
    """One object of the bucket, held against what was recorded; `problem` is None where it is what it was."""

    key: str
    problem: str | None


def check_release(store: Store, version: str) -> list[Check]:
    """Holds a release's three files against its META item.

    Raises:
        TypedError: Dbt.ReleaseNotFound.
    """
    meta = release.find(store, version)
    return [
        check_object(store, release_key(version, release.BUNDLE), meta.digest),
        check_object(store, release_key(version, release.MANIFEST), meta.manifest_digest),
        check_description(store, meta),
    ]


def require_release(store: Store, version: str) -> release.ReleaseMeta:
    """Makes sure that a release is whole, before anything comes to depend on it.

    Raises:
        TypedError: Dbt.ReleaseNotFound, or Dbt.ReleaseCorrupt for one that `check_release` finds a problem in.
    """
    meta = release.find(store, version)
    bad = [check for check in check_release(store, version) if check.problem]
    if bad:
        raise TypedError(
            RELEASE_CORRUPT,
            f"release {version} is damaged: {bad[0].key} {bad[0].problem}; publish the project under another version",
            why=f"{len(bad)} of its files are not what was recorded",
        )
    return meta


def check_run(store: Store, environment: str, run_id: str) -> list[Check]:
    """Holds every artifact of every attempt of a run against the digest in its outcome.

    Raises:
        TypedError: Dbt.InvalidRequest when the environment has no outcome of such a run.
    """
    outcomes = list(store.query(run_pk(environment, run_id), STEP_PREFIX))
    if not outcomes:
        raise TypedError(INVALID_REQUEST, f"environment {environment} has no outcome of a run {run_id}: dbt-runner list shows its runs")
    return [check_object(store, artifact["key"], artifact["sha256"]) for outcome in outcomes for artifact in outcome.get("artifacts", ())]


def check_object(store: Store, key: str, sha256: str) -> Check:
    """Holds an object against its sha256 (hex)."""
    with tempfile.TemporaryDirectory(prefix="dbt-verify-") as folder:
        path = Path(folder, "object")
        if not store.download(key, path):
            return Check(key, "is not in the bucket")
        found = sha256_of(path)
    return Check(key, None if found == sha256 else f"has the sha256 {found}, {sha256} was recorded")


def check_description(store: Store, meta: release.ReleaseMeta) -> Check:
    """Holds a release's META item against the description that was published with it.

    Raises:
        TypedError: Dbt.ReleaseNotFound.
    """
    key = release_key(meta.version, release.DESCRIPTION)
    try:
        about = release.describe(store, meta.version)
    except TypedError as exc:
        if exc.kind is not RELEASE_CORRUPT:
            raise
        return Check(key, "is not in the bucket, or cannot be read")
    differing = [field.name for field in fields(meta) if getattr(about, field.name) != getattr(meta, field.name)]
    return Check(key, f"differs from the release's item in {', '.join(differing)}" if differing else None)
