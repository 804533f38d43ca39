"""A version is published once and means one thing for ever; an environment's pointer moves only as its mover saw it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import release
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, RUNNER_ERROR, ErrorKind, TypedError
from dbt_runner.store import (
    CURRENT_RELEASE,
    PROMOTION_PREFIX,
    RELEASE_META,
    Item,
    Store,
    environment_pk,
    release_key,
    release_pk,
    sha256_of,
)
from runner.releases import ALICE, BOB, candidate, objects, refused


def assert_whole(store: Store, winner: release.Candidate, author: str) -> None:
    """The store holds the winner's bundle, and META, release.json and manifest.json that belong to it."""
    stored = objects(store)
    meta = release.find(store, winner.version)
    assert stored[release_key(winner.version, "bundle.tar.gz")] == winner.bundle.read_bytes()
    assert meta.digest == sha256_of(winner.bundle)
    assert meta.manifest_digest == release._sha256(stored[release_key(winner.version, "manifest.json")])
    described = json.loads(stored[release_key(winner.version, "release.json")])
    assert {key: described[key] for key in ("digest", "manifest_digest", "size", "author", "published_at")} == {
        "digest": meta.digest,
        "manifest_digest": meta.manifest_digest,
        "size": winner.bundle.stat().st_size,
        "author": author,
        "published_at": meta.published_at,
    }


class Died(Exception):
    """The publisher's machine went away."""


class WatchedStore(Store):
    """A store that calls `before` ahead of each write, with a word for what is written, and makes each call alone.

    S3 and DynamoDB check a condition and write in one go; moto does not, so that concurrent callers need the lock.
    """

    def __init__(self, store: Store, before: Callable[[str], object] = lambda what: None, lock: threading.Lock | None = None) -> None:
        super().__init__(store._dynamodb, store._s3, store.table, store.bucket)
        self._before = before
        self._lock = lock or threading.Lock()

    def upload_new(self, body: bytes, key: str) -> None:
        self._before(key.rsplit("/", 1)[1])
        with self._lock:
            super().upload_new(body, key)

    def put(self, item: Any, *, only_if_new: bool = False) -> None:
        self._before(item["sk"])
        with self._lock:
            super().put(item, only_if_new=only_if_new)


class RacedStore(Store):
    """A store in which somebody else does something right after the pointer was read."""

    def __init__(self, store: Store, meanwhile: Callable[[], object]) -> None:
        super().__init__(store._dynamodb, store._s3, store.table, store.bucket)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def get(self, pk: str, sk: str) -> Item | None:
        item = super().get(pk, sk)
        if sk == CURRENT_RELEASE and self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return item


WRITES = ("bundle.tar.gz", "manifest.json", "release.json", RELEASE_META)


# --- commit ----------------------------------------------------------------------------------------------------------


def test_a_committed_release_is_found_and_fetched(store: Store, tmp_path: Path) -> None:
    mine = candidate(tmp_path / "mine")
    done = release.commit(store, mine)
    assert done.new
    assert_whole(store, mine, ALICE)
    assert store.get(release_pk("1.4.2"), RELEASE_META) == {
        "pk": "RELEASE#1.4.2",
        "sk": "META",
        "version": "1.4.2",
        "digest": sha256_of(mine.bundle),
        "manifest_digest": done.release.manifest_digest,
        "size": mine.bundle.stat().st_size,
        "dbt_version": "1.11.16",
        "author": ALICE,
        "published_at": done.release.published_at,
        "project": "shop",
    }
    fetched = release.fetch(store, "1.4.2", tmp_path / "out")
    assert (fetched.version, fetched.digest, fetched.git_commit) == ("1.4.2", sha256_of(mine.bundle), None)
    assert (fetched.project / "models/a.sql").read_text() == "select 1"


def test_the_same_content_again_succeeds_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    first = release.commit(store, candidate(tmp_path / "1", stamp="first"))
    before = objects(store)
    again = release.commit(store, candidate(tmp_path / "2", stamp="second", author=BOB))
    assert again == release.Published(first.release, new=False)
    assert objects(store) == before


def test_other_content_is_refused_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    release.commit(store, candidate(tmp_path / "1"))
    before, meta = objects(store), release.find(store, "1.4.2")
    message = refused(INVALID_REQUEST, lambda: release.commit(store, candidate(tmp_path / "2", "select 2")))
    assert message == "version 1.4.2 is published with other content; choose another version"
    assert (objects(store), release.find(store, "1.4.2")) == (before, meta)


