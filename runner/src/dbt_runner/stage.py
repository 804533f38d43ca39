"""A copy of a dbt project that publishing may change: what belongs to a release, and the local packages that it names."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dbt_runner.errors import INVALID_REQUEST, TypedError

PROJECT_FILE = "dbt_project.yml"

# Never part of a release, wherever it lies: secrets, databases, and what tools leave behind.
_LEFT_OUT = (".git", ".venv", "__pycache__", ".DS_Store", "*.duckdb*", ".env*", ".user.yml")
_PROFILES = "profiles.yml"


@dataclass(frozen=True)
class Project:
    """A dbt project as it lies on disk.

    Attributes:
        root: its folder, absolute and without links.
        name: as dbt_project.yml says.
        packages_path: where dbt installs packages, relative to the root.
    """

    root: Path
    name: str
    packages_path: PurePosixPath


def read_project(folder: Path) -> Project:
    """Reads what publishing needs to know of dbt_project.yml.

    Raises:
        TypedError: Dbt.InvalidRequest when this is no dbt project, or one whose packages would not be part of the release.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise TypedError(INVALID_REQUEST, f"there is no folder {folder}: give the dbt project's folder (--project)")
    if not (root / PROJECT_FILE).is_file():
        raise TypedError(INVALID_REQUEST, f"{folder} has no {PROJECT_FILE}: give the dbt project's folder (--project)")
    settings = _read_yaml(root / PROJECT_FILE)
    name = settings.get("name")
    if not isinstance(name, str) or not name:
        raise TypedError(INVALID_REQUEST, f"{folder / PROJECT_FILE} has no name: dbt needs one")
    packages = _below(settings.get("packages-install-path", "dbt_packages"))
    if packages is None:
        raise TypedError(
            INVALID_REQUEST,
            f"{folder / PROJECT_FILE}: packages-install-path must be a plain path below the project, "
            "or a run would not find the packages; leave it out to use dbt_packages",
        )
    return Project(root, name, packages)


def lists_packages(root: Path) -> bool:
    """Whether packages.yml or dependencies.yml asks for any package."""
    return any(_packages(root))


def stage(project: Project, folder: Path) -> tuple[Path, Path]:
    """Copies a project, and the local packages outside of it, into a folder where they lie as they do on disk.

    Args:
        folder: an empty folder.

    Returns:
        The copy of the project, and the folder on disk that `folder` stands for.

    Raises:
        TypedError: Dbt.InvalidRequest when a local package is missing or a file cannot be part of a release.
    """
    sources = [project.root, *local_packages(project)]
    common = Path(os.path.commonpath(sources))
    for source in sources:
        others = {path.resolve() for path in sources if path != source}
        for name, path in files(source, generated=_generated(source), without=others).items():
            target = folder / source.relative_to(common) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return folder / project.root.relative_to(common), common


def with_packages(project: Project) -> dict[str, Path]:
    """The files of a staged project and of the packages that dbt installed into it, as `files` returns them."""
    installed = project.root / project.packages_path
    packages = [path for path in installed.iterdir() if path.is_dir()] if installed.is_dir() else []
    generated = {project.packages_path / package.name / path for package in packages for path in _generated(package)}
    return files(project.root, generated=generated)


def files(root: Path, *, generated: Collection[PurePosixPath] = (), without: Collection[Path] = ()) -> dict[str, Path]:
    """The files of a folder that belong to a release: name (relative, with /) -> file.

    Links are followed, so that a release holds none. A link back to a folder in which it lies is left out: dbt makes one for a
    local package that contains the project.

    Args:
        generated: folders to leave out, relative to the root.
        without: folders to leave out, wherever a link leads to them.

    Raises:
        TypedError: Dbt.InvalidRequest for a link to nothing and for what is neither a file nor a folder.
    """
    found: dict[str, Path] = {}
    for name, path in _walk(root, PurePosixPath(), frozenset(generated), frozenset(without)):
        if not path.is_file():
            problem = "a link to nothing" if path.is_symlink() else "neither a file nor a folder"
            raise TypedError(INVALID_REQUEST, f"{path} is {problem}: remove it, a release holds plain files")
        found[str(name)] = path
    return found


def _walk(
    folder: Path, name: PurePosixPath, generated: frozenset[PurePosixPath], without: frozenset[Path]
) -> Iterator[tuple[PurePosixPath, Path]]:
    without = without | {folder.resolve()}
    for entry in sorted(folder.iterdir()):
        entry_name = name / entry.name
        if entry_name in generated or any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in _LEFT_OUT):
            continue
        if entry.is_dir():
            if entry.resolve() not in without and not (entry / "pyvenv.cfg").exists():
                yield from _walk(entry, entry_name, generated, without)
        elif not (entry.name == _PROFILES and (not name.parts or _holds_profiles(entry))):
            yield entry_name, entry


def _generated(root: Path) -> set[PurePosixPath]:
    """The folders of a project that dbt writes, relative to it: packages, targets and logs."""
    settings = _read_yaml(root / PROJECT_FILE) if (root / PROJECT_FILE).is_file() else {}
    named = (_below(settings.get(setting)) for setting in ("packages-install-path", "target-path", "log-path"))
    return {PurePosixPath("dbt_packages"), PurePosixPath("target"), PurePosixPath("logs"), *(path for path in named if path)}


def _holds_profiles(path: Path) -> bool:
    """Whether a profiles.yml below the root holds connections; models may well be described in a file of that name."""
    try:
        document = _read_yaml(path)
    except TypedError:
        return True
    return any(isinstance(value, dict) and "outputs" in value for value in document.values())


def local_packages(project: Project) -> list[Path]:
    """The folders of all local packages outside of the project, also those that packages name.

    Raises:
        TypedError: Dbt.InvalidRequest when one of them is not there.
    """
    found: list[Path] = []
    pending = [project.root]
    seen = {project.root}
    while pending:
        origin = pending.pop()
        for package in _packages(origin):
            local = package.get("local") if isinstance(package, dict) else None
            # What Jinja makes of a path is known to dbt alone; inside of the project it works, elsewhere dbt says what it misses.
            if not isinstance(local, str) or "{{" in local:
                continue
            # dbt takes every path relative to the project, also one that a package names.
            path = Path(os.path.normpath(project.root / Path(local).expanduser()))
            if path in seen:
                continue
            seen.add(path)
            if not (path / PROJECT_FILE).is_file():
                raise TypedError(INVALID_REQUEST, f"{origin} names the local package {local}, but there is no dbt project in {path}")
            pending.append(path)
            # A package inside is copied with the project, and one with an absolute path is found where it is.
            if not path.is_relative_to(project.root) and not Path(local).expanduser().is_absolute():
                found.append(path)
    return found


def _packages(root: Path) -> list[Any]:
    listed: list[Any] = []
    for name in ("packages.yml", "dependencies.yml"):
        if (root / name).is_file():
            packages = _read_yaml(root / name).get("packages") or []
            if not isinstance(packages, list):
                raise TypedError(INVALID_REQUEST, f"{root / name}: packages must be a list")
            listed.extend(packages)
    return listed


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as exc:
        raise TypedError(INVALID_REQUEST, f"{path} cannot be read: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise TypedError(INVALID_REQUEST, f"{path} must hold keys and values")
    return document


def _below(setting: object) -> PurePosixPath | None:
    """A path setting as a plain path below the project, or None when it is something else."""
    if not isinstance(setting, str) or "{{" in setting:
        return None
    path = PurePosixPath(os.path.normpath(setting))
    return None if path.is_absolute() or ".." in path.parts or not path.parts else path
