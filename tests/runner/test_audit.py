"""The audit trail: nodes while they finish, artifacts with their digests, and an outcome as the contract has it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import artifacts, audit
from dbt_runner.audit import Evidence, NodeWriter, outcome_item
from dbt_runner.claim import Claim
from dbt_runner.config import Warehouse
from dbt_runner.errors import MODEL_ERROR
from dbt_runner.events import CommandResult, NodeResult
from dbt_runner.lineage import Concern
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask
from dbt_runner.outcome import Outcome
from dbt_runner.release import ReleaseMeta
from dbt_runner.request import AttemptKey
from dbt_runner.store import Store, StoredObject
from runner import projects
from runner.projects import wait_until

ROOT = Path(__file__).parents[2]
KEY = AttemptKey("prod", "r-1", 1, "build", 2)
CLAIM = Claim(1002, "me")


def result(name: str, status: str = "success", **fields: Any) -> NodeResult:
    return NodeResult(0, f"model.shop.{name}", "model", name, status, **fields)


class Flaky:
    """A store whose batches fail the first times."""

    def __init__(self, store: Store, failures: int = 0) -> None:
        self._store = store
        self.failures = failures
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def put_many(self, items: Iterable[Mapping[str, Any]], *, rounds: int) -> None:
        self.gate.wait(30)
        written = list(items)
        self.batches.append([item["name"] for item in written])
        if len(self.batches) <= self.failures:
            raise ConnectionError("DynamoDB does not answer")
        self._store.put_many(written)

    def names(self) -> list[str]:
        return sorted(item["name"] for item in self._store.query(KEY.pk, "NODE#"))


def writer(store: Flaky, log: io.StringIO | None = None, flush_seconds: float = 0.02) -> NodeWriter:
    return NodeWriter(store, KEY, JsonLog({}, log or io.StringIO()), flush_seconds=flush_seconds)  # type: ignore[arg-type]


def documented(row: str) -> set[str]:
    """The attributes that docs/architecture.md names in a paragraph or a row of a table."""
    line = next(line for line in (ROOT / "docs/architecture.md").read_text().split("\n\n") if line.startswith(row))
    return set(re.findall(r"`(\w+)`", line.partition(":")[2]))


def test_a_result_is_written_while_the_step_still_runs(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: flaky.names() == ["a"])


def test_results_that_come_close_together_are_one_batch(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky, flush_seconds=3600) as nodes:
        for i in range(60):
            nodes.add(result(f"m{i:02d}"))
    assert flaky.batches == [[f"m{i:02d}" for i in range(60)]]
    assert len(flaky.names()) == 60


def test_what_is_written_is_not_written_again(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: flaky.names() == ["a"])
        nodes.add(result("b"))
    assert flaky.batches == [["a"], ["b"]]


def test_leaving_writes_what_is_left_at_once(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky, flush_seconds=3600) as nodes:
        nodes.add(result("a"))
    assert flaky.names() == ["a"]


def test_leaving_writes_what_is_left_also_when_the_step_failed(store: Store) -> None:
    flaky = Flaky(store)
    with pytest.raises(KeyError), writer(flaky, flush_seconds=3600) as nodes:
        nodes.add(result("a"))
        raise KeyError("something in between")
    assert flaky.names() == ["a"]


def test_nothing_is_lost_when_writes_fail(store: Store) -> None:
    log = io.StringIO()
    flaky = Flaky(store, failures=3)
    with writer(flaky, log) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: len(flaky.batches) >= 2)
        nodes.add(result("b"))
        wait_until(lambda: flaky.names() == ["a", "b"])
        nodes.add(result("c"))
    assert flaky.names() == ["a", "b", "c"]
    assert "could not be written yet" in log.getvalue()


def test_a_store_that_never_answers_is_no_secret(store: Store) -> None:
    log = io.StringIO()
    with pytest.raises(audit.ResultsNotWritten, match="1 node results"), writer(Flaky(store, failures=10_000), log) as nodes:
        nodes.add(result("a", "error", message="no such column"))
    told = json.loads(log.getvalue().splitlines()[-1])
    assert [(r["unique_id"], r["status"], r["message"]) for r in told["results"]] == [("model.shop.a", "error", "no such column")]


def test_adding_does_not_wait_for_the_store(store: Store) -> None:
    """The supervisor reads the worker's pipe on the same thread."""
    flaky = Flaky(store)
    flaky.gate.clear()
    with writer(flaky, flush_seconds=0.0) as nodes:
        for i in range(500):
            nodes.add(result(f"m{i}"))
        flaky.gate.set()
    assert len(flaky.names()) == 500


def test_the_last_result_of_a_node_wins(store: Store) -> None:
    with writer(Flaky(store), flush_seconds=3600) as nodes:
        nodes.add(result("a", "error"))
        nodes.add(result("a", "success"))
    assert [item["status"] for item in store.query(KEY.pk, "NODE#")] == ["success"]


