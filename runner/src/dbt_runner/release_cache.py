"""The last release that a sandbox unpacked, for the next run that wants the same one.

What unpacked it is not alone in its folder: dbt and the team's code ran there, as the same user. So a release is used again only if
its files are still exactly what was unpacked, and what that was is remembered in memory, where the team's code cannot reach.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path

from dbt_runner import release, removal
from dbt_runner.release import Release
from dbt_runner.store import Store


class ReleaseCache:
    """Keeps one unpacked release.

    Args:
        folder: where it is kept; whatever lies there at first is removed.

    Raises:
        removal.NotEmpty: that was not possible.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: tuple[Release, str] | None = None
        self._forget()

    def fetch(self, store: Store, version: str, _destination: Path) -> Release:
        """The release, unpacked now or earlier; its project lies in the cache's folder.

        Raises:
            TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
            removal.NotEmpty: what lies there is not the release that was kept, and cannot be removed.
        """
        digest = release.find(store, version).digest
        self.tidy()
        # Two versions may have the same content.
        if self._kept is not None and self._kept[0].digest == digest:
            return replace(self._kept[0], version=version)
        self._forget()
        self.folder.mkdir(mode=0o700)
        fetched = release.fetch(store, version, self.folder / digest[:16])
        self._kept = fetched, tree_digest(self.folder)
        return fetched

    def tidy(self) -> None:
        """Removes everything, unless the folder holds exactly the release that was unpacked.

        Raises:
            removal.NotEmpty: that was not possible.
        """
        if self._kept is not None:
            try:
                if tree_digest(self.folder) == self._kept[1]:
                    return
            except OSError:
                # A directory that cannot be read, or a path that is too long, was no part of it.
                pass
        self._forget()

    def _forget(self) -> None:
        self._kept = None
        try:
            status = self.folder.lstat()
        except FileNotFoundError:
            return
        except OSError as exc:
            raise removal.NotEmpty(f"{self.folder} cannot be looked at: {exc}") from exc
        if not stat.S_ISDIR(status.st_mode):
            self.folder.unlink()
            return
        removal.empty(self.folder)
        self.folder.rmdir()


def tree_digest(folder: Path) -> str:
    """The sha256 of a folder and of everything below it: names, kinds, modes, attributes, contents, and when they were last written.

    Raises:
        OSError: a part of it cannot be read.
    """
    digest = hashlib.sha256()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        status = path.lstat()
        name = os.fsencode(path.relative_to(folder))
        attributes = _attributes(path)
        # A length before each name, so that no two trees are written alike.
        digest.update(f"{len(name)} ".encode() + name + f" {status.st_mode:o} {status.st_nlink} {attributes} ".encode())
        if stat.S_ISLNK(status.st_mode):
            target = os.fsencode(os.readlink(path))
            digest.update(f"{len(target)} ".encode() + target)
        elif stat.S_ISREG(status.st_mode):
            # dbt takes a file that has the time and size of an earlier parse for unchanged.
            digest.update(f"{status.st_mtime_ns} {status.st_size} ".encode())
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        elif stat.S_ISDIR(status.st_mode):
            waiting += sorted(path.iterdir())
    return digest.hexdigest()


def _attributes(path: Path) -> list[str]:
    """The names of a file's extended attributes; none where the system or the file system has no such thing."""
    try:
        return sorted(map(repr, os.listxattr(path, follow_symlinks=False)))
    except AttributeError:
        return []
    except OSError as exc:
        if exc.errno == errno.ENOTSUP:
            return []
        raise
