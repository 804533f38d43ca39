"""Files that a worker leaves are untrusted: what is not a plain file within limits is left out, and the outcome says so."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import pytest

from dbt_runner import artifacts, lineage, memory, report, untrusted_files
from dbt_runner.masking import Mask
from dbt_runner.run_records import RunDetail
from dbt_runner.store import Store
from runner import projects
from runner.attempts import PREFIX, Run, publish
from runner.conftest import audit_store, environment, no_outside_settings, store  # noqa: F401  # fixtures
from security.test_pipe import attack

SECRET = "the-control-role-in-the-supervisor"


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:  # noqa: F811
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    publish(store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    return Run(store, environment)


def uploaded(run: Run) -> dict[str, bytes]:
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket=run.store.bucket, Prefix=f"{PREFIX}build/1/").get("Contents", [])
    return {
        entry["Key"].removeprefix(f"{PREFIX}build/1/"): s3.get_object(Bucket=run.store.bucket, Key=entry["Key"])["Body"].read()
        for entry in listed
    }


TARGET = "os.chdir(spec['artifacts'])\n"
ENDS = "open('dbt.log', 'w').write('a log')\nnode('a', 'error')\ndone(False)\n"
# name: (what the worker does in its folder, what the outcome says of it)
LEFT: Mapping[str, tuple[str, list[str]]] = {
    "a link to the supervisor's environment": ("os.symlink('/proc/self/environ', 'manifest.json')\n", ["manifest.json: a link"]),
    "a link to a file": ("os.symlink('/etc/hostname', 'manifest.json')\n", ["manifest.json: a link"]),
    "a link to nothing": ("os.symlink('/nothing', 'manifest.json')\n", ["manifest.json: a link"]),
    "a link to itself": ("os.symlink('manifest.json', 'manifest.json')\n", ["manifest.json: a link"]),
    "a link to an endless device": ("os.symlink('/dev/zero', 'manifest.json')\n", ["manifest.json: a link"]),
    "a folder of a command that is a link": (
        "os.mkdir('../x')\nopen('../x/run_results.json', 'w').write('{}')\nos.symlink('../x', 'command-0')\n",
        ["command-0/run_results.json: its folder is none"],
    ),
    "a FIFO": ("os.mkfifo('manifest.json')\n", ["manifest.json: not a regular file"]),
    "a socket": (
        "import socket\nsocket.socket(socket.AF_UNIX).bind('manifest.json')\n",
        ["manifest.json: cannot be opened (No such device or address)"],
    ),
    "a folder": ("os.mkdir('manifest.json')\n", ["manifest.json: not a regular file"]),
    "a sparse file of 1 GiB": ("open('manifest.json', 'w').truncate(1 << 30)\n", ["manifest.json: 1,073,741,824 bytes, more than LIMIT"]),
    "a sparse file of 8 EiB": (
        "open('manifest.json', 'w').truncate((1 << 43) - 1)\n",
        ["manifest.json: 8,796,093,022,207 bytes, more than LIMIT"],
    ),
    "400 folders of commands": (
        "for n in range(400):\n    os.mkdir(f'command-{n}')\n    open(f'command-{n}/run_results.json', 'w').write('{}')\n",
        ["399 folders of commands that the step does not have"],
    ),
    "a manifest that nests 100,000 deep": ("open('manifest.json', 'w').write('[' * 100_000)\n", []),
    "a manifest of other types": (
        "node_a = {'unique_id': 'a', 'depends_on': {'nodes': [1, {}]}, 'meta': {'owner': [[[{}]]]}}\n"
        "open('manifest.json', 'w').write(json.dumps({'nodes': {'a': node_a}, 'groups': [1], 'sources': {'b': []}}))\n",
        [],
    ),
    "a manifest that is half a text": ("open('manifest.json', 'wb').write(b'{\"nodes\": \\xff')\n", []),
    "sources of other types": (
        "source = {'unique_id': 'a', 'criteria': 7, 'max_loaded_at_time_ago_in_s': float('nan')}\n"
        "open('sources.json', 'w').write(json.dumps({'results': [1, {}, source]}))\n",
        [],
    ),
    "its own folder gone": (
        "import shutil\nshutil.rmtree(spec['artifacts'])\nos.mkdir(spec['artifacts'])\nos.chdir(spec['artifacts'])\n",
        [],
    ),
}


@pytest.mark.attack("files")
@pytest.mark.parametrize("name", LEFT)
def test_what_is_no_plain_file_within_limits_is_left_out(run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONLY_THE_SUPERVISOR_HAS", SECRET)
    script, left_out = LEFT[name]
    item = attack(run, tmp_path, TARGET + script + ENDS)
    limit = f"{untrusted_files.largest_file():,}"
    assert item.get("left_out", []) == [text.replace("LIMIT", limit) for text in left_out]
    assert item["error"] == "Dbt.ModelError"
    found = uploaded(run)
    assert found["dbt.log"] == b"a log", "what is good is kept"
    assert not any(SECRET.encode() in body for body in found.values())
    assert {artifact["key"].removeprefix(f"{PREFIX}build/1/") for artifact in item["artifacts"]} == set(found)


@pytest.mark.control("files")
def test_without_the_defence_a_link_uploads_the_supervisors_environment(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(path: Path, target: BinaryIO, most: int) -> int:
        with path.open("rb") as file:
            shutil.copyfileobj(file, target)
        return 0

    monkeypatch.setattr(untrusted_files, "copy", copy)
    attack(run, tmp_path, TARGET + LEFT["a link to the supervisor's environment"][0] + ENDS)
    assert b"PATH=" in uploaded(run)["manifest.json"]


@pytest.mark.attack("files")
def test_a_hard_link_leaves_the_other_file_as_it_is(tmp_path: Path) -> None:
    other, source, kept = tmp_path / "other", tmp_path / "target", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    other.write_text(f"it has {SECRET}")
    os.link(other, source / "dbt.log")
    assert artifacts.collect(source, kept, 1, Mask([SECRET])).names == ["dbt.log"]
    assert other.read_text() == f"it has {SECRET}"
    assert SECRET not in (kept / "dbt.log").read_text()


@pytest.mark.attack("files")
def test_a_link_in_the_place_of_the_masked_copy_is_not_written_through(tmp_path: Path) -> None:
    victim, source, kept = tmp_path / "victim", tmp_path / "target", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    victim.write_text("untouched")
    (source / "dbt.log").write_text(SECRET)
    for name in ("dbt.log.masked", ".dbt.log", "dbt.log.tmp"):
        (source / name).symlink_to(victim)
    assert artifacts.collect(source, kept, 1, Mask([SECRET])).names == ["dbt.log"]
    assert victim.read_text() == "untouched"
    assert sorted(path.name for path in kept.iterdir()) == ["dbt.log"]


@pytest.mark.attack("files")
@pytest.mark.parametrize("change", ["grows", "shrinks", "is written again"])
def test_a_file_that_changes_while_it_is_read_is_left_out(tmp_path: Path, change: str) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"x" * (3 << 20))

    class Meanwhile(list[bytes]):
        def write(self, chunk: bytes) -> int:
            if not self:
                os.utime(path, ns=(0, 0))
                if change != "is written again":
                    os.truncate(path, (2 << 20) if change == "shrinks" else (4 << 20))
            self.append(chunk)
            return len(chunk)

    with pytest.raises(untrusted_files.Unreadable, match="changed"):
        untrusted_files.copy(path, Meanwhile(), 64 << 20)  # type: ignore[arg-type]


@pytest.mark.attack("files")
def test_a_file_that_grows_beyond_the_limit_is_read_no_further(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(b"x" * 100)

    class Growing(list[bytes]):
        def write(self, chunk: bytes) -> int:
            with path.open("ab") as file:
                file.write(b"x" * 100)
            self.append(chunk)
            return len(chunk)

    with pytest.raises(untrusted_files.Unreadable):
        untrusted_files.copy(path, Growing(), 1000)  # type: ignore[arg-type]


@pytest.mark.attack("files")
def test_one_file_that_cannot_be_masked_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, kept = tmp_path / "target", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    for name in ("manifest.json", "dbt.log"):
        (source / name).write_text("{}")

    def fails(path: Path) -> None:
        if path.name == "manifest.json":
            raise MemoryError

    mask = Mask()
    monkeypatch.setattr(mask, "file", fails)
    collected = artifacts.collect(source, kept, 1, mask)
    assert (collected.names, collected.left_out) == (["dbt.log"], ["manifest.json: MemoryError"])
    assert not (kept / "manifest.json").exists(), "what cannot be masked is not kept"


def test_an_attempt_that_has_no_time_left_begins_no_further_file(tmp_path: Path) -> None:
    source, kept = tmp_path / "target", tmp_path / "kept"
    source.mkdir()
    kept.mkdir()
    (source / "dbt.log").write_text("")
    assert artifacts.collect(source, kept, 1, Mask(), until=0.0).left_out == ["dbt.log: no time was left"]


@pytest.mark.attack("files")
@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, "NaN", "null", '{"nodes": 7}', '{"nodes": {"a": {"unique_id": {}}}}', '{"results": {"a": 1}}', "\x00", '{"a": 1e999}'],
)
def test_readers_of_artifacts_take_any_json(tmp_path: Path, text: str, store: Store, environment: dict[str, Any]) -> None:  # noqa: F811
    from dbt_runner import config

    for name in ("manifest.json", "sources.json"):
        (tmp_path / name).write_text(text)
    assert lineage.concerns(tmp_path / "manifest.json", ["a"], ["b"]) in ({}, {"a": lineage.Concern()})
    found = report.from_folder(config.parse(json.dumps(environment)), RunDetail(None, (), ()), tmp_path)  # type: ignore[arg-type]
    assert not found.freshness


def test_limits_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for mib in (128, 512, 1024, 4096, 131_072):
        monkeypatch.setattr(memory, "limit_mib", lambda mib=mib: mib)
        sizes[mib] = (untrusted_files.largest_file() >> 20, untrusted_files.largest_document() >> 20)
    assert sizes == {128: (32, 16), 512: (64, 16), 1024: (128, 32), 4096: (128, 128), 131_072: (128, 128)}
