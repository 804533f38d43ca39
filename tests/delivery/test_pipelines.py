"""The pipelines that users take from the examples call commands that exist, in the order that they promise, and without a stored key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.test_docs import is_ours, problem_with, shell_commands

EXAMPLES = Path(__file__).parents[2] / "examples"
GITHUB = EXAMPLES / "github_actions" / "workflows"
GITLAB = EXAMPLES / "gitlab" / ".gitlab-ci.yml"


def scripts(node: Any) -> Iterator[str]:
    """The shell lines of a pipeline."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script", "before_script"):
                yield from (line for text in ([value] if isinstance(value, str) else value) for line in text.splitlines())
            else:
                yield from scripts(value)
    elif isinstance(node, list):
        for value in node:
            yield from scripts(value)


@pytest.mark.parametrize("pipeline", [*sorted(GITHUB.glob("dbt-*.yml")), GITLAB], ids=lambda path: path.name)
def test_its_commands_exist(pipeline: Path) -> None:
    lines = [line for line in scripts(yaml.safe_load(pipeline.read_text())) if "dbt-runner" in line]
    commands = [words for line in lines for words in shell_commands(line) if is_ours(words)]
    assert [problem for words in commands if (problem := problem_with(words))] == []
    assert len(commands) == {"dbt-deploy.yml": 3, "dbt-pull-request.yml": 2, "dbt-release.yml": 0, GITLAB.name: 6}[pipeline.name]


def test_prod_gets_what_staging_got_and_pull_requests_are_compared_with_that() -> None:
    jobs = yaml.safe_load((GITHUB / "dbt-release.yml").read_text())["jobs"]
    assert {
        name: (job.get("needs"), job["with"]["environment"], job["with"].get("also"), job["with"].get("publish", False))
        for name, job in jobs.items()
    } == {
        "staging": (None, "staging", None, True),
        "prod": ("staging", "prod", "ci", False),
    }
    deploy = yaml.safe_load((GITHUB / "dbt-deploy.yml").read_text())["jobs"]["deploy"]
    assert deploy["environment"] == "${{ inputs.environment }}"
    pipeline = yaml.safe_load(GITLAB.read_text())
    assert [pipeline[name]["stage"] for name in ("staging", "prod")] == pipeline["stages"][1:]
    assert pipeline["prod"]["rules"] == [{"if": "$CI_COMMIT_TAG =~ /^v/", "when": "manual", "allow_failure": False}]


def test_gitlab_jobs_get_their_role_by_their_own_token() -> None:
    pipeline = yaml.safe_load(GITLAB.read_text())
    jobs = {name: job for name, job in pipeline.items() if isinstance(job, dict) and "script" in job}
    assert {job["extends"] for job in jobs.values()} == {".dbt"} and len(jobs) == 4
    assert pipeline[".dbt"]["id_tokens"] == {"AWS_TOKEN": {"aud": "https://gitlab.com"}}
    assert not re.search(r"(?i)aws[-_](access[-_]key|secret|session[-_]token)", GITLAB.read_text())
