"""A year later, with no item of the table left: what ran, by whom, with what, how it ended, and whether that is what was written then."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

from dbt_runner import account, promotion, release
from dbt_runner import cli as command_line
from dbt_runner.archive import Archive
from dbt_runner.audit import Evidence, outcome_item
from dbt_runner.claim import Claim
from dbt_runner.errors import INVALID_REQUEST, RUNNER_ERROR, TEST_FAILURE, ErrorKind, TypedError
from dbt_runner.events import NodeResult
from dbt_runner.logs import JsonLog
from dbt_runner.node_writer import NodeWriter
from dbt_runner.outcome import Outcome
from dbt_runner.request import AttemptKey
from dbt_runner.store import Store, archive_key, release_key
from runner.athena import QUERIES, Athena
from runner.recorded_runs import step_result
from runner.releases import ALICE, BOB, candidate, refused

# Days of November 2026, and how the test of orders ended on each.
TESTED = {1: "pass", 20: "pass", 25: "fail", 26: "pass", 27: "fail"}
LAST = "r-27"


def write_run(store: Store, day: int, status: str, folder: Path) -> None:
    """What a run of the job daily leaves: a step that builds a model slower every day and tests it."""
    run_id, started_at = f"r-{day}", f"2026-11-{day:02d}T06:00:00.000Z"
    key, run = AttemptKey("prod", run_id, 1, "build", 1), {"run_id": run_id, "job": "daily", "release": "1.4.2"}
    log = JsonLog({}, io.StringIO())
    rows = Archive(store, key, f"RUN#{started_at}#{run_id}", run, log)
    times: dict[str, Any] = {"started_at": f"2026-11-{day:02d}T06:01:00.000Z", "ended_at": f"2026-11-{day:02d}T06:02:00.000Z"}
    with NodeWriter(store, key, log) as writer:
        writer.add(NodeResult(0, "model.shop.orders", "model", "orders", "success", seconds=float(day), **times))
        writer.add(NodeResult(0, "test.shop.unique_orders", "test", "unique_orders", status, seconds=1.0, **times))
    results = folder / "run_results.json"
    results.write_text(f"of day {day}")
    artifact = store.upload(results, f"runs/prod/2026/11/{day:02d}/{run_id}/build/1/run_results.json")
    error: ErrorKind | None = TEST_FAILURE if status == "fail" else None
    evidence = Evidence(
        **times,
        seconds=90.0,
        artifacts=[artifact],
        compute="fargate",
        release=release.find(store, "1.4.2"),
        node_rows=rows.prepare(writer.items),
    )
    item = outcome_item(key, Claim(1001, "me"), Outcome(error, "a test failed" if error else ""), evidence)
    store.put(item)
    assert rows.write(item, [{"cpu": 2048, "memory": 8192}])
    # As state ArchiveRun writes it, see tests/asl/test_announce.py.
    row = {
        "environment": "prod",
        "run_id": run_id,
        "execution": f"arn:{run_id}",
        "job": "daily",
        "trigger": "schedule",
        "release": "1.4.2",
        "status": "FAILED" if error else "SUCCEEDED",
        "started_at": started_at,
        "ended_at": f"2026-11-{day:02d}T06:03:00.000Z",
        "steps": json.dumps([step_result("build", error=error.name if error else None)]),
        "versions": {"dbt-core": "1.11.16"},
    }
    row |= {"error": error.name, "cause": "build: a test failed"} if error else {}
    store.upload_body(json.dumps(row).encode(), archive_key("runs", "prod", started_at[:10], run_id), "application/x-ndjson")


@pytest.fixture
def left(store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The bucket after five runs; the table is gone."""
    for version in ("1.4.1", "1.4.2"):
        release.commit(store, candidate(tmp_path / version, f"select '{version}'", version=version))
    monkeypatch.setattr(promotion, "now", lambda: "2026-10-01T08:00:00.000Z")
    promotion.promote(store, "prod", "1.4.1", by=ALICE, reason=None)
    monkeypatch.setattr(promotion, "now", lambda: "2026-10-30T08:00:00.000Z")
    promotion.promote(store, "prod", "1.4.2", by=BOB, reason="ticket 7")
    for day, status in TESTED.items():
        write_run(store, day, status, tmp_path)
    boto3.client("dynamodb").delete_table(TableName=store.table)
    return store


