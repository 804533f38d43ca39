"""A run that is resumed on another release: what is kept of it, what runs again, and what is refused.

Real dbt on DuckDB with two releases for the one story; the rest by manifests and items alone.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbt_runner import bundle, carry_over, config, release, resume, stage
from dbt_runner.attempt import Attempt
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError
from dbt_runner.events import DONE_STATUSES
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest, load, locate, parse_command
from dbt_runner.store import Item, Store, environment_pk, run_pk
from runner import projects
from runner.attempts import RUN_KEY, Run
from runner.conftest import config_of

OLD: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT + "models: { tiny: { nowhere: { +enabled: true } } }\n",
    "seeds/raw.csv": "id\n1\n2\n",
    "macros/double.sql": "{% macro double(x) %}{{ x }} * 2{% endmacro %}",
    "models/staged.sql": "{% do exceptions.warn('careful') if execute %}select id from {{ ref('raw') }}",
    "models/aside.sql": "select id from {{ ref('staged') }}",
    "models/edited.sql": "select id from {{ ref('staged') }}",
    "models/after_edited.sql": "select id from {{ ref('edited') }}",
    "models/by_macro.sql": "select {{ double('id') }} as id from {{ ref('staged') }}",
    "models/broken.sql": "select no_such_column from {{ ref('staged') }}",
    "models/after_broken.sql": "select * from {{ ref('broken') }}",
    "models/models.yml": """
models:
  - { name: aside, columns: [{ name: id, data_tests: [not_null] }] }
  - { name: edited, columns: [{ name: id, data_tests: [not_null] }] }
""",
}
NEW = {
    **OLD,
    "macros/double.sql": "{% macro double(x) %}{{ x }} + {{ x }}{% endmacro %}",
    "models/edited.sql": "select id + 1 as id from {{ ref('staged') }}",
    "models/broken.sql": "select id as now_there from {{ ref('staged') }}",
    "models/added.sql": "select id from {{ ref('aside') }}",
}
KEPT = {"raw", "staged", "aside", "not_null_aside_id"}
AGAIN = {"edited", "after_edited", "not_null_edited_id", "by_macro", "broken", "after_broken", "added"}
SECOND_KEY = RUN_KEY.replace("r-1", "r-2")


# Both releases by one process: most of what a parse costs is dbt's import.
_PARSE = """
import sys
from dbt.cli.main import dbtRunner
for folder in sys.argv[1:]:
    places = ["--project-dir", f"{folder}/project", "--profiles-dir", folder, "--target-path", f"{folder}/target", "--log-path", folder]
    answer = dbtRunner().invoke(["parse", *places, "--log-level", "none", "--log-level-file", "none", "--no-partial-parse"])
    assert answer.success, answer.exception
