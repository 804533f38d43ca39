"""Which release an environment runs: promotion, rollback, and two people at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest

from dbt_runner import promotion, release
from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, RUNNER_ERROR, ErrorKind
from dbt_runner.store import CURRENT_RELEASE, PROMOTION_PREFIX, Item, Store, pointer_pk, release_key
from runner.releases import ALICE, BOB, candidate, refused


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


@pytest.fixture
def two_releases(store: Store, environment: dict[str, Any], tmp_path: Path) -> Store:
    for version in ("1.0", "1.1"):
        release.commit(store, candidate(tmp_path / version, f"select '{version}'", version=version))
    return store


def current(store: Store) -> Item:
    item = store.get(pointer_pk("prod"), CURRENT_RELEASE)
    assert item is not None
    return {key: value for key, value in item.items() if key not in ("pk", "sk")}


def promotions(store: Store) -> list[Item]:
    return [
        {key: value for key, value in item.items() if key not in ("pk", "sk")} for item in store.query(pointer_pk("prod"), PROMOTION_PREFIX)
    ]


def content(store: Store, version: str) -> dict[str, str]:
    """What a promotion says of a release's content."""
    meta = release.find(store, version)
    return {"digest": meta.digest, "manifest_digest": meta.manifest_digest, "project": meta.project}


def test_a_promotion_moves_the_pointer_and_leaves_a_record(two_releases: Store) -> None:
    first = promotion.promote(two_releases, "prod", "1.0", by=ALICE, reason=None)
    about = content(two_releases, "1.0")
    assert first == promotion.Promotion(
        "prod", "1.0", **about, previous=None, promoted_at=first.promoted_at, promoted_by=ALICE, reason=None, changed=True
    )
    assert current(two_releases) == {"version": "1.0", **about, "promoted_at": first.promoted_at, "promoted_by": ALICE}

    second = promotion.promote(two_releases, "prod", "1.1", by=BOB, reason="ticket 7")
    pointer = {
        **content(two_releases, "1.1"),
        "version": "1.1",
        "previous": "1.0",
        "promoted_at": second.promoted_at,
        "promoted_by": BOB,
        "reason": "ticket 7",
    }
    assert current(two_releases) == pointer

    back = promotion.promote(two_releases, "prod", "1.0", by=ALICE, reason="rollback")
    assert (back.previous, current(two_releases)["version"]) == ("1.1", "1.0")
    assert [record["version"] for record in promotions(two_releases)] == ["1.0", "1.1", "1.0"]
    assert promotions(two_releases)[1] == pointer


def test_promoting_the_current_release_again_changes_nothing(two_releases: Store) -> None:
    first = promotion.promote(two_releases, "prod", "1.0", by=ALICE, reason="because")
    again = promotion.promote(two_releases, "prod", "1.0", by=BOB, reason="again")
    assert not again.changed
    assert (again.promoted_by, again.promoted_at, again.reason) == (ALICE, first.promoted_at, "because")
    assert len(promotions(two_releases)) == 1


def test_only_what_is_published_is_promoted_and_only_where_there_is_an_environment(two_releases: Store) -> None:
    assert "9.9" in refused(RELEASE_NOT_FOUND, lambda: promotion.promote(two_releases, "prod", "9.9", by=ALICE, reason=None))
    assert "staging" in refused(INVALID_REQUEST, lambda: promotion.promote(two_releases, "staging", "1.0", by=ALICE, reason=None))
    assert promotions(two_releases) == []
    assert two_releases.get(pointer_pk("staging"), CURRENT_RELEASE) is None