def put(store: Store, key: str, body: str) -> None:
    boto3.client("s3").put_object(Bucket=store.bucket, Key=key, Body=body.encode())


def changed(store: Store, key: str, change: Callable[[str], str]) -> None:
    put(store, key, change(boto3.client("s3").get_object(Bucket=store.bucket, Key=key)["Body"].read().decode()))


def problems(store: Store, run_id: str = LAST) -> dict[str, str]:
    return {check.key: check.problem for check in account.read(store, "prod", run_id).checks if check.problem}


def test_the_bucket_alone_tells_what_ran_by_whom_and_how_it_ended(left: Store) -> None:
    told = account.read(left, "prod", LAST)
    assert (told.run["status"], told.run["release"], told.run["trigger"]) == ("FAILED", "1.4.2", "schedule")
    assert told.promotion is not None
    assert (told.promotion["promoted_by"], told.promotion["reason"], told.promotion["previous"]) == (BOB, "ticket 7", "1.4.1")
    [attempt] = told.attempts
    assert (attempt["step"], attempt["error"], len(attempt["release_digest"]), len(attempt["manifest_digest"])) == (
        *("build", "Dbt.TestFailure"),
        *(64, 64),
    )
    assert [(node["unique_id"], node["status"], node["started_at"]) for node in told.nodes] == [
        ("model.shop.orders", "success", "2026-11-27T06:01:00.000Z"),
        ("test.shop.unique_orders", "fail", "2026-11-27T06:01:00.000Z"),
    ]
    assert told.counts == {"fail": 1, "success": 1}
    # The attempt, its nodes, its artifact, and both files of the release.
    assert (len(told.checks), problems(left)) == (5, {})


def test_a_run_that_is_not_there_is_named(left: Store) -> None:
    assert "no run r-2" in refused(INVALID_REQUEST, lambda: account.read(left, "prod", "r-2"))


ATTEMPT = f"audit/attempts/env=prod/date=2026-11-27/{LAST}.build.1.jsonl"
NODES = ATTEMPT.replace("attempts", "nodes")


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        (NODES, lambda text: text.replace('"fail"', '"pass"'), "has the sha256"),
        (
            ATTEMPT,
            lambda text: text.replace('"error":"Dbt.TestFailure",', ""),
            "says that it succeeded, the run's row says",
        ),
        (ATTEMPT, lambda text: text.replace('"attempt":1', '"attempt":2'), "is of attempt 2, the run's row knows 1"),
        ("runs/prod/2026/11/27/r-27/build/1/run_results.json", lambda _: "all is well", "has the sha256"),
        (release_key("1.4.2", "bundle.tar.gz"), lambda _: "another project", "has the sha256"),
        (release_key("1.4.2", "manifest.json"), lambda _: "{}", "has the sha256"),
    ],
)
def test_what_was_altered_is_found(left: Store, key: str, change: Callable[[str], str], problem: str) -> None:
    body = boto3.client("s3").get_object(Bucket=left.bucket, Key=key)["Body"].read().decode(errors="replace")
    put(left, key, change(body))
    found = problems(left)
    assert list(found) == [key] and found[key].startswith(problem)


def test_a_row_that_is_gone_is_found(left: Store) -> None:
    boto3.client("s3").delete_object(Bucket=left.bucket, Key=ATTEMPT.replace("27", "26"))
    assert list(problems(left, "r-26").values()) == ["says that step build succeeded, and no attempt has a row that says so"]