"""


def publish(store: Store, folder: Path, releases: Mapping[str, Mapping[str, str]]) -> None:
    """Releases with the manifests that dbt makes of them."""
    profile = "of_a_developer: {target: t, outputs: {t: {type: duckdb, path: nowhere.duckdb}}}"
    for version, files in releases.items():
        projects.write(folder / version / "project", files)
        (folder / version / "profiles.yml").write_text(profile)
    subprocess.run([sys.executable, "-c", _PARSE, *(str(folder / version) for version in releases)], check=True)
    for version in releases:
        path = folder / f"{version}.tar.gz"
        bundle.pack(stage.files(folder / version / "project"), path)
        commit(store, version, path, (folder / version / "target" / "manifest.json").read_bytes())


def commit(store: Store, version: str, path: Path, manifest: bytes) -> None:
    about = {"project": "tiny", "dbt_version": "1.11", "adapter": "duckdb", "author": "arn"}
    git = dict.fromkeys(("git_commit", "git_branch", "git_dirty"))
    release.commit(store, release.Candidate(version=version, bundle=path, manifest=manifest, counts={}, **about, **git))  # type: ignore[arg-type]


def second(run: Run, **attributes: str) -> None:
    """The record of a run r-2 that resumes r-1 on 1.4.3, as the state machine writes it."""
    first = run.store.get(environment_pk("prod"), RUN_KEY)
    assert first is not None
    resumed = {"resumes": '["r-1"]', "resumed_releases": '["1.4.2"]', "resumed_from": "r-1"}
    place = {"sk": SECOND_KEY, "run_id": "r-2", "artifacts": "runs/prod/2026/11/23/r-2/"}
    run.store.put({**first, **place, "release": "1.4.3", **resumed, **attributes})


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    environment = config_of("prod")
    environment["warehouse"]["settings"].update(path=str(tmp_path / "warehouse.duckdb"), threads=1)
    return Run(store, environment)


@pytest.mark.xdist_group("resume")
@pytest.mark.usefixtures("warm_worker")
def test_a_mended_release_does_only_the_rest_and_what_stands_on_it(run: Run, tmp_path: Path) -> None:
    publish(run.store, tmp_path, {"1.4.2": OLD, "1.4.3": NEW})
    assert run.attempt() == 10
    before = {item["name"]: item["status"] for item in run.nodes().values()}
    assert {name for name, status in before.items() if status not in DONE_STATUSES} == {"broken", "after_broken"}
    warnings = {warning["event"]: warning for warning in run.outcome()["warnings"]}
    assert "models.tiny.nowhere" in warnings["UnusedResourceConfigPath"]["text"]
    assert "careful" in warnings["JinjaLogWarning"]["text"]
    assert all(event.endswith("Deprecation") for event in warnings.keys() - {"UnusedResourceConfigPath", "JinjaLogWarning"}), warnings
    second(run)
    assert Attempt(run.store, run.sts, run.environment).run("prod", SECOND_KEY, 1, 1) == 0
    ran = {item["name"] for item in run.store.query("RUN#prod#r-2", "NODE#")}
    assert (ran, ran & KEPT) == (AGAIN, set())
    outcome = run.store.get("RUN#prod#r-2", "STEP#01#build#1")
    assert outcome is not None and outcome["counts"] == {"success": 9, "pass": 2}
    assert (outcome["release"]["version"], outcome["commands"][0]["selected"]) == ("1.4.3", len(KEPT | AGAIN))


# --- by manifests -----------------------------------------------------------------------------------------------------------


def manifest(*members: dict[str, Any], adapter: str = "duckdb") -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {"adapter_type": adapter}, "nodes": {}, "macros": {}}
    for name in ("generate_schema_name", "materialization_table_default", "default__create_table_as", "create_table_as"):
        found["macros"][f"macro.dbt.{name}"] = {"package_name": "dbt", "depends_on": {"macros": []}}
    for member in members:
        section = "macros" if member["unique_id"].startswith("macro.") else "nodes"
        found[section][member["unique_id"]] = {"package_name": "tiny", **member}
    return found


def model(name: str, code: str = "select 1", *above: str, macros: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    on = {"nodes": [f"model.tiny.{parent}" for parent in above], "macros": [f"macro.tiny.{macro}" for macro in macros]}
    return {"unique_id": f"model.tiny.{name}", "raw_code": code, "depends_on": on, **more}


def macro(name: str, code: str = "1", *called: str) -> dict[str, Any]:
    return {"unique_id": f"macro.tiny.{name}", "macro_sql": code, "depends_on": {"macros": [f"macro.tiny.{each}" for each in called]}}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    found = carry_over.compare(before, after)
    assert not found.unsafe
    return {name.rpartition(".")[2] for name in found.changed}


def test_a_node_is_the_same_whenever_and_wherever_it_was_parsed() -> None:
    first, later = model("a", created_at=1, root_path="/a"), model("a", created_at=2, root_path="/b")
    assert changed(manifest(first), manifest(later)) == set()


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(model("a", "select 2"), id="code"),
        pytest.param(model("a", config={"materialized": "table"}), id="config"),
        pytest.param(model("a", columns={"id": {"data_type": "int"}}), id="columns"),
        pytest.param(model("a", test_metadata={"kwargs": {"values": [1]}}), id="arguments"),
        pytest.param(model("a", "select 1", "b"), id="parents"),
        pytest.param(model("a", checksum={"name": "path", "checksum": "seeds/a.csv"}), id="content that dbt does not know"),
    ],
)
def test_whatever_differs_of_a_node_changes_it(after: dict[str, Any]) -> None:
    before = after if "checksum" in after else model("a")
    assert changed(manifest(before), manifest(after)) == {"a"}


def test_a_macro_changes_those_who_call_it_through_others_and_by_dispatch() -> None:
    users = [
        model("direct", macros=("inner",)),
        model("through", macros=("outer",)),
        model("dispatched", macros=("shared",)),
        model("free"),
    ]
    shared = [macro("outer", "1", "inner"), macro("shared"), *users]
    before = manifest(macro("inner"), macro("duckdb__shared"), *shared)
    assert changed(before, manifest(macro("inner", "2"), macro("duckdb__shared"), *shared)) == {"direct", "through"}
    assert changed(before, manifest(macro("inner"), macro("duckdb__shared", "2"), *shared)) == {"dispatched"}
    assert changed(before, manifest(macro("inner"), *shared)) == {"dispatched"}, "one that is gone"


@pytest.mark.parametrize(
    "name", ["generate_schema_name", "materialization_table_default", "materialization_own_duckdb", "duckdb__create_table_as"]
)
def test_a_macro_that_dbt_calls_for_every_node_is_refused(name: str) -> None:
    for before, after in (([], [macro(name)]), ([macro(name)], []), ([macro(name)], [macro(name, "2")])):
        assert carry_over.compare(manifest(*before), manifest(*after)).unsafe == (f"macro.tiny.{name}",)
    assert carry_over.compare(manifest(), manifest(adapter="postgres")).unsafe == ("the adapter",)


# --- by items -----------------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, list[str]], list[tuple[int, Item]], dict[int, set[str]]]:
    """A graph, what runs did of it, and what has changed since each run but the last, which had the release of now."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 8)))]
    parents = {name: draw(st.lists(st.sampled_from(names[:place]), unique=True)) if place else [] for place, name in enumerate(names)}
    runs = draw(st.integers(1, 3))
    results = st.tuples(st.integers(0, runs), st.sampled_from(names), st.sampled_from(["success", "error", "skipped", "warn"]))
    ran = [(place, {"unique_id": name, "status": status}) for place, name, status in draw(st.lists(results, unique_by=lambda r: r[:2]))]
    return parents, ran, {place: draw(st.sets(st.sampled_from(names))) for place in range(runs)}


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_result_stands_only_on_what_stands(history: tuple[dict[str, list[str]], list[tuple[int, Item]], dict[int, set[str]]]) -> None:
    parents, ran, differing = history
    last = {item["unique_id"]: (place, item["status"]) for place, item in sorted(ran, key=lambda each: each[0])}

    def holds(name: str, place: int) -> bool:
        when, status = last.get(name, (place, "success"))
        fresh = name not in differing[place] and when <= place and status in DONE_STATUSES
        return fresh and all(holds(parent, place) for parent in parents[name])

    old = [(place, item) for place, item in ran if place in differing]
    expected = [item for place, item in old if holds(item["unique_id"], place)]
    assert carry_over.stand(old, ran, differing, parents) == expected


