"""Every way through dbt_run but the lock's: what was asked, what the containers did, and what could not be written.

Each run goes through the second interpreter with real expressions on moto's DynamoDB, and through one of `endings`, which holds the
promises.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from asl import render, resumable
from asl.endings import assert_failed, assert_left_to_finalize, assert_skipped, assert_succeeded, steps
from asl.fakes import (
    OTHER_EXECUTION,
    OTHER_RUN,
    RUN_ID,
    SUCCEEDS,
    Attempt,
    Cloud,
    Fault,
    Item,
    config,
    dies,
    fails,
    stopped,
)
from dbt_runner import variables
from dbt_runner.errors import ERRORS

HOURLY = {"job": "hourly"}
STEP = {"name": "fix", "commands": ["run --select orders+"]}
DENIED = Fault("DynamoDB.AmazonDynamoDBException", "User is not authorized to perform: dynamodb")


def request_of(record: Item) -> dict[str, Any]:
    request: dict[str, Any] = json.loads(record["request"]["S"])
    return request


# What succeeds


def test_job_runs_its_steps_one_after_the_other(cloud: Cloud) -> None:
    execution = cloud.run(HOURLY)
    record = assert_succeeded(cloud, execution)
    assert [started.environment["DBT_RUNNER_STEP"] for started in cloud.started] == ["0", "1", "2"]
    assert steps(record) == [("health_check", "SUCCEEDED", None), ("freshness", "SUCCEEDED", None), ("build", "SUCCEEDED", None)]
    assert execution.output == {"run_id": RUN_ID, "status": "SUCCEEDED", "release": "1.4.2", "steps": json.loads(record["steps"]["S"])}
    assert record["job"]["S"] == "hourly"
    assert record["trigger"]["S"] == "direct"
    assert record["release"]["S"] == "1.4.2"


def test_record_tells_what_the_outcome_says(cloud: Cloud) -> None:
    cloud.run(HOURLY)
    _, freshness, _ = json.loads(cloud.records()[0]["steps"]["S"])
    assert freshness == {
        "step": "freshness",
        "status": "SUCCEEDED",
        "attempts": 1,
        "error": None,
        "message": None,
        "counts": {"success": 3, "skipped": 1},
        "seconds": 1.5,
    }


def test_record_names_what_ran_as_the_runner_found_it(cloud: Cloud) -> None:
    release = {"version": {"S": "1.4.2"}, "digest": {"S": "abc"}, "git_commit": {"S": "def"}}
    versions = {"M": {"dbt-core": {"S": "1.11.16"}, "dbt-postgres": {"S": "1.10.0"}}}
    found = {**(SUCCEEDS.outcome or {}), "release": {"M": release}, "image": {"S": "sha256:012"}, "versions": versions}
    cloud.attempts["0"] = Attempt(found)
    # The last attempt leaves no outcome: what was known stays.
    cloud.attempts["1"] = Attempt(None, "States.TaskFailed", stopped(1))
    record = assert_failed(cloud, cloud.run({"steps": [STEP]}), "Dbt.RunnerError")
    assert (record["release_digest"], record["git_commit"], record["image"]) == ({"S": "abc"}, {"S": "def"}, {"S": "sha256:012"})
    assert record["versions"] == versions


def test_record_is_open_with_the_whole_request_while_containers_run(cloud: Cloud) -> None:
    seen: list[Item] = []
    cloud.before["HealthCheck"] = lambda: seen.extend(cloud.records())
    execution = cloud.run({**HOURLY, "reason": "ticket 123", "trigger": "cli"})
    assert_succeeded(cloud, execution)
    (record,) = seen
    assert record["status"]["S"] == "RUNNING"
    assert "ended_at" not in record
    assert (record["reason"]["S"], record["trigger"]["S"]) == ("ticket 123", "cli")
    assert request_of(record) == {
        "job": "hourly",
        "reason": "ticket 123",
        "trigger": "cli",
        "steps": config()["jobs"]["hourly"]["steps"],
        "vars": "{}",
        "job_vars": '{"day": "today", "depth": 1}',
        "full_refresh": False,
    }


def test_request_wins_over_the_job(cloud: Cloud) -> None:
    execution = cloud.run({**HOURLY, "vars": {"day": "2026-11-22"}, "full_refresh": True, "release": "1.4.1"})
    record = assert_succeeded(cloud, execution)
    assert variables.of_record(request_of(record)) == {"day": "2026-11-22", "depth": 1}
    assert request_of(record)["full_refresh"] is True
    assert record["release"]["S"] == "1.4.1"


def test_steps_of_a_request_get_the_defaults(cloud: Cloud) -> None:
    execution = cloud.run({"steps": [STEP], "reason": "ticket 123"})
    record = assert_succeeded(cloud, execution)
    assert "job" not in record
    assert request_of(record) == {
        "steps": [{**STEP, "on_failure": "fail", "timeout_seconds": 14400, "compute": "fargate", "on_timeout": "fail"}],
        "reason": "ticket 123",
        "vars": "{}",
        "full_refresh": False,
    }
    assert steps(record) == [("health_check", "SUCCEEDED", None), ("fix", "SUCCEEDED", None)]


COMPARES = {**STEP, "commands": ["run", "build -s state:modified+ --state {state}"]}


@pytest.mark.parametrize(
    ("request_", "compared_with"),
    [
        ({"steps": [STEP]}, None),
        ({"steps": [STEP], "defer_to": "current"}, "1.4.2"),
        ({"steps": [STEP], "defer_to": "1.3.0"}, "1.3.0"),
        ({"steps": [STEP, {**COMPARES, "name": "compares"}]}, "1.4.2"),
        ({"steps": [{**STEP, "commands": [["{state}"], 7, "run"]}]}, None),
    ],
    ids=["none", "current", "named", "asked for by a command", "not a command"],
)
def test_release_to_compare_with_is_settled_when_the_run_begins(cloud: Cloud, request_: dict[str, Any], compared_with: str | None) -> None:
    record = assert_succeeded(cloud, cloud.run({**request_, "release": "pr-7"}))
    assert request_of(record).get("defer_to") == compared_with
    assert record["release"]["S"] == "pr-7"


def test_record_says_that_a_run_has_schemas_of_its_own(cloud: Cloud) -> None:
    record = assert_succeeded(cloud, cloud.run({**HOURLY, "defer_to": "current", "schema_suffix": "pr_7"}))
    assert (record["schema_suffix"]["S"], request_of(record)["schema_suffix"]) == ("pr_7", "pr_7")


@pytest.mark.parametrize("request_", [{"steps": [COMPARES]}, {"steps": [STEP], "defer_to": "current"}], ids=["a command", "the run"])
def test_runner_sees_that_there_is_no_release_to_compare_with(cloud: Cloud, request_: dict[str, Any]) -> None:
    cloud.promote(None)
    record = assert_succeeded(cloud, cloud.run({**request_, "release": "pr-7"}))
    assert request_of(record).get("defer_to") == request_.get("defer_to")


def test_step_that_may_fail_does_not_fail_the_run(cloud: Cloud) -> None:
    cloud.attempts["1"] = fails("Dbt.StaleSource", 14)
    record = assert_succeeded(cloud, cloud.run(HOURLY))
    assert steps(record) == [
        ("health_check", "SUCCEEDED", None),
        ("freshness", "FAILED", "Dbt.StaleSource"),
        ("build", "SUCCEEDED", None),
    ]


def test_run_without_health_check_starts_with_its_first_step(cloud: Cloud) -> None:
    cloud.put("CONFIG", config=json.dumps(config(health_check={"enabled": False, "compute": "fargate", "timeout_seconds": 60})))
    assert_succeeded(cloud, cloud.run(HOURLY))
    assert [started.environment["DBT_RUNNER_STEP"] for started in cloud.started] == ["1", "2"]


def test_request_may_name_the_release_where_none_is_current(cloud: Cloud) -> None:
    cloud.promote(None)
    record = assert_succeeded(cloud, cloud.run({**HOURLY, "release": "1.4.1"}))
    assert record["release"]["S"] == "1.4.1"


@pytest.mark.parametrize("left", [["CONFIG", "RELEASE#CURRENT"], ["CONFIG"], ["RELEASE#CURRENT"]])
def test_throttled_read_is_repeated(cloud: Cloud, left: list[str]) -> None:
    cloud.unprocessed = [left]
    execution = cloud.run(HOURLY)
    assert_succeeded(cloud, execution)
    assert execution.states.count("LoadEnvironment") == 2
    assert cloud.waits == [2]


def test_step_twelve_has_its_own_outcome(cloud: Cloud) -> None:
    """Places have two digits: the outcome of step 2 or 1 is not taken for that of step 12."""
    cloud.attempts["12"] = fails("Dbt.ModelError", 10)
    record = assert_failed(cloud, cloud.run({"steps": [{**STEP, "name": f"s{place}"} for place in range(1, 14)]}), "Dbt.ModelError")
    assert len(cloud.started) == 13
    assert steps(record)[-2:] == [("s11", "SUCCEEDED", None), ("s12", "FAILED", "Dbt.ModelError")]


# What containers do


@pytest.mark.parametrize("kind", [kind for kind in ERRORS.values() if kind.name != "Dbt.EnvironmentBusy"], ids=lambda kind: kind.name)
def test_typed_error_of_a_step_is_the_run_s(cloud: Cloud, kind: Any) -> None:
    cloud.attempts["2"] = fails(kind.name, kind.exit_code, "what happened")
    record = assert_failed(cloud, cloud.run(HOURLY), kind.name)
    assert record["cause"]["S"].startswith("build: ") and record["cause"]["S"].endswith("what happened")
    assert steps(record)[-1] == ("build", "FAILED", kind.name)


def test_nothing_runs_after_a_step_that_fails(cloud: Cloud) -> None:
    cloud.attempts["1"] = fails("Dbt.ModelError", 10)
    record = assert_failed(cloud, cloud.run({"steps": [STEP, {**STEP, "name": "after"}]}), "Dbt.ModelError")
    assert steps(record) == [("health_check", "SUCCEEDED", None), ("fix", "FAILED", "Dbt.ModelError")]
    assert len(cloud.started) == 2


def test_nothing_runs_after_a_health_check_that_fails(cloud: Cloud) -> None:
    cloud.attempts["0"] = fails("Dbt.WarehouseUnavailable", 20, "connection refused")
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.WarehouseUnavailable")
    assert record["cause"]["S"] == "health_check: connection refused"
    assert {started.place for started in cloud.started} == {0}


def test_outcome_is_believed_over_the_exit_of_the_task(cloud: Cloud) -> None:
    failed = fails("Dbt.Interrupted", 40, "SIGTERM while building")
    cloud.attempts["2"] = Attempt(failed.outcome, "States.TaskFailed", stopped(137, code="SpotInterruption"))
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.Interrupted")
    assert record["cause"]["S"] == "build: SIGTERM while building"


def test_long_messages_are_cut(cloud: Cloud) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10, "x" * 5000)
    assert_failed(cloud, cloud.run(HOURLY), "Dbt.ModelError")


OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
NO_OUTCOME = {
    # How the task ended: the error that follows, and what the cause must quote as evidence.
    "killed, and nothing says for what": (dies(stopped(137)), "Dbt.Interrupted", "137"),
    "killed by name of another reason": (
        dies(stopped(137, reason="Task failed container health checks", container_reason="no word of memory")),
        "Dbt.Interrupted",
        "health checks",
    ),
    "out of memory": (dies(stopped(137, container_reason=OUT_OF_MEMORY)), "Dbt.OutOfMemory", "137"),
    "out of memory without an exit code": (dies(stopped(None, container_reason=OUT_OF_MEMORY)), "Dbt.OutOfMemory", OUT_OF_MEMORY),
    "out of memory, said of the task": (dies(stopped(None, reason=OUT_OF_MEMORY)), "Dbt.OutOfMemory", OUT_OF_MEMORY),
    "spot, killed": (dies(stopped(137, code="SpotInterruption", reason="Your Spot Task was interrupted.")), "Dbt.Interrupted", "Spot"),
    "spot, before it started": (
        dies(stopped(None, code="SpotInterruption", reason="Your Spot Task was interrupted.")),
        "Dbt.Interrupted",
        "Spot",
    ),
    "stopped by somebody": (dies(stopped(143, code="UserInitiated", reason="stopped by hand")), "Dbt.Interrupted", "stopped by hand"),
    "stopped by somebody, killed": (
        dies(stopped(137, code="UserInitiated", reason="stopped by hand")),
        "Dbt.Interrupted",
        "stopped by hand",
    ),
    "SIGTERM": (dies(stopped(143)), "Dbt.Interrupted", "143"),
    "SIGINT": (dies(stopped(130)), "Dbt.Interrupted", "130"),
    "image cannot be pulled": (
        dies(stopped(None, code="TaskFailedToStart", reason="CannotPullContainerError: manifest unknown")),
        "Dbt.RunnerError",
        "CannotPullContainerError: manifest unknown",
    ),
    "crash": (dies(stopped(139)), "Dbt.RunnerError", "139"),
    "exit 0 without a word": (Attempt(None), "Dbt.RunnerError", "no outcome"),
    "cause that is no JSON": (dies("The task went away"), "Dbt.RunnerError", "The task went away"),
    "timeout": (Attempt(None, "States.Timeout"), "Dbt.Timeout", "did not end in its time"),
    "no capacity": (
        Attempt(None, "AmazonECS.Unknown", json.dumps({"Failures": [{"Arn": "arn", "Reason": "RESOURCE:MEMORY"}], "Tasks": []})),
        "Dbt.RunnerError",
        "RESOURCE:MEMORY",
    ),
    "refused": (
        Attempt(None, "ECS.AmazonECSException", "Capacity is unavailable at this time. Please try again later"),
        "Dbt.RunnerError",
        "ECS.AmazonECSException: Capacity is unavailable at this time.",
    ),
    "invalid": (
        Attempt(None, "ECS.InvalidParameterException", "TaskDefinition is inactive"),
        "Dbt.RunnerError",
        "ECS.InvalidParameterException: TaskDefinition is inactive",
    ),
    **{
        f"exit code {kind.exit_code}": (dies(stopped(kind.exit_code)), kind.name, f"exit code {kind.exit_code}")
        for kind in ERRORS.values()
        if kind.name != "Dbt.EnvironmentBusy"
    },
}


@pytest.mark.parametrize("how", NO_OUTCOME)
def test_task_without_outcome_is_judged_by_what_ecs_says(cloud: Cloud, how: str) -> None:
    attempt, error, evidence = NO_OUTCOME[how]
    cloud.attempts["2"] = attempt
    record = assert_failed(cloud, cloud.run(HOURLY), error)
    assert record["cause"]["S"].startswith("build: ") and evidence in record["cause"]["S"]
    assert steps(record)[-1] == ("build", "FAILED", error)


@pytest.mark.parametrize("how", ["killed, and nothing says for what", "image cannot be pulled", "timeout", "no capacity"])
def test_health_check_without_outcome_is_judged_alike(cloud: Cloud, how: str) -> None:
    attempt, error, evidence = NO_OUTCOME[how]
    cloud.attempts["0"] = attempt
    record = assert_failed(cloud, cloud.run(HOURLY), error)
    assert record["cause"]["S"].startswith("health_check: ") and evidence in record["cause"]["S"]


def test_step_that_may_fail_may_leave_no_outcome(cloud: Cloud) -> None:
    cloud.attempts["1"] = dies(stopped(137))
    assert steps(assert_succeeded(cloud, cloud.run(HOURLY)))[1] == ("freshness", "FAILED", "Dbt.Interrupted")


@pytest.mark.parametrize("attempt", [dies(stopped(137)), Attempt(None, "States.Timeout")], ids=["killed", "time over"])
def test_attempt_without_outcome_took_from_its_claim_to_its_end(cloud: Cloud, attempt: Attempt) -> None:
    """Its container has written no duration."""
    cloud.attempts["2"] = attempt
    cloud.configure(retry={"max_attempts": 1, "interval_seconds": 1, "backoff_rate": 1})
    cloud.before["ReadOutcome"] = lambda: cloud.passes(9)
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.Timeout" if attempt.goes_on else "Dbt.Interrupted")
    seconds = [step["seconds"] for step in json.loads(record["steps"]["S"])]
    assert seconds[:2] == [1.5, 1.5], "what the outcome says counts"
    # Two reads of the outcome; the one that goes on is waited for until it has stopped.
    assert seconds[2] >= 660 + 18 if attempt.goes_on else seconds[2] == 18


def test_attempt_that_never_claimed_took_no_time(cloud: Cloud) -> None:
    cloud.attempts["2"] = dies(stopped(None, code="TaskFailedToStart", reason="CannotPullContainerError: manifest unknown"))
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert json.loads(record["steps"]["S"])[-1]["seconds"] == 0


# What is refused


@dataclass(frozen=True)
class Refused:
    """An input that is no request.

    Attributes:
        given: the input.
        says: words of the rule's cause, the field first where the rule writes it itself.
        field: how the cause begins.
        by_schema: whether the schema of the input can know.
    """

    given: object
    says: str
    field: str
    by_schema: bool = True


def with_step(**changes: object) -> dict[str, Any]:
    return {"steps": [STEP, {**STEP, **changes}]}


CI = f"ci-{'0' * 32}"
REFUSED = {
    "list": Refused(["hourly"], "the input must be a JSON object", "the input"),
    "text": Refused("hourly", "the input must be a JSON object", "the input"),
    "null": Refused(None, "the input must be a JSON object", "the input"),
    "unknown field": Refused({**HOURLY, "jbo": "x"}, ": unknown field; known are ", "jbo: "),
    "empty": Refused({}, "give one of job, steps and resume", "job: "),
    "job and steps": Refused({**HOURLY, "steps": [STEP]}, "give one of job, steps and resume", "job: "),
    "job and resume": Refused({**HOURLY, "resume": "other"}, "give one of job, steps and resume", "job: "),
    "resume that is a number": Refused({"resume": 5}, "resume: must be the id of a run", "resume: "),
    "resume that is a path": Refused({"resume": "../other"}, "resume: must be the id of a run", "resume: "),
    "resume with vars": Refused({"resume": "other", "vars": {}}, "resume: takes the vars", "resume: "),
    "resume with a release": Refused({"resume": "other", "release": "1"}, "resume: takes the vars", "resume: "),
    "job that is a number": Refused({"job": 5}, "job: must be a string", "job: "),
    "job that is null": Refused({"job": None}, "job: must be a string", "job: "),
    "unknown job": Refused({"job": "daily"}, " has no job ", "job: ", by_schema=False),
    "release that is a number": Refused({**HOURLY, "release": 1.4}, "release: must be the version", "release: "),
    "release that is a path": Refused({**HOURLY, "release": "../1.4.2"}, "release: must be the version", "release: "),
    "release that is empty": Refused({**HOURLY, "release": ""}, "release: must be the version", "release: "),
    "vars that are a number": Refused({**HOURLY, "vars": 1}, "vars: must be a JSON object", "vars: "),
    "vars with a number of 17 digits": Refused(
        {**HOURLY, "vars": {"a": [12345678901234567]}}, "vars: a number has more than 15", "vars: ", by_schema=False
    ),
    "release with a line break": Refused({**HOURLY, "release": "1.4.2\n"}, "release: must be the version", "release: "),
    "release of a pull request": Refused({**HOURLY, "release": CI}, "is a pull request's tree", "release: ", by_schema=False),
    "defer_to a pull request": Refused({**HOURLY, "defer_to": CI}, "is a pull request's tree", "defer_to: ", by_schema=False),
    "vars that are a list": Refused({**HOURLY, "vars": []}, "vars: must be a JSON object", "vars: "),
    "full_refresh in words": Refused({**HOURLY, "full_refresh": "yes"}, "full_refresh: must be true or false", "full_refresh: "),
    "defer_to that is a number": Refused({**HOURLY, "defer_to": 1.4}, "defer_to: must be the version", "defer_to: "),
    "defer_to that is a path": Refused({**HOURLY, "defer_to": "../1.4.2"}, "defer_to: must be the version", "defer_to: "),
    "suffix with a dot": Refused({**HOURLY, "defer_to": "current", "schema_suffix": "a.b"}, "goes with defer_to", "schema_suffix: "),
    "suffix that is a number": Refused({**HOURLY, "defer_to": "current", "schema_suffix": 7}, "goes with defer_to", "schema_suffix: "),
    "suffix alone": Refused({**HOURLY, "schema_suffix": "pr_7"}, "goes with defer_to", "schema_suffix: ", by_schema=False),
    "resume with defer_to": Refused({"resume": "other", "defer_to": "current"}, "resume: takes the vars", "resume: "),
    "reason that is a list": Refused({**HOURLY, "reason": ["x"]}, "reason: must be a string", "reason: "),
    "trigger that is a number": Refused({**HOURLY, "trigger": 1}, "trigger: must be a string", "trigger: "),
    "no steps": Refused({"steps": []}, "steps: must be a list of 1 to 50", "steps: "),
    "too many steps": Refused({"steps": [STEP] * 51}, "steps: must be a list of 1 to 50", "steps: "),
    "steps that are an object": Refused({"steps": STEP}, "steps: must be a list of 1 to 50", "steps: "),
    "step that is text": Refused({"steps": ["run"]}, "each step must be an object with a name", "steps: "),
    "step without a name": Refused({"steps": [STEP, {"commands": ["run"]}]}, "each step must be an object with a name", "steps: "),
    "step without commands": Refused({"steps": [STEP, {"name": "fix"}]}, "each step must be an object with a name", "steps: "),
    "step with a number for a name": Refused(with_step(name=1), "each step must be an object with a name", "steps: "),
    "commands that are text": Refused(with_step(commands="run"), "each step must be an object with a name", "steps: "),
    "unknown field of a step": Refused(with_step(retries=3), "unknown field in a step; known are ", "steps: "),
    "name with a space": Refused(with_step(name="a b"), "the name of a step is 1 to 40", "steps: "),
    "name that is too long": Refused(with_step(name="a" * 41), "the name of a step is 1 to 40", "steps: "),
    "name that is empty": Refused(with_step(name=""), "the name of a step is 1 to 40", "steps: "),
    "timeout in words": Refused(with_step(timeout_seconds="1h"), "timeout_seconds must be ", "steps: "),
    "timeout of zero": Refused(with_step(timeout_seconds=0), "timeout_seconds must be ", "steps: "),
    "timeout with a fraction": Refused(with_step(timeout_seconds=1.5), "timeout_seconds must be ", "steps: "),
    "timeout above the run's": Refused(with_step(timeout_seconds=14401), "timeout_seconds must be ", "steps: ", by_schema=False),
    "compute that is unknown": Refused(with_step(compute="ec2"), "compute must be fargate or lambda", "steps: "),
    "on_timeout that is unknown": Refused(with_step(on_timeout="lambda"), "on_timeout must be fail or fargate", "steps: "),
    "on_failure that is unknown": Refused(with_step(on_failure="ignore"), "on_failure must be fail or continue", "steps: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_request_is_recorded_and_starts_nothing(cloud: Cloud, case: str) -> None:
    refused = REFUSED[case]
    execution = cloud.run(refused.given)
    record = assert_failed(cloud, execution, "Dbt.InvalidRequest")
    assert record["cause"]["S"].startswith(refused.field)
    assert refused.says in record["cause"]["S"]
    assert cloud.started == []
    assert "AcquireLock" not in execution.states


def test_every_rule_of_check_request_is_tried() -> None:
    rules = render.load("dbt_run.asl.json")["States"]["CheckRequest"]["Choices"]
    causes = [rule["Assign"]["cause"] for rule in rules if rule["Next"] == "RecordFailure"]
    # The rules of `requests` are tried in tests/security/test_callers.py.
    elsewhere = ["has no CONFIG item", "has no function", "has no current release", "(requests.", "the release pointer"]
    untried = [cause for cause in causes if not any(says in cause for says in [*elsewhere, *(case.says for case in REFUSED.values())])]
    assert untried == []


@pytest.mark.parametrize("case", [case for case, refused in REFUSED.items() if refused.by_schema])
def test_schema_of_the_input_refuses_the_same(case: str) -> None:
    schema = json.loads((Path(__file__).parents[2] / "runner/src/dbt_runner/request.schema.json").read_text(encoding="utf-8"))
    assert not jsonschema.Draft202012Validator(schema).is_valid(REFUSED[case].given)


def test_what_invalid_text_fields_say_is_kept_for_the_audit(cloud: Cloud) -> None:
    record = assert_failed(cloud, cloud.run({"job": ["x"], "reason": {"a": 1}, "trigger": "y" * 900}), "Dbt.InvalidRequest")
    assert (record["job"]["S"], record["reason"]["S"], record["trigger"]["S"]) == ('["x"]', '{"a":1}', "y" * 500)


def test_environment_without_release_says_how_to_publish_one(cloud: Cloud) -> None:
    cloud.promote(None)
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.ReleaseNotFound")
    assert "dbt-runner release publish" in record["cause"]["S"]
    assert cloud.started == []


def test_environment_without_config_says_how_to_make_one(cloud: Cloud) -> None:
    cloud.delete("CONFIG")
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert "has no CONFIG item" in record["cause"]["S"] and "terraform apply" in record["cause"]["S"]


def test_config_that_is_no_json_fails_the_run(cloud: Cloud) -> None:
    cloud.put("CONFIG", config="{")
    record = assert_failed(cloud, cloud.run(HOURLY), "Dbt.RunnerError")
    assert "the environment could not be read" in record["cause"]["S"]


# What could not be read or written


@pytest.mark.parametrize("lost", [False, True], ids=["not performed", "answer lost"])
@pytest.mark.parametrize("state", ["LoadEnvironment", "AcquireLock", "RecordStart", "ReadOutcome", "RecordSuccess", "ReleaseLock"])
def test_passing_fault_of_the_table_changes_nothing(cloud: Cloud, state: str, lost: bool) -> None:
    prefix = "DynamoDb" if state == "LoadEnvironment" else "DynamoDB"
    faults = {state: Fault(f"{prefix}.SdkClientException", "connection reset", times=2, performed=lost)}
    assert_succeeded(cloud, cloud.run(HOURLY, faults))


@pytest.mark.parametrize("lost", [False, True], ids=["not performed", "answer lost"])
@pytest.mark.parametrize("state", ["RecordFailure", "ReleaseLock"])
def test_passing_fault_at_the_end_of_a_failure_changes_nothing(cloud: Cloud, state: str, lost: bool) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    faults = {state: Fault("States.Timeout", "", times=1, performed=lost)}
    assert_failed(cloud, cloud.run(HOURLY, faults), "Dbt.ModelError")


def test_skipped_run_is_skipped_once(cloud: Cloud) -> None:
    cloud.hold_lock()
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"
    faults = {"RecordSkipped": Fault("DynamoDB.SdkClientException", "connection reset", times=1, performed=True)}
    assert_skipped(cloud, cloud.run(HOURLY, faults))


def test_environment_that_cannot_be_read_fails_the_run(cloud: Cloud) -> None:
    faults = {"LoadEnvironment": Fault("DynamoDb.ThrottlingException", "Rate exceeded")}
    execution = cloud.run(HOURLY, faults)
    record = assert_failed(cloud, execution, "Dbt.RunnerError")
    assert record["cause"]["S"] == "the environment could not be read: DynamoDb.ThrottlingException: Rate exceeded"
    assert [call.state for call in execution.calls].count("LoadEnvironment") == 7


def test_run_whose_start_cannot_be_recorded_starts_nothing(cloud: Cloud) -> None:
    record = assert_failed(cloud, cloud.run(HOURLY, {"RecordStart": DENIED}), "Dbt.RunnerError")
    assert "the start could not be recorded" in record["cause"]["S"]
    assert cloud.started == []


def test_outcome_that_cannot_be_read_fails_the_run(cloud: Cloud) -> None:
    """Its container may be at work: the lock is finalize's to free, after it has looked."""
    record = assert_failed(cloud, cloud.run(HOURLY, {"ReadOutcome": DENIED}), "Dbt.RunnerError", released=False)
    assert "the outcome of step health_check could not be read" in record["cause"]["S"]


