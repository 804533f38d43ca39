"""A node over its last runs: how it ended, how long it took, and since when it fails.

Nothing is searched for: the runs are read newest first, and a node's result in each of them is read by its key.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.events import BAD_STATUSES
from dbt_runner.run_records import NodeResultRow, Run, node_from
from dbt_runner.runs import nodes_of
from dbt_runner.store import Store, node_sk, run_pk

# How many runs are looked through for a node that is given by its name.
_RUNS_TO_SEARCH = 10
_RUNS_PER_READ = 25
# A node that was skipped says nothing about itself.
_NOT_JUDGED = frozenset({"skipped", "no-op"})


@dataclass(frozen=True)
class NodeRun:
    """What became of a node in one step of one run. Times are ISO 8601 in UTC."""

    run_id: str
    job: str | None
    release: str | None
    step: str
    attempt: int
    status: str
    message: str | None
    started_at: str | None
    seconds: float
    rows: int | None
    failures: int | None


@dataclass(frozen=True)
class NodeHistory:
    """A node's last results, newest first.

    Attributes:
        failing_since: when the first of the failures in a row began that reach up to now; None when the last result is good.
        failing_since_run: the run of that failure.
        last_success: when the node last succeeded, as far as the results reach.
        median_seconds: of the results that succeeded.
    """

    unique_id: str
    environment: str
    results: tuple[NodeRun, ...]
    failing_since: str | None
    failing_since_run: str | None
    last_success: str | None
    median_seconds: float | None


def history_of(store: Store, environment: str, runs: Iterable[Run], node: str, *, limit: int) -> NodeHistory:
    """The last results of a node.

    Args:
        runs: the environment's runs, newest first.
        node: a unique_id, or a node's name.
        limit: how many results at the most.

    Raises:
        TypedError: Dbt.InvalidRequest: none of these runs has such a node, or the name stands for several.
    """
    recorded: Iterator[Run] = (run for run in runs if run.recorded)
    if node.count(".") < 2:
        searched = list(itertools.islice(recorded, _RUNS_TO_SEARCH))
        node = unique_id_of(store, searched, node)
        recorded = itertools.chain(searched, recorded)
    results = tuple(itertools.islice(_results(store, recorded, node), limit))
    if not results:
        raise TypedError(INVALID_REQUEST, f"--node {node}: no run has a result of it; dbt-runner show names a run's nodes")
    return _summed_up(node, environment, results)


def unique_id_of(store: Store, runs: Iterable[Run], name: str) -> str:
    """The unique_id that a node's name stands for, in the newest of the runs that has it.

    Raises:
        TypedError: Dbt.InvalidRequest: none of the runs has it, or the name stands for several.
    """
    for run in runs:
        found = sorted({row.unique_id for row in nodes_of(store, run) if name in (row.name, row.unique_id)})
        if len(found) > 1:
            raise TypedError(INVALID_REQUEST, f"--node {name}: several nodes have this name: {', '.join(found)}; give one of these")
        if found:
            return found[0]
    raise TypedError(
        INVALID_REQUEST, f"--node {name}: no run that was looked at has such a node; give its unique_id, such as model.shop.{name}"
    )


def _results(store: Store, runs: Iterator[Run], unique_id: str) -> Iterator[NodeRun]:
    while batch := list(itertools.islice(runs, _RUNS_PER_READ)):
        keys = [(run_pk(run.environment, run.run_id), node_sk(step.name, unique_id)) for run in batch for step in run.plan]
        found: dict[str, list[NodeResultRow]] = {}
        for item in store.get_many(keys):
            found.setdefault(item["pk"], []).append(node_from(item))
        for run in batch:
            rows = found.get(run_pk(run.environment, run.run_id), [])
            for row in sorted(rows, key=lambda row: row.started_at or "", reverse=True):
                yield NodeRun(
                    run.run_id, run.job, run.release, row.step, row.attempt, row.status, row.message, row.started_at, row.seconds, row.rows,
                    row.failures,
                )  # fmt: skip


def _summed_up(unique_id: str, environment: str, results: Sequence[NodeRun]) -> NodeHistory:
    def failed(result: NodeRun) -> bool:
        return result.status in BAD_STATUSES

    judged = [result for result in results if result.status not in _NOT_JUDGED]
    failures = list(itertools.takewhile(failed, judged))
    good = [result for result in judged if not failed(result)]
    return NodeHistory(
        unique_id=unique_id,
        environment=environment,
        results=tuple(results),
        failing_since=failures[-1].started_at if failures else None,
        failing_since_run=failures[-1].run_id if failures else None,
        last_success=good[0].started_at if good else None,
        median_seconds=round(statistics.median(result.seconds for result in good), 3) if good else None,
    )
