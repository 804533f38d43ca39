"""A bundle holds plain files, is the same for the same files, and is refused before it can do harm."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from dbt_runner import bundle
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError
from dbt_runner.store import sha256_of


def files_in(folder: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    files = {}
    for name, content in contents.items():
        files[name] = folder / name
        files[name].parent.mkdir(parents=True, exist_ok=True)
        files[name].write_bytes(content)
    return files


def archive_of(path: Path, *members: tarfile.TarInfo, contents: bytes = b"select 1") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if member.isreg():
                member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refusal(path: Path, destination: Path, **limits: int) -> str:
    with pytest.raises(TypedError) as refused:
        bundle.unpack(path, destination, **limits)
    assert refused.value.kind is RELEASE_CORRUPT
    assert not destination.exists()
    return refused.value.message


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    contents = {"dbt_project.yml": b"name: shop", "models/" + "deep/" * 60 + "größe.sql": b"select 1", "seeds/empty.csv": b""}
    bundle.pack(files_in(tmp_path / "in", contents), tmp_path / "b.tar.gz")
    bundle.unpack(tmp_path / "b.tar.gz", tmp_path / "a" / "out")
    out = tmp_path / "a" / "out"
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == contents


def test_names_and_contents_alone_decide_the_digest(tmp_path: Path) -> None:
    contents = {"b.sql": b"select 2", "a.sql": b"select 1"}
    first, second = files_in(tmp_path / "1", contents), files_in(tmp_path / "2", contents)
    second["a.sql"].chmod(0o700)
    os.utime(second["b.sql"], (1, 1))
    bundle.pack(first, tmp_path / "1.tar.gz")
    bundle.pack(dict(reversed(second.items())), tmp_path / "2-under-another-name.tar.gz")
    assert sha256_of(tmp_path / "1.tar.gz") == sha256_of(tmp_path / "2-under-another-name.tar.gz")

    second["a.sql"].write_bytes(b"select 3")
    bundle.pack(second, tmp_path / "3.tar.gz")
    assert sha256_of(tmp_path / "3.tar.gz") != sha256_of(tmp_path / "1.tar.gz")


def test_files_come_out_without_a_time_that_dbt_trusts(tmp_path: Path) -> None:
    bundle.pack(files_in(tmp_path / "in", {"models.yml": b"version: 2"}), tmp_path / "b.tar.gz")
    bundle.unpack(tmp_path / "b.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "models.yml").stat().st_mtime == 0
    assert stat.S_IMODE((tmp_path / "out" / "models.yml").stat().st_mode) == 0o644


def test_another_compression_is_the_same_content(tmp_path: Path) -> None:
    bundle.pack(files_in(tmp_path / "in", {"a.sql": b"select 1" * 100}), tmp_path / "b.tar.gz")
    (tmp_path / "fast.tar.gz").write_bytes(gzip.compress(gzip.decompress((tmp_path / "b.tar.gz").read_bytes()), 1))
    assert sha256_of(tmp_path / "fast.tar.gz") != sha256_of(tmp_path / "b.tar.gz")
    assert bundle.content_digest(tmp_path / "fast.tar.gz") == bundle.content_digest(tmp_path / "b.tar.gz") is not None


def test_what_is_not_gzip_has_no_content(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not an archive")
    assert bundle.content_digest(tmp_path / "text") is None


@pytest.mark.parametrize("name", ["../evil.sql", "models/../../evil.sql", "/evil.sql", "models/..", "."])
def test_no_member_leaves_the_project(tmp_path: Path, name: str) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("dbt_project.yml"), member(name))
    assert "outside of the project" in refusal(path, tmp_path / "x" / "out")
    assert not list(tmp_path.rglob("evil.sql"))


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "dbt_project.yml"),
        (tarfile.LNKTYPE, "dbt_project.yml"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
    ids=["link out", "link inside", "hard link", "character device", "block device", "fifo"],
)
def test_members_are_plain_files(tmp_path: Path, kind: bytes, link: str) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("dbt_project.yml"), member("thing", kind, link))
    assert "neither a plain file nor a folder" in refusal(path, tmp_path / "out")


def test_a_name_is_there_once(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("a.sql"), member("./a.sql"))
    assert "twice" in refusal(path, tmp_path / "out")


@pytest.mark.parametrize("names", [("a", "a/b.sql"), ("a/b.sql", "a")])
def test_a_file_is_no_folder(tmp_path: Path, names: tuple[str, str]) -> None:
    path = archive_of(tmp_path / "b.tar.gz", *map(member, names))
    assert "a file and a folder" in refusal(path, tmp_path / "out")


def test_a_bundle_may_not_unpack_to_more_than_the_limit(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("a"), member("b"), contents=bytes(1000))
    assert "more than 1,999 bytes" in refusal(path, tmp_path / "out", max_bytes=1999)
    bundle.unpack(path, tmp_path / "out", max_bytes=2000)


def test_a_member_that_claims_more_than_the_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    claim = tarfile.TarInfo("huge")
    claim.size = bundle.MAX_BYTES + 1
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(claim.tobuf() + bytes(1024)))
    assert "more than 2,147,483,648 bytes" in refusal(tmp_path / "b.tar.gz", tmp_path / "out")


def test_a_bundle_may_not_hold_more_members_than_the_limit(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("a"), member("b"), member("c"))
    assert "more than 2 members" in refusal(path, tmp_path / "out", max_members=2)
    bundle.unpack(path, tmp_path / "out", max_members=3)


def header(kind: bytes, size: int) -> bytes:
    info = member("header", kind)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_cannot_fill_the_memory(tmp_path: Path, kind: bytes) -> None:
    size = 64 << 20
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(header(kind, size) + bytes(size) + header(tarfile.REGTYPE, 0), 1))
    tracemalloc.start()
    try:
        assert "a header of 67,108,864 bytes" in refusal(tmp_path / "b.tar.gz", tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_chain_of_headers_is_refused(tmp_path: Path) -> None:
    one = header(tarfile.XHDTYPE, 512) + b"11 a=bcdef\n".ljust(512, b"\0")
    (tmp_path / "chain").write_bytes(gzip.compress(one * 3000))
    # A library may raise the limit for the whole process, as the JSONata one does: the test says what it needs.
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    try:
        assert "recursion" in refusal(tmp_path / "chain", tmp_path / "out")
    finally:
        sys.setrecursionlimit(usual)


def test_headers_of_many_bytes_are_refused(tmp_path: Path) -> None:
    wide = header(tarfile.XHDTYPE, 16_384) + b"16384 a=".ljust(16_383, b"x") + b"\n"
    (tmp_path / "wide").write_bytes(gzip.compress((wide + member("a").tobuf()) + (wide + member("b").tobuf()) + bytes(1024)))
    assert "with its headers" in refusal(tmp_path / "wide", tmp_path / "out", max_members=3, max_bytes=1)


@pytest.mark.parametrize("name", ["x" * 256, "/".join(["folder"] * 500)[1:]])
def test_a_name_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("dbt_project.yml"), member(name))
    assert "too long" in refusal(path, tmp_path / "out")


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    bundle.pack(files_in(tmp_path / "in", {"a.sql": os.urandom(100_000)}), tmp_path / "b.tar.gz")
    whole = (tmp_path / "b.tar.gz").read_bytes()
    damaged = {
        "half": whole[: len(whole) // 2],
        "start": whole[:5],
        "empty": b"",
        "text": b"select 1",
        "flipped": whole[:5000] + bytes(100),
    }
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert "cannot be read" in refusal(tmp_path / name, tmp_path / "out"), name


def test_unpacking_needs_a_new_folder(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "b.tar.gz", member("a.sql"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.sql").write_text("mine")
    with pytest.raises(FileExistsError):
        bundle.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "a.sql").read_text() == "mine"


def test_a_project_beyond_the_limits_is_not_packed(tmp_path: Path) -> None:
    files = files_in(tmp_path, {"a.sql": bytes(10), "data.csv": bytes(90)})
    with pytest.raises(TypedError, match=r"100 bytes, a release holds 99.*data.csv") as refused:
        bundle.pack(files, tmp_path / "b.tar.gz", max_bytes=99)
    assert refused.value.kind is INVALID_REQUEST
    with pytest.raises(TypedError, match="2 files, a release holds 1"):
        bundle.pack(files, tmp_path / "b.tar.gz", max_members=1)
    assert not (tmp_path / "b.tar.gz").exists()
