"""Retention of releases: nothing that anybody refers to goes, whoever promotes, runs or prunes meanwhile."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from dbt_runner import cli as command_line
from dbt_runner import integrity, pins, promotion, prune, release
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND
from dbt_runner.prune import Rules
from dbt_runner.store import CONFIG, RELEASE_META, Item, Store, environment_pk, release_key, release_pk
from runner.conftest import config_of
from runner.recorded_runs import record_run
from runner.releases import ALICE, BOB, candidate, refused

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
RULES = Rules(older_than=timedelta(days=90), keep=1, ci_older_than=timedelta(days=14))


def named(folder: Path, name: str) -> release.Candidate:
    """A release of this name; that of a pull request has the name of its content."""
    made = candidate(folder / name, f"select '{name}'", version=name)
    return replace(made, version=release.ci_version(made.bundle)) if release.is_ci(name) else made


@functools.cache
def ci(name: str) -> str:
    """The version of a pull request's release."""
    with tempfile.TemporaryDirectory() as folder:
        return named(Path(folder), name).version


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def publish(store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Publishes releases, each so many days ago."""

    def publish(**days: float) -> None:
        for name, age in days.items():
            version = name.replace("_", "-")
            with monkeypatch.context() as patch:
                patch.setattr(release, "now", lambda age=age: ago(age))
                release.commit(store, named(tmp_path, version))

    return publish


def move(store: Store, environment: str, version: str, days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put({"pk": environment_pk(environment), "sk": CONFIG, "config": json.dumps(config_of(environment))})
    with monkeypatch.context() as patch:
        patch.setattr(promotion, "now", lambda: ago(days))
        promotion.promote(store, environment, version, by=ALICE, reason=None)


def kept(verdicts: Iterable[prune.Verdict]) -> dict[str, str | None]:
    return {verdict.version: verdict.kept_for for verdict in verdicts}


def there(store: Store) -> set[str]:
    # The description of one that was removed stays.
    return {version for version in store.folders("releases/") if store.has_objects(release_key(version, release.BUNDLE))}


def meta(store: Store, version: str) -> Item | None:
    return store.get(release_pk(version), RELEASE_META)


def test_what_anybody_refers_to_stays(store: Store, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    publish(unused=400, first=390, second=380, third=370, of_staging=365, replaced_lately=364, replaced=363, run_by_hand=360)
    publish(compared_with=350, resumable=340, long_gone=330, newest=320, ci_old=20, ci_run=19, ci_new=3)
    for version, days in (("replaced", 300), ("first", 200), ("second", 190), ("third", 180), ("second", 170)):
        move(store, "prod", version, days, monkeypatch)
    for version, days in (("replaced-lately", 100), ("of-staging", 80), ("third", 70)):
        move(store, "staging", version, days, monkeypatch)
    record_run(store, "by-hand", ago(300), release="run-by-hand", status="SUCCEEDED", ended_at=ago(300))
    boto3.client("s3").put_object(
        Bucket=store.bucket, Key=f"runs/prod/{ago(300)[:10].replace('-', '/')}/by-hand/build/1/dbt.log", Body=b"x"
    )
    request = json.dumps({"steps": [], "defer_to": "compared-with"})
    record_run(store, "comparing", ago(30), release=ci("ci-run"), request=request, status="FAILED", ended_at=ago(30))
    record_run(store, "resumable", ago(80), release="resumable", status="FAILED", ended_at=ago(80))
    record_run(store, "expired", ago(200), release="long-gone", status="FAILED", ended_at=ago(200))

    dry = prune.prune(store, RULES, by=BOB, dry_run=True, moment=NOW)
    assert there(store) == set(kept(dry)) and "retiring_at" not in (meta(store, "unused") or {})
    done = prune.prune(store, RULES, by=BOB, moment=NOW)
    assert (
        kept(done)
        == kept(dry)
        == {
            ci("ci-new"): "published, promoted or replaced since 2026-11-11",
            ci("ci-run"): None,
            ci("ci-old"): None,
            "newest": "one of the newest 1",
            "long-gone": None,
            "resumable": "run resumable",
            "compared-with": "run comparing",
            "run-by-hand": "run by-hand, whose artifacts are kept",
            "replaced": None,
            "replaced-lately": "published, promoted or replaced since 2026-08-27",
            "of-staging": "previous in staging",
            "third": "current in staging",
            "second": "current in prod",
            "first": "rollback goes to it in prod",
            "unused": None,
        }
    )
    assert there(store) == {version for version, why in kept(done).items() if why}
    assert (meta(store, ci("ci-old")), meta(store, ci("ci-run"))) == (None, None)
    tombstone = meta(store, "unused") or {}
    assert (tombstone["retired_by"], tombstone["digest"]) == (BOB, tombstone["digest"]) and "retired_at" in tombstone
    assert kept(prune.prune(store, RULES, by=BOB, moment=NOW)) == {version: why for version, why in kept(done).items() if why}


def test_a_version_that_is_retired_never_comes_back_and_a_pull_requests_tree_may(
    store: Store, publish: Callable[..., None], tmp_path: Path
) -> None:
    publish(old=400, ci_1=40, newest=1)
    prune.prune(store, RULES, by=BOB, moment=NOW)
    for call in (lambda: release.find(store, "old"), lambda: promotion.promote(store, "prod", "old", by=ALICE, reason=None)):
        assert "release old is retired since" in refused(RELEASE_NOT_FOUND, call)
    again = candidate(tmp_path / "again", "select 'old'", version="old")
    assert "retired" in refused(INVALID_REQUEST, lambda: release.published(store, "old", again.bundle))
    assert [found.version for found in release.catalog(store).releases] == ["newest"]
    # Not even by a publisher who has replaced the item: its description stays and cannot be overwritten.
    store.delete(release_pk("old"), RELEASE_META)
    other = candidate(tmp_path / "other", "select 'other'", version="old")
    assert "does not describe its other files" in refused(RELEASE_CORRUPT, lambda: release.commit(store, other))
    assert release.commit(store, named(tmp_path / "ci", "ci-1")).new


class Raced(Store):
    """A store in which something else happens right after the whole table was read for the n-th time."""

    def __init__(self, store: Store, reading: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(store._dynamodb, store._s3, store.table, store.bucket)
        self._readings = reading
        self._meanwhile = meanwhile

    def scan(self, *arguments: Any) -> Iterator[Item]:
        yield from super().scan(*arguments)
        self._readings -= 1
        if self._readings == 0:
            self._meanwhile()


def test_a_promotion_that_is_faster_keeps_the_release(store: Store, publish: Callable[..., None]) -> None:
    publish(old=400, newest=1)
    raced = Raced(store, 1, lambda: promotion.promote(store, "prod", "old", by=ALICE, reason=None))
    assert kept(prune.prune(raced, RULES, by=BOB, moment=NOW))["old"] == "current in prod"
    assert release.find(store, "old").version == "old" and "old" in there(store)
    promotion.promote(store, "prod", "newest", by=ALICE, reason=None)
    promotion.rollback(store, "prod", None, by=ALICE, reason=None)


def test_a_promotion_that_is_slower_is_refused(store: Store, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It had seen the release before that was marked, and is about to move the pointer."""
    publish(old=400, newest=1)
    seen = release.find(store, "old")
    pins.hold(store, "prod", seen, by=ALICE)
    messages: list[str] = []

    def promote() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(integrity, "require_release", lambda *_: seen)
            messages.append(refused(RELEASE_NOT_FOUND, lambda: promotion.promote(store, "prod", "old", by=ALICE, reason=None)))

    assert kept(prune.prune(Raced(store, 2, promote), RULES, by=BOB, moment=NOW))["old"] is None
    assert messages[0].startswith("release old is retired since")
    assert promotion.current(store, "prod") is None and "old" not in there(store)


class Broken(Exception):
    pass


@pytest.mark.parametrize("at", ["delete_objects", "_delete_object", "update"])
def test_what_was_interrupted_is_finished_by_the_next(
    store: Store, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    publish(old=400, older=401, newest=1)
    original = getattr(Store, at)
    calls = iter(range(100))

    def fail(self: Store, *arguments: Any, **keywords: Any) -> Any:
        # The marks are updates, too: the fifth is the first tombstone.
        if next(calls) == {"update": 3, "_delete_object": 1}.get(at, 0):
            raise Broken
        return original(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Store, at, fail)
        with pytest.raises(Broken):
            prune.prune(store, RULES, by=BOB, moment=NOW)
    assert refused(RELEASE_NOT_FOUND, lambda: release.find(store, "old"))
    assert kept(prune.prune(store, RULES, by=ALICE, moment=NOW)) == {"newest": "one of the newest 1", "old": None, "older": None}
    assert there(store) == {"newest"}
    assert all("retired_at" in (meta(store, version) or {}) for version in ("old", "older"))


def test_of_two_prunes_at_once_the_later_mark_counts(store: Store, publish: Callable[..., None]) -> None:
    publish(old=400, newest=1)

    def other() -> None:
        assert kept(prune.prune(store, RULES, by=ALICE, moment=NOW))["old"] is None

    assert kept(prune.prune(Raced(store, 2, other), RULES, by=BOB, moment=NOW))["old"] is None
    assert (meta(store, "old") or {})["retired_by"] == ALICE


def test_the_command_says_what_goes_and_why_the_rest_stays(
    store: Store, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(old=4000, newest=1)
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    arguments = ["release", "prune", "-e", "prod", "--keep", "1"]
    dry = CliRunner().invoke(command_line.cli, [*arguments, "--dry-run", "--json"])
    assert {r["version"]: r["kept"] for r in json.loads(dry.stdout)["releases"]} == {"newest": True, "old": False}
    assert there(store) == {"old", "newest"}
    done = CliRunner().invoke(command_line.cli, arguments)
    assert done.exit_code == 0 and done.stdout.endswith("removed 1 of 2 releases\n")
    assert store.has_objects(release_key("newest", release.BUNDLE)) and not store.has_objects(release_key("old", release.BUNDLE))