def test_what_is_not_of_the_release_any_more_does_not_stand() -> None:
    item = {"unique_id": "model.tiny.gone", "status": "success"}
    assert carry_over.stand([(0, item)], [(0, item)], {0: set()}, {}) == []


# --- by requests --------------------------------------------------------------------------------------------------------------


def asked(*releases: str, **changes: Any) -> AttemptRequest:
    found = projects.asked(config.Warehouse("duckdb", {}, {}))
    runs = [f"run-{number}" for number in range(len(releases), 0, -1)]
    return replace(found, release="new", resumes=runs, resumed_releases=releases, **changes)


def test_only_runs_of_the_same_release_at_the_end_of_the_chain_are_earlier_attempts() -> None:
    chain = asked("new", "new", "old", "new")
    assert chain.is_on_another_release and not asked("new", "new").is_on_another_release
    assert [run.run_id for run in carry_over.of_this_release(chain)] == ["run-3", "run-4"]
    assert [run.release for run in carry_over.runs_of(chain)] == ["new", "old", "new", "new"], "the oldest first"


def test_a_command_is_not_finished_by_a_run_on_another_release(store: Store) -> None:
    request = asked("old")
    pk = run_pk(request.key.environment, "run-1")
    store.put({"pk": pk, "sk": "STEP#01#build#1", "commands": [{"command": "build", "success": True, "seconds": 1}]})
    assert resume.read(store, request, [parse_command("build", "commands")]) == []
    item = {"pk": pk, "sk": "NODE#build#a", "unique_id": "model.tiny.a", "name": "a", "resource_type": "model", "command": 0}
    [command] = resume.read(store, request, [parse_command("build", "commands")], [{**item, "status": "success", "attempt": 1}])
    assert (command.finished, [node.name for node in command.done]) == (False, ["a"])