@pytest.mark.parametrize("before", [None, "1.0"])
def test_the_loser_of_a_promotion_race_is_told_who_won(two_releases: Store, tmp_path: Path, before: str | None) -> None:
    release.commit(two_releases, candidate(tmp_path / "1.2", "select '1.2'", version="1.2"))
    if before:
        promotion.promote(two_releases, "prod", before, by=ALICE, reason=None)
    racing = RacedStore(two_releases, lambda: promotion.promote(two_releases, "prod", "1.1", by=BOB, reason=None))
    message = refused(INVALID_REQUEST, lambda: promotion.promote(racing, "prod", "1.2", by=ALICE, reason=None))
    assert message == f"{BOB} promoted 1.1 in prod meanwhile: look, then try again"
    assert current(two_releases)["promoted_by"] == BOB
    assert [record["version"] for record in promotions(two_releases)] == [*([before] if before else []), "1.1"]


def test_two_who_promote_the_same_release_both_succeed(two_releases: Store) -> None:
    racing = RacedStore(two_releases, lambda: promotion.promote(two_releases, "prod", "1.1", by=BOB, reason=None))
    moved = promotion.promote(racing, "prod", "1.1", by=ALICE, reason=None)
    assert (moved.changed, moved.promoted_by) == (False, BOB)
    assert len(promotions(two_releases)) == 1


# --- the long-term audit ---------------------------------------------------------------------------------------------


def promotion_rows(store: Store) -> list[dict[str, Any]]:
    listed = boto3.client("s3").list_objects_v2(Bucket=store.bucket, Prefix="audit/promotions/env=prod/date=").get("Contents", [])
    bodies = [boto3.client("s3").get_object(Bucket=store.bucket, Key=entry["Key"])["Body"].read() for entry in listed]
    return [json.loads(body) for body in bodies]


def test_each_move_leaves_a_row_for_good(two_releases: Store) -> None:
    promotion.promote(two_releases, "prod", "1.0", by=ALICE, reason=None)
    promotion.promote(two_releases, "prod", "1.1", by=BOB, reason="ticket 7")
    promotion.promote(two_releases, "prod", "1.1", by=ALICE, reason="again")
    promotion.rollback(two_releases, "prod", None, by=BOB, reason=None)
    assert promotion_rows(two_releases) == [{**record, "environment": "prod"} for record in promotions(two_releases)]


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", ACCESS_DENIED), ("InternalError", RUNNER_ERROR)])
def test_a_move_whose_row_is_lost_says_so_and_the_same_again_writes_it(
    two_releases: Store, monkeypatch: pytest.MonkeyPatch, code: str, kind: ErrorKind
) -> None:
    write = Store.upload_new

    def refuse(store: Store, body: bytes, key: str) -> None:
        if not key.startswith("audit/"):
            return write(store, body, key)
        raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "no"}}, "PutObject")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload_new", refuse)
        message = refused(kind, lambda: promotion.promote(two_releases, "prod", "1.0", by=ALICE, reason=None))
        again = refused(kind, lambda: promotion.promote(two_releases, "prod", "1.0", by=BOB, reason=None))
    assert message.startswith("prod runs 1.0 from the next run on, but ") and "do the same again" in message
    assert again.startswith("prod runs 1.0 already, but ") and "do the same again" in again
    assert current(two_releases)["version"] == "1.0" and promotion_rows(two_releases) == []
    assert not promotion.promote(two_releases, "prod", "1.0", by=BOB, reason=None).changed
    assert [row["promoted_by"] for row in promotion_rows(two_releases)] == [ALICE]


# --- rollback --------------------------------------------------------------------------------------------------------


def moved_to(store: Store, *versions: str) -> Store:
    for version in versions:
        promotion.promote(store, "prod", version, by=ALICE, reason=None)
    return store


@pytest.mark.parametrize(
    ("versions", "target"),
    [
        (["1"], None),
        (["1", "2"], "1"),
        (["1", "2", "3"], "2"),
        # Back from 3 to 2: another rollback goes on to 1, not forward to the 3 that was left.
        (["1", "2", "3", "2"], "1"),
        (["1", "2", "3", "2", "1"], None),
        # Forward again after a rollback.
        (["1", "2", "1", "2"], "1"),
        (["1", "2", "3", "2", "4"], "2"),
        (["1", "2", "3", "1", "4"], "1"),
    ],
)
def test_rollback_goes_to_what_the_current_release_replaced(versions: list[str], target: str | None) -> None:
    assert promotion.rollback_target(versions) == target