def test_run_whose_success_cannot_be_recorded_fails(cloud: Cloud) -> None:
    record = assert_failed(cloud, cloud.run(HOURLY, {"RecordSuccess": DENIED}), "Dbt.RunnerError")
    assert "all steps succeeded, but the end could not be recorded" in record["cause"]["S"]
    assert [status for _, status, _ in steps(record)] == ["SUCCEEDED"] * 3


def test_run_whose_failure_cannot_be_recorded_is_closed_by_finalize(cloud: Cloud) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    record = assert_left_to_finalize(cloud, cloud.run(HOURLY, {"RecordFailure": DENIED}), "Dbt.ModelError")
    assert "build: what happened" in record["cause"]["S"]
    assert record["job"]["S"] == "hourly"


def test_refused_run_that_cannot_be_recorded_is_closed_by_finalize(cloud: Cloud) -> None:
    """There is no open record then: finalize writes one."""
    assert_left_to_finalize(cloud, cloud.run({"job": "daily"}, {"RecordFailure": DENIED}), "Dbt.InvalidRequest")


def test_lock_that_cannot_be_released_does_not_fail_the_run(cloud: Cloud) -> None:
    assert_succeeded(cloud, cloud.run(HOURLY, {"ReleaseLock": DENIED}), released=False)


