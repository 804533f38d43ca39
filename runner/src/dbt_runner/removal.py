"""Empties a folder whatever was left in it: without rights, deeper than a path can be long, under names that are no text.

A run's leftovers belong to the user who removes them, so modes can be set first. Directories are opened by their names in their parents
and never by a path, and links are removed and not followed. A tree is taken apart at its top: what lies in a directory moves up into
the emptied folder, so that no depth costs a descriptor, a level of recursion or a longer path.
https://man7.org/linux/man-pages/man2/openat.2.html
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path

_BATCH = 1000
_ALL_OF_OWNER = 0o700


class NotEmpty(Exception):
    """Something is left in the folder; the message says what."""


def empty(folder: Path, keep: Collection[str] = (), seconds: float = 60.0) -> None:
    """Removes everything from a folder, and leaves the folder.

    Args:
        folder: this user's own, if its mode may have to be set.
        keep: names in it that stay as they are.
        seconds: for how long to try.

    Raises:
        NotEmpty: something could not be removed, or not in that time; all else is gone.
    """
    until = time.monotonic() + seconds
    try:
        _give_rights(folder)
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as exc:
        raise NotEmpty(f"{folder} cannot be opened: {exc}") from exc
    try:
        _empty(top, frozenset(keep), until)
    finally:
        os.close(top)


def _empty(top: int, keep: frozenset[str], until: float) -> None:
    numbers = itertools.count()
    refused: dict[str, OSError] = {}
    while names := _some(top, keep | refused.keys()):
        for name in names:
            if time.monotonic() > until:
                raise NotEmpty(f"there was no time to remove {name!r} and what else is left")
            try:
                if not _unlinked(name, top):
                    _take_apart(name, top, numbers, until)
            except OSError as exc:
                refused[name] = exc
    if refused:
        name, error = next(iter(refused.items()))
        raise NotEmpty(f"{len(refused)} files could not be removed, {name!r} for one: {error}")


def _take_apart(name: str, top: int, numbers: itertools.count[int], until: float) -> None:
    """Removes a directory of the folder; the directories in it become directories of the folder."""
    os.chmod(name, _ALL_OF_OWNER, dir_fd=top)
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        while children := _some(opened):
            for child in children:
                if time.monotonic() > until:
                    raise NotEmpty(f"there was no time to remove all of {name!r}")
                if not _unlinked(child, opened):
                    # Only who may write to a directory may move it elsewhere.
                    os.chmod(child, _ALL_OF_OWNER, dir_fd=opened)
                    _move_up(child, opened, top, numbers)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=top)


def _move_up(child: str, opened: int, top: int, numbers: itertools.count[int]) -> None:
    for number in numbers:
        try:
            # An empty directory of that name would be replaced, and one that is not is refused.
            os.rename(child, f".removed-{os.getpid()}-{number}", src_dir_fd=opened, dst_dir_fd=top)
        except OSError as exc:
            if isinstance(exc, FileExistsError | NotADirectoryError) or exc.errno == errno.ENOTEMPTY:
                continue
            raise
        return


def _unlinked(name: str, folder: int) -> bool:
    """Removes what is no directory; False for a directory."""
    if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=folder)
    return True


def _some(folder: int, but: Collection[str] = ()) -> list[str]:
    """Names in a folder, not all of them at once: there may be millions."""
    with os.scandir(folder) as entries:
        return list(itertools.islice((entry.name for entry in entries if entry.name not in but), _BATCH))


def _give_rights(folder: Path) -> None:
    """Lets the owner use the folder, and takes away what else was written into its inode."""
    status = folder.lstat()
    if status.st_mode & _ALL_OF_OWNER != _ALL_OF_OWNER:
        folder.chmod(stat.S_IMODE(status.st_mode) | _ALL_OF_OWNER)
    # Access lists that new files would inherit, and notes for a later run. File systems without them have nothing to take away.
    with contextlib.suppress(OSError, AttributeError):
        for name in os.listxattr(folder, follow_symlinks=False):
            if name.startswith(("user.", "system.posix_acl_")):
                os.removexattr(folder, name, follow_symlinks=False)
