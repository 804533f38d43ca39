"""Which release an environment runs: its pointer, and the append-only record of everybody who moved it.

A move is effective from the next run on. A run that has started keeps the release it started with. The release is read and held
against its digests first: the pointer never moves to one that a run would refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dbt_runner import config, integrity, release
from dbt_runner.errors import INVALID_REQUEST, RUNNER_ERROR, TypedError
from dbt_runner.store import (
    CURRENT_RELEASE,
    PROMOTION_PREFIX,
    RELEASE_META,
    AlreadyThere,
    Item,
    Store,
    archive_key,
    environment_pk,
    now,
    release_pk,
)


@dataclass(frozen=True)
class Promotion:
    """Where an environment's pointer stands, or stood.

    Attributes:
        previous: what it pointed to before; None for the first release.
        promoted_at: ISO 8601, UTC.
        promoted_by: who moved it, as AWS knows them (an ARN).
        reason: why; None when nobody said.
        changed: False when it stood there before.
    """

    environment: str
    version: str
    previous: str | None
    promoted_at: str
    promoted_by: str
    reason: str | None
    changed: bool


def current(store: Store, environment: str) -> Promotion | None:
    """Where the pointer stands now; None before the first promotion."""
    item = store.get(environment_pk(environment), CURRENT_RELEASE)
    return _promotion(environment, item, changed=False) if item else None


def history(store: Store, environment: str) -> list[Promotion]:
    """Every move of the pointer, the oldest first."""
    items = store.query(environment_pk(environment), PROMOTION_PREFIX)
    return [_promotion(environment, item, changed=True) for item in items]


def promote(store: Store, environment: str, version: str, *, by: str, reason: str | None) -> Promotion:
    """Makes a release the current one of an environment.

    Args:
        by: who does it, as AWS knows them (an ARN).
        reason: why, for the audit; None when nobody said.

    Raises:
        TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt, Dbt.RunnerError (no such environment), Dbt.InvalidRequest when somebody
            else moved the pointer at the same time. Nothing was changed. Dbt.RunnerError, too, when the pointer was moved, but the
            long-term audit could not be written.
    """
    config.load(store, environment)
    if release.is_ci(version):
        raise TypedError(INVALID_REQUEST, f"{version} is a pull request's tree: publish what was merged under a version of its own")
    integrity.require_release(store, version)
    return _move(store, environment, version, current(store, environment), by, reason)


def rollback(store: Store, environment: str, version: str | None, *, by: str, reason: str | None) -> Promotion:
    """Makes an earlier release the current one again.

    Args:
        version: to which; None for the one that the current release replaced, see `rollback_target`.
        by, reason: as `promote`.

    Raises:
        TypedError: Dbt.InvalidRequest when there is nothing to go back to, the environment never ran that version, or somebody
            moved the pointer at the same time; and as `promote`. Nothing was changed.
    """
    config.load(store, environment)
    standing = current(store, environment)
    if standing is None:
        raise TypedError(INVALID_REQUEST, f"{environment} has no current release: there is nothing to roll back")
    moves = history(store, environment)
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
    integrity.require_release(store, version)
    return _move(store, environment, version, standing, by, reason or f"rollback from {standing.version}")


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


def _move(store: Store, environment: str, version: str, standing: Promotion | None, by: str, reason: str | None) -> Promotion:
    """Moves the pointer, provided that it still stands where the caller saw it."""
    if standing is not None and standing.version == version:
        _archive(store, standing)
        return standing
    previous = standing.version if standing else None
    promotion = Promotion(environment, version, previous, now(), by, reason or None, changed=True)
    moved = {key: value for key, value in asdict(promotion).items() if key not in ("environment", "changed")}
    pk = environment_pk(environment)
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
        TypedError: Dbt.RunnerError when it cannot be written. The same promotion again writes it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    row = {name: value for name, value in asdict(promotion).items() if name != "changed" and value is not None}
    moment = promotion.promoted_at
    key = archive_key("promotions", promotion.environment, moment[:10], moment.replace(":", ""))
    try:
        store.upload_new(json.dumps(row, ensure_ascii=False).encode() + b"\n", key)
    except AlreadyThere:
        return
    except (BotoCoreError, ClientError) as exc:
        raise TypedError(
            RUNNER_ERROR,
            f"{promotion.environment} runs {promotion.version} from the next run on, but {key} could not be written: do the same again",
            why=str(exc),
        ) from exc


def _lost_to(winner: Promotion) -> TypedError:
    return TypedError(
        INVALID_REQUEST, f"{winner.promoted_by} promoted {winner.version} in {winner.environment} meanwhile: look, then try again"
    )


def _promotion(environment: str, item: Item, *, changed: bool) -> Promotion:
    return Promotion(
        environment=environment,
        version=item["version"],
        previous=item.get("previous"),
        promoted_at=item["promoted_at"],
        promoted_by=item["promoted_by"],
        reason=item.get("reason"),
        changed=changed,
    )
