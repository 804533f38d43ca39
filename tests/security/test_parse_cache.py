"""A parse cache is as trustworthy as who made it: later runs get what dbt had parsed before any node ran, and nothing else.

The worker of most tests is a script, because the attack is one of a worker that a node's work has taken over.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import parse_cache, worker
from dbt_runner.events import Parsed, ParseNotHeld
from dbt_runner.parse_cache import ParseCache
from dbt_runner.store import Store
from dbt_runner.wire import decode
from runner import projects
from runner.attempts import Run, publish
from runner.conftest import audit_store, environment, no_outside_settings, store  # noqa: F401  # fixtures

GOOD, EVIL = b"what dbt parsed", b"what a node left"


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:  # noqa: F811
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    publish(store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    return Run(store, environment)


def cached(store: Store) -> list[bytes]:  # noqa: F811
    s3 = boto3.client("s3")
    listed = s3.list_objects_v2(Bucket=store.bucket, Prefix="cache/").get("Contents", [])
    return [s3.get_object(Bucket=store.bucket, Key=entry["Key"])["Body"].read() for entry in listed]


# What a worker can do about the file. `parse()` is what an honest one does: it tells, and waits for the answer.
PRELUDE = f"""
import shutil
os.chdir(spec["artifacts"])
FILE, GOOD, EVIL = {parse_cache.FILE!r}, {GOOD!r}, {EVIL!r}


def put(content, path=FILE):
    with open(path, "wb") as file:
        file.write(content)


def parse(index=0):
    start()
    tell("Parsed", index=index, reasons=["saved manifest not found"])


def parsed():
    put(GOOD)
    parse()
    assert os.read(spec["replies_fd"], 1)