def test_a_rollback_moves_the_pointer_and_leaves_a_record(two_releases: Store) -> None:
    moved_to(two_releases, "1.0", "1.1")
    moved = promotion.rollback(two_releases, "prod", None, by=BOB, reason=None)
    assert (moved.version, moved.previous, moved.promoted_by, moved.reason) == ("1.0", "1.1", BOB, "rollback from 1.1")
    assert current(two_releases)["version"] == "1.0"
    assert [entry.version for entry in promotion.history(two_releases, "prod")] == ["1.0", "1.1", "1.0"]
    message = refused(INVALID_REQUEST, lambda: promotion.rollback(two_releases, "prod", None, by=BOB, reason=None))
    assert message == "1.0 is the first release of prod: there is nothing to go back to"
    assert len(promotions(two_releases)) == 3


def test_a_rollback_to_a_version_goes_back_only(two_releases: Store, tmp_path: Path) -> None:
    assert "nothing to roll back" in refused(INVALID_REQUEST, lambda: promotion.rollback(two_releases, "prod", "1.0", by=BOB, reason=None))
    release.commit(two_releases, candidate(tmp_path / "1.2", "select '1.2'", version="1.2"))
    moved_to(two_releases, "1.0", "1.1")
    assert "never ran 1.2" in refused(INVALID_REQUEST, lambda: promotion.rollback(two_releases, "prod", "1.2", by=BOB, reason=None))
    assert promotion.rollback(two_releases, "prod", "1.0", by=BOB, reason="ticket 9").reason == "ticket 9"
    assert not promotion.rollback(two_releases, "prod", "1.0", by=BOB, reason=None).changed


def test_a_rollback_that_lost_a_race_changes_nothing(two_releases: Store, tmp_path: Path) -> None:
    release.commit(two_releases, candidate(tmp_path / "1.2", "select '1.2'", version="1.2"))
    moved_to(two_releases, "1.0", "1.1")
    racing = RacedStore(two_releases, lambda: promotion.promote(two_releases, "prod", "1.2", by=BOB, reason=None))
    message = refused(INVALID_REQUEST, lambda: promotion.rollback(racing, "prod", None, by=ALICE, reason=None))
    assert message == f"{BOB} promoted 1.2 in prod meanwhile: look, then try again"
    assert current(two_releases)["version"] == "1.2"


def test_an_environment_that_is_not_there_is_not_rolled_back(two_releases: Store) -> None:
    assert "staging" in refused(INVALID_REQUEST, lambda: promotion.rollback(two_releases, "staging", None, by=ALICE, reason=None))


@pytest.mark.parametrize("name", ["bundle.tar.gz", "manifest.json", "release.json"])
@pytest.mark.parametrize("damage", [b"something else", None], ids=["changed", "lost"])
def test_the_pointer_never_moves_to_a_damaged_release(two_releases: Store, name: str, damage: bytes | None) -> None:
    moved_to(two_releases, "1.0", "1.1")
    before, records = current(two_releases), promotions(two_releases)
    s3, key = boto3.client("s3"), release_key("1.0", name)
    if damage is None:
        s3.delete_object(Bucket=two_releases.bucket, Key=key)
    else:
        s3.put_object(Bucket=two_releases.bucket, Key=key, Body=damage)
    for move in (promotion.promote, promotion.rollback):
        assert key in refused(RELEASE_CORRUPT, lambda move=move: move(two_releases, "prod", "1.0", by=BOB, reason=None))  # type: ignore[misc]
    assert "1.0" in refused(RELEASE_CORRUPT, lambda: promotion.rollback(two_releases, "prod", None, by=BOB, reason=None))
    assert (current(two_releases), promotions(two_releases)) == (before, records)
