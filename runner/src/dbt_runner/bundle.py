"""The bundle of a release: a folder of plain files as a reproducible tar.gz, and back again without trusting it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, cast

from dbt_runner import tree
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError

MAX_MEMBERS = 100_000
MAX_BYTES = 2 << 30
# Bytes of a bundle about whose size the publisher hears, and how many parts of it are named.
LARGE = 10_000_000
_LARGEST = 8

# dbt believes that a YAML file with the modification time of its parse cache is unchanged, except for the time 0: any other
# constant would make it run one release by another one's YAML.
_MTIME = 0
_MODE = 0o644
_FOLDER_MODE = 0o755
# A time beyond the year 9999 is a number that no file system keeps; a NaN is smaller and larger than nothing.
_MAX_MTIME = 253_402_300_800
# What gzip and tarfile make of bytes that are no bundle: some numbers of a header end as ValueError or OverflowError.
_UNREADABLE = (
    *(tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, UnicodeError, RecursionError),
    *(ValueError, ArithmeticError, LookupError, struct.error),
)

# Names that Linux can write, below a folder of some length itself; what tarfile may read at once, and a member's headers may have.
_MAX_NAME = 255
_MAX_PATH = 3_000
_MAX_READ = 16 << 10
_MAX_HEADERS = 4 << 10


def pack(files: Mapping[str, Path], destination: Path, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES) -> None:
    """Writes files as a tar.gz that depends on nothing but their names and contents.

    Folders are not members: an empty one means nothing to dbt, and git does not know it either.

    Args:
        files: name in the bundle (relative, with /) -> file to read, without links.
        max_members, max_bytes: what `unpack` accepts; bytes are those of the contents, uncompressed.

    Raises:
        TypedError: Dbt.InvalidRequest when a limit is exceeded.
    """
    if len(files) > max_members:
        raise TypedError(
            INVALID_REQUEST, f"the project has {len(files):,} files, a release holds {max_members:,}: leave out what dbt does not need"
        )
    total = sum(path.stat().st_size for path in files.values())
    if total > max_bytes:
        largest = max(files, key=lambda name: files[name].stat().st_size)
        raise TypedError(
            INVALID_REQUEST,
            f"the project's files have {total:,} bytes, a release holds {max_bytes:,}: "
            f"leave out what dbt does not need (the largest is {largest})",
        )
    with (
        destination.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=_MTIME) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            with tree.open_file(files[name].absolute()) as content:
                member.size, member.mode, member.mtime = os.fstat(content.fileno()).st_size, _MODE, _MTIME
                archive.addfile(member, content)


def sizes(files: Mapping[str, Path], size: int) -> list[str]:
    """Lines that say what makes a bundle large.

    Args:
        files: as `pack`.
        size: the bundle's own, in bytes.
    """
    by_folder: Counter[str] = Counter()
    for name, path in files.items():
        by_folder["/".join(PurePosixPath(name).parts[:2])] += path.stat().st_size
    total = by_folder.total()
    lines = [f"warning: the bundle has {size / 1e6:,.1f} MB, and each run reads it; of {total / 1e6:,.1f} MB uncompressed:"]
    lines += [f"{part / 1e6:9,.1f} MB  {name}" for name, part in by_folder.most_common(_LARGEST)]
    return lines


def content_digest(bundle: Path) -> str | None:
    """The sha256 of the tar inside a bundle, or None when that is not a gzip file.

    Another zlib may compress the same files to other bytes: two bundles hold the same when this is equal.
    """
    try:
        with gzip.open(bundle, "rb") as archive:
            return hashlib.file_digest(archive, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return None


def check(bundle: Path, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES) -> None:
    """Refuses what `unpack` refuses, and writes nothing.

    Raises:
        TypedError: Dbt.ReleaseCorrupt.
    """
    with _opened(bundle, max_members, max_bytes):
        pass


def unpack(bundle: Path, destination: Path, *, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES) -> None:
    """Unpacks a bundle into a new folder. The whole bundle is checked before the first file is written.

    Args:
        destination: must not exist yet; its parents are created.
        max_members, max_bytes: limits of the number of members and of their contents, uncompressed.

    Raises:
        FileExistsError: the destination exists.
        TypedError: Dbt.ReleaseCorrupt when the bundle cannot be read, exceeds a limit, or holds anything but plain files and
            folders with names below the destination.
    """
    with _opened(bundle, max_members, max_bytes) as (archive, members):
        destination.mkdir(parents=True)
        try:
            archive.extractall(destination, members=members, filter="data")
        except BaseException:
            # The caller may try again, or another bundle.
            shutil.rmtree(destination)
            raise


@contextlib.contextmanager
def _opened(bundle: Path, max_members: int, max_bytes: int) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    try:
        with gzip.open(bundle) as compressed:
            stream = _Careful(compressed, max_bytes + max_members * _MAX_HEADERS)
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as archive:
                members = _checked(archive, max_members, max_bytes)
                # tarfile stops at the tar's end; gzip's checksum comes after it.
                while stream.read(_MAX_READ):
                    pass
                yield archive, members
    except _UNREADABLE as exc:
        raise _corrupt(f"it cannot be read ({exc})") from exc


class _Careful:
    """A stream that tarfile can read from without taking more memory or time than an honest bundle may need.

    tarfile reads contents in small pieces, but a long name or a pax header at once, as long as it claims to be: a few kilobytes of
    gzip can claim gigabytes.
    """

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_READ:
            raise _corrupt(f"it has a header of {size:,} bytes")
        if self._stream.tell() > self._limit:
            raise _corrupt(f"it unpacks to more than {self._limit:,} bytes, with its headers")
        return self._stream.read(size)


def _checked(archive: Iterable[tarfile.TarInfo], max_members: int, max_bytes: int) -> list[tarfile.TarInfo]:
    members: dict[PurePosixPath, tarfile.TarInfo] = {}
    total = 0
    for member in archive:
        name = PurePosixPath(member.name)
        if "\0" in member.name:
            raise _corrupt(f"member {member.name!r} has a name that no file can have")
        if name.is_absolute() or ".." in name.parts or not name.parts:
            raise _corrupt(f"member {member.name!r} would be written outside of the project")
        if max(len(os.fsencode(part)) for part in name.parts) > _MAX_NAME or len(os.fsencode(name)) > _MAX_PATH:
            raise _corrupt(f"member {member.name[:80]!r}... has a name that is too long")
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise _corrupt(f"member {member.name!r} is neither a plain file nor a folder")
        if name in members:
            raise _corrupt(f"member {member.name!r} is there twice")
        if member.size < 0:
            raise _corrupt(f"member {member.name!r} has {member.size:,} bytes")
        if not 0 <= member.mtime < _MAX_MTIME:
            raise _corrupt(f"member {member.name!r} was changed at {member.mtime}, which is no time")
        # What an honest bundle has, whatever this one says: dbt trusts times, and nothing else reads the rest.
        member.mtime, member.mode = _MTIME, _MODE if member.isreg() else _FOLDER_MODE
        # Nobody needs them any more, and there may be kilobytes of them for each member.
        member.pax_headers = {}
        members[name] = member
        total += member.size
        if len(members) > max_members:
            raise _corrupt(f"it has more than {max_members:,} members")
        if total > max_bytes:
            raise _corrupt(f"it unpacks to more than {max_bytes:,} bytes")
    for name in members:
        for parent in name.parents:
            if parent in members and not members[parent].isdir():
                raise _corrupt(f"member {str(parent)!r} is a file and a folder")
    return list(members.values())


def _corrupt(problem: str) -> TypedError:
    return TypedError(RELEASE_CORRUPT, f"the release's bundle was refused: {problem}; publish the project again under another version")
