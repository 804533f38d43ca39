"""The main job on the embedded AWS: what a run does, and what it leaves behind, when it succeeds and when it fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from dbt_runner.errors import ERRORS
from dbt_runner.store import Item
from flow.support import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]


def step(*commands: str, name: str = "only", **more: Any) -> dict[str, Any]:
    return {"name": name, "commands": list(commands), **more}


def archived(stack: Stack, key: str) -> Any:
    """The first row of an object of the long-term audit; None while there is none."""
    s3 = stack.client("s3")
    try:
        return json.loads(s3.get_object(Bucket=stack.config("local").bucket, Key=key)["Body"].read().splitlines()[0])
    except s3.exceptions.NoSuchKey:
        return None


@pytest.mark.slow
def test_a_second_plan_changes_nothing(stack: Stack) -> None:
    assert stack.terraform().plan() == []


def test_a_job_runs_its_steps_and_leaves_the_whole_audit_trail(stack: Stack, hourly: tuple[Mapping[str, Any], Item]) -> None:
    execution, record = hourly
    assert execution["status"] == "SUCCEEDED"

    assert (record["status"], record["release"], record["job"], record["trigger"], record["reason"]) == (
        *("SUCCEEDED", "shop-1", "hourly"),
        *("test", "a test"),
    )
    assert record["started_at"] < record["ended_at"]
    steps = json.loads(record["steps"])
    assert [(s["step"], s["status"]) for s in steps] == [
        (name, "SUCCEEDED") for name in ("health_check", "seed", "freshness", "build", "docs")
    ]
    assert sum(steps[1]["counts"].values()) == 6
    assert json.loads(execution["output"])["steps"] == steps

    nodes = stack.nodes("local", execution["executionArn"])
    assert len(nodes) == sum(sum(s["counts"].values()) for s in steps)
    assert {node["status"] for node in nodes.values()} == {"success", "pass", "no-op"}
    assert nodes["model.shop.orders"]["relation"] and nodes["model.shop.orders"]["seconds"] > 0
    assert nodes["source.shop.raw.orders"]["step"] == "freshness"

    outcomes = stack.outcomes("local", execution["executionArn"])
    assert [(o["step"], o["exit_code"], o["attempt"]) for o in outcomes] == [
        (name, 0, 1) for name in ("health_check", "seed", "freshness", "build", "docs")
    ]
    assert outcomes[3]["commands"][0]["command"] == "build --exclude resource_type:seed"
    assert outcomes[3]["versions"]["dbt-core"].startswith("1.")
    assert record["versions"] == outcomes[0]["versions"]
    assert record["release_digest"] == outcomes[3]["release"]["digest"]
    assert record["image"].startswith("sha256:")
    # The first step that parsed this release here left its parse to all later ones.
    assert [o["parse"] for o in outcomes[2:]] == [{"cache": "used"}] * 3

    artifacts = {a["key"].removeprefix(record["artifacts"]): a for o in outcomes for a in o["artifacts"]}
    assert {"seed/1/run_results.json", "freshness/1/sources.json", "build/1/manifest.json", "docs/1/catalog.json"} <= set(artifacts)
    for artifact in artifacts.values():
        body = stack.client("s3").get_object(Bucket=stack.config("local").bucket, Key=artifact["key"])["Body"].read()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (artifact["sha256"], artifact["bytes"])
    # What people open, as it was when the last step ended.
    bucket = stack.config("local").bucket

    def read(key: str) -> str:
        body: bytes = stack.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return body.decode()

    report = read(record["artifacts"] + "report.html")
    assert f"<title>{record['run_id']} succeeded (local)</title>" in report and "raw.orders" in report
    assert read("docs/local/shop-1/index.html").startswith("<!doctype html>")
    date = record["started_at"][:10]
    rows = [json.loads(line) for line in read(f"audit/nodes/env=local/date={date}/{record['run_id']}.build.1.jsonl").splitlines()]
    assert {row["unique_id"] for row in rows} == {i for i, n in nodes.items() if n["step"] == "build"}
    # And what is there in years: the run's row comes from announce, beside the run.
    row = wait_for("the run's row", lambda: archived(stack, f"audit/runs/env=local/date={date}/{record['run_id']}.jsonl"))
    assert (row["status"], row["release"], row["versions"]) == ("SUCCEEDED", "shop-1", record["versions"])
    told = stack.cli("verify", "--run", record["run_id"], "--archive", "--environment", "local", "--bucket", bucket).stdout
    assert f"{record['run_id']} of local, SUCCEEDED" in told and "BAD" not in told and "unaltered" in told
    key = record["artifacts"] + "build/1/run_results.json"
    results = json.loads(stack.client("s3").get_object(Bucket=stack.config("local").bucket, Key=key)["Body"].read())
    assert {r["unique_id"] for r in results["results"]} == {i for i, n in nodes.items() if n["step"] == "build"}


def test_a_failing_model_fails_the_run_and_skips_what_needs_it(stack: Stack) -> None:
    execution, record = stack.run("local", {"steps": [step("run --select fast broken+"), step("run", name="never")]})
    assert (execution["status"], execution["error"]) == ("FAILED", "Dbt.ModelError")
    assert "model.shop.broken" in execution["cause"]
    assert (record["status"], record["error"]) == ("FAILED", "Dbt.ModelError")
    assert [(s["step"], s["status"], s["error"]) for s in json.loads(record["steps"])] == [
        ("health_check", "SUCCEEDED", None),
        ("only", "FAILED", "Dbt.ModelError"),
    ]
    nodes = stack.nodes("local", execution["executionArn"])
    assert {i.rsplit(".")[-1]: n["status"] for i, n in nodes.items()} == {"fast": "success", "broken": "error", "blocked": "skipped"}
    assert "a_table_that_is_not_there" in nodes["model.shop.broken"]["message"]


@pytest.mark.slow
def test_a_failing_test_fails_the_run(stack: Stack) -> None:
    execution, record = stack.run("local", {"steps": [step("build --select wrong")]})
    assert (execution["error"], record["error"]) == ("Dbt.TestFailure", "Dbt.TestFailure")
    [failure] = stack.outcomes("local", execution["executionArn"])[1]["failures"]
    assert failure["unique_id"].startswith("test.shop.accepted_values_wrong")


@pytest.mark.slow
def test_a_step_may_fail_without_failing_the_run(stack: Stack) -> None:
    steps = [step("run --select broken", name="may_fail", on_failure="continue"), step("run --select fast")]
    execution, record = stack.run("local", {"steps": steps})
    assert (execution["status"], record["status"]) == ("SUCCEEDED", "SUCCEEDED")
    assert [(s["status"], s["error"]) for s in json.loads(record["steps"])[1:]] == [
        ("FAILED", "Dbt.ModelError"),
        ("SUCCEEDED", None),
    ]


# What JSONata would round, and what YAML 1.1 reads otherwise.
VARS = {
    "a flag": True,
    "quote": 'it\'s "so"',
    "small": 0.00001,
    "whole": 1.0,
    "long": 12345678901234567890,
    "emoji": "\U0001f600",
    "word": "no",
    "none": None,
}


@pytest.mark.slow
def test_vars_and_full_refresh_reach_dbt(stack: Stack) -> None:
    document = {"steps": [step("run --select fast")], "vars": json.dumps(VARS), "full_refresh": True}
    execution, record = stack.run("local", document)
    assert execution["status"] == "SUCCEEDED"
    key = record["artifacts"] + "only/1/run_results.json"
    arguments = json.loads(stack.client("s3").get_object(Bucket=stack.config("local").bucket, Key=key)["Body"].read())["args"]
    assert (arguments["vars"], arguments["full_refresh"]) == (VARS, True)


def test_a_missing_release_ends_the_run_before_dbt_starts(stack: Stack) -> None:
    execution, record = stack.run("local", {"job": "build", "release": "9.9.9"})
    assert (execution["error"], record["error"]) == ("Dbt.ReleaseNotFound", "Dbt.ReleaseNotFound")
    assert "9.9.9" in record["cause"]
    assert [o["step"] for o in stack.outcomes("local", execution["executionArn"])] == ["health_check"]


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([1], "input"),
        ("hourly", "input"),
        ({}, "job"),
        ({"job": "hourly", "steps": [step("run")]}, "job"),
        ({"job": 5}, "job"),
        ({"job": "weekly"}, "job"),
        ({"job": "hourly", "colour": "red"}, "colour"),
        ({"job": "hourly", "vars": ["x"]}, "vars"),
        ({"job": "hourly", "release": "../../etc"}, "release"),
        ({"job": "hourly", "full_refresh": "yes"}, "full_refresh"),
        ({"job": "hourly", "reason": {}}, "reason"),
        ({"job": "hourly", "trigger": 1}, "trigger"),
        ({"steps": []}, "steps"),
        ({"steps": [{"name": "x"}]}, "steps"),
        ({"steps": [step("run", name="Not A Name")]}, "steps"),
        ({"steps": [step("run", on_failure="panic")]}, "steps"),
        ({"steps": [step("run", timeout_seconds=0)]}, "steps"),
        ({"steps": [step("run", colour="red")]}, "steps"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:40],
)
def test_an_invalid_request_is_recorded_and_starts_nothing(stack: Stack, document: object, field: str) -> None:
    execution, record = stack.run("local", document)
    assert (execution["error"], record["error"]) == ("Dbt.InvalidRequest", "Dbt.InvalidRequest")
    assert field in record["cause"]
    assert json.loads(record["request"]) == document
    assert stack.outcomes("local", execution["executionArn"]) == []


# Which commands are refused is a matter of tests/runner/test_request.py; here it is where.
@pytest.mark.parametrize("command", ["rm -rf /", "run --target=prod"])
def test_a_command_that_is_refused_is_refused_before_any_step_runs(stack: Stack, command: str) -> None:
    execution, record = stack.run("local", {"steps": [step("run --select fast", name="good"), step(command, name="bad")]})
    assert record["error"] == "Dbt.InvalidRequest"
    assert "steps[1].commands[0]" in record["cause"]
    assert [o["step"] for o in stack.outcomes("local", execution["executionArn"])] == ["health_check"]
    assert stack.nodes("local", execution["executionArn"]) == {}


def test_every_error_of_a_failed_run_is_in_the_table(stack: Stack) -> None:
    _, record = stack.run("local", {"steps": [step("run --select nothing_has_this_name")]})
    assert record["error"] == "Dbt.NothingSelected"
    assert record["error"] in ERRORS