def test_another_zlib_is_no_other_content(store: Store, tmp_path: Path) -> None:
    first, second = candidate(tmp_path / "1"), candidate(tmp_path / "2")
    release.commit(store, first)
    second.bundle.write_bytes(gzip.compress(gzip.decompress(second.bundle.read_bytes()), 1))
    assert release.commit(store, second).release.digest == sha256_of(first.bundle) != sha256_of(second.bundle)
    assert release.published(store, "1.4.2", second.bundle) is not None
    assert_whole(store, first, ALICE)


@pytest.mark.parametrize("death", WRITES[1:])
def test_a_publisher_that_died_is_completed_by_the_same_content(store: Store, tmp_path: Path, death: str) -> None:
    def die(what: str) -> None:
        if what == death:
            raise Died

    with pytest.raises(Died):
        release.commit(WatchedStore(store, die), candidate(tmp_path / "1", stamp="first"))
    refused(RELEASE_NOT_FOUND, lambda: release.find(store, "1.4.2"))

    again = candidate(tmp_path / "2", stamp="second", author=BOB)
    assert release.commit(store, again).new
    # release.json is the one that says who: whoever wrote it.
    assert_whole(store, again, ALICE if death == RELEASE_META else BOB)
    assert release.fetch(store, "1.4.2", tmp_path / "out").digest == sha256_of(again.bundle)


@pytest.mark.parametrize("death", WRITES[1:])
def test_a_publisher_that_died_leaves_a_version_that_never_gets_other_content(store: Store, tmp_path: Path, death: str) -> None:
    def die(what: str) -> None:
        if what == death:
            raise Died

    with pytest.raises(Died):
        release.commit(WatchedStore(store, die), candidate(tmp_path / "1"))
    before = objects(store)
    message = refused(INVALID_REQUEST, lambda: release.commit(store, candidate(tmp_path / "2", "select 2")))
    assert "choose another version" in message
    assert objects(store) == before
    assert release.commit(store, candidate(tmp_path / "2", "select 2", version="1.4.3")).new


@pytest.mark.parametrize("moment", WRITES)
@pytest.mark.parametrize("content", ["select 1", "select 2"], ids=["same content", "other content"])
def test_a_second_publisher_may_come_at_any_moment(store: Store, tmp_path: Path, moment: str, content: str) -> None:
    first = candidate(tmp_path / "first", "select 1", author=ALICE, stamp="first")
    second = candidate(tmp_path / "second", content, author=BOB, stamp="second")
    outcomes: dict[str, object] = {}

    def meanwhile(what: str) -> None:
        if what == moment:
            outcomes[BOB] = attempt(store, second)

    outcomes[ALICE] = attempt(WatchedStore(store, meanwhile), first)
    new = [who for who, outcome in outcomes.items() if isinstance(outcome, release.Published) and outcome.new]
    if content == "select 1":
        assert all(isinstance(outcome, release.Published) for outcome in outcomes.values())
        assert new == [BOB]
    else:
        # Whose bundle came first has won.
        winner = BOB if moment == "bundle.tar.gz" else ALICE
        assert new == [winner]
        assert [outcome for who, outcome in outcomes.items() if who != winner] == [INVALID_REQUEST]
        assert_whole(store, second if winner == BOB else first, winner)
    assert {sha256_of(candidate_.bundle) for candidate_ in (first, second)} >= {release.find(store, "1.4.2").digest}
    objects(store)


def test_of_ten_publishers_of_different_content_exactly_one_wins(store: Store, tmp_path: Path) -> None:
    candidates = [candidate(tmp_path / str(n), f"select {n}", author=f"publisher {n}", stamp=str(n)) for n in range(10)]
    start, lock = threading.Barrier(10), threading.Lock()

    def run(mine: release.Candidate) -> object:
        start.wait(timeout=30)
        return attempt(WatchedStore(store, lock=lock), mine)

    with ThreadPoolExecutor(10) as threads:
        outcomes = list(threads.map(run, candidates))
    [winner] = [mine for mine, outcome in zip(candidates, outcomes, strict=True) if isinstance(outcome, release.Published)]
    assert outcomes.count(INVALID_REQUEST) == 9
    assert_whole(store, winner, winner.author)
    assert set(objects(store)) == {release_key("1.4.2", name) for name in ("bundle.tar.gz", "manifest.json", "release.json")}