@pytest.mark.parametrize(
    "attributes",
    [
        {"resumed_releases": "[]"},
        {"resumed_releases": "[1]"},
        {"resumed_releases": "{"},
        {"resumed_releases": '["../1"]'},
        {"resumes": "7"},
    ],
)
def test_a_record_that_does_not_say_what_it_resumes_is_refused(run: Run, attributes: dict[str, str]) -> None:
    run.write()
    second(run, **attributes)
    key, item = locate(run.store, "prod", SECOND_KEY, 1, 1)
    with pytest.raises(TypedError):
        load(run.store, key, item)


@pytest.fixture
def refusal(store: Store, tmp_path: Path) -> Callable[..., str]:
    """What an attempt is told that resumes a run of the release `old`, with these files, on `new`."""

    def refused(old: Mapping[str, str], new: Mapping[str, str], *, body: bytes | None = None, **changes: Any) -> str:
        for version, files in (("old", old), ("new", new)):
            projects.write(tmp_path / version, files)
            bundle.pack(stage.files(tmp_path / version), tmp_path / f"{version}.tar.gz")
            commit(store, version, tmp_path / f"{version}.tar.gz", json.dumps(manifest()).encode() if body is None else body)
        request = asked("old", **changes)
        log = JsonLog({}, stream=io.StringIO())
        with pytest.raises(TypedError) as raised:
            carry_over.read(store, request, [parse_command("build", "commands")], tmp_path / "new", tmp_path / "work", log)
        assert raised.value.kind in (INVALID_REQUEST, RELEASE_CORRUPT)
        return raised.value.message

    return refused


PROJECT = {"dbt_project.yml": projects.PROJECT, "models/a.sql": "select 1"}


def test_settings_that_act_on_every_node_are_refused_by_name(refusal: Callable[..., str]) -> None:
    package = {"packages/p/dbt_project.yml": "name: p\nvars: {x: 1}\n"}
    settings = "vars: {big: 2}\ndispatch: []\nmodels: {tiny: {+materialized: table}}\nversion: '2'\n"
    said = refusal({**PROJECT, **package}, {"models/a.sql": "select 1", "dbt_project.yml": f"name: tiny\n{settings}"})
    assert said.startswith("resume: new differs from old") and said.endswith("; start a new run")
    assert "dispatch in dbt_project.yml, vars in dbt_project.yml" in said
    assert "vars in packages/p/dbt_project.yml" in said and "models in" not in said and "version in" not in said


def test_a_release_of_another_project_is_refused(refusal: Callable[..., str]) -> None:
    assert "is of the dbt project tiny" in refusal(PROJECT, PROJECT, project="other")


def test_a_run_that_compares_with_a_release_is_refused(refusal: Callable[..., str]) -> None:
    assert "compares with release 1.0" in refusal(PROJECT, PROJECT, defer_to="1.0")


@pytest.mark.parametrize("body", [b"{}", b"[]", b"\xff", b'{"metadata": {"adapter_type": "x"}, "nodes": {"a": 1}}'])
def test_a_manifest_that_is_none_is_refused(refusal: Callable[..., str], body: bytes) -> None:
    assert "manifest" in refusal(PROJECT, PROJECT, body=body)
