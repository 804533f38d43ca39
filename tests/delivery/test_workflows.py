"""The workflows of this repository, and those that users take from the examples, hold no known hole and no reference that can move."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ZIZMOR = Path(sysconfig.get_path("scripts")) / "zizmor"
WORKFLOWS = sorted([*ROOT.glob(".github/workflows/*.y*ml"), *ROOT.glob("examples/*/workflows/*.y*ml")])

# Another repository's code: owner/repository[/path]@commit, and which version that is, for people and for tools that update it.
PINNED = re.compile(r"(?P<action>[\w.-]+/[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)")


def name_of(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else str(path)


def findings(workflow: Path) -> list[tuple[str, str]]:
    """What zizmor has against a workflow, as audit and description, without asking anybody.

    Raises:
        AssertionError: with zizmor's own words, when it does not take the file for a workflow.
    """
    # An audit that finds something ends with a code from 11 on. https://docs.zizmor.sh/usage/#exit-codes
    command = [str(ZIZMOR), "--offline", "--no-config", "--strict-collection", "--format", "json", str(workflow)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or done.returncode > 10, done.stderr
    return [(finding["ident"], finding["desc"]) for finding in json.loads(done.stdout)]


def uses(workflow: Path) -> list[str]:
    """What each `uses:` of a workflow names, with the comment behind it."""
    return [found.strip() for found in re.findall(r"^\s*(?:- )?uses:\s*(.+)$", workflow.read_text(), re.MULTILINE)]


def ours(reference: str) -> bool:
    # $/ is this repository at this commit; ./ would be whatever the job has checked out by then.
    return reference.startswith("$/")


def jobs(workflow: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from yaml.safe_load(workflow.read_text())["jobs"].items()


def test_the_workflows_are_found() -> None:
    assert ".github/workflows/ci.yml" in {name_of(workflow) for workflow in WORKFLOWS}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_zizmor_finds_nothing(workflow: Path) -> None:
    assert findings(workflow) == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_an_action_is_named_by_its_commit_and_its_version(workflow: Path) -> None:
    assert [reference for reference in uses(workflow) if not ours(reference) and not PINNED.fullmatch(reference)] == []


def test_an_action_has_one_version_in_all_workflows() -> None:
    versions: defaultdict[str, set[str]] = defaultdict(set)
    for workflow in WORKFLOWS:
        for reference in uses(workflow):
            if found := PINNED.fullmatch(reference):
                versions[found["action"]].add(f"{found['commit']} {found['version']}")
    assert {action: found for action, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_a_job_has_the_permissions_that_it_names_and_ends_in_time(workflow: Path) -> None:
    everywhere = yaml.safe_load(workflow.read_text()).get("permissions")
    for name, job in jobs(workflow):
        assert everywhere is not None or "permissions" in job, f"{name} would get what the repository gives by default"
        # A call of another workflow takes its time from there.
        assert "uses" in job or "timeout-minutes" in job, f"{name} may run for six hours"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_no_key_of_aws_is_stored(workflow: Path) -> None:
    """Roles are assumed with the job's own token."""
    assert not re.search(r"(?i)aws[-_](access[-_]key|secret|session[-_]token)", workflow.read_text())


# The controls


def test_a_bad_workflow_is_found(tmp_path: Path) -> None:
    workflow = tmp_path / "bad.yml"
    workflow.write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v5\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )
    assert {"dangerous-triggers", "template-injection", "unpinned-uses", "artipacked"} <= {ident for ident, _ in findings(workflow)}
    assert uses(workflow) == ["actions/checkout@v5"]
    with pytest.raises(AssertionError, match="a would get"):
        test_a_job_has_the_permissions_that_it_names_and_ends_in_time(workflow)


def test_a_file_that_is_no_workflow_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.yml").write_text("jobs: [\n")
    with pytest.raises(AssertionError, match="failed to load"):
        findings(tmp_path / "broken.yml")
