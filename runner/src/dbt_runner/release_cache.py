"""The last release that a sandbox unpacked, for the next run that wants the same one.

What unpacked it is not alone in its folder: dbt and the team's code ran there, as the same user. So a release is used again only if
its files are still exactly what was unpacked, and what that was is remembered in memory, where the team's code cannot reach.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

from dbt_runner import release
from dbt_runner.release import Release
from dbt_runner.store import Store


class ReleaseCache:
    """Keeps one unpacked release.

    Args:
        folder: where it is kept; whatever lies there at first is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept: tuple[Release, str] | None = None
        shutil.rmtree(folder, ignore_errors=True)

    def fetch(self, store: Store, version: str, _destination: Path) -> Release:
        """The release, unpacked now or earlier; its project lies in the cache's folder.

        Raises:
            TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
        """
        digest = release.find(store, version).digest
        if self._kept is not None:
            kept, tree = self._kept
            # Two versions may have the same content.
            if kept.digest == digest and tree_digest(kept.project) == tree:
                return replace(kept, version=version)
        self._kept = None
        shutil.rmtree(self.folder, ignore_errors=True)
        fetched = release.fetch(store, version, self.folder / digest[:16])
        self._kept = fetched, tree_digest(fetched.project)
        return fetched


def tree_digest(folder: Path) -> str:
    """The sha256 of everything below a folder: names, kinds, modes and contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path.relative_to(folder)}\0{status.st_mode:o}\0".encode(errors="surrogateescape"))
        if stat.S_ISLNK(status.st_mode):
            digest.update(os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(status.st_mode):
            with path.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