def test_lock_that_a_failure_cannot_release_is_released_by_finalize(cloud: Cloud) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    assert_failed(cloud, cloud.run(HOURLY, {"ReleaseLock": DENIED}), "Dbt.ModelError", released=False)


@pytest.mark.parametrize("error", ["Sfn.StateMachineDoesNotExistException", "Sfn.ExecutionLimitExceededException", "States.Timeout"])
def test_run_that_cannot_be_announced_keeps_its_typed_error_and_finalize_announces_it(cloud: Cloud, error: str) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    assert_failed(cloud, cloud.run(HOURLY, {"Announce": Fault(error)}), "Dbt.ModelError", announced=False)


def test_run_is_announced_when_it_has_ended(cloud: Cloud) -> None:
    seen: list[Item] = []
    cloud.before["Announce"] = lambda: seen.extend(cloud.records())
    assert_succeeded(cloud, cloud.run(HOURLY))
    assert [record["status"]["S"] for record in seen] == ["SUCCEEDED"]
    assert cloud.lock() is None


# Every Task


def _reach(cloud: Cloud, state: str) -> dict[str, str]:
    """Prepares a run that comes to a state; returns its input."""
    if state in ("DescribeResumed", "ReadResumed"):
        resumable.leave(cloud)
        return {"resume": OTHER_RUN}
    if state in ("ReadLock", "DescribeHolder", "RecordSkipped", "TakeOverLock"):
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "ABORTED" if state == "TakeOverLock" else "RUNNING"
    if state in ("RecordFailure", "Announce"):
        cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    if state in ("CloseClaim", "StopTask", "DescribeTask"):
        cloud.attempts["2"] = Attempt(None, "States.Timeout")
    if state == "InvokeFunction":
        cloud.configure(health_check={"enabled": True, "compute": "lambda", "timeout_seconds": 60})
    return HOURLY


