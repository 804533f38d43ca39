"""The files of a folder that may become part of a release, and how they are read: no link leads anywhere else, now or later.

`files` decides by names, kinds and links. `open_file` and `copy` then open each path one component at a time and follow no link at all.
So a link that another process puts in a file's place after the decision is refused, not followed.
https://man7.org/linux/man-pages/man2/open.2.html (O_NOFOLLOW)
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dbt_runner.errors import INVALID_REQUEST, TypedError

# Never part of a release, wherever it lies: version control, environments, databases, what tools leave behind, and files whose name says
# that they hold credentials. Names are compared in lower case. If dbt reads such a file, publishing compares and refuses it by name.
LEFT_OUT = (
    *(".git", ".venv", "__pycache__", "node_modules", ".ds_store", ".user.yml", ".terraform"),
    *("*.duckdb", "*.duckdb.wal", "*.duckdb.tmp"),
    *(".env*", ".netrc", "_netrc", ".pgpass", ".git-credentials", ".npmrc", ".pypirc"),
    *(".aws", ".ssh", ".gnupg", ".docker", ".kube", ".snowflake", ".snowsql"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk", "*.kdbx"),
    *("*.tfstate", "*.tfstate.*", "*.tfvars"),
)
_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# A folder that only has to be passed need not be readable.
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
# A named pipe must not make the publisher wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Skip = Callable[[Path, PurePosixPath], bool]


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is never part of a release."""
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in LEFT_OUT)


def files(
    root: Path,
    *,
    roots: Collection[Path] = (),
    generated: Collection[PurePosixPath] = (),
    without: Collection[Path] = (),
    unfollowed: Collection[PurePosixPath] = (),
    only: Collection[PurePosixPath] | None = None,
    skip: Skip = lambda path, name: False,
) -> dict[str, Path]:
    """The files of a folder that may become part of a release: name (relative, with /) -> file, absolute and without links.

    A link to a file or folder below `root` or one of `roots` is replaced by its target. A link back to a folder in which it lies is left
    out: dbt makes one for a local package that contains the project.

    Args:
        root: absolute and without links.
        roots: other folders into which links may lead, absolute and without links.
        generated: folders to leave out, relative to the root.
        without: folders to leave out, wherever a link leads to them.
        unfollowed: folders that dbt reads, relative to the root. dbt follows no link to a folder below them, so such a link is left out.
        only: files and folders to take, relative to the root; None for all.
        skip: whether to leave out a file, by its path and its name below the root.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the file, for a link that leads elsewhere, to nothing, or to what is left out, and for
            anything that is neither a file nor a folder.
    """
    walk = _Walk(root, (root, *roots), frozenset(generated), tuple(unfollowed), None if only is None else tuple(only), skip)
    return {str(name): path for name, path in walk.folder(root, PurePosixPath(), frozenset(without))}


class _Walk:
    def __init__(
        self,
        root: Path,
        roots: tuple[Path, ...],
        generated: frozenset[PurePosixPath],
        unfollowed: tuple[PurePosixPath, ...],
        only: tuple[PurePosixPath, ...] | None,
        skip: Skip,
    ) -> None:
        self._root, self._roots, self._generated, self._skip = root, roots, generated, skip
        self._unfollowed, self._only = unfollowed, only

    def folder(self, folder: Path, name: PurePosixPath, without: frozenset[Path]) -> Iterator[tuple[PurePosixPath, Path]]:
        without = without | {folder}
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            entry_name = name / entry.name
            if entry_name in self._generated or is_left_out(entry.name) or not self._is_wanted(entry_name):
                continue
            path = self._target(Path(entry.path), entry_name) if entry.is_symlink() else Path(entry.path)
            mode = path.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                if path in without or (path / "pyvenv.cfg").exists():
                    continue
                if not (entry.is_symlink() and any(above in entry_name.parents for above in self._unfollowed)):
                    yield from self.folder(path, entry_name, without)
            elif not stat.S_ISREG(mode):
                kind = next((kind for matches, kind in _KINDS if matches(mode)), "no plain file")
                raise _refused(self._root / entry_name, f"is {kind}: remove it, a release holds plain files")
            elif not self._skip(path, entry_name):
                yield entry_name, path

    def _is_wanted(self, name: PurePosixPath) -> bool:
        """Whether a file or folder is asked for, lies in a folder that is, or leads to one."""
        return self._only is None or any(one == name or one in name.parents or name in one.parents for one in self._only)

    def _target(self, link: Path, name: PurePosixPath) -> Path:
        shown = self._root / name
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            raise _refused(shown, "is a link to nothing: remove it, a release holds plain files") from None
        inside = next((root for root in self._roots if target.is_relative_to(root)), None)
        if inside is None:
            raise _refused(
                shown,
                f"is a link that leaves the project, to {target}: put a copy of it into the project, or make its folder a local package",
            )
        hidden = next((part for part in target.relative_to(inside).parts if is_left_out(part)), None)
        if hidden is not None or (target.name == "profiles.yml" and target.parent == inside):
            raise _refused(shown, f"is a link to {hidden or target.name}, which is never part of a release: remove the link")
        return target


def open_file(path: Path) -> BinaryIO:
    """Opens a plain file, and follows no link on the way to it.

    Args:
        path: absolute and without links, as `files` returns it.

    Raises:
        TypedError: Dbt.InvalidRequest when there is a link on the way now, or when it is no plain file any more.
        OSError: it cannot be read.
    """
    parent = os.open(path.anchor, _FOLDER)
    try:
        for part in path.parts[1:-1]:
            below = os.open(part, _FOLDER, dir_fd=parent)
            os.close(parent)
            parent = below
        file = os.open(path.name, _FILE, dir_fd=parent)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO):
            raise _refused(path, "was replaced while it was published: publish again when nothing changes the project") from exc
        raise
    finally:
        os.close(parent)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _refused(path, "was replaced while it was published: publish again when nothing changes the project")
    return os.fdopen(file, "rb")


def copy(path: Path, target: Path) -> None:
    """Copies a file's contents, opened as `open_file` does. The target's folder is created.

    Raises:
        TypedError: as `open_file`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_file(path) as source, target.open("xb") as copied:
        shutil.copyfileobj(source, copied)


def _refused(path: Path, problem: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"{path} {problem}")
