"""dbt's parse is made once and used by later runs, as long as dbt itself finds nothing to object to; it never fails a run."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dbt_runner import parse_cache, profile
from dbt_runner.config import Warehouse
from dbt_runner.events import Parsed
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask
from dbt_runner.parse_cache import ParseCache
from dbt_runner.release import Release
from dbt_runner.store import AlreadyThere, Store
from runner import projects
from runner.attempts import Run, publish
from runner.releases import objects

NOT_FOUND = "saved manifest not found. Starting full parse."


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    return Run(store, environment)


def cached(store: Store) -> dict[str, bytes]:
    listed = boto3.client("s3").list_objects_v2(Bucket=store.bucket, Prefix="cache/").get("Contents", [])
    return {entry["Key"]: boto3.client("s3").get_object(Bucket=store.bucket, Key=entry["Key"])["Body"].read() for entry in listed}


def attempt_next(run: Run, name: str, command: str) -> dict[str, str]:
    """What a new step says of its parse. A run of its own would do the same; a step is one item less to write."""
    run.steps.append({"name": name, "commands": [command], "on_failure": "fail", "timeout_seconds": 600})
    assert run.attempt(position=len(run.steps)) == 0
    parse: dict[str, str] = run.outcome(f"STEP#{len(run.steps):02}#{name}#1")["parse"]
    return parse


def overwrite(store: Store, body: bytes) -> None:
    [key] = cached(store)
    boto3.client("s3").put_object(Bucket=store.bucket, Key=key, Body=body)


# --- with the real dbt -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("warm_worker")
def test_later_runs_start_from_what_the_first_one_parsed_unless_dbt_objects(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.steps.clear()

    def parse_of(name: str) -> dict[str, str]:
        return attempt_next(run, name, "build")

    # Seeds are found where the project is now, and not where it was when it was parsed.
    files = {"seeds/b.csv": "id\n1\n", "models/a.sql": "select '{{ var('x', '') }}' as x"}
    publish(run.store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT, **files})
    assert parse_of("first") == {"cache": "made", "reason": NOT_FOUND}
    [(key, first)] = cached(run.store).items()
    assert key.startswith("cache/prod/1.4.2/dbt-core-") and "_dbt-duckdb-" in key and key.endswith("/partial_parse.msgpack")
    assert parse_of("second") == {"cache": "used"}
    assert cached(run.store) == {key: first}

    # Whatever led the wrong file to this key: it was parsed with other variables, and dbt sees that.
    monkeypatch.setattr(parse_cache, "_key", lambda asked, release, target: key)
    run.config["jobs"]["hourly"]["vars"] = run.plan["vars"] = {"x": "1"}
    changed = {"cache": "renewed", "reason": "config vars, config profile, or config target have changed"}
    assert parse_of("other_vars") == changed
    import duckdb

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        assert warehouse.sql("select x from a").fetchall() == [("1",)]

    # dbt refuses a file that it cannot read: the run goes on, and leaves a good one.
    overwrite(run.store, first[: len(first) // 2])
    parse = parse_of("damaged")
    assert parse["cache"] == "renewed" and parse["reason"].startswith("the saved manifest could not be read: ")
    assert len(cached(run.store)[key]) > len(first) // 2


# --- without dbt -----------------------------------------------------------------------------------------------------


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(said: io.StringIO) -> JsonLog:
    return JsonLog({}, said)


def cache_of(store: Store, folder: Path, log: JsonLog, *, digest: str = "d1", **changed: Any) -> ParseCache:
    folder.mkdir(exist_ok=True)
    asked = projects.asked(Warehouse("duckdb", {"path": str(folder / "w.duckdb")}, {}), **changed)
    release = Release("1.0", digest, folder, "tiny", None, "1.11.16")
    return ParseCache(store, asked, release, profile.of_run(asked), folder, log, Mask(["s3cret-of-the-team"]))


def leave(folder: Path, content: bytes = b"a parse") -> None:
    folder.mkdir(exist_ok=True)
    (folder / parse_cache.FILE).write_bytes(content)


def left(cache: ParseCache, parsed: Parsed) -> Mapping[str, str]:
    """What an attempt leaves whose worker said this."""
    cache.take(parsed)
    return cache.keep()


def key_of(cache: ParseCache) -> str:
    assert cache._key is not None
    return cache._key


def test_duckdb_still_looks_for_seeds_where_they_were_parsed() -> None:
    """Canary: dbt_hooks.finding_seeds can go when this fails, and no other adapter reads seeds by itself."""
    from dbt.adapters.duckdb.impl import DuckDBAdapter

    model = {"root_path": "/gone", "original_file_path": "seeds/a.csv"}
    assert DuckDBAdapter.get_seed_file_path(None, model) == "/gone/seeds/a.csv"


def test_what_makes_dbt_refuse_a_cache_is_part_of_its_key(
    store: Store, tmp_path: Path, log: JsonLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {"hourly": {"vars": {"x": 1}}}
    base = key_of(cache_of(store, tmp_path / "a", log, jobs=jobs))
    assert base == key_of(cache_of(store, tmp_path / "a", log, jobs=jobs))
    others = [
        key_of(cache_of(store, tmp_path / "a", log, jobs=jobs, digest="d2")),
        key_of(cache_of(store, tmp_path / "a", log, jobs=jobs, vars={"x": 1})),
        # Another database.
        key_of(cache_of(store, tmp_path / "b", log, jobs=jobs)),
    ]
    monkeypatch.setattr("dbt_runner.parse_cache.metadata.version", lambda name: "9.9")
    others.append(key_of(cache_of(store, tmp_path / "a", log, jobs=jobs)))
    assert len({base, *others}) == 5


def test_variables_of_one_run_alone_leave_nothing(store: Store, tmp_path: Path, log: JsonLog) -> None:
    cache = cache_of(store, tmp_path / "a", log, jobs={"hourly": {"vars": {"x": 1}}}, vars={"x": 2})
    cache.fetch()
    leave(tmp_path / "a")
    assert left(cache, Parsed(0, ["because"])) == {"cache": "none", "reason": "because"}
    assert not objects(store)


def test_of_two_runs_at_once_one_makes_the_cache_and_both_go_on(store: Store, tmp_path: Path, log: JsonLog) -> None:
    first, second = cache_of(store, tmp_path / "a", log), cache_of(store, tmp_path / "a", log)
    for cache in (first, second):
        cache.fetch()
    leave(tmp_path / "a")
    assert left(first, Parsed(0, [NOT_FOUND])) == {"cache": "made", "reason": NOT_FOUND}
    assert left(second, Parsed(0, [NOT_FOUND])) == {"cache": "kept", "reason": NOT_FOUND}
    assert len(objects(store)) == 1


def test_only_the_version_that_dbt_refused_is_replaced(store: Store, tmp_path: Path, log: JsonLog) -> None:
    store.upload_new(b"bad", key_of(cache_of(store, tmp_path / "a", log)))
    first, second = cache_of(store, tmp_path / "a", log), cache_of(store, tmp_path / "a", log)
    for cache in (first, second):
        cache.fetch()
    leave(tmp_path / "a", b"good")
    assert left(first, Parsed(0, ["profile has changed"]))["cache"] == "renewed"
    leave(tmp_path / "a", b"other")
    assert left(second, Parsed(0, ["profile has changed"]))["cache"] == "kept"
    assert list(cached(store).values()) == [b"good"]


def test_a_parse_that_holds_a_secret_is_not_kept(store: Store, tmp_path: Path, log: JsonLog, said: io.StringIO) -> None:
    """dbt stores what env_var() gave to a file, to know when that has changed; test_secrets.py has it from dbt itself."""
    cache = cache_of(store, tmp_path / "a", log)
    cache.fetch()
    leave(tmp_path / "a", b"\x83\xd9\x12s3cret-of-the-team\xa3")
    assert left(cache, Parsed(0, [NOT_FOUND])) == {"cache": "none", "reason": NOT_FOUND}
    assert not objects(store)
    assert "secret" in said.getvalue()


def test_a_parse_that_came_to_no_end_leaves_nothing(store: Store, tmp_path: Path, log: JsonLog) -> None:
    cache = cache_of(store, tmp_path / "a", log)
    leave(tmp_path / "a", b"half a fi")
    assert cache.keep() == {"cache": "none"}
    assert not objects(store)


def test_a_store_that_refuses_fails_no_run(
    store: Store, tmp_path: Path, log: JsonLog, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(Store, "download_version", refuse)
    monkeypatch.setattr(Store, "upload_version", refuse)
    cache = cache_of(store, tmp_path / "a", log)
    cache.fetch()
    leave(tmp_path / "a")
    assert left(cache, Parsed(0, [NOT_FOUND])) == {"cache": "none", "reason": NOT_FOUND}
    lines = [json.loads(line)["message"] for line in said.getvalue().splitlines()]
    assert [line.split(":")[0] for line in lines] == ["the parse cache could not be read", "the parse cache could not be written"]


def test_a_version_is_replaced_only_where_it_still_stands(store: Store, tmp_path: Path) -> None:
    store.upload_version(b"1", "cache/x", replaces=None)
    etag = store.download_version("cache/x", tmp_path / "copy")
    assert etag is not None
    with pytest.raises(AlreadyThere):
        store.upload_version(b"2", "cache/x", replaces=None)
    store.upload_version(b"2", "cache/x", replaces=etag)
    for key in ("cache/x", "cache/gone"):
        with pytest.raises(AlreadyThere):
            store.upload_version(b"2", key, replaces=etag)