def test_a_node_item_is_as_the_contract_has_it(store: Store) -> None:
    full = result(
        "orders",
        "error",
        message="x" * 5000,
        started_at="2026-11-23T01:00:00.000Z",
        ended_at="2026-11-23T01:00:01.500Z",
        seconds=1.5,
        thread="Thread-1",
        relation='"a"."b"."orders"',
        rows=7,
        failures=3,
    )
    with writer(Flaky(store)) as nodes:
        nodes.add(full)
        nodes.add(result("bare"))
    items = {item["name"]: item for item in store.query(KEY.pk, "NODE#")}
    orders = items["orders"]
    assert (orders["pk"], orders["sk"]) == ("RUN#prod#r-1", "NODE#build#model.shop.orders")
    row = next(
        line for line in (ROOT / "docs/architecture.md").read_text().splitlines() if line.startswith("| `RUN#<env>#<run id>` | `NODE#")
    )
    contract = set(re.findall(r"`(\w+)`", row.split("|")[3]))
    assert contract <= set(orders)
    assert (orders["step"], orders["attempt"], orders["rows"], orders["seconds"]) == ("build", 2, 7, 1.5)
    assert len(orders["message"]) == 4000
    assert {"relation", "rows", "failures"}.isdisjoint(items["bare"]), "what is not known is not there"


def test_an_outcome_item_is_as_the_contract_has_it(store: Store) -> None:
    failed = Outcome(MODEL_ERROR, "m" * 5000, "status 'error'", {"error": 1}, [result("a", "error", message="f" * 5000)], "network")
    evidence = Evidence(
        started_at="2026-11-23T01:00:00.000Z",
        ended_at="2026-11-23T01:00:09.000Z",
        seconds=9.00049,
        commands=["seed", "build", "docs generate"],
        results=[CommandResult(0, True, 1.0, 2), CommandResult(1, False, 2.5, None)],
        artifacts=[StoredObject("runs/x", "ab", 3)],
        peak_memory_mib=512,
        versions={"dbt-core": "1.11.16"},
        compute="fargate",
        parse={"cache": "used"},
        release=ReleaseMeta("1.0.0", "ab", "cd", 7, "ef", "1.11.16", "ci", "2026-11-23T00:00:00Z", "shop", "postgres"),
        state=ReleaseMeta("0.9.0", "01", "23", 7, "45", "1.11.16", "ci", "2026-11-22T00:00:00Z", "shop", "postgres"),
        image="sha256:0123",
        node_rows=StoredObject("audit/nodes/x", "cd", 4),
        left_out=["3 messages after the end"],
        concerns={"model.shop.a": Concern("o" * 201, 2)},
    )
    store.put(outcome_item(KEY, CLAIM, failed, evidence))
    item = store.get("RUN#prod#r-1", "STEP#01#build#2")
    assert item is not None
    release = {"version", "digest", "manifest_digest", "git_commit", "dbt_version"}
    assert set(item["release"]) == set(item["state"]) == release
    nested = {"unique_id", "status", "owner", "blocked", "command", "success", "selected", "key", "sha256", "bytes", "cache"}
    nested |= release | {"reason", "unpublished", "documentation", "report"}
    assert set(item) - {"pk", "sk"} == documented("Outcome:") - nested
    assert (item["exit_code"], item["error"], item["seconds"], item["peak_memory_mib"]) == (10, "Dbt.ModelError", 9, 512)
    assert len(item["message"]) == 4000
    concern = {"owner": "o" * 200, "blocked": 2}
    assert item["failures"] == [{"unique_id": "model.shop.a", "status": "error", "message": "f" * 4000, **concern}]
    assert item["commands"] == [
        {"command": "seed", "success": True, "selected": 2, "seconds": 1},
        {"command": "build", "success": False, "seconds": 2.5},
    ], "of a command that was not reached there is nothing to say"
    assert item["artifacts"] == [{"key": "runs/x", "sha256": "ab", "bytes": 3}]
    assert item["left_out"] == ["3 messages after the end"]
    assert item["node_rows"] == {"key": "audit/nodes/x", "sha256": "cd", "bytes": 4}


def test_an_outcome_without_an_error_says_none(store: Store) -> None:
    store.put(outcome_item(KEY, CLAIM, Outcome(None, counts={"success": 2}), Evidence("a", "b", 1.0)))
    item = store.get("RUN#prod#r-1", "STEP#01#build#2")
    assert item is not None
    assert {"error", "message", "why"}.isdisjoint(item)
    assert (item["exit_code"], item["counts"], item["failures"]) == (0, {"success": 2}, [])


def test_artifacts_are_uploaded_below_their_attempt_with_their_digests(store: Store, tmp_path: Path) -> None:
    files = {"run_results.json": b"{}", "manifest.json": b'{"a":1}', "dbt.log": b"", "command-0/run_results.json": b"[0]"}
    others = {"partial_parse.msgpack": b"x", "compiled/tiny/a.sql": b"select 1", "command-0/other.json": b"{}"}
    for name, content in {**files, **others}.items():
        path = tmp_path / "target" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    request = projects.asked(Warehouse("duckdb", {}, {}))
    (tmp_path / "kept").mkdir()
    collected = artifacts.collect(tmp_path / "target", tmp_path / "kept", 1, Mask())
    assert not collected.left_out
    stored = artifacts.upload(store, request, collected)
    prefix = f"{request.artifacts}build/1/"
    assert {a.key: (a.sha256, a.bytes) for a in stored} == {
        prefix + name: (hashlib.sha256(content).hexdigest(), len(content)) for name, content in files.items()
    }
    listed = boto3.client("s3").list_objects_v2(Bucket=store.bucket)["Contents"]
    assert {entry["Key"] for entry in listed} == {a.key for a in stored}


def test_a_kill_loses_two_seconds_of_results_at_most() -> None:
    assert audit.FLUSH_SECONDS <= 2.0
