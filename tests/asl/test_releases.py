"""Which releases the state machine takes: those of pull requests where slim_ci is set, and a pointer as a promotion leaves it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asl.endings import assert_failed, assert_succeeded
from asl.fakes import Cloud
from asl.resumable import leave

CI = f"ci-{'0' * 32}"
STEP = {"name": "fix", "commands": ["build"]}
RESUME = {"resume": "other"}
SET = [{"state_target": "prod", "schema_suffixes": None}, {"state_target": None, "schema_suffixes": "pr_[0-9]+"}]


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("version", [CI, CI.upper(), f"Ci-{'0' * 32}", "ci-", "ci-0", "CI-release"])
@pytest.mark.parametrize("field", ["release", "defer_to"])
@pytest.mark.parametrize("what", [{"steps": [STEP]}, {"job": "hourly"}], ids=["steps", "job"])
def test_release_of_a_pull_request_is_refused_before_the_lock(cloud: Cloud, version: str, field: str, what: dict[str, Any]) -> None:
    execution = cloud.run({**what, field: version})
    record = assert_failed(cloud, execution, "Dbt.InvalidRequest")
    assert record["cause"]["S"].startswith(f"{field}: it is a pull request's tree")
    assert "AcquireLock" not in execution.states and cloud.started == []


@pytest.mark.control("ci release")
@pytest.mark.parametrize("slim_ci", SET, ids=["state_target", "schema_suffixes"])
@pytest.mark.parametrize("field", ["release", "defer_to"])
def test_release_of_a_pull_request_runs_where_slim_ci_is_set(cloud: Cloud, slim_ci: dict[str, Any], field: str) -> None:
    cloud.configure(slim_ci=slim_ci)
    assert_succeeded(cloud, cloud.run({"steps": [STEP], field: CI}))


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("left", [{"release": CI}, {"request": json.dumps({"steps": [STEP], "defer_to": CI})}], ids=["release", "defer_to"])
def test_resumed_run_of_a_pull_request_is_refused_where_slim_ci_is_no_longer_set(cloud: Cloud, left: dict[str, str]) -> None:
    leave(cloud, **left)
    record = assert_failed(cloud, cloud.run(RESUME), "Dbt.InvalidRequest")
    assert "was of a pull request" in record["cause"]["S"] and cloud.started == []


@pytest.mark.control("ci release")
def test_resumed_run_of_a_pull_request_goes_on_where_slim_ci_is_set(cloud: Cloud) -> None:
    cloud.configure(slim_ci=SET[0])
    leave(cloud, release=CI)
    assert assert_succeeded(cloud, cloud.run(RESUME))["release"]["S"] == CI


POINTERS: dict[str, dict[str, str | int]] = {
    "a pull request's tree": {"version": CI},
    "one in upper case": {"version": "CI-1"},
    "a number": {"version": 1},
    "a path": {"version": "../1.4.2"},
    "a line break": {"version": "1.4.2\n"},
    "a look-alike": {"version": "1\u02d94"},
    "empty": {"version": ""},
    "too long": {"version": "1" * 65},
    "no project": {"version": "1.4.2", "project": 1},
    "a long project": {"version": "1.4.2", "project": "x" * 1000},
}


@pytest.mark.attack("pointer")
@pytest.mark.parametrize("pointer", POINTERS.values(), ids=POINTERS)
@pytest.mark.parametrize("given", [{"job": "hourly"}, {"job": "hourly", "release": "1.4.1"}], ids=["current", "named"])
def test_pointer_that_no_promotion_leaves_runs_nothing(cloud: Cloud, pointer: dict[str, str | int], given: dict[str, str]) -> None:
    cloud.configure(slim_ci=SET[0])  # The pointer is never a pull request's, wherever they run.
    cloud.promote(**pointer)  # type: ignore[arg-type]
    record = assert_failed(cloud, cloud.run(given), "Dbt.ReleaseCorrupt")
    assert "none that a promotion leaves" in record["cause"]["S"] and cloud.started == []


def test_record_says_of_which_project_the_environment_was(cloud: Cloud) -> None:
    assert assert_succeeded(cloud, cloud.run({"job": "hourly", "release": "1.4.1"}))["project"] == {"S": "shop"}


def test_record_of_a_resumed_run_has_the_project_of_now(cloud: Cloud) -> None:
    leave(cloud, project="shop")
    cloud.promote("2.0.0", project="stock")
    assert assert_succeeded(cloud, cloud.run(RESUME))["project"] == {"S": "stock"}


def test_environment_without_a_release_has_no_project(cloud: Cloud) -> None:
    cloud.promote(None)
    assert "project" not in assert_succeeded(cloud, cloud.run({"job": "hourly", "release": "1.4.1"}))