TASKS = {name: state for name, state in render.load("dbt_run.asl.json")["States"].items() if state["Type"] == "Task"}
KINDS = ("first that is retried", "Unheard.Of")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", TASKS)
def test_task_that_fails_for_good_fails_the_run_with_its_error(cloud: Cloud, state: str, kind: str) -> None:
    """Which error that is; that no error of any Task leaves a run open or untold is explored in test_explore."""
    error = (
        TASKS[state]["Retry"][0]["ErrorEquals"][0] if kind == KINDS[0] and "Retry" in TASKS[state] else kind.replace(KINDS[0], "Unheard.Of")
    )
    execution = cloud.run(_reach(cloud, state), {state: Fault(error)})
    assert state in execution.states
    if state == "RecordFailure":
        assert_left_to_finalize(cloud, execution, "Dbt.ModelError")
    elif state == "ReleaseLock":
        assert_succeeded(cloud, execution, released=False)
    elif state == "Announce":
        assert_failed(cloud, execution, "Dbt.ModelError", announced=False)
    elif state in ("CloseClaim", "StopTask", "DescribeTask"):
        assert_failed(cloud, execution, "Dbt.Timeout", released=False)
    elif state == "ReadOutcome":
        assert_failed(cloud, execution, "Dbt.RunnerError", released=False)
    else:
        assert_failed(cloud, execution, "Dbt.RunnerError")
