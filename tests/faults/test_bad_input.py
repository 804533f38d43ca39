"""Bad input from the caller to the container: the real definition, and where it lets a request pass, the container's real entry point.

Each request ends as Dbt.InvalidRequest with a message that names its field, and no process is started for it.
"""

from __future__ import annotations

import json
import subprocess
from functools import cache
from typing import Any

import boto3
import pytest
from moto import mock_aws

from asl.fakes import REGION, RUN_ID, TABLE, Cloud, make_cloud
from dbt_runner.attempt import from_container
from dbt_runner.errors import INVALID_REQUEST
from dbt_runner.store import CLAIM, Store, run_pk

HUGE = 300 * 1024


def step(command: Any, **more: Any) -> dict[str, Any]:
    return {"steps": [{"name": "fine", "commands": ["build"]}, {"name": "bad", "commands": [command], **more}]}


# What is asked, the field that the message names, and whether the state machine refuses it by itself.
BAD: list[tuple[str, Any, str, bool]] = [
    ("no object", ["build"], "input", True),
    ("a text", "{'job': 'hourly'", "input", True),
    ("nothing", {}, "job", True),
    ("null", None, "input", True),
    ("an unknown field", {"job": "hourly", "shell": "rm -rf /"}, "shell", True),
    ("an unknown field of a step", step("build", user="root"), "steps", True),
    ("a job of a wrong type", {"job": ["hourly"]}, "job", True),
    ("an unknown job", {"job": "nightly"}, "job", True),
    ("steps of a wrong type", {"steps": "build"}, "steps", True),
    ("a command of a wrong type", step({"run": "build"}), "steps[1].commands[0]", False),
    ("vars of a wrong type", {"job": "hourly", "vars": ["a"]}, "vars", True),
    ("vars with a number that would be rounded", {"job": "hourly", "vars": {"a": 12345678901234567890}}, "vars", True),
    ("vars that are no JSON", {"job": "hourly", "vars": "{a: 1}"}, "vars", False),
    ("vars with what JSON does not know", {"job": "hourly", "vars": '{"a": NaN}'}, "vars", False),
    ("vars of 300 KB", {"job": "hourly", "vars": {"a": "x" * HUGE}}, "vars", False),
    ("a selector of 10,000 characters", step("build --select " + "x" * 10_000), "steps[1].commands[0]", False),
    ("10,000 characters of several selectors", step("build " + "--select a " * 910), "steps[1].commands[0]", False),
    *(
        (f"no dbt command: {text}", step(text), "steps[1].commands[0]", False)
        for text in ("rm -rf /", "bash -c id", "dbt", "deps", "docs serve")
    ),
    *(
        (f"of a shell: {text}", step(text), "steps[1].commands[0]", False)
        for text in (
            "$(touch /tmp/x) build",
            "; build",
            "`id`",
            "build; rm -rf --profiles-dir /",
            "| build",
            "build\nrm -rf /",
            "> /etc/passwd",
        )
    ),
    *(
        (f"out of the project: {text}", step(f"build {text}"), "steps[1].commands[0]", False)
        for text in (
            "--profiles-dir /tmp",
            "--profiles-dir=/tmp",
            "'--profiles-dir' /tmp",
            "--project-dir ../../etc",
            "--project-dir=../../etc",
            '"--project-dir=/"',
            "--target-path /",
            "--log-path=/",
            "--state s3://elsewhere",
            "--vars '{a: 1}'",
            "-tprod",
            "-xtprod",
            "--target=prod",
            "--profile other",
        )
    ),
    ("a NUL byte", step("build --select a\x00b"), "steps[1].commands[0]", False),
    ("a NUL byte in a name", {"steps": [{"name": "a\x00", "commands": ["build"]}]}, "steps", True),
    ("a NUL byte in the release", {"job": "hourly", "release": "1.4.2\x00"}, "release", True),
    ("a release that is a path", {"job": "hourly", "release": "../../secrets"}, "release", True),
]


@cache
def _session(region_name: str = REGION) -> boto3.Session:
    return boto3.session.Session(region_name=region_name)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))


@pytest.fixture
def entry_point(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of a container, and AWS's for its clients."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr("dbt_runner.identity.hide", lambda: None)
    # Reading AWS's service models anew takes longer than all else here.
    monkeypatch.setattr(boto3, "Session", _session)
    return {"DBT_RUNNER_TABLE": TABLE, "DBT_RUNNER_BUCKET": "analytics-audit", "DBT_RUNNER_ENVIRONMENT": "prod"}


def unclaim(cloud: Cloud) -> None:
    """Takes the claim of the last container away."""
    cloud.dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": run_pk("prod", RUN_ID)}, "sk": {"S": CLAIM}})


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize(("document", "field", "by_machine"), [pytest.param(*case, id=name) for name, *case in BAD])
def test_bad_input_executes_nothing(entry_point: dict[str, str], document: Any, field: str, by_machine: bool) -> None:
    with mock_aws():
        cloud = make_cloud()
        execution = cloud.run(document)
        if by_machine:
            assert execution.error == "Dbt.InvalidRequest"
            assert execution.cause and field in execution.cause
            assert cloud.started == [], "no container either"
            return
        # The first container is the health check's: no later one is started when it refuses.
        started = cloud.started[0]
        assert (started.place, started.command) == (0, ["check"])
        # The fake container called it good. The real one takes its place, as if it were a further attempt and no step had begun.
        unclaim(cloud)
        environment = {**entry_point, **started.environment, "DBT_RUNNER_ATTEMPT": "2"}
        assert from_container(environment) == INVALID_REQUEST.exit_code
        outcome = Store(cloud.dynamodb, None, TABLE, None).get(run_pk("prod", RUN_ID), "STEP#00#health_check#2")  # type: ignore[arg-type]
        assert outcome is not None and outcome["error"] == "Dbt.InvalidRequest"
        assert outcome["message"].startswith(f"{field}: ") and len(json.dumps(outcome["message"])) < 1000
        assert not list(Store(cloud.dynamodb, None, TABLE, None).query(run_pk("prod", RUN_ID), "NODE#"))  # type: ignore[arg-type]


def test_what_is_right_gets_past_all_that(entry_point: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would pass for the wrong reason."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with mock_aws():
        cloud = make_cloud()
        assert cloud.run(step("build --select 'a; rm -rf' $(id)")).error is None
        unclaim(cloud)
        environment = {**entry_point, **cloud.started[0].environment, "DBT_RUNNER_ATTEMPT": "2"}
        assert from_container(environment) != INVALID_REQUEST.exit_code
