"""Retention of releases: which ones nobody needs any more, and how they go while others promote and run.

Nothing here rests on a moment in which nobody looks. A release is marked first; from then on no promotion and no run takes it. Then
everything that could refer to it is read again: whoever was faster keeps it, and the mark is taken back. Only then its objects go, and
in the end its item says so. Whatever is interrupted is finished by the next call; of two calls at once, the one that marked last.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dbt_runner import promotion, release
from dbt_runner.errors import RELEASE_CORRUPT, TypedError
from dbt_runner.store import (
    CURRENT_RELEASE,
    POINTER_PREFIX,
    PROMOTION_PREFIX,
    RELEASE_META,
    RUN_PREFIX,
    AlreadyThere,
    Item,
    Store,
    now,
    release_key,
    release_pk,
)

# How long Step Functions knows an execution, and so a run can be resumed.
_RESUMABLE = timedelta(days=90)
# The description stays. It cannot be overwritten, so that the version can never be published again with other content, not even by a
# deployer who replaces the item that says that it is retired.
_FILES = (release.BUNDLE, release.MANIFEST)


@dataclass(frozen=True)
class Rules:
    """What is kept although nobody refers to it.

    Attributes:
        older_than: time since a release was published, promoted or replaced, below which it is kept.
        keep: how many of the newest are kept; those of pull requests do not count.
        ci_older_than: as older_than, for the releases of pull requests. Their runs keep them no longer than that.
    """

    older_than: timedelta
    keep: int
    ci_older_than: timedelta


@dataclass(frozen=True)
class Verdict:
    """What becomes of a release.

    Attributes:
        published_at: ISO 8601, UTC.
        size: bytes of its bundle.
        kept_for: why it stays; None for one that goes.
    """

    version: str
    published_at: str
    size: int
    kept_for: str | None


def prune(store: Store, rules: Rules, *, by: str, dry_run: bool = False, moment: datetime | None = None) -> list[Verdict]:
    """Removes the releases that nobody needs: bundle and manifest go, their items stay and say when and by whom.

    Of a pull request's release nothing stays: its version is its content, which may come again.

    Args:
        by: who does it, as AWS knows them (an ARN).
        dry_run: only say what would be done.
        moment: the present.

    Returns:
        all releases that there were, the newest first.

    Raises:
        TypedError: Dbt.ReleaseCorrupt when an item that decides what goes is not what dbt-runner writes.
    """
    moment = moment or datetime.now(UTC)
    first = judge(store, rules, moment)
    going = [verdict.version for verdict in first if verdict.kept_for is None]
    if dry_run or not going:
        return first
    mine = secrets.token_hex(8)
    marked = [version for version in going if _mark(store, version, by, mine)]
    second = {verdict.version: verdict for verdict in judge(store, rules, moment)}
    for version in marked:
        if second[version].kept_for is not None:
            _change(store, version, {"retiring": None, "retiring_at": None, "retired_by": None, "spared_at": now()}, mine)
        elif _change(store, version, {"deleting_at": now()}, mine):
            store.delete_objects(release_key(version, name) for name in _FILES)
            if release.is_ci(version):
                store.delete_objects([release_key(version, release.DESCRIPTION)])
                store.delete(release_pk(version), RELEASE_META)
            else:
                _change(store, version, {"retired_at": now()}, mine)
    return [second.get(verdict.version, verdict) for verdict in first]


def judge(store: Store, rules: Rules, moment: datetime) -> list[Verdict]:
    """What would become of each release that is still there, the newest first. The whole table is read."""
    metas: list[Item] = []
    pointers: list[Item] = []
    moves: defaultdict[str, list[Item]] = defaultdict(list)
    runs: defaultdict[str, list[Item]] = defaultdict(list)
    for item in store.scan(_ATTRIBUTES, {"pk": ("ENV#", POINTER_PREFIX, "RELEASE#")}):
        if item["sk"] == RELEASE_META and "retired_at" not in item:
            metas.append(_whole(item, "published_at", at=release_pk(str(item.get("version")))))
        elif item["sk"] == CURRENT_RELEASE and item["pk"].startswith(POINTER_PREFIX):
            pointers.append(_whole(item, "version"))
        elif item["sk"].startswith(PROMOTION_PREFIX):
            moves[item["pk"]].append(_whole(item, "version", "promoted_at"))
        elif item["sk"].startswith(RUN_PREFIX):
            for version in _named_by(item):
                runs[version].append(item)
    metas.sort(key=lambda meta: str(meta["published_at"]), reverse=True)
    pointed = _pointed(pointers, moves)
    newest = [meta["version"] for meta in metas if not release.is_ci(meta["version"])][: rules.keep]
    verdicts = []
    for meta in metas:
        version = meta["version"]
        limit = moment - (rules.ci_older_than if release.is_ci(version) else rules.older_than)
        why = pointed.get(version)
        if "deleting_at" in meta and why is None:
            # Its objects may be gone already. Of one that an environment points to they are not: prune marks none that is, and no
            # promotion takes one that is marked. Such a mark is another writer's.
            verdicts.append(Verdict(version, meta["published_at"], meta["size"], None))
            continue
        if why is None and version in newest:
            why = f"one of the newest {rules.keep}"
        if why is None and _last_move(meta, moves.values()) > limit:
            why = f"published, promoted or replaced since {limit.date()}"
        if why is None:
            why = _kept_run(store, runs[version], limit if release.is_ci(version) else None, moment)
        verdicts.append(Verdict(version, meta["published_at"], meta["size"], why))
    return verdicts


def _whole(item: Item, *texts: str, at: str | None = None) -> Item:
    """An item that a deployer could have replaced, if it still says what decides what goes: nothing goes by guesses.

    Args:
        texts: attributes that it must have.
        at: its partition key.

    Raises:
        TypedError: Dbt.ReleaseCorrupt.
    """
    if all(isinstance(item.get(name), str) for name in texts) and at in (None, item["pk"]):
        with contextlib.suppress(ValueError):
            for name in texts:
                if name.endswith("_at"):
                    datetime.fromisoformat(item[name]).astimezone(UTC)
            return item
    raise TypedError(
        RELEASE_CORRUPT,
        f"the item {item['sk']} of {item['pk']} is not what dbt-runner writes: nothing was removed; find out who replaced it",
    )


_ATTRIBUTES = (
    *("pk", "sk", "version", "previous", "promoted_at", "published_at", "size", "deleting_at", "retired_at"),
    *("run_id", "release", "request", "started_at", "ended_at", "artifacts"),
)


def _pointed(pointers: Sequence[Item], moves: Mapping[str, Sequence[Item]]) -> dict[str, str]:
    """Versions that an environment runs, ran before, or would go back to, with the reason."""
    found: dict[str, str] = {}
    for pointer in pointers:
        environment = pointer["pk"].removeprefix(POINTER_PREFIX)
        history = sorted(moves.get(pointer["pk"], ()), key=lambda move: str(move["sk"]))
        back = promotion.rollback_target(str(move["version"]) for move in history)
        for version, why in (
            (back, "rollback goes to it in"),
            (pointer.get("previous"), "previous in"),
            (pointer["version"], "current in"),
        ):
            if version is not None:
                found[version] = f"{why} {environment}"
    return found


def _last_move(meta: Item, moves: Iterable[Sequence[Item]]) -> datetime:
    """When a release was last published, promoted or replaced."""
    version = meta["version"]
    times = [move["promoted_at"] for history in moves for move in history if version in (move["version"], move.get("previous"))]
    return datetime.fromisoformat(max([meta["published_at"], *times]))


def _named_by(run: Item) -> set[str]:
    """The releases that a run needs: its own, the one that it compares with, and those of the runs that it resumes."""
    try:
        request, resumed = json.loads(run.get("request", "{}")), json.loads(run.get("resumed_releases", "[]"))
    except ValueError:
        request, resumed = {}, []
    named = {run.get("release"), request.get("defer_to") if isinstance(request, dict) else None}
    named.update(version for version in (resumed if isinstance(resumed, list) else ()) if isinstance(version, str))
    return {version for version in named if isinstance(version, str)}


def _kept_run(store: Store, runs: Sequence[Item], since: datetime | None, moment: datetime) -> str | None:
    """A run that still needs its release: one that goes on, that can be resumed, or whose artifacts are still there.

    Args:
        since: of a pull request's release, the time before which runs do not count; None for other releases.
    """
    for run in sorted(runs, key=lambda run: str(run["started_at"]), reverse=True):
        started = datetime.fromisoformat(run["started_at"])
        ended = datetime.fromisoformat(run["ended_at"]) if "ended_at" in run else None
        # One without an end is open, or was lost so long ago that nobody can resume it.
        fresh = started if since is not None else ended or started
        if fresh > (since if since is not None else moment - _RESUMABLE):
            return f"run {run['run_id']}"
        if since is None and "artifacts" in run and store.has_objects(run["artifacts"]):
            return f"run {run['run_id']}, whose artifacts are kept"
    return None


def _mark(store: Store, version: str, by: str, mine: str) -> bool:
    """Marks a release as going; False when it is gone. A mark of another prune, which may have died, becomes this one's."""
    marks = {"retiring": mine, "retiring_at": now(), "retired_by": by}
    return _update(store, version, marks, "attribute_exists(pk) AND attribute_not_exists(retired_at)", {})


def _change(store: Store, version: str, changes: Mapping[str, str | None], mine: str) -> bool:
    """Changes a release that still has this prune's mark; False when it has not."""
    return _update(store, version, changes, "retiring = :mine", {":mine": mine})


def _update(store: Store, version: str, changes: Mapping[str, str | None], condition: str, values: Mapping[str, str]) -> bool:
    try:
        store.update(release_pk(version), RELEASE_META, changes, condition=condition, values=values)
    except AlreadyThere:
        return False
    return True
