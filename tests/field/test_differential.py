"""The runner against plain dbt: each node of a project ends alike, and the counts are those of dbt's own summary."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import bundle, profile
from dbt_runner.config import Warehouse
from dbt_runner.errors import NOTHING_SELECTED
from dbt_runner.events import BAD_STATUSES
from dbt_runner.store import Store
from dbt_runner.variables import for_dbt
from field.generated import Generated, examples, merged, projects
from runner import projects as tiny
from runner import warm
from runner.attempts import Run, publish

# One process imports dbt for all of them.
pytestmark = pytest.mark.xdist_group("field")

# Of the campaign; they run in so many tests, that several processes can share them.
_PROJECTS = int(os.environ.get("DIFFERENTIAL_PROJECTS", "200"))
_BATCHES = 20
_SUMMARY = re.compile(r"Done\. PASS=(\d+) WARN=(\d+) ERROR=(\d+) SKIP=(\d+) NO-OP=(\d+) TOTAL=(\d+)")
# How dbt's summary groups what nodes end with (dbt.task.printer.interpret_run_result).
_GROUPS = ({"success", "pass"}, {"warn"}, BAD_STATUSES, {"skipped"}, {"no-op"})


@dataclass(frozen=True)
class Result:
    """What a build came to.

    Attributes:
        nodes: status and failing rows of each by its unique_id.
        summary: PASS, WARN, ERROR, SKIP, NO-OP and TOTAL; None where dbt prints none.
    """

    succeeded: bool
    nodes: Mapping[str, tuple[str, int]]
    summary: Sequence[int] | None
    said: str


def plain(project: Generated, work: Path) -> Result:
    """As a person runs it in the project's folder."""
    folder = tiny.write(work / "plain" / "project", project.files)
    profile.of_environment(_warehouse(work / "plain"), "prod").write(work / "plain")
    arguments = ["build", *project.arguments, "--profiles-dir", str(work / "plain"), "--profile", profile.PROFILE, "--target", "prod"]
    # The audit needs what the project may have switched off.
    quiet = ["--write-json", "--no-use-colors", "--log-format", "text", "--no-debug", "--log-level", "info"]
    variables = ["--vars", for_dbt(project.vars)] if project.vars else []
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
    code, said = warm.invoke([*arguments, *variables, *quiet], folder, environment)
    path = folder / "target" / "run_results.json"
    results = json.loads(path.read_text())["results"] if path.exists() else []
    nodes = {result["unique_id"]: (result["status"], result["failures"] or 0) for result in results}
    summary = _SUMMARY.search(said)
    return Result(code == 0, nodes, [int(number) for number in summary.groups()] if summary else None, said)


def of_runner(project: Generated, store: Store, environment: dict[str, Any], work: Path) -> Result:
    """Through a whole attempt: a release, the worker, the audit trail."""
    environment["warehouse"]["settings"] = _warehouse(work / "runner").settings
    (work / "runner").mkdir()
    run = Run(store, environment)
    for item in [*store.query("RUN#prod#r-1", "STEP#"), *store.query("RUN#prod#r-1", "NODE#"), *store.query("RUN#prod#r-1", "CLAIM")]:
        store.delete(item["pk"], item["sk"])
    words = [f"'{word}'" if " " in word or '"' in word else word for word in project.arguments]
    run.steps[0]["commands"] = [" ".join(["build", *words])]
    run.plan["vars"] = dict(project.vars)
    run.release = f"0.0.{work.name}"
    # As publishing packs it: with the packages that are installed, and none of dbt's own folders.
    folder = tiny.write(work / "packed", project.files)
    bundle.pack({str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}, work / "packed.tar.gz")
    publish(store, work / "release", {"dbt_project.yml": ""}, (work / "packed.tar.gz").read_bytes(), version=run.release)
    code = run.attempt()
    outcome = run.outcome()
    nodes = {unique_id: (item["status"], int(item.get("failures") or 0)) for unique_id, item in run.nodes().items()}
    counts = outcome["counts"]
    assert sum(counts.values()) == len(nodes), outcome
    groups = [int(sum(counts.get(status, 0) for status in group)) for group in _GROUPS]
    return Result(code in (0, NOTHING_SELECTED.exit_code), nodes, [*groups, int(sum(counts.values()))], str(outcome))


def differences(project: Generated, store: Store, environment: dict[str, Any], work: Path) -> tuple[int, list[str]]:
    """How many nodes there are, and what is not alike."""
    by_dbt, by_runner = plain(project, work), of_runner(project, store, environment, work)
    found = [
        f"{unique_id}: dbt {by_dbt.nodes.get(unique_id)}, runner {by_runner.nodes.get(unique_id)}"
        for unique_id in sorted(by_dbt.nodes.keys() | by_runner.nodes.keys())
        if by_dbt.nodes.get(unique_id) != by_runner.nodes.get(unique_id)
    ]
    if by_dbt.succeeded != by_runner.succeeded:
        found.append(f"dbt {'succeeded' if by_dbt.succeeded else 'failed'}: {by_dbt.said[-2000:]}; runner: {by_runner.said}")
    if by_dbt.summary is not None and by_dbt.summary != by_runner.summary:
        found.append(f"dbt's summary {by_dbt.summary}, runner's counts {by_runner.summary}")
    return len(by_dbt.nodes), found


def _warehouse(folder: Path) -> Warehouse:
    # One thread, so that both run nodes in the same order.
    settings: dict[str, Any] = {"path": str(folder / "warehouse.duckdb"), "schema": "main", "threads": 1}
    return Warehouse("duckdb", settings, {})


def _shown(project: Generated) -> str:
    files = "\n".join(f"--- {name}\n{text!s}" for name, text in sorted(project.files.items()) if not name.startswith("packages/"))
    return f"build {' '.join(project.arguments)} with {dict(project.vars)}\n{files}"


def _compare(
    chosen: Sequence[Generated], store: Store, environment: dict[str, Any], tmp_path: Path, figure: Callable[[str], None], of: str
) -> None:
    nodes, wrong = 0, []
    for index, project in enumerate(chosen):
        work = tmp_path / str(index)
        work.mkdir()
        number, found = differences(project, store, environment, work)
        nodes += number
        if found:
            wrong.append("\n".join([*found, _shown(project)]))
    figure(f"{of}: {nodes} nodes as in plain dbt, {len(wrong)} projects with differences")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.usefixtures("warm_worker")
def test_nodes_of_fifteen_projects_end_as_in_plain_dbt(
    store: Store, environment: dict[str, Any], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    _compare(examples(merged(15), [1]), store, environment, tmp_path, figure, "15 generated projects in one")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_worker")
@pytest.mark.parametrize("batch", range(_BATCHES))
def test_nodes_of_many_projects_end_as_in_plain_dbt(
    batch: int, store: Store, environment: dict[str, Any], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    chosen = examples(projects(), range(batch, _PROJECTS, _BATCHES))
    _compare(chosen, store, environment, tmp_path, figure, f"{len(chosen)} generated projects")
