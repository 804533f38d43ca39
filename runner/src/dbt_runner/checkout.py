"""Where a dbt project stands in git, and the version that follows from it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dbt_runner.errors import INVALID_REQUEST, TypedError

AUTO = "auto"
# https://semver.org, with the v that tags usually have, and without build metadata: a + cannot be part of a version's keys.
_SEMVER_TAG = re.compile(r"v?((?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?)")
_SHORT = 12
# A project may hold a folder that looks like a bare repository, with settings of its own, and git runs the program that core.fsmonitor
# names. https://git-scm.com/docs/git-config#Documentation/git-config.txt-safebareRepository
_SAFE = ("-c", "safe.bareRepository=explicit", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
# What git needs, and nothing of the publisher's: their credentials are no matter of git's here.
_PASSED = ("PATH", "HOME", "XDG_CONFIG_HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")


@dataclass(frozen=True)
class Git:
    """Where a project stands in git; everything is None outside of a checkout.

    Attributes:
        dirty: whether the project, or a local package that it names, has files that HEAD has not or has otherwise. What git
            ignores does not count.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None


def read(project: Path, packages: Sequence[Path] = ()) -> Git:
    """Asks git about a project.

    Args:
        project: its folder.
        packages: the folders of its local packages, which become part of a release too.
    """
    commit = head(project)
    if commit is None:
        return Git()
    # What lies in no checkout is in no commit either.
    states = [_ask(folder, "status", "--porcelain", "--", ".") for folder in (project, *packages)]
    return Git(commit, _ask(project, "symbolic-ref", "--short", "HEAD"), any(state is None or state != "" for state in states))


def version_of(project: Path, git: Git) -> str:
    """The version that `--version auto` means: the semantic version that HEAD is tagged with, else the commit.

    A tag's leading v is left out; of several tags the highest counts. A commit is named by its first twelve digits.

    Raises:
        TypedError: Dbt.InvalidRequest when there is no commit, or when the project is not what the commit says: a version that
            names a commit must not mean something else.
    """
    if git.commit is None:
        raise TypedError(INVALID_REQUEST, f"--version auto: {project} is not in a git checkout with a commit; give a version")
    if git.dirty:
        raise TypedError(
            INVALID_REQUEST,
            "--version auto: the project, or a local package of it, has changes that are not committed (git status shows them): "
            "commit them, or give a version",
        )
    # Without the setting, git takes 1.0.0-rc1 for higher than 1.0.0.
    tags = _ask(project, "-c", "versionsort.suffix=-", "tag", "--points-at", "HEAD", "--sort=-version:refname") or ""
    versions = (found[1] for found in map(_SEMVER_TAG.fullmatch, tags.splitlines()) if found)
    return next(versions, git.commit[:_SHORT])


def head(folder: Path) -> str | None:
    """The commit of a checkout; None when there is none."""
    return _ask(folder, "rev-parse", "HEAD")


def _ask(folder: Path, *arguments: str) -> str | None:
    """The answer of git, or None when it has none: not installed, not a checkout, no commit yet, a detached head."""
    environment = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *_SAFE, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.decode(errors="replace").strip()
