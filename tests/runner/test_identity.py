"""Who the worker is not: it has no variable of the control role, and cannot look them up in the supervisor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dbt_runner.identity import worker_environment

# --- the worker's environment --------------------------------------------------------------------------------------------


def test_the_worker_sees_nothing_of_the_control_role(tmp_path: Path) -> None:
    control = {
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "x",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "x",
        "AWS_PROFILE": "x",
        "AWS_ROLE_ARN": "x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "x",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "_HANDLER": "x",
        "_X_AMZN_TRACE_ID": "x",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
        "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x",
        "ECS_AGENT_URI": "x",
        "DBT_RUNNER_TABLE": "x",
        "DBT_RUNNER_RUN_KEY": "x",
        "DBT_RUNNER_SECRETS": "{}",
    }
    own = {**control, "PATH": "/bin", "DBT_ENV_SECRET_TOKEN": "y", "TEAM_SETTING": "z", "HOME": "/root"}
    found = worker_environment(own, tmp_path)
    assert not control.keys() & found.keys()
    assert found["AWS_EC2_METADATA_DISABLED"] == "true", "nor is the machine's own role anybody's here"
    assert {name: found[name] for name in ("PATH", "DBT_ENV_SECRET_TOKEN", "TEAM_SETTING")} == {
        "PATH": "/bin",
        "DBT_ENV_SECRET_TOKEN": "y",
        "TEAM_SETTING": "z",
    }
    assert found["HOME"] == str(tmp_path), "no ~/.aws and no ~/.dbt of the image, and a folder that can be written"
    assert own["HOME"] == "/root"


def test_the_worker_keeps_what_says_where_aws_is(tmp_path: Path) -> None:
    where = {
        "AWS_REGION": "eu-central-1",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_ENDPOINT_URL_STS": "https://sts.example.org",
    }
    assert where.items() <= worker_environment(where, tmp_path).items()


def test_a_proxy_is_not_asked_for_the_brokers_address(tmp_path: Path) -> None:
    assert "NO_PROXY" not in worker_environment({}, tmp_path)
    found = worker_environment({"https_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, tmp_path)
    assert (found["NO_PROXY"], found["no_proxy"]) == ("example.org,127.0.0.1", "127.0.0.1")


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
@pytest.mark.parametrize(("hides", "readable"), [(False, True), (True, False)])
def test_a_process_that_hides_cannot_be_looked_into_by_its_user(hides: bool, readable: bool) -> None:
    """Nothing can be hidden from root, so root's child becomes nobody first, as the container's is user 10001."""
    ask = """
for name in environ cwd/. fd/0; do if (: < /proc/$PPID/$name) 2>/dev/null; then echo open; else echo closed; fi; done
grep NoNewPrivs /proc/self/status
"""
    code = f"""
import ctypes, os, subprocess
from dbt_runner.identity import hide
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    # Changing the user closes a process, too. One that begins as its user is open, and so is this one from here on.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
if {hides}: hide()
subprocess.run(["/bin/sh", "-c", {ask!r}], check=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    # Nor can what it starts gain more rights than its user's, by a set-user-ID program of the image.
    assert done.stdout.split() == [*["open" if readable else "closed"] * 3, "NoNewPrivs:", str(int(hides))]
