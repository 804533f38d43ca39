"""Runs for reports: what the audit store holds of them, as records and as artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dbt_runner import config, report
from dbt_runner.lineage import from_manifest
from dbt_runner.run_records import NodeResultRow, Outcome, PlannedStep, Run, RunDetail, StepResult
from dbt_runner.store import timestamp
from runner.conftest import config_of
from runner.recorded_runs import execution_arn

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOW = START + timedelta(hours=1)
CONFIG = config.parse(json.dumps(config_of("prod")))


def at(seconds: float) -> str:
    return timestamp(START + timedelta(seconds=seconds))


def node(
    name: str, kind: str = "model", status: str = "success", start: float = 10, seconds: float = 1, **attributes: Any
) -> NodeResultRow:
    return replace(
        NodeResultRow(
            unique_id=f"{kind}.shop.{name}", step="build", attempt=1, command=0, resource_type=kind, name=name, status=status, message=None,
            started_at=at(start), ended_at=at(start + seconds), seconds=seconds, thread="Thread-1 (worker)", relation=None, rows=None,
            failures=None,
        ),
        **attributes,
    )  # fmt: skip


def run_of(status: str = "SUCCEEDED", **attributes: Any) -> Run:
    return replace(
        Run(
            run_id="hourly-1", environment="prod", execution=execution_arn("hourly-1"), status=status, recorded=True, started_at=at(0),
            ended_at=at(60), seconds=60.0, job="hourly", trigger="schedule", release="1.4.2",
            artifacts="s3://analytics-audit-123456789012-eu-central-1/runs/prod/2026/11/22/hourly-1/",
            plan=(PlannedStep("build", ("build",), "fail"), PlannedStep("docs", ("docs generate --static",), "continue")),
        ),
        **attributes,
    )  # fmt: skip


def outcome_of(step: str = "build", position: int = 1, attempt: int = 1, **attributes: Any) -> Outcome:
    return replace(
        Outcome(
            position=position, step=step, attempt=attempt, exit_code=0, error=None, message=None, why=None, counts={}, failures=(),
            commands=({"command": "build", "success": True, "selected": 3, "seconds": 30.0},), artifacts=(), started_at=at(5),
            ended_at=at(55), seconds=50.0, peak_memory_mib=512, versions={"dbt-core": "1.11.16"}, compute="fargate",
            parse={}, release={}, image=None,
        ),
        **attributes,
    )  # fmt: skip


def step_of(step: str = "build", status: str = "SUCCEEDED", **attributes: Any) -> StepResult:
    return replace(StepResult(step, status, 1, None, None, {}, 50.0), **attributes)


def manifest_of(edges: Mapping[str, Sequence[str]], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of nodes with their parents, all by unique_id. `sections` add to or replace raw entries by unique_id."""
    document: dict[str, Any] = {"nodes": {}, "sources": {}, "exposures": {}, "unit_tests": {}}
    where = {"source": "sources", "exposure": "exposures", "unit_test": "unit_tests"}
    for unique_id, parents in edges.items():
        kind, _, name = unique_id.partition(".shop.")
        entry: dict[str, Any] = {"unique_id": unique_id, "resource_type": kind, "name": name, "depends_on": {"nodes": list(parents)}}
        document[where.get(kind, "nodes")][unique_id] = entry
    for section, entries in sections.items():
        for unique_id, entry in entries.items():
            document.setdefault(section, {}).setdefault(unique_id, {}).update(entry)
    return document


def sources_of(
    nodes: Iterable[NodeResultRow],
    manifest: Mapping[str, Any] | None = None,
    run: Run | None = None,
    outcomes: Sequence[Outcome] = (),
    **more: Any,
) -> report.Sources:
    detail = RunDetail(run or run_of(), tuple(outcomes), tuple(nodes))
    return report.Sources(detail, CONFIG, from_manifest(manifest or {}), **more)


def page(sources: report.Sources, **arguments: Any) -> str:
    return report.render(report.find(sources), now=NOW, **arguments)


def large(
    models: int = 2000, tests_per_model: int = 1, *, failed: int = 20, message: str = "Database Error\n  it broke", threads: int = 8
) -> report.Sources:
    """A run of thousands of nodes: models in chains, each with tests, some of them failed and what is below them skipped."""
    edges: dict[str, list[str]] = {}
    nodes: list[NodeResultRow] = []
    skipped: set[str] = set()
    broken = {40, *range(models - 2 * (failed - 1), models, 2)} if failed < models else set(range(models))
    clock = [10.0] * threads
    for i in range(models):
        name = f"int_finance__monthly_revenue_by_region_and_product_{i:04d}"
        unique_id = f"model.shop.{name}"
        parents = [
            f"model.shop.int_finance__monthly_revenue_by_region_and_product_{j:04d}" for j in {i // 2, i // 3} if j < i and failed < models
        ]
        edges[unique_id] = parents
        thread = clock.index(min(clock))
        seconds = 0.4 + (i * 37 % 23) / 5
        begun = clock[thread]
        if any(parent in skipped for parent in parents):
            skipped.add(unique_id)
            nodes.append(node(name, status="skipped", start=begun, seconds=0, thread=f"Thread-{thread + 3} (worker)"))
        else:
            clock[thread] += seconds
            how: dict[str, Any] = {"status": "error", "message": message} if i in broken else {"rows": i * 1000}
            if i in broken:
                skipped.add(unique_id)
            nodes.append(node(name, start=begun, seconds=seconds, thread=f"Thread-{thread + 3} (worker)", **how))
        for kind in ("not_null", "unique", "accepted_values")[:tests_per_model]:
            test = f"test.shop.{kind}_{name}_id.{i:010x}"
            edges[test] = [unique_id]
            status = "skipped" if unique_id in skipped else "pass"
            seconds = 0.1 if status == "pass" else 0.0
            tested = node(f"{kind}_{name}_id", "test", status, clock[thread], seconds, thread=f"Thread-{thread + 3} (worker)")
            nodes.append(replace(tested, unique_id=test))
            clock[thread] += seconds
    end = max(clock) + 5
    failure = "Dbt.ModelError" if failed else None
    run = run_of("FAILED" if failed else "SUCCEEDED", ended_at=at(end), seconds=end, error=failure, cause="build: many failed")
    outcome = outcome_of(ended_at=at(end), seconds=end - 5, error=failure, message="many nodes failed")
    step = step_of(status="FAILED" if failed else "SUCCEEDED", error=failure, seconds=end - 5)
    return sources_of(nodes, manifest_of(edges), replace(run, steps=(step,)), [outcome])
