"""A pull request's run: what it changed is built into schemas of its own, the rest is taken from the release that is current.

Real dbt on DuckDB. The attempts share one warehouse, as the runs of an environment do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner.errors import INVALID_REQUEST, RELEASE_NOT_FOUND
from dbt_runner.request import locate
from dbt_runner.store import Store
from runner import projects
from runner.attempts import RUN_KEY, Run, publish
from runner.releases import refused

# Its schemas, and what it calls its target, follow the profile; `settled` has a schema of its own below that.
PROD: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/orders.sql": "{{ config(materialized='table') }} select 1 as id, '{{ target.name }}' as built_by",
    "models/changed.sql": "{{ config(materialized='table') }} select id, built_by, 'prod' as version from {{ ref('orders') }}",
    "models/settled.sql": "{{ config(materialized='table', schema='settled') }} select * from {{ ref('changed') }}",
    "models/beside.sql": "{{ config(materialized='table') }} select * from {{ ref('orders') }}",
}
CHANGED = "{{ config(materialized='table') }} select id, built_by, '{{ target.name }}' as version from {{ ref('orders') }}"
DROP = projects.TESTS.parent / "examples" / "local" / "shop" / "macros" / "drop_schemas.sql"
# Says where everything is built, whoever builds it.
STUBBORN = "{% macro generate_schema_name(custom_schema_name, node) %}main{% endmacro %}"


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    return Run(store, environment)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[str], list[tuple[Any, ...]]]:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
            return rows

    return ask


@pytest.mark.usefixtures("warm_worker")
@pytest.mark.slow
def test_what_changed_is_built_apart_and_the_rest_is_deferred_to(
    run: Run, tmp_path: Path, ask: Callable[[str], list[tuple[Any, ...]]]
) -> None:
    gate = tmp_path / "gate.csv"
    publish(run.store, tmp_path / "prod", PROD, version="1.0.0")
    settled = PROD["models/settled.sql"] + f" cross join (select 1 as opened from read_csv('{gate}'))"
    changed = {"models/changed.sql": CHANGED, "models/settled.sql": settled, "macros/drop.sql": DROP.read_text()}
    publish(run.store, tmp_path / "pr", {**PROD, **changed}, version="pr")
    publish(run.store, tmp_path / "stubborn", {**PROD, "models/changed.sql": CHANGED, "macros/names.sql": STUBBORN}, version="stubborn")
    for relation in ("orders", "changed", "beside", "main_settled.settled"):
        ask(f"create schema if not exists main_settled; create table {relation} as select 1 as id, 'prod' as built_by, 'prod' as version")

    # A pull request that fails halfway, and its second attempt.
    run.release = "pr"
    run.plan = {"defer_to": "1.0.0", "schema_suffix": "pr_7"}
    # Two workers an attempt, one for each parse.
    run.steps[0].update(name="ci", commands=["build --select state:modified+"], timeout_seconds=600)
    assert run.attempt() == 10
    gate.write_text("x\n1\n")
    assert run.attempt(number=2) == 0
    first, second = run.outcome("STEP#01#ci#1"), run.outcome("STEP#01#ci#2")
    assert (first["counts"], second["counts"]) == ({"success": 1, "error": 1}, {"success": 2})
    assert [(o["release"]["version"], o["state"]["version"]) for o in (first, second)] == [("pr", "1.0.0")] * 2
    assert {(n["name"], n["attempt"], n["relation"]) for n in run.nodes().values() if n["step"] == "ci"} == {
        ("changed", 1, '"warehouse"."main_pr_7"."changed"'),
        ("settled", 2, '"warehouse"."main_pr_7_settled"."settled"'),
    }

    # Its parent is prod's, and prod has what it had.
    assert ask("select * from main_pr_7.changed") == [(1, "prod", "ci")]
    assert ask("select version from main.changed") == ask("select version from main_settled.settled") == [("prod",)]
    assert ask("select count(*) from information_schema.tables where table_schema like '%pr_7%'") == [(2,)]

    # Neither parse of the first attempt found a cache; what is kept is that of the release, which other runs parse too.
    keys = boto3.client("s3").list_objects_v2(Bucket=run.store.bucket, Prefix="cache/")["Contents"]
    assert [key["Key"].split("/")[2] for key in keys] == ["1.0.0"]

    # A project that names its schemas in its own way would build over prod.
    run.release = "stubborn"
    run.steps[0].update(name="stubborn")
    assert run.attempt(number=3) == 12
    message = run.outcome("STEP#01#stubborn#3")["message"]
    assert 'model.tiny.changed would replace "warehouse"."main"."changed"' in message
    assert ask("select version from main.changed") == [("prod",)]

    # When it is closed, its schemas go, and no others.
    ask("create schema main_pr_77")
    run.plan = {}
    run.release = "pr"
    run.config["requests"]["operations"] = ["drop_schemas"]
    run.steps[0].update(name="drop", commands=["run-operation drop_schemas --args 'suffix: pr_7'"])
    assert run.attempt(number=4) == 0
    schemas = "select distinct schema_name from information_schema.schemata where catalog_name = 'warehouse' and schema_name like 'main%'"
    assert {name for (name,) in ask(schemas)} == {"main", "main_settled", "main_pr_77"}


def test_a_run_without_a_release_to_compare_with_is_told_before_anything_starts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dbt_runner import attempt

    monkeypatch.setattr(attempt, "Supervisor", lambda *_, **__: pytest.fail("a worker was started"))
    asking: list[tuple[dict[str, str], list[str]]] = [({"defer_to": "current"}, ["build"]), ({}, ["build --state {state}"])]
    for number, (plan, commands) in enumerate(asking, 1):
        run.plan, run.steps[0]["commands"] = plan, commands
        assert run.attempt(number=number) == RELEASE_NOT_FOUND.exit_code
        assert "no current release to compare with" in run.outcome(f"STEP#01#build#{number}")["message"]


def test_the_environment_says_which_schemas_a_run_may_have_for_itself(run: Run) -> None:
    from dbt_runner import request

    run.config["slim_ci"] = {"state_target": None, "schema_suffixes": "pr_[0-9]+"}
    for number, suffix in enumerate(("pr_7x", "prod", "pr_7"), 1):
        run.plan = {"defer_to": "1.0.0", "schema_suffix": suffix}
        code = run.attempt(number=number)
        if suffix == "pr_7":
            key, item = locate(run.store, "prod", RUN_KEY, 1, number)
            assert request.load(run.store, key, item).schema_suffix == suffix
        else:
            said = run.outcome(f"STEP#01#build#{number}")["message"]
            assert code == INVALID_REQUEST.exit_code
            assert said.startswith("schema_suffix: environment prod takes only what matches pr_[0-9]+")


@pytest.mark.parametrize("suffix", ["", "_a", "A", "a-b", "a.b", 'a"b', "a" * 31, "a\n", 7])
def test_a_suffix_is_a_plain_name(suffix: object) -> None:
    from dbt_runner.request import validate_input

    document = {"job": "hourly", "defer_to": "1.0.0", "schema_suffix": suffix}
    assert refused(INVALID_REQUEST, lambda: validate_input(document)).startswith("schema_suffix: ")


def test_a_suffix_goes_with_a_release_to_compare_with() -> None:
    from dbt_runner.request import validate_input

    assert refused(INVALID_REQUEST, lambda: validate_input({"job": "hourly", "schema_suffix": "pr_7"})).startswith(
        "schema_suffix: goes with"
    )
