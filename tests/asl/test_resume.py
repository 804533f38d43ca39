"""The rest of a run that ended badly, in a new run: on its release, with its steps, and without what had ended well."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asl.endings import assert_failed, assert_succeeded, steps
from asl.fakes import EARLIER_MILLIS, OTHER_EXECUTION, OTHER_RUN, Cloud
from asl.resumable import STEPS, leave, result

RESUME = {"resume": OTHER_RUN, "reason": "ticket 5", "trigger": "cli"}
HEALTH, FRESHNESS, BUILD, DOCS = range(4)


def places(cloud: Cloud) -> list[int]:
    return [started.place for started in cloud.started]


def test_run_does_the_rest_of_another_on_its_release_with_its_steps(cloud: Cloud) -> None:
    leave(cloud, result("health_check"), result("freshness", counts={"pass": 2}), result("build", "FAILED", error="Dbt.ModelError"))
    record = assert_succeeded(cloud, cloud.run(RESUME))
    assert places(cloud) == [HEALTH, BUILD, DOCS]
    assert [name for name, _, _ in steps(record)] == ["health_check", "freshness", "build", "docs"]
    assert json.loads(record["steps"]["S"])[1]["counts"] == {"pass": 2}
    assert (record["release"]["S"], record["job"]["S"], record["reason"]["S"]) == ("1.3.9", "hourly", "ticket 5")
    assert (record["resumed_from"]["S"], json.loads(record["resumes"]["S"])) == (OTHER_RUN, [OTHER_RUN])
    assert json.loads(record["request"]["S"]) == {
        **RESUME,
        "job": "hourly",
        "steps": STEPS,
        "vars": '{"day":"yesterday"}',
        "full_refresh": True,
    }


def test_run_compares_with_the_release_that_was_current_at_first(cloud: Cloud) -> None:
    leave(cloud, request=json.dumps({"steps": STEPS, "defer_to": "1.3.0", "schema_suffix": "pr_7"}), job=None)
    record = assert_succeeded(cloud, cloud.run(RESUME))
    request = json.loads(record["request"]["S"])
    assert (request["defer_to"], request["schema_suffix"], record["release"]["S"]) == ("1.3.0", "pr_7", "1.3.9")
    assert record["schema_suffix"]["S"] == "pr_7"


def test_chain_of_runs_is_kept(cloud: Cloud) -> None:
    leave(cloud, resumes=json.dumps(["second", "first"]))
    record = assert_succeeded(cloud, cloud.run(RESUME))
    assert json.loads(record["resumes"]["S"]) == [OTHER_RUN, "second", "first"]


def test_releases_of_the_chain_are_kept_beside_it(cloud: Cloud) -> None:
    leave(cloud, resumes=json.dumps(["second", "first"]))
    record = assert_succeeded(cloud, cloud.run(RESUME))
    assert json.loads(record["resumed_releases"]["S"]) == ["1.3.9"] * 3, "a record from before says nothing: it had one release"


def test_run_is_resumed_on_the_current_release_with_all_of_its_steps(cloud: Cloud) -> None:
    """What of a step is left is for the runner to say, which can compare the releases."""
    leave(
        cloud,
        result("freshness"),
        result("build", "FAILED", error="Dbt.ModelError"),
        resumes=json.dumps(["first"]),
        resumed_releases=json.dumps(["1.3.8"]),
    )
    record = assert_succeeded(cloud, cloud.run({**RESUME, "release": "current"}))
    assert places(cloud) == [HEALTH, FRESHNESS, BUILD, DOCS]
    assert record["release"]["S"] == "1.4.2"
    assert (json.loads(record["resumes"]["S"]), json.loads(record["resumed_releases"]["S"])) == ([OTHER_RUN, "first"], ["1.3.9", "1.3.8"])
    request = json.loads(record["request"]["S"])
    assert (request["steps"], request["vars"], request["full_refresh"]) == (STEPS, '{"day":"yesterday"}', True)


def test_where_its_release_is_current_a_resume_on_the_current_one_is_any_resume(cloud: Cloud) -> None:
    leave(cloud, result("freshness"), result("build", "FAILED", error="Dbt.ModelError"))
    cloud.promote("1.3.9")
    assert_succeeded(cloud, cloud.run({**RESUME, "release": "current"}))
    assert places(cloud) == [HEALTH, BUILD, DOCS]


def test_resume_on_the_current_release_is_no_override(cloud: Cloud) -> None:
    leave(cloud, result("build", "FAILED", error="Dbt.ModelError"))
    cloud.configure(requests={"steps": False, "inline": False, "operations": [], "overrides": False})
    assert_succeeded(cloud, cloud.run({**RESUME, "release": "current"}))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"release": "1.4.2"}, "Dbt.InvalidRequest", "and release, which may only be current"),
        ({"release": None}, "Dbt.InvalidRequest", "release"),
        ({"release": "current", "vars": {}}, "Dbt.InvalidRequest", "leave out vars"),
    ],
)
def test_resume_takes_no_release_but_the_current_one(cloud: Cloud, changes: dict[str, Any], error: str, says: str) -> None:
    leave(cloud)
    record = assert_failed(cloud, cloud.run({**RESUME, **changes}), error)
    assert says in record["cause"]["S"] and cloud.started == []


@pytest.mark.parametrize("attributes", [{"release": f"ci-{'0' * 32}"}, {"request": json.dumps({"steps": STEPS, "defer_to": "1.3.0"})}])
def test_what_compares_with_a_release_is_not_resumed_on_another(cloud: Cloud, attributes: dict[str, str]) -> None:
    cloud.configure(slim_ci={"state_target": "prod", "schema_suffixes": None})
    leave(cloud, **attributes)
    record = assert_failed(cloud, cloud.run({**RESUME, "release": "current"}), "Dbt.InvalidRequest")
    assert "compares with another release" in record["cause"]["S"] and cloud.started == []


def test_nothing_is_resumed_on_the_current_release_where_there_is_none(cloud: Cloud) -> None:
    leave(cloud)
    cloud.promote(None)
    assert_failed(cloud, cloud.run({**RESUME, "release": "current"}), "Dbt.ReleaseNotFound")


def test_run_that_was_aborted_told_of_no_step_and_is_resumed_with_all_of_them(cloud: Cloud) -> None:
    leave(cloud, status="ABORTED")
    assert_succeeded(cloud, cloud.run(RESUME))
    assert places(cloud) == [HEALTH, FRESHNESS, BUILD, DOCS]


def test_run_of_steps_has_no_job(cloud: Cloud) -> None:
    leave(cloud, job=None, request=json.dumps({"steps": STEPS[1:2]}))
    cloud.promote(None)
    record = assert_succeeded(cloud, cloud.run({"resume": OTHER_RUN}))
    assert "job" not in record
    request = json.loads(record["request"]["S"])
    assert (request["vars"], request["full_refresh"], "job" in request) == ("{}", False, False)


def test_step_that_was_allowed_to_fail_is_run_again(cloud: Cloud) -> None:
    leave(cloud, result("freshness", "FAILED", error="Dbt.StaleSource"), result("build"), result("docs", "FAILED", error="Dbt.Interrupted"))
    assert_succeeded(cloud, cloud.run(RESUME))
    assert places(cloud) == [HEALTH, FRESHNESS, DOCS]


@pytest.mark.parametrize("date", [EARLIER_MILLIS / 1000, "2026-11-22T08:00:00.000Z", "2026-11-22T08:00:02.100Z"])
def test_start_is_understood_however_it_is_put(cloud: Cloud, date: str | float) -> None:
    leave(cloud)
    cloud.start_date = date
    assert_succeeded(cloud, cloud.run(RESUME))


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"status": "SUCCEEDED"}, "is SUCCEEDED: there is nothing left of it"),
        ({"status": "SKIPPED"}, "is SKIPPED: there is nothing left of it"),
        ({"status": "RUNNING", "ended_at": None}, "has not ended yet"),
        ({"release": None}, "never came as far as its steps"),
        ({"request": "{}"}, "never came as far as its steps"),
        ({"request": '"hourly"'}, "never came as far as its steps"),
        ({"run_id": "somebody-else"}, "never came as far as its steps"),
        ({"resumes": json.dumps([f"run-{number}" for number in range(50)])}, "a chain of 50 runs"),
    ],
)
def test_run_that_leaves_nothing_to_do_is_refused(cloud: Cloud, attributes: dict[str, str | None], says: str) -> None:
    leave(cloud, **{"status": "FAILED", **attributes})  # type: ignore[arg-type]
    record = assert_failed(cloud, cloud.run(RESUME), "Dbt.InvalidRequest")
    assert record["cause"]["S"].startswith("resume: run other ") and says in record["cause"]["S"]
    assert cloud.started == []


def test_run_that_nobody_knows_is_refused(cloud: Cloud) -> None:
    assert OTHER_EXECUTION not in cloud.statuses
    execution = cloud.run(RESUME)
    record = assert_failed(cloud, execution, "Dbt.InvalidRequest")
    assert record["cause"]["S"].startswith("resume: environment prod has no run other")
    assert [call.state for call in execution.calls].count("DescribeResumed") == 3
