"""Whatever bytes a bundle has: it is refused with a typed error and writes nothing, or its files lie in the folder that was asked for."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dbt_runner import bundle
from dbt_runner.errors import RELEASE_CORRUPT, TypedError
from security.fuzzing import bounded

LIMITS = {"max_members": 8, "max_bytes": 4_096}


def unpack(compressed: bytes) -> dict[str, bytes] | None:
    """What a bundle unpacks to; None when it is refused as it should be."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bundle").write_bytes(compressed)
        (Path(folder) / "canary").write_text("as before")
        out = Path(folder) / "a" / "out"
        try:
            bundle.unpack(Path(folder) / "bundle", out, **LIMITS)
        except TypedError as exc:
            assert exc.kind is RELEASE_CORRUPT
            assert not out.exists()
            return None
        finally:
            beside = {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_relative_to(out)}
            assert beside <= {"a", "bundle", "canary"}
            assert (Path(folder) / "canary").read_text() == "as before"
        paths = list(out.rglob("*"))
        assert not [path for path in paths if path.is_symlink() or not (path.is_file() or path.is_dir())]
        files = [path for path in paths if path.is_file()]
        assert all(path.stat().st_mtime == 0 and path.stat().st_mode & 0o7777 == 0o644 for path in files)
        found = {str(path.relative_to(out)): path.read_bytes() for path in files}
        assert len(found) <= LIMITS["max_members"] and sum(map(len, found.values())) <= LIMITS["max_bytes"]
        return found


def tar_of(*members: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=format) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(max(member.size, 0))) if member.isreg() else None)
    return raw.getvalue()


def member(name: str = "models/a.sql", size: int = 3, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


HONEST = tar_of(member("dbt_project.yml"), member(), member("größe/" + "x" * 120 + ".sql"))


def test_an_honest_bundle_is_unpacked() -> None:
    assert sorted(unpack(gzip.compress(HONEST)) or ()) == ["dbt_project.yml", "größe/" + "x" * 120 + ".sql", "models/a.sql"]


def pax(**records: str) -> bytes:
    """A member whose pax header has these records, also such as no writer makes."""
    return tar_of(member(pax_headers={name.replace("__", "."): value for name, value in records.items()}))


NUMBERS = ["nan", "-nan", "inf", "-inf", "1e400", "-1", "1e308", "99999999999999999999", "0x10", "1_0", "", " ", "١٢", "-0.0", "1e-400"]
_HOSTILE = {
    **{f"mtime {number!r}": pax(mtime=number) for number in NUMBERS},
    **{f"{field} {number!r}": pax(**{field: number}) for field in ("size", "uid", "gid", "GNU__sparse__size") for number in NUMBERS[:9]},
    **{f"sparse {number!r}": pax(GNU__sparse__major=number, GNU__sparse__minor="0", GNU__sparse__name="x") for number in ("1", "nan", "")},
    "sparse map": pax(GNU__sparse__map="1,x,3", GNU__sparse__size="9"),
    "path with NUL": pax(path="models/a\0b.sql"),
    "path out": pax(path="../../canary"),
    "path empty": pax(path=""),
    "path absolute": pax(path="/canary"),
    "path of surrogates": tar_of(member("\udcff/a.sql")),
    "hdrcharset": pax(hdrcharset="BINARY"),
    "charset of none": pax(hdrcharset="nonsense"),
    "negative size": tar_of(member())[:124] + b"\xff" * 12 + tar_of(member())[136:],
    "base-256 mtime": tar_of(member())[:136] + b"\x80" + b"\xff" * 11 + tar_of(member())[148:],
}


def checksummed(raw: bytes) -> bytes:
    """A tar whose first header has the right checksum for what it says."""
    header = bytearray(raw[:512])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + raw[512:]


@pytest.mark.parametrize("name", _HOSTILE)
@pytest.mark.attack("bundle reader")
def test_hostile_headers_end_typed_or_harmless(name: str) -> None:
    raw = _HOSTILE[name]
    found = unpack(gzip.compress(checksummed(raw)))
    if name in (
        "mtime 'nan'",
        "mtime '-nan'",
        "mtime 'inf'",
        "mtime '-inf'",
        "mtime '1e400'",
        "path out",
        "path absolute",
        "negative size",
    ):
        assert found is None


@pytest.mark.control("bundle reader")
def test_without_the_checks_a_time_that_is_no_number_ends_untyped(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_bytes(gzip.compress(_HOSTILE["mtime 'nan'"]))
    with tarfile.open(tmp_path / "bundle") as archive, pytest.raises(ValueError, match="NaN"):
        archive.extractall(tmp_path / "out", filter="data")


@bounded(150)
@given(st.binary(max_size=2_000))
@pytest.mark.attack("bundle reader")
def test_any_bytes_end_typed(raw: bytes) -> None:
    unpack(raw)
    unpack(gzip.compress(raw, 1))


@bounded(250)
@given(st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), min_size=1, max_size=12), st.booleans())
@example([(124, 0xFF), (125, 0xFF)], True)
@example([(156, ord("x"))], True)
@example([(156, ord("S"))], True)
@pytest.mark.attack("bundle reader")
def test_a_mutated_bundle_ends_typed_or_harmless(changes: list[tuple[int, int]], mended: bool) -> None:
    raw = bytearray(HONEST)
    for place, value in changes:
        raw[place] = value
    unpack(gzip.compress(checksummed(bytes(raw)) if mended else bytes(raw), 1))


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_RECORDS = st.dictionaries(
    st.sampled_from(
        ["path", "linkpath", "size", "mtime", "uid", "gid", "uname", "hdrcharset", "GNU.sparse.map", "GNU.sparse.size", "SCHILY.x"]
    ),
    _TEXT | st.sampled_from(NUMBERS) | st.floats().map(str) | st.integers().map(str),
    max_size=4,
)
_MEMBERS = st.builds(
    lambda name, size, kind, records, link: member(
        name, size if kind == tarfile.REGTYPE else 0, type=kind, pax_headers=records, linkname=link
    ),
    _TEXT | st.sampled_from(["a", "a/b", "./a", "../x", "/x", "a/../../x", "canary", "."]),
    st.integers(0, 2_000),
    st.sampled_from(
        [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE]
    ),
    _RECORDS,
    st.sampled_from(["", "..", "/etc", "a", "../../canary"]),
)


@bounded(250)
@given(st.lists(_MEMBERS, max_size=10), st.integers(0, 600))
@pytest.mark.attack("bundle reader")
def test_any_members_end_typed_or_harmless(members: list[tarfile.TarInfo], cut: int) -> None:
    raw = tar_of(*members)
    unpack(gzip.compress(raw[: len(raw) - cut] if cut < 100 else raw, 1))
