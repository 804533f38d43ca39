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
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, ErrorKind, TypedError
from dbt_runner.store import (
    RELEASE_META,
    Store,
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

    def put(self, item: Any, **conditions: Any) -> None:
        self._before(item["sk"])
        with self._lock:
            super().put(item, **conditions)


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
        "adapter": "duckdb",
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
