"""The long-term audit of an attempt: rows that say what the items of the table say, written once, and never a reason to fail."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import boto3
import pytest

from dbt_runner.archive import Archive
from dbt_runner.audit import Evidence, outcome_item
from dbt_runner.claim import Claim
from dbt_runner.errors import MODEL_ERROR, OUT_OF_MEMORY
from dbt_runner.events import NodeResult
from dbt_runner.logs import JsonLog
from dbt_runner.node_writer import NodeWriter, ResultsNotWritten
from dbt_runner.outcome import MAX_FAILURES, Outcome
from dbt_runner.release import ReleaseMeta
from dbt_runner.request import AttemptKey
from dbt_runner.store import Store, node_sk

RUN_KEY = "RUN#2026-11-22T23:59:59.000Z#r-1"
RUN = {"run_id": "r-1", "job": "hourly", "release": "1.4.2"}
SIZES = [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}]
META = ReleaseMeta("1.4.2", "ab", "cd", 7, "ef", "1.11.16", "ci", "2026-11-22T00:00:00Z", "shop", "postgres")
DATE = "env=prod/date=2026-11-22"


def rows(store: Store, key: str) -> list[dict[str, Any]]:
    body = boto3.client("s3").get_object(Bucket=store.bucket, Key=key)["Body"].read().decode()
    return [json.loads(line) for line in body.splitlines()]


def keys(store: Store) -> set[str]:
    return {entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket=store.bucket).get("Contents", [])}


def attempt(
    store: Store, number: int = 1, nodes: Sequence[NodeResult] = (), outcome: Outcome | None = None, log: io.StringIO | None = None
) -> tuple[bool, Mapping[str, Any]]:
    """What an attempt does for the books: whether its rows were written, and the item of its outcome."""
    key = AttemptKey("prod", "r-1", 1, "build", number)
    log_ = JsonLog({}, log or io.StringIO())
    archive = Archive(store, key, RUN_KEY, RUN, log_)
    archive.look_back()
    with NodeWriter(store, key, log_) as writer:
        for node in nodes:
            writer.add(node)
    evidence = Evidence("a", "b", 1.5, compute="fargate", release=META, node_rows=archive.prepare(writer.items))
    item = outcome_item(key, Claim(1000 + number, "me"), outcome or Outcome(None), evidence)
    store.put(item)
    return archive.write(item, SIZES), item


def node(name: str, status: str = "success", **fields: Any) -> NodeResult:
    return NodeResult(0, f"model.shop.{name}", "model", name, status, **fields)


def test_rows_say_what_the_items_of_the_table_say(store: Store) -> None:
    failed = Outcome(MODEL_ERROR, "it \u2260 broke\nhere", "why", {"error": 1}, [node("b", "error")])
    written, outcome = attempt(store, 1, [node("a", rows=7, seconds=1.5), node("b", "error", message="m\nn")], failed)
    assert written
    assert keys(store) == {f"audit/{table}/{DATE}/r-1.build.1.jsonl" for table in ("attempts", "nodes")}
    about = {"environment": "prod", "run_id": "r-1", "job": "hourly", "release": "1.4.2"}

    items = store.query("RUN#prod#r-1", "NODE#")
    in_table = [{**about, **{name: value for name, value in item.items() if name not in ("pk", "sk")}} for item in items]
    assert rows(store, f"audit/nodes/{DATE}/r-1.build.1.jsonl") == in_table
    assert outcome["node_rows"]["key"] == f"audit/nodes/{DATE}/r-1.build.1.jsonl"

    [row] = rows(store, f"audit/attempts/{DATE}/r-1.build.1.jsonl")
    item = store.get("RUN#prod#r-1", "STEP#01#build#1") or {}
    same = {name: value for name, value in item.items() if name not in ("pk", "sk", "release")}
    of_release = {"release_digest": "ab", "manifest_digest": "cd", "git_commit": "ef"}
    assert row == {**same, **about, **of_release, "position": 1, "cpu": 1024, "memory_mib": 4096}


def test_a_node_of_two_commands_has_a_row_for_each(store: Store) -> None:
    again = NodeResult(1, "model.shop.a", "model", "a", "error")
    attempt(store, 1, [node("a"), again])
    assert [(row["command"], row["status"]) for row in rows(store, f"audit/nodes/{DATE}/r-1.build.1.jsonl")] == [
        (0, "success"),
        (1, "error"),
    ]


def test_an_attempt_without_nodes_has_a_row_of_its_own_only(store: Store) -> None:
    written, outcome = attempt(store)
    assert written and outcome["node_rows"] is None
    assert keys(store) == {f"audit/attempts/{DATE}/r-1.build.1.jsonl"}


def test_rows_are_written_once(store: Store) -> None:
    """Two containers of one attempt, or somebody who would like it to have been otherwise."""
    attempt(store, 1, [node("a", "error")])
    log = io.StringIO()
    assert not attempt(store, 1, [node("a", "success")], log=log)[0]
    assert rows(store, f"audit/nodes/{DATE}/r-1.build.1.jsonl")[0]["status"] == "error"
    assert "another container" in log.getvalue()


def test_nodes_of_an_attempt_that_was_killed_get_their_rows_from_the_next_one(store: Store) -> None:
    for name, status, number in (("a", "success", 1), ("b", "error", 1), ("c", "success", 2)):
        item = {"unique_id": f"model.shop.{name}", "step": "build", "attempt": number, "command": 0, "status": status}
        store.put({"pk": "RUN#prod#r-1", "sk": node_sk("build", f"model.shop.{name}"), **item})
    store.put({"pk": "RUN#prod#r-1", "sk": "STEP#01#build#2", "attempt": 2})
    attempt(store, 3, [node("b", "success")])
    of_first = rows(store, f"audit/nodes/{DATE}/r-1.build.1.jsonl")
    assert [(row["unique_id"], row["status"], row["attempt"]) for row in of_first] == [
        ("model.shop.a", "success", 1),
        ("model.shop.b", "error", 1),
    ], "as it was before this attempt ran b again"
    assert keys(store) == {f"audit/{name}.jsonl" for name in (
        f"attempts/{DATE}/r-1.build.3", f"nodes/{DATE}/r-1.build.1", f"nodes/{DATE}/r-1.build.3")}  # fmt: skip


def test_rows_that_an_earlier_attempt_had_written_keep_out_no_others(store: Store) -> None:
    """An attempt whose outcome could not be written has written its rows; the next one takes it for one that was killed."""
    attempt(store, 1, [node("a", "error")])
    store.delete("RUN#prod#r-1", "STEP#01#build#1")
    log = io.StringIO()
    assert not attempt(store, 2, [node("b")], log=log)[0]
    assert rows(store, f"audit/nodes/{DATE}/r-1.build.2.jsonl")[0]["unique_id"] == "model.shop.b"
    assert rows(store, f"audit/attempts/{DATE}/r-1.build.2.jsonl")[0]["attempt"] == 2
    assert rows(store, f"audit/nodes/{DATE}/r-1.build.1.jsonl")[0]["status"] == "error"


def test_an_attempt_after_too_little_memory_has_the_next_size(store: Store) -> None:
    attempt(store, 1, outcome=Outcome(OUT_OF_MEMORY, "m"))
    attempt(store, 2, outcome=Outcome(MODEL_ERROR, "m"))
    attempt(store, 3)
    assert [rows(store, f"audit/attempts/{DATE}/r-1.build.{n}.jsonl")[0]["memory_mib"] for n in (1, 2, 3)] == [4096, 8192, 8192]


@pytest.fixture
def without_bucket(store: Store) -> Iterator[Store]:
    yield Store(store._dynamodb, store._s3, store.table, "there-is-no-such-bucket")


def test_rows_that_cannot_be_written_fail_nothing_and_are_told(without_bucket: Store) -> None:
    log = io.StringIO()
    assert not attempt(without_bucket, 1, [node("a")], log=log)[0]
    assert "could not be written" in log.getvalue()
    assert [item["sk"] for item in without_bucket.query("RUN#prod#r-1")] == ["NODE#build#model.shop.a", "STEP#01#build#1"]


def test_a_store_of_items_that_does_not_answer_leaves_the_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be put into the table is in the bucket, and the other way round."""
    monkeypatch.setattr(Store, "put_many", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no answer")))
    key = AttemptKey("prod", "r-1", 1, "build", 1)
    writer = NodeWriter(store, key, JsonLog({}, io.StringIO()))
    with pytest.raises(ResultsNotWritten), writer:
        writer.add(node("a"))
    assert [item["name"] for item in writer.items] == ["a"]


class Counted:
    """Clients of both services that take everything, and count what they take."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> dict[str, Any]:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.bytes += len(arguments.get("Body", b""))
            return {}

        return call


def test_five_thousand_nodes_are_written_in_few_calls_and_leave_a_small_outcome() -> None:
    """At 15 ms for a batch and 200 ms for an object that is about 3.5 s, most of it while the step runs."""
    counted = Counted()
    store = Store(counted, counted, "t", "b")  # type: ignore[arg-type]
    nodes = [node(f"int_finance__monthly_revenue_{i:04d}", "error", message="x" * 5000) for i in range(5000)]
    key, log = AttemptKey("prod", "r-1", 1, "build", 1), JsonLog({}, io.StringIO())
    archive = Archive(store, key, RUN_KEY, RUN, log)
    with NodeWriter(store, key, log, flush_seconds=3600) as writer:
        for each in nodes:
            writer.add(each)
    evidence = Evidence("a", "b", 1.5, compute="fargate", release=META, node_rows=archive.prepare(writer.items))
    ended = Outcome(MODEL_ERROR, "m" * 5000, "w" * 5000, {"error": 5000}, nodes[:MAX_FAILURES])
    item = outcome_item(key, Claim(1001, "me"), ended, evidence)
    store.put(item)
    assert archive.write(item, SIZES)
    assert counted.calls == {"batch_write_item": 201, "put_item": 1, "put_object": 2}
    assert counted.bytes < 25_000_000
    # What the state machine reads; no state may be larger than 256 KiB.
    assert len(json.dumps(item)) < 64 * 1024
