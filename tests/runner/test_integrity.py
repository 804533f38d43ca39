"""Bytes held against what was recorded, and what differs between two releases."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from dbt_runner import cli as command_line
from dbt_runner import integrity, release
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, TypedError
from dbt_runner.release_diff import Change, difference
from dbt_runner.store import Store, release_key, run_pk, step_sk
from runner.recorded_runs import record_run
from runner.releases import candidate, refused


def overwrite(store: Store, key: str, body: bytes) -> None:
    boto3.client("s3").put_object(Bucket=store.bucket, Key=key, Body=body)


@pytest.fixture
def published(store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    release.commit(store, candidate(tmp_path / "shop"))
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    return store


# --- verify ----------------------------------------------------------------------------------------------------------


def test_a_release_is_what_was_published(published: Store) -> None:
    assert [(check.key, check.problem) for check in integrity.check_release(published, "1.4.2")] == [
        (release_key("1.4.2", name), None) for name in ("bundle.tar.gz", "manifest.json", "release.json")
    ]
    assert "9.9" in refused(RELEASE_NOT_FOUND, lambda: integrity.check_release(published, "9.9"))


@pytest.mark.parametrize("name", ["bundle.tar.gz", "manifest.json", "release.json"])
@pytest.mark.parametrize("how", ["changed", "lost"])
def test_a_file_that_was_changed_or_lost_is_found(published: Store, name: str, how: str) -> None:
    key = release_key("1.4.2", name)
    if how == "lost":
        boto3.client("s3").delete_object(Bucket=published.bucket, Key=key)
    else:
        overwrite(published, key, b"{}")
    found = {check.key: check.problem for check in integrity.check_release(published, "1.4.2")}
    assert [changed for changed, problem in found.items() if problem] == [key]
    result = CliRunner().invoke(command_line.cli, ["verify", "--version", "1.4.2"])
    assert isinstance(result.exception, TypedError) and result.exception.kind is RELEASE_CORRUPT
    assert f"BAD {key}" in result.stdout and result.stdout.count("ok  ") == 2


def test_a_description_that_says_something_else_is_found(published: Store) -> None:
    key = release_key("1.4.2", "release.json")
    about = json.loads(boto3.client("s3").get_object(Bucket=published.bucket, Key=key)["Body"].read())
    overwrite(published, key, json.dumps({**about, "author": "mallory"}).encode())
    assert integrity.check_release(published, "1.4.2")[2].problem == "differs from the release's item in author"


def test_artifacts_of_every_attempt_of_a_run_are_held_against_its_outcomes(published: Store, tmp_path: Path) -> None:
    for attempt in (1, 2):
        path = tmp_path / "run_results.json"
        path.write_text(f"attempt {attempt}")
        stored = published.upload(path, f"runs/prod/2026/11/22/r1/build/{attempt}/run_results.json")
        item = {"pk": run_pk("prod", "r1"), "sk": step_sk(1, "build", attempt)}
        published.put({**item, "artifacts": [{"key": stored.key, "sha256": stored.sha256, "bytes": stored.bytes}]})
    record_run(published, "r1", "2026-11-22T10:00:00.000Z")
    good = CliRunner().invoke(command_line.cli, ["verify", "--run", "r1"])
    assert (good.exit_code, good.stdout.splitlines()[-1]) == (0, "run r1: 2 files, unaltered")
    overwrite(published, "runs/prod/2026/11/22/r1/build/1/run_results.json", b"all is well")
    assert [check.problem is None for check in integrity.check_run(published, "prod", "r1")] == [False, True]
    assert "no outcome of a run r2" in refused(INVALID_REQUEST, lambda: integrity.check_run(published, "prod", "r2"))


@pytest.mark.parametrize("arguments", [[], ["--version", "1", "--run", "r1"]])
def test_verify_wants_one_thing(published: Store, arguments: list[str]) -> None:
    result = CliRunner().invoke(command_line.cli, ["release", "verify", *arguments])
    assert isinstance(result.exception, TypedError) and result.exception.kind is INVALID_REQUEST


# --- diff ------------------------------------------------------------------------------------------------------------

BEFORE: dict[str, Any] = {
    "metadata": {"project_name": "shop", "adapter_type": "duckdb"},
    "nodes": {
        "model.shop.a": {"checksum": {"name": "sha256", "checksum": "1"}, "config": {"materialized": "view"}, "created_at": 1.0},
        "model.shop.b": {"checksum": {"name": "sha256", "checksum": "2"}, "config": {}, "contract": {"checksum": None}, "created_at": 1.0},
    },
    "sources": {"source.shop.raw.t": {"loader": "x", "created_at": 1.0}},
    "macros": {
        "macro.shop.m": {"package_name": "shop", "macro_sql": "1"},
        "macro.dbt_utils.u": {"package_name": "dbt_utils", "macro_sql": "1"},
        "macro.dbt_duckdb.x": {"package_name": "dbt_duckdb", "macro_sql": "1"},
    },
}


def changed(path: list[str], value: object) -> dict[str, Any]:
    document = copy.deepcopy(BEFORE)
    place = document
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (["nodes", "model.shop.a", "checksum"], {"name": "sha256", "checksum": "9"}, ("model.shop.a", "code")),
        (["nodes", "model.shop.a", "config"], {"materialized": "table"}, ("model.shop.a", "config")),
        (["nodes", "model.shop.b", "contract"], {"checksum": "abc"}, ("model.shop.b", "contract")),
        (["nodes", "model.shop.a", "columns"], {"id": {}}, ("model.shop.a", "columns")),
        (["sources", "source.shop.raw.t", "loader"], "y", ("source.shop.raw.t", "definition")),
        (["macros", "macro.shop.m", "macro_sql"], "2", ("macro.shop.m", "code")),
        (["macros", "macro.dbt_utils.u", "macro_sql"], "2", ("macro.dbt_utils.u", "code")),
        # Parsed at another time, or by another version of the runner's own macros: no change of the release.
        (["nodes", "model.shop.a", "created_at"], 2.0, None),
        (["sources", "source.shop.raw.t", "created_at"], 2.0, None),
        (["macros", "macro.dbt_duckdb.x", "macro_sql"], "2", None),
    ],
)
def test_what_changed_is_named(path: list[str], value: object, what: tuple[str, str] | None) -> None:
    found = difference("1", BEFORE, "2", changed(path, value))
    assert found.changed == ((Change(what[0], (what[1],)),) if what else ())
    assert (found.added, found.removed, found.empty) == ((), (), what is None)


def test_what_came_and_went_is_named() -> None:
    after = changed(["nodes", "model.shop.c"], BEFORE["nodes"]["model.shop.a"])
    del after["nodes"]["model.shop.b"]
    found = difference("1", BEFORE, "2", after)
    assert (found.added, found.removed, found.changed) == (("model.shop.c",), ("model.shop.b",), ())


def test_a_manifest_that_was_changed_is_not_compared(published: Store) -> None:
    assert release.manifest(published, "1.4.2") == {"stamp": ""}
    overwrite(published, release_key("1.4.2", "manifest.json"), b'{"nodes": {}}')
    assert "sha256" in refused(RELEASE_CORRUPT, lambda: release.manifest(published, "1.4.2"))
