"""The audit store on moto: what is written is what is read, and a condition that fails changes nothing."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import store as stores
from dbt_runner.store import AlreadyThere, Store, StoredObject, node_sk, step_sk, timestamp
from dbt_runner.store.keys import MAX_SORT_KEY_BYTES
from security.fuzzing import bounded


def items(n: int) -> list[dict[str, Any]]:
    return [{"pk": "RUN#prod#r-1", "sk": f"NODE#build#model.{i:03d}", "n": i} for i in range(n)]


class Throttled:
    """A DynamoDB client that leaves some of every batch unprocessed, as a table under load does."""

    def __init__(self, client: Any, accepted: list[int]) -> None:
        self._client = client
        self._accepted = accepted
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def batch_write_item(self, RequestItems: dict[str, list[Any]]) -> dict[str, Any]:
        [(table, requests)] = RequestItems.items()
        self.batches.append(len(requests))
        accepted = self._accepted.pop(0) if self._accepted else 0
        if requests[:accepted]:
            self._client.batch_write_item(RequestItems={table: requests[:accepted]})
        left = requests[accepted:]
        return {"UnprocessedItems": {table: left}} if left else {}


def throttled(store: Store, *accepted: int) -> tuple[Store, Throttled]:
    client = Throttled(boto3.client("dynamodb"), list(accepted))
    return Store(client, boto3.client("s3"), store.table, store.bucket), client  # type: ignore[arg-type]


def test_an_item_comes_back_as_it_was_written(store: Store) -> None:
    item = {
        "pk": "p",
        "sk": "s",
        "text": "ü \u2713\n",
        "empty": "",
        "whole": 3,
        "fraction": 0.125,
        "third": 1 / 3,
        "yes": True,
        "list": [1, "a", {"b": 2.5}, []],
        "map": {"a": {"b": 1}, "none": {}},
    }
    store.put({**item, "nothing": None, "map": {**item["map"], "nothing": None}})  # type: ignore[dict-item]
    assert store.get("p", "s") == item
    assert isinstance(store.get("p", "s")["whole"], int)  # type: ignore[index]
    assert store.get("p", "other") is None


def test_a_query_reads_every_page_of_its_prefix_in_order(store: Store) -> None:
    wide = [{**item, "filler": "x" * 20_000} for item in items(70)]
    store.put_many([*wide, {"pk": "RUN#prod#r-1", "sk": "STEP#01#build#1"}, {"pk": "RUN#prod#r-2", "sk": "NODE#build#model.000"}])
    found = list(store.query("RUN#prod#r-1", "NODE#"))
    assert [item["n"] for item in found] == list(range(70))
    assert [item["n"] for item in store.query("RUN#prod#r-1", "NODE#", newest_first=True)] == list(reversed(range(70)))
    between = store.query("RUN#prod#r-1", "", between=("NODE#build#model.010", "NODE#build#model.012"))
    assert [item["n"] for item in between] == [10, 11, 12]


def test_a_key_that_is_taken_is_left_alone_when_the_item_must_be_new(store: Store) -> None:
    store.put({"pk": "p", "sk": "s", "n": 1}, only_if_new=True)
    with pytest.raises(AlreadyThere):
        store.put({"pk": "p", "sk": "s", "n": 2}, only_if_new=True)
    assert store.get("p", "s") == {"pk": "p", "sk": "s", "n": 1}
    store.put({"pk": "p", "sk": "s", "n": 3})
    assert store.get("p", "s") == {"pk": "p", "sk": "s", "n": 3}


@pytest.mark.parametrize("count", [0, 1, 25, 26, 60])
def test_any_number_of_items_is_written(store: Store, count: int) -> None:
    store.put_many(items(count))
    assert len(list(store.query("RUN#prod#r-1", "NODE#"))) == count


def test_what_dynamodb_leaves_unprocessed_is_written_again_and_waited_for(store: Store) -> None:
    slow, client = throttled(store, 10, 0, 15, 5)
    waits: list[float] = []
    slow.put_many(items(30), sleep=waits.append)
    assert [item["n"] for item in store.query("RUN#prod#r-1", "NODE#")] == list(range(30))
    assert client.batches == [25, 15, 15, 5]
    assert waits == [0.1, 0.2]


def test_a_table_that_accepts_nothing_is_given_up_on(store: Store) -> None:
    dead, client = throttled(store)
    waits: list[float] = []
    with pytest.raises(TimeoutError, match="did not accept 3 items"):
        dead.put_many(items(3), sleep=waits.append)
    assert len(client.batches) == 9
    assert 20 < sum(waits) < 60


@pytest.mark.parametrize(("expected", "moved"), [("1.0", True), ("0.9", False), (None, False)])
def test_a_pointer_moves_with_its_record_or_not_at_all(store: Store, expected: str | None, moved: bool) -> None:
    store.put({"pk": "POINTER#prod", "sk": "RELEASE#CURRENT", "version": "1.0"})
    pointer = {"pk": "POINTER#prod", "sk": "RELEASE#CURRENT", "version": "2.0"}
    record = {"pk": "POINTER#prod", "sk": "PROMOTION#t", "version": "2.0"}
    if moved:
        store.move_pointer(pointer, record, expected_version=expected)
    else:
        with pytest.raises(AlreadyThere):
            store.move_pointer(pointer, record, expected_version=expected)
    assert (store.get("POINTER#prod", "RELEASE#CURRENT") == pointer) is moved
    assert (store.get("POINTER#prod", "PROMOTION#t") == record) is moved


def test_a_first_pointer_needs_none_before_it(store: Store) -> None:
    pointer = {"pk": "POINTER#prod", "sk": "RELEASE#CURRENT", "version": "1.0"}
    store.move_pointer(pointer, {"pk": "POINTER#prod", "sk": "PROMOTION#t"}, expected_version=None)
    assert store.get("POINTER#prod", "RELEASE#CURRENT") == pointer


def test_a_file_is_stored_with_its_digest(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 300_000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.upload(path, "runs/file") == StoredObject("runs/file", digest, 2_100_000)
    assert boto3.client("s3").head_object(Bucket=store.bucket, Key="runs/file")["Metadata"] == {"sha256": digest}
    assert store.download("runs/file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_an_object_that_is_not_there_is_not_downloaded(store: Store, tmp_path: Path) -> None:
    assert store.download("runs/none", tmp_path / "copy") is False
    assert not (tmp_path / "copy").exists()


def test_an_object_that_must_be_new_is_never_overwritten(store: Store, tmp_path: Path) -> None:
    store.upload_new(b"first", "releases/1/bundle.tar.gz")
    with pytest.raises(AlreadyThere):
        store.upload_new(b"second", "releases/1/bundle.tar.gz")
    store.download("releases/1/bundle.tar.gz", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"first"


def test_a_store_without_a_bucket_reads_items_and_says_what_it_lacks(store: Store) -> None:
    reader = Store(boto3.client("dynamodb"), boto3.client("s3"), store.table, None)
    assert reader.get("p", "s") is None
    with pytest.raises(ValueError, match="without a bucket"):
        _ = reader.bucket


def test_keys_and_times_are_those_of_the_contract() -> None:
    assert step_sk(1, "build", 2) == "STEP#01#build#2"
    assert node_sk("build", "model.shop.orders") == "NODE#build#model.shop.orders"
    long = "test.shop.accepted_values_" + "x" * 2000
    assert node_sk("build", f"{long}a") != node_sk("build", f"{long}b")


@bounded(60)
@given(st.text(st.characters(exclude_categories=[]), min_size=1, max_size=1500), st.integers(1, 70), st.sampled_from(["build", "a" * 40]))
def test_no_id_is_too_long_for_a_key_and_no_two_have_the_same_one(text: str, times: int, step: str) -> None:
    unique_id = (text * times)[:100_000]
    key = node_sk(step, unique_id)
    assert len(key.encode(errors="surrogatepass")) <= MAX_SORT_KEY_BYTES and key.startswith(f"NODE#{step}#")
    # Nor is there another id that has this key.
    assert node_sk(step, key.removeprefix(f"NODE#{step}#")) != key or key == f"NODE#{step}#{unique_id}"
    assert stores.environment_pk("prod") == "ENV#prod"
    assert stores.run_pk("prod", "r-1") == "RUN#prod#r-1"
    assert stores.release_pk("1.4.2") == "RELEASE#1.4.2"
    assert stores.release_key("1.4.2", "bundle.tar.gz") == "releases/1.4.2/bundle.tar.gz"
    assert timestamp(datetime(2026, 11, 23, 1, 2, 3, 456789, timezone(timedelta(hours=2)))) == "2026-11-22T23:02:03.456Z"
    assert timestamp(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert timestamp(datetime.now(UTC)) <= stores.now()


def test_an_item_that_is_refused_takes_no_other_one_of_its_batch_with_it(store: Store) -> None:
    """A batch is refused as a whole: for an item that is too large, a key that is empty or too long, a key that stands in it twice."""
    bad: list[dict[str, Any]] = [
        {"pk": "RUN#prod#r-1", "sk": "NODE#build#large", "text": "x" * 410_000},
        {"pk": "RUN#prod#r-1", "sk": ""},
        {"pk": "RUN#prod#r-1", "sk": "k" * 1025},
        {"pk": "RUN#prod#r-1", "sk": 7},
        {"pk": "RUN#prod#r-1", "sk": "NODE#build#nan", "n": float("nan")},
    ]
    good = items(60)
    good[30] = {**good[29], "n": 30}
    given = [*good[:7], *bad[:2], *good[7:40], *bad[2:], *good[40:]]
    refused = store.put_many(given)
    assert sorted(str(each.item) for each in refused) == sorted(str(item) for item in bad)
    assert all(each.reason for each in refused)
    assert [item["n"] for item in store.query("RUN#prod#r-1", "NODE#")] == [*range(29), *range(30, 60)]


def test_a_failure_that_is_no_refusal_is_not_taken_for_one(store: Store) -> None:
    with pytest.raises(ClientError, match="ResourceNotFound"):
        Store(store._dynamodb, store._s3, "no-such-table", None).put_many(items(3))