def test_of_ten_publishers_of_the_same_content_all_succeed_with_one_release(store: Store, tmp_path: Path) -> None:
    candidates = [candidate(tmp_path / str(n), author=f"publisher {n}", stamp=str(n)) for n in range(10)]
    start, lock = threading.Barrier(10), threading.Lock()

    def run(mine: release.Candidate) -> release.Published:
        start.wait(timeout=30)
        return release.commit(WatchedStore(store, lock=lock), mine)

    with ThreadPoolExecutor(10) as threads:
        outcomes = list(threads.map(run, candidates))
    assert [outcome.new for outcome in outcomes].count(True) == 1
    [agreed] = {outcome.release.published_at: outcome.release for outcome in outcomes}.values()
    assert_whole(store, candidates[0], agreed.author)


def attempt(store: Store, mine: release.Candidate) -> release.Published | ErrorKind:
    try:
        return release.commit(store, mine)
    except TypedError as exc:
        return exc.kind


@pytest.mark.parametrize("version", ["", ".", "..", "../1", "1/2", "-1", "1 2", "v1\n", "1#2", "é", "x" * 65])
def test_a_version_is_a_plain_word(store: Store, tmp_path: Path, version: str) -> None:
    assert "version" in refused(INVALID_REQUEST, lambda: release.commit(store, candidate(tmp_path / "1", version=version)))
    assert not objects(store)


def test_a_description_of_other_files_is_never_committed(store: Store, tmp_path: Path) -> None:
    mine = candidate(tmp_path / "1")
    release.commit(store, mine)
    described = objects(store)[release_key("1.4.2", "release.json")]
    store.upload_new(described.replace(b'"version": "1.4.2"', b'"version": "2"'), release_key("2", "release.json"))
    refused(RELEASE_CORRUPT, lambda: release.commit(store, candidate(tmp_path / "2", "select 2", version="2")))
    refused(RELEASE_NOT_FOUND, lambda: release.find(store, "2"))


# --- fetch -----------------------------------------------------------------------------------------------------------


def test_an_unknown_release_says_how_to_publish_it(store: Store, tmp_path: Path) -> None:
    for call in (lambda: release.find(store, "9.9"), lambda: release.fetch(store, "9.9", tmp_path / "out")):
        assert "dbt-runner release publish --version 9.9" in refused(RELEASE_NOT_FOUND, call)


def test_finding_a_release_needs_no_bucket(store: Store, tmp_path: Path) -> None:
    release.commit(store, candidate(tmp_path / "1"))
    assert release.find(Store(store._dynamodb, store._s3, store.table, None), "1.4.2").project == "shop"


