"""A copy of a dbt project that publishing may change: what belongs to a release, and the local packages that it names."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from dbt_runner import project_yaml, tree
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.release_parse import PROJECT_FILES

PROJECT_FILE = "dbt_project.yml"
LOCK_FILE = "package-lock.yml"
_PROFILES = "profiles.yml"
_DECLARING = ("packages.yml", "dependencies.yml")
# The settings that say where dbt searches, and where it searches without them. The deprecated names still work.
# https://docs.getdbt.com/reference/dbt_project.yml
_SEARCHED = {
    "model-paths": ("models",),
    "macro-paths": ("macros",),
    "seed-paths": ("seeds",),
    "snapshot-paths": ("snapshots",),
    "test-paths": ("tests",),
    "analysis-paths": ("analyses",),
    "function-paths": ("functions",),
    "docs-paths": (),
    "source-paths": (),
    "data-paths": (),
}


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


@dataclass(frozen=True)
class Staged:
    """A copy of a project and of the local packages that lie outside of it.

    Attributes:
        project: the copied project.
        folder: where the copies lie as the originals lie below `stands_for`.
    """

    project: Project
    folder: Path
    stands_for: Path

    def in_place(self, path: Path) -> Path:
        """The folder on disk of which `path` is a copy; itself for one that is not copied, as a package at an absolute path."""
        return self.stands_for / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path


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
    settings = project_yaml.read(root / PROJECT_FILE)
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
    return bool(declared(root))


def stage(project: Project, folder: Path) -> Staged:
    """Copies a project, and the local packages outside of it, into a folder where they lie as they do on disk.

    No link is followed out of the project and its local packages, also none that appears meanwhile.

    Args:
        folder: an empty folder.

    Raises:
        TypedError: Dbt.InvalidRequest when a local package is missing or a file cannot be part of a release.
    """
    local = local_packages(project)
    roots = [project.root, *(path.resolve() for path in local)]
    outside = [path for path in local if not path.is_relative_to(project.root)]
    common = Path(os.path.commonpath([project.root, *outside]))
    for name, path in files(project.root, roots=roots, packages=local).items():
        tree.copy(path, folder / project.root.relative_to(common) / name)
    for package in outside:
        target = folder / package.relative_to(common)
        for name, path in package_files(package.resolve(), roots=roots).items():
            # The project may lie in the package.
            if not (target / name).exists():
                tree.copy(path, target / name)
    copied = folder / project.root.relative_to(common)
    copied.mkdir(parents=True, exist_ok=True)
    return Staged(Project(copied, project.name, project.packages_path), folder, common)


def files(root: Path, *, roots: Collection[Path] = (), packages: Collection[Path] = ()) -> dict[str, Path]:
    """The files of a project that belong to a release, without what dbt generates: name (relative, with /) -> file.

    Args:
        roots: other folders into which links may lead.
        packages: the local packages. Of those inside of the project, only what dbt reads belongs to it.

    Raises:
        TypedError: as tree.files.
    """
    root = root.resolve()
    searched = _searched(root) or ()
    inside = [path for path in packages if path != root and path.is_relative_to(root) and not _is_searched(path, root, searched)]
    # A folder that dbt searches is none that it generates, whatever its name.
    generated = {path for path in _generated(root) if not any(one == path or path in one.parents for one in searched)}
    without = [path.resolve() for path in inside]
    found = tree.files(root, roots=roots, generated=generated, without=without, unfollowed=searched, skip=_is_profiles)
    for package in inside:
        prefix = PurePosixPath(package.relative_to(root))
        found |= {str(prefix / name): path for name, path in package_files(package.resolve(), roots=(root, *roots)).items()}
    return found


def package_files(root: Path, *, roots: Collection[Path] = ()) -> dict[str, Path]:
    """The files of a package that dbt reads, as `files` returns them; all files, where a setting of its paths is Jinja.

    Args:
        root: absolute and without links.
        roots: as `files`.

    Raises:
        TypedError: as tree.files.
    """
    searched = _searched(root)
    only = None if searched is None else [*map(PurePosixPath, PROJECT_FILES), *searched]
    return tree.files(root, roots=roots, generated=_generated(root), unfollowed=searched or (), only=only, skip=_is_profiles)


def local_packages(project: Project) -> list[Path]:
    """The folders of all local packages, also those that packages name. Those at an absolute path are not among them.

    Raises:
        TypedError: Dbt.InvalidRequest when one of them is not there.
    """
    return [path for path, absolute in _named_locally(project) if not absolute]


def absolute_packages(project: Project) -> list[Path]:
    """The folders of the local packages that are named by an absolute path.

    Raises:
        TypedError: as `local_packages`.
    """
    return [path for path, absolute in _named_locally(project) if absolute]


def declared(root: Path) -> list[Any]:
    """The packages that packages.yml and dependencies.yml name, as they stand there.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file that cannot be read.
    """
    listed: list[Any] = []
    for name in _DECLARING:
        if (root / name).is_file():
            packages = project_yaml.read(root / name).get("packages") or []
            if not isinstance(packages, list):
                raise TypedError(INVALID_REQUEST, f"{root / name}: packages must be a list")
            listed.extend(packages)
    return listed


def _named_locally(project: Project) -> list[tuple[Path, bool]]:
    found: list[tuple[Path, bool]] = []
    pending = [project.root]
    seen = {project.root}
    while pending:
        origin = pending.pop()
        for package in declared(origin):
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
            found.append((path, Path(local).expanduser().is_absolute() and not path.is_relative_to(project.root)))
    return found


def _searched(root: Path) -> tuple[PurePosixPath, ...] | None:
    """The folders below the root in which dbt searches for files, or None where Jinja says which."""
    settings = _settings(root)
    found: list[PurePosixPath] = []
    for setting, usual in _SEARCHED.items():
        paths = settings.get(setting, usual)
        for path in paths if isinstance(paths, (list, tuple)) else (paths,):
            if not isinstance(path, str) or "{{" in path:
                return None
            normal = PurePosixPath(os.path.normpath(path))
            # What lies outside is refused when the bundle is compared with the project in place.
            if not normal.is_absolute() and ".." not in normal.parts:
                found.append(normal)
    return tuple(found)


def _is_searched(path: Path, root: Path, searched: Collection[PurePosixPath]) -> bool:
    """Whether dbt searches in a folder or above it."""
    name = PurePosixPath(path.relative_to(root))
    return any(one == name or one in name.parents or name in one.parents for one in searched)


def _generated(root: Path) -> set[PurePosixPath]:
    """The folders of a project that dbt writes, relative to it: packages, targets and logs."""
    settings = _settings(root)
    named = (_below(settings.get(setting)) for setting in ("packages-install-path", "target-path", "log-path"))
    return {PurePosixPath("dbt_packages"), PurePosixPath("target"), PurePosixPath("logs"), *(path for path in named if path)}


def _settings(root: Path) -> Mapping[str, Any]:
    return project_yaml.read(root / PROJECT_FILE) if (root / PROJECT_FILE).is_file() else {}


def _is_profiles(path: Path, name: PurePosixPath) -> bool:
    """Whether this is a file of connections; models below the root may well be described in a file of that name."""
    if name.name != _PROFILES:
        return False
    if len(name.parts) == 1:
        return True
    try:
        document = project_yaml.read(path)
    except TypedError:
        return True
    return any(isinstance(value, dict) and "outputs" in value for value in document.values())


def _below(setting: object) -> PurePosixPath | None:
    """A path setting as a plain path below the project, or None when it is something else."""
    if not isinstance(setting, str) or "{{" in setting:
        return None
    path = PurePosixPath(os.path.normpath(setting))
    return None if path.is_absolute() or ".." in path.parts or not path.parts else path
