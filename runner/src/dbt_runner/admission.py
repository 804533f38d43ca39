"""Which releases a run of an environment may take: what its request may name, and what is found under that name.

The state machine refuses by name what `check_name` refuses; the runner does so again, and holds what it finds against the environment's
pin and project before anything of it is unpacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbt_runner import pins, release
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError

if TYPE_CHECKING:
    from dbt_runner.config import EnvironmentConfig
    from dbt_runner.request import AttemptRequest
    from dbt_runner.store import Store


def check_name(config: EnvironmentConfig, version: str, field: str) -> None:
    """Refuses a version that the environment never takes: a malformed one, and a pull request's where slim_ci is not set.

    Args:
        field: where it stands in the request, for the message.

    Raises:
        TypedError: Dbt.InvalidRequest.
    """
    try:
        release.check_version(version)
    except TypedError as exc:
        raise TypedError(INVALID_REQUEST, f"{field}: {exc.message}") from exc
    if release.is_ci(version) and not config.slim_ci:
        raise TypedError(
            INVALID_REQUEST,
            f"{field}: {version} is a pull request's tree, and environment {config.environment} takes none: "
            "slim_ci of the environment says which one does",
        )


def admit(store: Store, asked: AttemptRequest, version: str, field: str) -> release.ReleaseMeta:
    """Finds a release that a run names, if the environment may take it.

    Args:
        field: what it is for the run, for the message.

    Raises:
        TypedError: Dbt.InvalidRequest, Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
    """
    check_name(asked.config, version, field)
    meta = release.find(store, version)
    if asked.project is not None and meta.project != asked.project:
        raise TypedError(
            INVALID_REQUEST,
            f"{field}: {version} is of the dbt project {meta.project}, and environment {asked.key.environment} runs {asked.project}: "
            "promote a release of that project first (dbt-runner release promote --other-project)",
        )
    pins.hold(store, asked.key.environment, meta, by=asked.execution)
    return meta


def require_same(meta: release.ReleaseMeta, fetched: release.Release) -> None:
    """Makes sure that what was unpacked is what was admitted: the item was read twice.

    Raises:
        TypedError: Dbt.ReleaseCorrupt.
    """
    if fetched.digest != meta.digest:
        raise TypedError(RELEASE_CORRUPT, f"release {meta.version} changed while it was fetched: {fetched.digest} instead of {meta.digest}")
