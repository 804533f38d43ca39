"""What `--version auto` makes of a checkout: the tag, else the commit, and nothing of what is not committed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt_runner import checkout
from dbt_runner.errors import INVALID_REQUEST
from runner.releases import refused, write

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """A repository in tmp_path/repo with one commit, which holds a project and a package beside it."""
    # Started by a git hook, these tests must not touch the repository of the hook.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    write(tmp_path / "repo", {"shop/dbt_project.yml": "name: shop", "shared/dbt_project.yml": "name: shared", ".gitignore": "target/"})

    def run(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", *arguments]
        return subprocess.run(command, cwd=tmp_path / "repo", check=True, capture_output=True, text=True).stdout.strip()

    for arguments in (("init", "-q", "-b", "trunk"), ("add", "."), ("commit", "-q", "-m", "all")):
        run(*arguments)
    return run


def auto(repo: Path) -> str:
    return checkout.version_of(repo / "shop", checkout.read(repo / "shop", [repo / "shared"]))


@pytest.mark.parametrize(
    ("tags", "version"),
    [
        (["v1.4.2"], "1.4.2"),
        (["1.4.2"], "1.4.2"),
        (["1.9.0", "v1.10.0", "nightly"], "1.10.0"),
        (["1.0.0-rc1", "1.0.0"], "1.0.0"),
        (["v1.0.0-rc.2"], "1.0.0-rc.2"),
        # None of them is a version: the commit it is.
        (["nightly", "v1", "1.2", "01.2.3", "release-1.2.3", "1.2.3+build"], None),
        ([], None),
    ],
)
def test_the_version_is_the_highest_semantic_tag_or_the_commit(tmp_path: Path, git: Git, tags: list[str], version: str | None) -> None:
    for tag in tags:
        git("tag", tag)
    assert auto(tmp_path / "repo") == (version or git("rev-parse", "HEAD")[:12])


def test_a_tag_of_another_commit_does_not_count(tmp_path: Path, git: Git) -> None:
    git("tag", "v1.0.0")
    git("commit", "-q", "--allow-empty", "-m", "next")
    assert auto(tmp_path / "repo") == git("rev-parse", "HEAD")[:12]


@pytest.mark.parametrize("name", ["shop/dbt_project.yml", "shop/models/new.sql", "shared/dbt_project.yml", "shared/new.sql"])
def test_what_is_not_committed_has_no_version(tmp_path: Path, git: Git, name: str) -> None:
    git("tag", "v1.0.0")
    write(tmp_path / "repo", {name: "changed"})
    assert "not committed" in refused(INVALID_REQUEST, lambda: auto(tmp_path / "repo"))


def test_changes_beside_the_project_and_what_git_ignores_do_not_count(tmp_path: Path, git: Git) -> None:
    git("tag", "v1.0.0")
    write(tmp_path / "repo", {"docs/notes.md": "", "shop/target/manifest.json": "{}"})
    assert auto(tmp_path / "repo") == "1.0.0"


def test_a_package_that_no_commit_holds_makes_the_project_dirty(tmp_path: Path, git: Git) -> None:
    outside = write(tmp_path / "elsewhere", {"dbt_project.yml": "name: elsewhere"})
    assert checkout.read(tmp_path / "repo" / "shop", [outside]).dirty is True
    assert checkout.read(tmp_path / "repo" / "shop").dirty is False


def test_without_a_commit_there_is_no_version(tmp_path: Path) -> None:
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop"})
    assert checkout.read(project) == checkout.Git()
    assert "not in a git checkout" in refused(INVALID_REQUEST, lambda: checkout.version_of(project, checkout.Git()))