def test_a_changed_or_truncated_or_lost_bundle_is_refused(store: Store, tmp_path: Path) -> None:
    mine = candidate(tmp_path / "1")
    release.commit(store, mine)
    whole = mine.bundle.read_bytes()
    other = candidate(tmp_path / "2", "drop table orders").bundle.read_bytes()
    s3 = boto3.client("s3")
    for bad in (other, whole[:-1], whole + b"\0", b""):
        s3.put_object(Bucket=store.bucket, Key=release_key("1.4.2", "bundle.tar.gz"), Body=bad)
        assert "sha256" in refused(RELEASE_CORRUPT, lambda: release.fetch(store, "1.4.2", tmp_path / "out"))
    s3.delete_object(Bucket=store.bucket, Key=release_key("1.4.2", "bundle.tar.gz"))
    assert "not in the bucket" in refused(RELEASE_CORRUPT, lambda: release.fetch(store, "1.4.2", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_bundle_with_the_right_digest_is_still_not_trusted(store: Store, tmp_path: Path) -> None:
    mine = candidate(tmp_path / "1")
    with tarfile.open(mine.bundle, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../evil.sql"), io.BytesIO())
    release.commit(store, mine)
    assert "outside of the project" in refused(RELEASE_CORRUPT, lambda: release.fetch(store, "1.4.2", tmp_path / "x" / "out"))
    assert not list(tmp_path.rglob("evil.sql"))


def test_an_item_that_lacks_something_is_a_damaged_release(store: Store) -> None:
    store.put({"pk": release_pk("1"), "sk": RELEASE_META, "version": "1"})
    assert "lacks" in refused(RELEASE_CORRUPT, lambda: release.find(store, "1"))


# --- promote ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_releases(store: Store, environment: dict[str, Any], tmp_path: Path) -> Store:
    for version in ("1.0", "1.1"):
        release.commit(store, candidate(tmp_path / version, f"select '{version}'", version=version))
    return store


def current(store: Store) -> Item:
    item = store.get(environment_pk("prod"), CURRENT_RELEASE)
    assert item is not None
    return {key: value for key, value in item.items() if key not in ("pk", "sk")}


def promotions(store: Store) -> list[Item]:
    return [
        {key: value for key, value in item.items() if key not in ("pk", "sk")}
        for item in store.query(environment_pk("prod"), PROMOTION_PREFIX)
    ]


def test_a_promotion_moves_the_pointer_and_leaves_a_record(two_releases: Store) -> None:
    first = release.promote(two_releases, "prod", "1.0", by=ALICE, reason=None)
    assert first == release.Promotion("prod", "1.0", None, first.promoted_at, ALICE, None, changed=True)
    assert current(two_releases) == {"version": "1.0", "promoted_at": first.promoted_at, "promoted_by": ALICE}

    second = release.promote(two_releases, "prod", "1.1", by=BOB, reason="ticket 7")
    pointer = {"version": "1.1", "previous": "1.0", "promoted_at": second.promoted_at, "promoted_by": BOB, "reason": "ticket 7"}
    assert current(two_releases) == pointer

    back = release.promote(two_releases, "prod", "1.0", by=ALICE, reason="rollback")
    assert (back.previous, current(two_releases)["version"]) == ("1.1", "1.0")
    assert [record["version"] for record in promotions(two_releases)] == ["1.0", "1.1", "1.0"]
    assert promotions(two_releases)[1] == pointer


def test_promoting_the_current_release_again_changes_nothing(two_releases: Store) -> None:
    first = release.promote(two_releases, "prod", "1.0", by=ALICE, reason="because")
    again = release.promote(two_releases, "prod", "1.0", by=BOB, reason="again")
    assert not again.changed
    assert (again.promoted_by, again.promoted_at, again.reason) == (ALICE, first.promoted_at, "because")
    assert len(promotions(two_releases)) == 1


def test_only_what_is_published_is_promoted_and_only_where_there_is_an_environment(two_releases: Store) -> None:
    assert "9.9" in refused(RELEASE_NOT_FOUND, lambda: release.promote(two_releases, "prod", "9.9", by=ALICE, reason=None))
    assert "staging" in refused(RUNNER_ERROR, lambda: release.promote(two_releases, "staging", "1.0", by=ALICE, reason=None))
    assert promotions(two_releases) == []
    assert two_releases.get(environment_pk("staging"), CURRENT_RELEASE) is None


@pytest.mark.parametrize("before", [None, "1.0"])
def test_the_loser_of_a_promotion_race_is_told_who_won(two_releases: Store, tmp_path: Path, before: str | None) -> None:
    release.commit(two_releases, candidate(tmp_path / "1.2", "select '1.2'", version="1.2"))
    if before:
        release.promote(two_releases, "prod", before, by=ALICE, reason=None)
    racing = RacedStore(two_releases, lambda: release.promote(two_releases, "prod", "1.1", by=BOB, reason=None))
    message = refused(INVALID_REQUEST, lambda: release.promote(racing, "prod", "1.2", by=ALICE, reason=None))
    assert message == f"{BOB} promoted 1.1 in prod meanwhile: look, then try again"
    assert current(two_releases)["promoted_by"] == BOB
    assert [record["version"] for record in promotions(two_releases)] == [*([before] if before else []), "1.1"]


def test_two_who_promote_the_same_release_both_succeed(two_releases: Store) -> None:
    racing = RacedStore(two_releases, lambda: release.promote(two_releases, "prod", "1.1", by=BOB, reason=None))
    promotion = release.promote(racing, "prod", "1.1", by=ALICE, reason=None)
    assert (promotion.changed, promotion.promoted_by) == (False, BOB)
    assert len(promotions(two_releases)) == 1
