"""dbt's parse of an unpacked bundle, in a process of its own, which publishing starts: confined, and compared with the project in place.

Before dbt parses anything, it has found the files of each project and package. The same search over the project in place must find the
same files with the same contents. Both trees have the same dbt_project.yml, variables and version of dbt. So they have the same nodes
and macros, too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dbt_runner import confinement, project_yaml
from dbt_runner.errors import TypedError

# What dbt reads of a project besides the files that it searches for.
PROJECT_FILES = ("dbt_project.yml", "packages.yml", "dependencies.yml", "selectors.yml", ".dbtignore")
_YAML = (".yml", ".yaml")
# The exit code when the report says why. dbt's own are 0 to 2.
REFUSED = 3


@dataclass(frozen=True)
class ParseSpec:
    """What to parse, as JSON on standard input.

    Attributes:
        arguments: dbt's.
        in_place: for the unpacked project and each package of it that lies on this machine: its folder, and the folder in place.
        writable, visible, hidden, modules: as confinement.confine.
        report: the file for a Report.
    """

    arguments: Sequence[str]
    in_place: Mapping[str, str]
    writable: Sequence[str]
    visible: Sequence[str]
    hidden: Sequence[str]
    modules: Sequence[str]
    report: str


@dataclass(frozen=True)
class Report:
    """Why a bundle was not parsed. All names are paths in place, relative to the project where they lie in it.

    Attributes:
        unreadable: the message about a file that dbt cannot read.
        missing: files that dbt reads in place, and not in the bundle.
        added: files that dbt reads in the bundle, and not in place.
        changed: files that differ.
        outside: files that dbt reads from outside of the project or package.
    """

    unreadable: str | None = None
    missing: Sequence[str] = ()
    added: Sequence[str] = ()
    changed: Sequence[str] = ()
    outside: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path) -> Report:
        """The report in a file. The project's Jinja could have written there: what is no report is taken for an unreadable one."""
        try:
            found = json.loads(path.read_bytes())
            unreadable = found.pop("unreadable")
            names = {kind: [str(name) for name in listed] for kind, listed in found.items()}
            return cls(None if unreadable is None else str(unreadable), **names)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return cls(unreadable="dbt's process left a report that is none; look for a macro that writes files")

    @property
    def is_empty(self) -> bool:
        return not (self.unreadable or self.missing or self.added or self.changed or self.outside)


class _Refused(Exception):
    """Ends dbt; its own words for it are not used, because there is a report."""


@dataclass
class _Comparison:
    """Collects what differs between the bundle and the project in place."""

    root: str
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def project(self, project: Any, in_place: str | None) -> None:
        """Compares what dbt finds for one project or package of the bundle with what it finds in place, where it lies there."""
        unpacked = str(project.project_root)
        bundled = dict(_files(project, unpacked))
        beyond = {name: path for name, path in bundled.items() if not Path(path).resolve().is_relative_to(unpacked)}
        self.outside += sorted(self._shown(path) for path in beyond.values())
        for name, path in bundled.items():
            if name in beyond:
                continue
            _readable(Path(path), str(self._shown(os.path.join(in_place or unpacked, name))))
        if in_place is None:
            return
        found = dict(_files(project, in_place))
        outside = {name for name in found if _leaves(name)}
        self.outside += sorted(self._shown(found[name]) for name in outside)
        self.missing += sorted(self._shown(found[name]) for name in found.keys() - bundled.keys() - outside)
        self.added += sorted(self._shown(os.path.join(in_place, name)) for name in bundled.keys() - found.keys())
        both = sorted(bundled.keys() & found.keys() - beyond.keys())
        self.changed += [self._shown(found[name]) for name in both if _digest(bundled[name]) != _digest(found[name])]

    def report(self) -> Report:
        return Report(None, *(tuple(dict.fromkeys(names)) for names in (self.missing, self.added, self.changed, self.outside)))

    def _shown(self, path: str) -> str:
        path = os.path.normpath(path)
        return os.path.relpath(path, self.root) if Path(path).is_relative_to(self.root) else path


def _files(project: Any, root: str) -> Iterator[tuple[str, str]]:
    """The files that dbt reads of a project if it lies at `root`: name and path."""
    from dbt.parser.read_files import generate_dbt_ignore_spec, get_file_types_for_project
    from dbt.parser.search import filesystem_search

    for name in PROJECT_FILES:
        if os.path.isfile(path := os.path.join(root, name)):
            yield name, path
    place: Any = SimpleNamespace(project_root=root)
    ignored = generate_dbt_ignore_spec(root)
    for kind in get_file_types_for_project(project).values():
        for extension in kind["extensions"]:
            for found in filesystem_search(place, kind["paths"], extension, ignored):
                yield os.path.normpath(os.path.join(found.searched_path, found.relative_path)), found.absolute_path
    # Copied as they are by `docs generate`.
    for folder in project.asset_paths:
        for parent, _, names in os.walk(os.path.join(root, folder)) if _leaves(folder) else ():
            yield from ((os.path.relpath(path, root), path) for path in (os.path.join(parent, name) for name in names))


def _leaves(name: str) -> bool:
    name = os.path.normpath(name)
    return os.path.isabs(name) or name == ".." or name.startswith("../")


def _digest(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _readable(path: Path, shown: str) -> None:
    """Refuses a file that dbt would end on without naming it. dbt reads no large seed as text."""
    from dbt.constants import MAXIMUM_SEED_SIZE

    if path.suffix.lower() == ".csv" and path.stat().st_size > MAXIMUM_SEED_SIZE:
        return
    content = path.read_bytes()
    if path.suffix.lower() in _YAML:
        project_yaml.check(content, shown)
    else:
        project_yaml.decode(content, shown)


@contextlib.contextmanager
def _compared(in_place: Mapping[str, str], root: str, report: Path) -> Iterator[None]:
    """Compares before dbt reads the files that it has found, and writes the report where they are not the same."""
    from dbt.parser.read_files import ReadFilesFromFileSystem

    original: Callable[[Any], None] = ReadFilesFromFileSystem.read_files

    def read_files(reader: Any) -> None:
        comparison = _Comparison(root)
        try:
            for project in reader.all_projects.values():
                # dbt's own macros are no part of a bundle.
                if Path(project.project_root).is_relative_to(unpacked):
                    comparison.project(project, in_place.get(str(project.project_root)))
            found = comparison.report()
        except TypedError as exc:
            found = Report(unreadable=exc.message)
        if not found.is_empty:
            report.write_text(json.dumps(asdict(found)), encoding="utf-8")
            raise _Refused
        original(reader)

    unpacked = next(iter(in_place))
    ReadFilesFromFileSystem.read_files = read_files
    try:
        yield
    finally:
        ReadFilesFromFileSystem.read_files = original


def main() -> int:
    """Parses, and returns the exit code: dbt's own, or REFUSED with a report."""
    spec = ParseSpec(**json.load(sys.stdin))
    confinement.confine(writable=spec.writable, visible=spec.visible, hidden=spec.hidden, modules=spec.modules)
    from dbt.cli.main import cli

    report = Path(spec.report)
    code: str | int | None = 0
    try:
        with _compared(spec.in_place, next(iter(spec.in_place.values())), report):
            cli(list(spec.arguments), prog_name="dbt")
    except SystemExit as exc:
        code = exc.code
    if report.exists():
        return REFUSED
    return code if isinstance(code, int) else 1
