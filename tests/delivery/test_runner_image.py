"""The steps of the workflow that delivers the image, run with an AWS CLI and a docker that say what they are told to."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "examples" / "github_actions" / "workflows" / "runner-image.yml"
REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/data/dbt-runner"
DIGEST = f"sha256:{'0f' * 32}"
TAG = "0.1.0-0123456789ab-arm64"

AWS = """#!/bin/bash
echo "aws $*" >> calls
case "$1 $2" in
  "ecr get-login-password") echo password ;;
  "ecr describe-images")
    if [ -e pushed ]; then cat pushed; else echo "An error occurred (${AWS_ERROR:-ImageNotFoundException})" >&2; exit 254; fi ;;
esac
"""
DOCKER = """#!/bin/bash
echo "docker $*" >> calls
case "$1" in
  inspect) echo 0.1.0 ;;
  login) cat > /dev/null ;;
  push) [ -z "${PUSH_FAILS:-}" ] || exit 1; echo "$DIGEST" > pushed ;;
esac
"""


@pytest.fixture(scope="module")
def jobs() -> Any:
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


def script(jobs: Any, job: str, name: str) -> str:
    (step,) = [step for step in jobs[job]["steps"] if step.get("name") == name]
    # An expression in a script would be filled in before the shell sees it; variables are not.
    assert "${{" not in step["run"]
    return str(step["run"])


class Job:
    """A folder with the two commands, in which steps run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("aws", AWS), ("docker", DOCKER)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def run(self, text: str, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": "outputs",
            "GITHUB_STEP_SUMMARY": "summary",
            "GITHUB_SHA": "0123456789abcdef0123456789abcdef01234567",
            "REPOSITORY": REPOSITORY,
            "ARCHITECTURE": "ARM64",
            "DIGEST": DIGEST,
            **variables,
        }
        return subprocess.run(["bash", "-e", "-c", text], cwd=self.folder, env=env, capture_output=True, text=True, check=False)

    def read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def test_what_was_pushed_is_named_by_its_digest(jobs: Any, job: Job) -> None:
    done = job.run(script(jobs, "push", "Push, unless this commit is there already"))
    assert done.returncode == 0, done.stderr
    assert f"docker push {REPOSITORY}:{TAG}" in job.read("calls")
    assert job.read("outputs") == f"image={REPOSITORY}@{DIGEST}\n"
    image = json.loads(job.read("runner-image.auto.tfvars.json"))["image"]
    # What the module's variable accepts.
    accepted = re.search(r'can\(regex\("(\^\[\^\\\\s@\].+?)", var\.image\)\)', (ROOT / "variables.tf").read_text())
    assert accepted and re.search(accepted[1].replace("\\\\", "\\"), image)


def test_a_commit_that_is_there_is_not_pushed_again(jobs: Any, job: Job) -> None:
    (job.folder / "pushed").write_text(DIGEST)
    assert job.run(script(jobs, "push", "Push, unless this commit is there already")).returncode == 0
    assert "docker push" not in job.read("calls")
    assert job.read("outputs") == f"image={REPOSITORY}@{DIGEST}\n"


@pytest.mark.parametrize("variables", [{"AWS_ERROR": "AccessDeniedException"}, {"PUSH_FAILS": "1"}, {"DIGEST": "None"}], ids=str)
def test_a_failure_names_no_image(jobs: Any, job: Job, variables: dict[str, str]) -> None:
    done = job.run(script(jobs, "push", "Push, unless this commit is there already"), **variables)
    assert done.returncode != 0
    assert not job.read("outputs") and not job.read("runner-image.auto.tfvars.json")


@pytest.mark.parametrize(
    ("repository", "region"),
    [
        (REPOSITORY, "eu-central-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/x", "cn-north-1"),
        ("ghcr.io/acme/x", None),
        ("", None),
    ],
)
def test_the_region_is_the_repositorys(jobs: Any, job: Job, repository: str, region: str | None) -> None:
    done = job.run(script(jobs, "push", "Which region"), REPOSITORY=repository)
    assert (done.returncode == 0) == (region is not None)
    assert job.read("outputs") == (f"region={region}\n" if region else "")


def test_what_can_push_runs_nothing_of_the_build(jobs: Any) -> None:
    """Packages, tests and the checkout are of the one job; the token is of the other."""
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert jobs["push"]["permissions"] == {"id-token": "write"}
    used = [step.get("uses", "").split("@")[0] for step in jobs["push"]["steps"]]
    assert "actions/checkout" not in used
    assert not [step for step in jobs["push"]["steps"] if re.search(r"docker run|python|make |pip ", step.get("run", ""))]


def test_the_build_calls_what_is_there(jobs: Any) -> None:
    commands = [step["run"].split() for step in jobs["build"]["steps"] if "build_image.py" in step.get("run", "")]
    assert [command[2] for command in commands] == ["build", "check", "sbom"]
    known = subprocess.run(
        ["python3", str(ROOT / "runner" / "build_image.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {word for command in commands for word in command if word.startswith("--")} <= set(re.findall(r"--[a-z-]+", known))