def test_the_command_tells_it_without_the_table(left: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_RUNNER_TABLE", left.table)
    call = ["verify", "--run", LAST, "--archive", "--environment", "prod", "--bucket", left.bucket]
    said = CliRunner().invoke(command_line.cli, call)
    assert said.exit_code == 0, said.output
    for words in (f"{LAST} of prod, FAILED", "Dbt.TestFailure", BOB, "ticket 7", "1 fail, 1 success", "5 files, unaltered"):
        assert words in said.output.replace("\n", " "), words
    told = json.loads(CliRunner().invoke(command_line.cli, [*call, "--json"]).stdout)
    assert (told["run"]["run_id"], len(told["nodes"])) == (LAST, 2)
    changed(left, NODES, lambda text: text.replace('"fail"', '"pass"'))
    result = CliRunner().invoke(command_line.cli, call)
    assert isinstance(result.exception, TypedError) and result.exception.kind is RUNNER_ERROR
    assert f"BAD {NODES}" in result.output


# --- Athena ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def athena(left: Store, tmp_path: Path) -> Athena:
    root = tmp_path / "bucket"
    for key in left.keys("audit/"):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        assert left.download(key, root / key)
    return Athena(root, "2026-11-28")


def test_every_named_query_answers_from_what_was_written(athena: Athena) -> None:
    found = {name: athena.named(name) for name in QUERIES}
    assert [(row["date"], row["runs"], row["succeeded"], row["failed"], row["average_seconds"]) for row in found["runs_by_day"]][:2] == [
        ("2026-11-27", 1, 0, 1, 180.0),
        ("2026-11-26", 1, 1, 0, 180.0),
    ]
    assert len(found["runs_by_day"]) == 5
    slowest = found["slowest_nodes"][0]
    # 25, 26 and 27 against 1 and 20 seconds.
    assert (slowest["unique_id"], slowest["now_seconds"], slowest["before_seconds"], slowest["change_percent"]) == (
        *("model.shop.orders", 26.0),
        *(10.5, 148.0),
    )
    [flaky] = found["flaky_tests"]
    assert (flaky["unique_id"], flaky["changes"], flaky["failures"], flaky["results"]) == ("test.shop.unique_orders", 3, 2, 5)
    since = {row["unique_id"]: row for row in found["time_since_success"]}
    assert (since["test.shop.unique_orders"]["hours"], since["test.shop.unique_orders"]["last_status"]) == (42, "fail")
    assert since["model.shop.orders"]["last_success"] == "2026-11-27T06:02:00.000Z"
    [cost] = found["cost_by_job"]
    # Five tasks of 90 s and 30 s of start, on 2 vCPU and 8 GB.
    assert (cost["month"], cost["job"], cost["tasks"], cost["vcpu_hours"], cost["gb_hours"]) == ("2026-11", "daily", 5, 0.333, 1.333)
    assert [(row["version"], row["promoted_by"]) for row in found["promotions"]] == [("1.4.2", BOB), ("1.4.1", ALICE)]
    full = [row for row in found["run_in_full"] if row["run_id"] == LAST]
    assert [(row["release"], row["promoted_by"], row["unique_id"], row["node_status"], row["status"]) for row in full] == [
        ("1.4.2", BOB, "model.shop.orders", "success", "FAILED"),
        ("1.4.2", BOB, "test.shop.unique_orders", "fail", "FAILED"),
    ]
    assert {len(row["manifest_digest"]) for row in full} == {64}


def test_the_tables_have_a_column_for_everything_that_is_written(left: Store, athena: Athena) -> None:
    from runner.athena import TABLES

    for table, columns in TABLES.items():
        keys = list(left.keys(f"audit/{table}/"))
        written = set()
        for key in keys:
            body = boto3.client("s3").get_object(Bucket=left.bucket, Key=key)["Body"].read().decode()
            written |= {name for line in body.splitlines() for name in json.loads(line)}
        assert keys and written <= set(columns), table
        assert athena.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"] >= len(keys)


def test_a_query_out_of_athenas_dialect_is_not_accepted(athena: Athena) -> None:
    """The control: what stands in for Athena refuses what it does not know."""
    import duckdb

    with pytest.raises(duckdb.Error):
        athena.rows("SELECT no_such_column FROM nodes")