"""
# What is done after the parse, when a node has taken over the worker.
LATER: Mapping[str, str] = {
    "nothing": "",
    "writes the file again": "put(EVIL)\n",
    "puts another file in its place": "put(EVIL, 'other')\nos.replace('other', FILE)\n",
    "writes through a descriptor": "descriptor = os.open(FILE, os.O_RDWR)\nos.pwrite(descriptor, EVIL, 0)\n",
    "cuts it": "os.truncate(FILE, 3)\n",
    "removes it": "os.remove(FILE)\n",
    "puts a link in its place": "put(EVIL, 'other')\nos.remove(FILE)\nos.symlink('other', FILE)\n",
    "puts a FIFO in its place": "os.remove(FILE)\nos.mkfifo(FILE)\n",
    "tells a second parse": "put(EVIL)\nparse()\n",
    "tells a parse of a second command": "put(EVIL)\ntell('Parsed', index=1, reasons=['x'])\n",
    "tells that there was nothing to parse": "put(EVIL)\ntell('Parsed', index=0, reasons=[])\n",
    "fills the pipe of answers": "put(EVIL)\nfor _ in range(500): parse()\n",
    "moves the whole folder": (
        "os.chdir('..')\nshutil.move('target', 'moved')\nos.mkdir('target')\nput(EVIL, 'target/' + FILE)\nos.chdir('target')\n"
    ),
    "keeps a descriptor from before": "os.pwrite(before, EVIL, 0)\n",
    "looks for the copy": (
        "for folder in ('/tmp', '..', '/dev/shm', f'/proc/{os.getppid()}/fd'):\n"
        "    for name in (os.listdir(folder) if os.access(folder, os.R_OK) else ()):\n"
        "        assert GOOD.decode() not in name\nput(EVIL)\n"
    ),
}
# What makes the supervisor take nothing at all.
NOTHING: Mapping[str, str] = {
    "no parse": "put(EVIL)\nstart()\nnode('a')\n",
    "a parse after a node": "put(EVIL)\nnode('a')\nparse()\n",
    "a parse of a command that has not begun": "put(EVIL)\ntell('Parsed', index=0, reasons=['x'])\n",
    "a parse of another command": "start()\nput(EVIL)\ntell('Parsed', index=1, reasons=['x'])\n",
    "a parse after the command's end": (
        "put(EVIL)\nstart()\ntell('CommandResult', index=0, success=True, seconds=1.0, selected=1)\n"
        "tell('Parsed', index=0, reasons=['x'])\n"
        "tell('Finished')\nos._exit(0)\n"
    ),
    "a parse after the worker's end": "start()\nput(EVIL)\ndone()\nparse()\nos._exit(0)\n",
    "a worker that did not wait": "put(EVIL)\nparse()\ntell('ParseNotHeld', index=0)\n",
    "no file": "parse()\n",
    "a link": "put(EVIL, 'other')\nos.symlink('other', FILE)\nparse()\n",
    "a link to the supervisor's environment": "os.symlink('/proc/self/environ', FILE)\nparse()\n",
    "a FIFO": "os.mkfifo(FILE)\nparse()\n",
    "a folder": "os.mkdir(FILE)\nparse()\n",
    "a sparse file of 1 GiB": "open(FILE, 'wb').truncate(1 << 30)\nparse()\n",
    "reasons that are no list": "put(EVIL)\nstart()\ntell('Parsed', index=0, reasons='text')\n",
}


def attempt(run: Run, tmp_path: Path, script: str) -> Mapping[str, str]:
    run.environment.update(projects.scripted(tmp_path / "scripted", PRELUDE + script))
    assert run.attempt() == 0
    parse: Mapping[str, str] = run.outcome()["parse"]
    return parse


@pytest.mark.attack("parse cache")
@pytest.mark.parametrize("name", LATER)
def test_what_a_node_does_to_the_file_reaches_no_later_run(run: Run, tmp_path: Path, name: str) -> None:
    script = f"put(GOOD)\nbefore = os.open(FILE, os.O_RDWR)\nparsed()\n{LATER[name]}node('a')\ndone()\n"
    assert attempt(run, tmp_path, script)["cache"] == "made"
    assert cached(run.store) == [GOOD]


@pytest.mark.attack("parse cache")
@pytest.mark.parametrize("name", NOTHING)
def test_what_was_not_taken_before_a_node_ran_is_not_kept(run: Run, tmp_path: Path, name: str) -> None:
    assert attempt(run, tmp_path, f"{NOTHING[name]}done()\n")["cache"] == "none"
    assert not cached(run.store)


@pytest.mark.control("parse cache")
@pytest.mark.parametrize("name", ["writes the file again", "puts another file in its place", "writes through a descriptor"])
def test_taken_at_the_end_a_nodes_work_reaches_later_runs(run: Run, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take, keep = ParseCache.take, ParseCache.keep
    told: list[Parsed] = []

    def late(cache: ParseCache) -> Mapping[str, str]:
        take(cache, told[0])
        return keep(cache)

    monkeypatch.setattr(ParseCache, "take", lambda cache, parsed: told.append(parsed))
    monkeypatch.setattr(ParseCache, "keep", late)
    attempt(run, tmp_path, f"parsed()\n{LATER[name]}node('a')\ndone()\n")
    assert cached(run.store)[0].startswith(EVIL[:10])


@pytest.mark.attack("parse cache")
def test_a_killed_worker_has_left_a_good_parse_all_the_same(run: Run, tmp_path: Path) -> None:
    run.environment.update(
        projects.scripted(tmp_path / "scripted", f"{PRELUDE}parsed()\nput(EVIL)\nnode('a')\nos.kill(os.getpid(), signal.SIGKILL)\n")
    )
    assert run.attempt() != 0
    assert cached(run.store) == [GOOD]


def test_a_supervisor_that_cannot_take_the_file_keeps_no_worker_waiting(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(cache: ParseCache, parsed: Parsed) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ParseCache, "take", fails)
    assert attempt(run, tmp_path, "parsed()\nnode('a')\ndone()\n")["cache"] == "none"


# --- the worker's side -----------------------------------------------------------------------------------------------------


def holding(tmp_path: Path, reply: Callable[[int, int], object], monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """What the real worker tells about its parse, before a supervisor that answers so."""
    reader, writer = os.pipe()
    monkeypatch.setattr(worker, "HOLD_SECONDS", 0.05)
    events = io.StringIO()
    given = projects.spec(tmp_path, ["build"])
    held = worker.Worker(type(given)(**{**vars(given), "replies_fd": reader}), events, io.StringIO())
    held._parse_reasons = ["saved manifest not found"]
    reply(reader, writer)
    held._hold_parse()
    held._hold_parse()
    return [type(decode(line)) for line in events.getvalue().splitlines()]


def test_a_worker_waits_for_the_answer_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holding(tmp_path, lambda _, writer: os.write(writer, b"\n"), monkeypatch) == [Parsed]


@pytest.mark.parametrize("reply", [lambda *_: None, lambda _, writer: os.close(writer)], ids=["too slow", "gone"])
def test_a_worker_stops_waiting_and_says_so(tmp_path: Path, reply: Callable[[int, int], object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert holding(tmp_path, reply, monkeypatch) == [Parsed, ParseNotHeld]


# --- real dbt --------------------------------------------------------------------------------------------------------------


@pytest.mark.attack("parse cache")
def test_real_dbt_is_held_before_any_hook_or_node_and_they_cannot_change_what_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks and models that write over the parse by SQL, as an injection in the warehouse's data could."""
    seen: list[bool] = []
    take = ParseCache.take
    mark = tmp_path / "a_hook_ran"

    def watching(cache: ParseCache, parsed: Parsed) -> None:
        seen.append(mark.exists())
        take(cache, parsed)

    monkeypatch.setattr(ParseCache, "take", watching)
    overwrite = "copy (select 'what a node left' as x) to '{{ flags.TARGET_PATH }}/partial_parse.msgpack' (format csv)"
    publish(
        run.store,
        tmp_path / "other",
        {
            "dbt_project.yml": projects.PROJECT + f'on-run-start: ["copy (select 1) to \'{mark}\'", "{overwrite}"]\n',
            "models/a.sql": '{{ config(post_hook="'
            + overwrite.replace("{{ flags.TARGET_PATH }}", '" ~ flags.TARGET_PATH ~ "')
            + '") }} select 1 as id',
        },
        version="2.0",
    )
    run.release = "2.0"
    run.steps[0]["commands"] = ["build", "build"]
    assert run.attempt() == 0
    assert run.outcome()["parse"]["cache"] == "made"
    assert seen == [False] and mark.exists()
    [body] = cached(run.store)
    assert b"what a node left" not in body[:200] and b"model.tiny.a" in body
