"""The audit trail: artifacts with their digests, and an outcome as the contract has it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import boto3

from dbt_runner import artifacts
from dbt_runner.audit import Evidence, outcome_item
from dbt_runner.claim import Claim
from dbt_runner.config import Warehouse
from dbt_runner.errors import MODEL_ERROR
from dbt_runner.events import CommandResult, NodeResult
from dbt_runner.lineage import Concern
from dbt_runner.masking import Mask
from dbt_runner.outcome import Outcome
from dbt_runner.release import ReleaseMeta
from dbt_runner.request import AttemptKey
from dbt_runner.store import Store, StoredObject
from dbt_runner.warning_tally import DbtWarning
from runner import projects

ROOT = Path(__file__).parents[2]
KEY = AttemptKey("prod", "r-1", 1, "build", 2)
CLAIM = Claim(1002, "me")


def result(name: str, status: str = "success", **fields: Any) -> NodeResult:
    return NodeResult(0, f"model.shop.{name}", "model", name, status, **fields)


def documented(row: str) -> set[str]:
    """The attributes that docs/architecture.md names in a paragraph or a row of a table."""
    line = next(line for line in (ROOT / "docs/architecture.md").read_text().split("\n\n") if line.startswith(row))
    return set(re.findall(r"`(\w+)`", line.partition(":")[2]))


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
        warnings=[DbtWarning("DeprecatedModel", "w", 3)],
        concerns={"model.shop.a": Concern("o" * 201, 2)},
    )
    store.put(outcome_item(KEY, CLAIM, failed, evidence))
    item = store.get("RUN#prod#r-1", "STEP#01#build#2")
    assert item is not None
    release = {"version", "digest", "manifest_digest", "git_commit", "dbt_version"}
    assert set(item["release"]) == set(item["state"]) == release
    nested = {"unique_id", "status", "owner", "blocked", "command", "success", "selected", "key", "sha256", "bytes", "cache"}
    nested |= release | {"reason", "unpublished", "documentation", "report", "event", "count", "text"}
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
