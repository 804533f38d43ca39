"""Each situation has the right result, through a whole attempt: the real worker, the real dbt, DuckDB, the audit trail and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt_runner.errors import ERRORS
from dbt_runner.store import Store
from field.situations import ALL_AT_ONCE, ALL_VARS, DEADLOCK, SITUATIONS, Situation
from runner import projects
from runner.attempts import Run, publish

# One process imports dbt for all of them.
pytestmark = pytest.mark.xdist_group("field")


def attempt(store: Store, environment: dict[str, Any], tmp_path: Path, situation: Situation) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    run = Run(store, environment)
    run.steps[0]["commands"] = list(situation.commands)
    run.plan.update(vars=dict(situation.vars), full_refresh=situation.full_refresh)
    publish(store, tmp_path / "project", situation.files)
    code = run.attempt()
    outcome = run.outcome()
    assert outcome.get("error") == situation.error, outcome
    assert code == (ERRORS[situation.error].exit_code if situation.error else 0)
    statuses = {item["name"]: item["status"] for item in run.nodes().values()}
    assert {name: statuses.get(name) for name in situation.statuses} == dict(situation.statuses), outcome
    for text in situation.says:
        assert text in outcome["message"], outcome["message"]
    for text in situation.silent:
        assert text not in outcome.get("message", "")
    # Whatever happened, the audit trail is whole: no node without a name, and a page for people.
    assert "" not in statuses and "" not in run.nodes() and "unpublished" not in outcome, outcome
    assert sum(outcome["counts"].values()) == len(run.nodes())
    return run


@pytest.mark.usefixtures("warm_worker")
@pytest.mark.parametrize(
    "situation", [pytest.param(each, id=each.name, marks=[] if each.daily else [pytest.mark.slow]) for each in SITUATIONS]
)
def test_a_situation_ends_with_the_right_error_and_words(
    store: Store, environment: dict[str, Any], tmp_path: Path, situation: Situation
) -> None:
    attempt(store, environment, tmp_path, situation)


@pytest.mark.usefixtures("warm_worker")
def test_everything_that_has_to_go_well_does(store: Store, environment: dict[str, Any], tmp_path: Path) -> None:
    situation = Situation("all at once", ALL_AT_ONCE, vars=ALL_VARS)
    run = attempt(store, environment, tmp_path, situation)
    bad = {item["name"]: item for item in run.nodes().values() if item["status"] not in ("success", "pass", "warn", "no-op")}
    assert not bad
    kept = {artifact["key"].rsplit("/", 1)[-1] for artifact in run.outcome()["artifacts"]}
    assert {"manifest.json", "run_results.json"} <= kept, "the project's flags do not decide what the audit has"


@pytest.mark.slow
def test_models_that_lock_each_other_out_are_repeated(store: Store, environment: dict[str, Any], tmp_path: Path) -> None:
    """On a real PostgreSQL, which ends one of the two and asks for another attempt."""
    with projects.postgres() as warehouse:
        environment["warehouse"].update(type=warehouse.type, settings={**warehouse.settings, "threads": 2}, identity=warehouse.identity)
        run = Run(store, environment)
        publish(store, tmp_path / "project", DEADLOCK)
        run.attempt()
        outcome = run.outcome()
        assert outcome["error"] == "Dbt.WarehouseUnavailable" and "deadlock detected" in outcome["message"], outcome
        assert sorted(item["status"] for item in run.nodes().values() if item["resource_type"] == "model") == ["error", "success"]
        assert run.start(number=2) == 0
        assert run.outcome("STEP#01#build#2")["counts"] == {"success": 3}
