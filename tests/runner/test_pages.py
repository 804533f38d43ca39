"""What an attempt publishes for people when it ends a run: the report as the run will be closed, and the documentation by release."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import config, dbt_docs, pages
from dbt_runner.errors import MODEL_ERROR, ErrorKind
from dbt_runner.outcome import Outcome
from dbt_runner.request import AttemptKey
from dbt_runner.store import CURRENT_RELEASE, Store, environment_pk, pointer_pk, step_sk
from runner.recorded_runs import node_item, record_outcome, record_run
from runner.report_runs import manifest_of

STARTED = "2026-11-22T10:00:00.000Z"
STEPS = ("freshness", "build", "docs")  # the first and the last one may fail
RUN = "runs/prod/2026/11/22/r-1/"
REPORT = f"{RUN}report.html"

End = Callable[..., pages.Ending]


def body(store: Store, key: str) -> str:
    return boto3.client("s3").get_object(Bucket=store.bucket, Key=key)["Body"].read().decode()


def keys(store: Store) -> set[str]:
    return {entry["Key"] for entry in boto3.client("s3").list_objects_v2(Bucket=store.bucket).get("Contents", [])}


@pytest.fixture
def end(store: Store, environment: Mapping[str, Any], tmp_path: Path) -> End:
    """Ends an attempt of a step (by its place, 0 the health check) of run r-1, with what it left in the table and in its folder."""

    def ended(position: int, error: ErrorKind | None = None, files: Mapping[str, str] | None = None, **run: Any) -> pages.Ending:
        record_run(store, "r-1", STARTED, **run)
        key = AttemptKey("prod", "r-1", position, STEPS[position - 1] if position else "health_check", 1)
        result = Outcome(error, "a \u2264 b" if error else "")
        record_outcome(store, "r-1", position, key.name, error=error.name if error else None, message=result.message or None)
        folder = tmp_path / key.name
        folder.mkdir(exist_ok=True)
        for name, content in (files or {}).items():
            (folder / name).write_text(content)
        item = store.get(environment_pk("prod"), f"RUN#{STARTED}#r-1") or {}
        outcome = store.get("RUN#prod#r-1", step_sk(position, key.name, 1)) or {}
        return pages.Ending(key, config.parse(json.dumps(environment)), item, result, outcome, folder)

    return ended


@pytest.mark.parametrize(
    ("position", "error", "status"),
    [
        (0, None, None),
        (0, MODEL_ERROR, "FAILED"),
        (1, None, None),
        (1, MODEL_ERROR, None),
        (2, None, None),
        (2, MODEL_ERROR, "FAILED"),
        (3, None, "SUCCEEDED"),
        (3, MODEL_ERROR, "SUCCEEDED"),
    ],
)
def test_the_attempt_that_ends_the_run_writes_the_report_as_the_run_will_be_closed(
    store: Store, end: End, position: int, error: ErrorKind | None, status: str | None
) -> None:
    assert pages.publish_report(store, end(position, error)) == ([REPORT] if status else [])
    if status is None:
        assert keys(store) == set()
        return
    text = body(store, REPORT)
    assert f"<title>r-1 {status.lower()} (prod)</title>" in text
    assert "just before the run" in text
    assert ("a \u2264 b" in text) is (error is not None)
    assert boto3.client("s3").head_object(Bucket=store.bucket, Key=REPORT)["ContentType"] == "text/html; charset=utf-8"


def test_the_report_has_the_nodes_the_lineage_and_the_freshness_of_all_steps(store: Store, end: End, tmp_path: Path) -> None:
    freshness = {"results": [{"unique_id": "source.shop.raw.orders", "status": "warn", "max_loaded_at_time_ago_in_s": 90000.0}]}
    (tmp_path / "sources.json").write_text(json.dumps(freshness))
    stored = store.upload(tmp_path / "sources.json", f"{RUN}freshness/1/sources.json")
    end(1)
    record_outcome(store, "r-1", 1, "freshness", artifacts=[{"key": stored.key, "sha256": stored.sha256, "bytes": stored.bytes}])
    store.put_many([node_item("r-1", "build", "b", "error", message="no such column"), node_item("r-1", "build", "d", "skipped")])
    manifest = json.dumps(manifest_of({"model.shop.b": [], "model.shop.d": ["model.shop.b"]}))
    assert pages.publish_report(store, end(2, MODEL_ERROR, {"manifest.json": manifest}))
    text = body(store, REPORT)
    assert "no such column" in text and "Blocks 1 node" in text and "raw.orders" in text
    assert "Not run: docs." in text


def test_what_a_resumed_run_had_done_is_not_called_not_run(store: Store, end: End) -> None:
    assert pages.publish_report(store, end(3, resumed_from="r-0", resumes='["r-0"]'))
    text = body(store, REPORT)
    assert "done by run r-0" in text and "Not run" not in text


def test_an_attempt_that_is_repeated_writes_the_report_anew(store: Store, end: End) -> None:
    pages.publish_report(store, end(2, MODEL_ERROR))
    record_outcome(store, "r-1", 2, "build", attempt=2)
    pages.publish_report(store, end(3))
    assert "<title>r-1 succeeded (prod)</title>" in body(store, REPORT)


# --- documentation ---------------------------------------------------------------------------------------------------

PAGE = {
    pages.DOCUMENTATION: dbt_docs.template()
    .decode()
    .replace('"MANIFEST.JSON INLINE DATA"', '{"nodes": {}}')
    .replace('"CATALOG.JSON INLINE DATA"', '{"a": "<b>"}')
}
CURRENT, OWN = "docs/prod/index.html", "docs/prod/1.4.2/index.html"


@pytest.mark.parametrize(("current", "published"), [("1.4.2", [OWN, CURRENT]), ("1.5.0", [OWN]), (None, [OWN])])
def test_documentation_is_kept_by_release_and_only_the_current_one_is_shown_first(
    store: Store, end: End, current: str | None, published: list[str]
) -> None:
    if current:
        by = {"promoted_at": "2026-11-22T09:00:00.000Z", "promoted_by": "arn"}
        by |= {"digest": "0" * 64, "manifest_digest": "0" * 64, "project": "shop"}
        store.put({"pk": pointer_pk("prod"), "sk": CURRENT_RELEASE, "version": current, **by})
    assert pages.publish_documentation(store, end(3, None, PAGE)) == published
    assert keys(store) == set(published) and {body(store, key) for key in published} == {
        dbt_docs.sealed(PAGE[pages.DOCUMENTATION].encode()).decode()
    }


def test_documentation_of_a_step_that_failed_or_made_none_is_not_published(store: Store, end: End) -> None:
    assert pages.publish_documentation(store, end(3, MODEL_ERROR, PAGE)) == []
    assert pages.publish_documentation(store, end(2)) == []
    assert keys(store) == set()
