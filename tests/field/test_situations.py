"""Each situation has the right result, through a whole attempt: the real worker, the real dbt, DuckDB, the audit trail and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt_runner.errors import ERRORS
from dbt_runner.store import Store
from field.situations import ALL_AT_ONCE, ALL_VARS, FAILING, Situation
from runner.attempts import Run, publish


def attempt(store: Store, environment: dict[str, Any], tmp_path: Path, situation: Situation) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    run = Run(store, environment)
    run.steps[0]["commands"] = list(situation.commands)
    run.plan["vars"] = dict(situation.vars)
    publish(store, tmp_path / "project", situation.files)
    code = run.attempt()
    outcome = run.outcome()
    assert outcome.get("error") == situation.error, outcome
    assert code == (ERRORS[situation.error].exit_code if situation.error else 0)
    statuses = {item["name"]: item["status"] for item in run.nodes().values()}
    assert {name: statuses.get(name) for name in situation.statuses} == dict(situation.statuses)
    for text in situation.says:
        assert text in outcome["message"]
    for text in situation.silent:
        assert text not in outcome.get("message", "")
    # Whatever happened, the audit trail is whole: no node without a name, and a page for people.
    assert "" not in statuses and "" not in run.nodes() and "unpublished" not in outcome, outcome
    assert sum(outcome["counts"].values()) == len(run.nodes())
    return run


@pytest.mark.parametrize(
    "situation", [pytest.param(each, id=each.name, marks=[] if each.daily else [pytest.mark.slow]) for each in FAILING]
)
def test_a_situation_that_fails_ends_with_the_right_error_and_words(
    store: Store, environment: dict[str, Any], tmp_path: Path, situation: Situation
) -> None:
    attempt(store, environment, tmp_path, situation)


def test_everything_that_has_to_go_well_does(store: Store, environment: dict[str, Any], tmp_path: Path) -> None:
    situation = Situation("all at once", ALL_AT_ONCE, vars=ALL_VARS)
    run = attempt(store, environment, tmp_path, situation)
    bad = {item["name"]: item for item in run.nodes().values() if item["status"] not in ("success", "pass", "warn", "no-op")}
    assert not bad
    kept = {artifact["key"].rsplit("/", 1)[-1] for artifact in run.outcome()["artifacts"]}
    assert {"manifest.json", "run_results.json"} <= kept, "the project's flags do not decide what the audit has"
