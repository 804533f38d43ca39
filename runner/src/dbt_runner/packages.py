"""The packages of a project: those that lie installed beside it where they are what the lock says, else those that `dbt deps` installs.

Reading what is there needs no network, and takes a vendored package as the project has it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner import checkout, project_yaml, stage, tree
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.stage import LOCK_FILE, PROJECT_FILE, Project, Staged


@dataclass(frozen=True)
class Packages:
    """The packages of a bundle.

    Attributes:
        files: name in the bundle -> file, absolute and without links.
        in_place: for each package that lies on this machine, its folder below the project in the bundle, and where it lies.
    """

    files: Mapping[str, Path]
    in_place: Mapping[str, Path]


def install(project: Project, staged: Staged, dbt_deps: Callable[[], None], on_progress: Callable[[str], None]) -> Collection[str]:
    """Installs a staged project's packages into it.

    Args:
        dbt_deps: runs `dbt deps` in the staged project.

    Returns:
        The folder names of those that were taken from the project.

    Raises:
        TypedError: Dbt.InvalidRequest for a package that lies there and that nothing names; as dbt_deps.
    """
    there = _installed(project)
    target = staged.project.root / project.packages_path
    if not stage.lists_packages(project.root):
        if there:
            on_progress(f"taking the packages of {project.packages_path}, which no packages.yml names: {', '.join(sorted(there))}")
            _take(project, staged, there, target)
        return there.keys()
    unmatched = _unmatched(project, there)
    if unmatched is None:
        on_progress(f"taking the packages of {project.packages_path}, which are those of {LOCK_FILE}: {', '.join(sorted(there))}")
        _take(project, staged, there, target)
        return there.keys()
    on_progress(f"installing packages (dbt deps): {unmatched}")
    lock = staged.project.root / LOCK_FILE
    before = lock.read_bytes() if lock.is_file() else None
    dbt_deps()
    if before is not None and lock.read_bytes() != before:
        on_progress(f"{LOCK_FILE} does not belong to packages.yml: dbt has chosen versions anew; run dbt deps and commit it")
    if unnamed := sorted(there.keys() - {path.name for path in target.iterdir()}):
        raise TypedError(
            INVALID_REQUEST,
            f"dbt reads {', '.join(unnamed)} in {project.root / project.packages_path}, but packages.yml does not name it, so "
            "dbt deps removes it: name it there (local: PATH for a folder of the project), or run dbt deps in the project",
        )
    return ()


def collect(project: Project, staged: Staged, taken: Collection[str]) -> Packages:
    """What of a staged project's packages goes into the bundle: what dbt reads of each.

    Args:
        taken: what `install` returned.

    Raises:
        TypedError: Dbt.InvalidRequest, naming a link that leaves its package.
    """
    files: dict[str, Path] = {}
    in_place: dict[str, Path] = {}
    absolute = {path.resolve() for path in stage.absolute_packages(project)}
    there = _installed(project)
    for name, path in _installed(staged.project).items():
        root = path.resolve()
        place = project.packages_path / name
        if path.is_symlink():
            # dbt links local packages. What it links to is a copy of ours, or lies at an absolute path that packages.yml names.
            if not root.is_relative_to(staged.folder.resolve()) and root not in absolute:
                raise TypedError(INVALID_REQUEST, f"package {name} lies in {root}, which is no local package that packages.yml names")
            in_place[str(place)] = staged.in_place(root)
        elif name in taken:
            in_place[str(place)] = there[name]
        for file, source in stage.package_files(root, roots=(staged.folder.resolve(), *absolute) if path.is_symlink() else ()).items():
            files[str(place / file)] = source
    return Packages(files, in_place)


def _installed(project: Project) -> dict[str, Path]:
    """The packages that dbt reads, by the names of their folders. https://docs.getdbt.com/docs/build/packages"""
    folder = project.root / project.packages_path
    if not folder.is_dir():
        return {}
    return {
        path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("__") and path.name != ".git"
    }


def _take(project: Project, staged: Staged, there: Mapping[str, Path], target: Path) -> None:
    local = {path.resolve(): path for path in stage.local_packages(project)}
    absolute = {path.resolve() for path in stage.absolute_packages(project)}
    for name, path in there.items():
        root = path.resolve()
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if root in local and path.is_symlink():
            place.symlink_to(staged.folder / local[root].relative_to(staged.stands_for))
        elif root in absolute and path.is_symlink():
            place.symlink_to(root)
        elif path.is_symlink() and not root.is_relative_to(project.root):
            raise TypedError(
                INVALID_REQUEST, f"{path} is a link that leaves the project, to {root}: name it as a local package in packages.yml"
            )
        else:
            for file, source in stage.package_files(root).items():
                tree.copy(source, place / file)


def _unmatched(project: Project, there: Mapping[str, Path]) -> str | None:
    """Why the packages that lie there are not those of the lock; None when they are."""
    if not there:
        return f"{project.packages_path} is empty"
    if not (project.root / LOCK_FILE).is_file():
        return f"there is no {LOCK_FILE}"
    lock = project_yaml.read(project.root / LOCK_FILE)
    entries = lock.get("packages")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return f"{LOCK_FILE} names no packages"
    if lock.get("sha1_hash") != _hash(project):
        return f"{LOCK_FILE} was made for another packages.yml"
    names = [entry.get("name") for entry in entries]
    if unnamed := [str(name) for name in names if name not in there]:
        return f"{', '.join(unnamed)} of {LOCK_FILE} is not in {project.packages_path}"
    if more := sorted(there.keys() - set(names)):
        return f"{LOCK_FILE} does not name {', '.join(more)}"
    return next((problem for entry in entries if (problem := _other(project, entry, there[entry["name"]]))), None)


def _other(project: Project, entry: Mapping[str, Any], folder: Path) -> str | None:
    """Why an installed package is not what an entry of the lock says, or cannot be told; None when it is."""
    name = entry["name"]
    settings = project_yaml.read(folder / PROJECT_FILE) if (folder / PROJECT_FILE).is_file() else {}
    if settings.get("name") != name:
        return f"{name} has no {PROJECT_FILE} of that name"
    if "local" in entry:
        wanted = (project.root / Path(str(entry["local"])).expanduser()).resolve()
        return None if folder.resolve() == wanted else f"{name} is a copy of a local package"
    if "package" in entry:
        same = str(settings.get("version")) == str(entry.get("version"))
        return None if same else f"{name} is version {settings.get('version')}, {LOCK_FILE} has {entry.get('version')}"
    if "git" in entry and not entry.get("subdirectory"):
        # dbt leaves the clone as it is. Without .git somebody has put the package there, into the project's own repository.
        revision = entry.get("revision")
        head = checkout.head(folder) if (folder / ".git").exists() else revision
        return None if head == revision else f"{name} is at {head}, {LOCK_FILE} has {revision}"
    return f"{name} does not say which version it is"


def _hash(project: Project) -> str | None:
    """dbt's own digest of what packages.yml names, or None where Jinja says it."""
    raw = {"packages": stage.declared(project.root)}
    if "{{" in json.dumps(raw, default=str):
        return None
    from dbt.config.project import package_config_from_data
    from dbt.task.deps import _create_sha1_hash

    try:
        digest: str = _create_sha1_hash(package_config_from_data(raw, raw).packages)
    except Exception:
        # dbt deps says what is wrong with it.
        return None
    return digest
