"""Which release an environment runs: its pointer, and the append-only record of everybody who moved it.

A move is effective from the next run on. A run that has started keeps the release it started with. The release is read and held
against its digests and the environment's pin of its version first: the pointer never moves to one that a run would refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dbt_runner import config, integrity, outages, pins, release
from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, RELEASE_CORRUPT, RUNNER_ERROR, TypedError
from dbt_runner.store import (
    CURRENT_RELEASE,
    PROMOTION_PREFIX,
    RELEASE_META,
    AlreadyThere,
    Item,
    Store,
    archive_key,
    now,
    pointer_pk,
    release_pk,
)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_OPTIONAL = ("previous", "reason")


@dataclass(frozen=True)
class Promotion:
    """Where an environment's pointer stands, or stood.

    Attributes:
        digest, manifest_digest: sha256 (hex) of the release's bundle.tar.gz and manifest.json.
        project: the release's dbt project, which becomes the environment's.
        previous: what it pointed to before; None for the first release.
        promoted_at: ISO 8601, UTC.
        promoted_by: who moved it, as AWS knows them (an ARN).
        reason: why; None when nobody said.
        changed: False when it stood there before.
    """

    environment: str
    version: str
    digest: str
    manifest_digest: str
    project: str
    previous: str | None
    promoted_at: str
    promoted_by: str
    reason: str | None
    changed: bool


def current(store: Store, environment: str) -> Promotion | None:
    """Where the pointer stands now; None before the first promotion.

    Raises:
        TypedError: Dbt.ReleaseCorrupt when it is not what a promotion leaves.
    """
    item = store.get(pointer_pk(environment), CURRENT_RELEASE)
    return from_item(environment, item, changed=False) if item else None


def history(store: Store, environment: str) -> list[Promotion]:
    """Every move of the pointer, the oldest first.

    Raises:
        TypedError: Dbt.ReleaseCorrupt when an item is not what a promotion leaves.
    """
    items = store.query(pointer_pk(environment), PROMOTION_PREFIX)
    return [from_item(environment, item, changed=True) for item in items]


def promote(store: Store, environment: str, version: str, *, by: str, reason: str | None, other_project: bool = False) -> Promotion:
    """Makes a release the current one of an environment.

    Args:
        by: who does it, as AWS knows them (an ARN).
        reason: why, for the audit; None when nobody said.
        other_project: also if it is a release of another dbt project than the current one.

    Raises:
        TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt, Dbt.RunnerError (no such environment), Dbt.InvalidRequest for a pull
            request's release, for one of another project, and when another caller moved the pointer at the same time. Nothing was
            changed. Dbt.AccessDenied or Dbt.RunnerError when the pointer was moved, but the long-term audit could not be written.
    """
    config.load(store, environment)
    return _move(store, environment, version, current(store, environment), by, reason, other_project)


def rollback(store: Store, environment: str, version: str | None, *, by: str, reason: str | None, other_project: bool = False) -> Promotion:
    """Makes an earlier release the current one again.

    Args:
        version: to which; None for the one that the current release replaced, see `rollback_target`.
        by, reason, other_project: as `promote`.

    Raises:
        TypedError: Dbt.InvalidRequest when there is nothing to go back to, the environment never ran that version, or somebody
            moved the pointer at the same time; and as `promote`. Nothing was changed.
    """
    config.load(store, environment)
    standing = current(store, environment)
    if standing is None:
        raise TypedError(INVALID_REQUEST, f"{environment} has no current release: there is nothing to roll back")
    moves = history(store, environment)
    if not moves:
        raise TypedError(INVALID_REQUEST, f"{standing.version} was promoted in {environment} by no recorded move: promote a release")
    if moves[-1].version != standing.version:
        raise _lost_to(moves[-1])
    if version is None:
        version = rollback_target(move.version for move in moves)
        if version is None:
            raise TypedError(INVALID_REQUEST, f"{standing.version} is the first release of {environment}: there is nothing to go back to")
    elif version not in {move.version for move in moves}:
        raise TypedError(
            INVALID_REQUEST, f"{environment} never ran {version}: a rollback goes back; to go on, use dbt-runner release promote"
        )
    return _move(store, environment, version, standing, by, reason or f"rollback from {standing.version}", other_project)


def rollback_target(versions: Iterable[str]) -> str | None:
    """The release that the last one replaced, or None when it is the first.

    Going back to an earlier version takes everything after it off the pile: a second rollback in a row goes one further back, and
    never forward again to what the first one left.

    Args:
        versions: every version that the pointer was moved to, the oldest first.
    """
    pile: list[str] = []
    for version in versions:
        if version in pile:
            del pile[pile.index(version) + 1 :]
        else:
            pile.append(version)
    return pile[-2] if len(pile) > 1 else None


def from_item(environment: str, item: Item, *, changed: bool) -> Promotion:
    """A move from its item, which the deployer could have written by another way than this module.

    Raises:
        TypedError: Dbt.ReleaseCorrupt when it is not what a promotion leaves.
    """
    values: Mapping[str, Any] = {
        field.name: item.get(field.name) for field in fields(Promotion) if field.name not in ("environment", "changed")
    }
    bad = [name for name, value in values.items() if not (isinstance(value, str) or (value is None and name in _OPTIONAL))]
    if not bad and not _MOMENT.fullmatch(values["promoted_at"]):
        bad = ["promoted_at"]
    if bad:
        raise TypedError(
            RELEASE_CORRUPT,
            f"the item {item['sk']} of {item['pk']} is none that a promotion leaves (it has no valid {', '.join(bad)}): "
            "dbt-runner release verify --promotions shows what the long-term audit has; an administrator has to remove the item",
        )
    return Promotion(environment=environment, **values, changed=changed)


def row_of(promotion: Promotion) -> dict[str, Any]:
    """A move as the long-term audit has it."""
    return {name: value for name, value in asdict(promotion).items() if name != "changed" and value is not None}


def row_key(promotion: Promotion) -> str:
    """The S3 key of a move's row in the long-term audit."""
    moment = promotion.promoted_at
    return archive_key("promotions", promotion.environment, moment[:10], moment.replace(":", ""))


def _checked(store: Store, environment: str, version: str, standing: Promotion | None, by: str, other_project: bool) -> release.ReleaseMeta:
    """The release, if the pointer may move to it."""
    release.check_version(version)
    if release.is_ci(version):
        raise TypedError(INVALID_REQUEST, f"{version} is a pull request's tree: publish what was merged under a version of its own")
    meta = integrity.require_release(store, version)
    if standing is not None and standing.project != meta.project and not other_project:
        raise TypedError(
            INVALID_REQUEST,
            f"release {version} is of the dbt project {meta.project}, and {environment} runs {standing.version} of {standing.project}: "
            "pass --other-project if the environment is to change its project",
        )
    pins.hold(store, environment, meta, by=by)
    return meta


def _move(
    store: Store, environment: str, version: str, standing: Promotion | None, by: str, reason: str | None, other_project: bool
) -> Promotion:
    """Moves the pointer, provided that it still stands where the caller saw it."""
    meta = _checked(store, environment, version, standing, by, other_project)
    # A pointer that names this version with other content was not written here: it is moved, and so recorded.
    if standing is not None and standing.version == version and (standing.digest, standing.project) == (meta.digest, meta.project):
        _archive(store, standing)
        return standing
    previous = standing.version if standing else None
    promotion = Promotion(
        environment=environment,
        version=version,
        digest=meta.digest,
        manifest_digest=meta.manifest_digest,
        project=meta.project,
        previous=previous,
        promoted_at=now(),
        promoted_by=by,
        reason=reason or None,
        changed=True,
    )
    moved = {key: value for key, value in asdict(promotion).items() if key not in ("environment", "changed")}
    pk = pointer_pk(environment)
    try:
        store.move_pointer(
            {"pk": pk, "sk": CURRENT_RELEASE, **moved},
            {"pk": pk, "sk": f"{PROMOTION_PREFIX}{promotion.promoted_at}", **moved},
            expected_version=previous,
            provided=(release_pk(version), RELEASE_META, release.RETIRING),
        )
    except AlreadyThere as exc:
        # Retired meanwhile: that says it better.
        release.find(store, version)
        winner = current(store, environment)
        if winner is not None and winner.version == version:
            return winner
        if winner is None or winner.version == previous:
            raise TypedError(
                INVALID_REQUEST, f"somebody else is promoting a release of {environment} right now: look, then try again"
            ) from exc
        raise _lost_to(winner) from exc
    _archive(store, promotion)
    return promotion


def _archive(store: Store, promotion: Promotion) -> None:
    """Makes sure that the long-term audit has the row of a move that was made.

    Raises:
        TypedError: Dbt.AccessDenied when the caller may not write it, Dbt.RunnerError when it cannot be written for another reason.
            The same promotion again writes it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    key = row_key(promotion)
    try:
        store.upload_new(json.dumps(row_of(promotion), ensure_ascii=False).encode() + b"\n", key)
    except AlreadyThere:
        return
    except (BotoCoreError, ClientError) as exc:
        runs = f"{promotion.environment} runs {promotion.version} {'from the next run on' if promotion.changed else 'already'}"
        if outages.is_refusal(exc):
            raise TypedError(
                ACCESS_DENIED,
                f"{runs}, but you may not write {key} of the long-term audit: do the same again with an identity that may",
                why=str(exc),
            ) from exc
        raise TypedError(RUNNER_ERROR, f"{runs}, but {key} could not be written: do the same again", why=str(exc)) from exc


def _lost_to(winner: Promotion) -> TypedError:
    return TypedError(
        INVALID_REQUEST, f"{winner.promoted_by} promoted {winner.version} in {winner.environment} meanwhile: look, then try again"
    )
