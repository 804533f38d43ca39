"""What earlier attempts of a step left to the next one: pure functions, and the reading.

An attempt runs the nodes that its step's commands select and that did not succeed in an earlier attempt of the same run, or in a run
that this one resumes, which had the same steps, vars and flags. Of a run that had another release, only those results count that
dbt_runner.carry_over finds to stand still. No plan is stored for that. The release is immutable, and so is the one that commands
compare with; vars, flags and environment variables are the same in every attempt, and no other state from outside is let in. So a
command selects the same nodes each time; what it has left is that selection without the nodes that the audit store calls done.

A node that had succeeded, but whose result had not been written yet when its container was killed, runs again. So do the hooks
on-run-start and on-run-end of a command that did not come to its end, and the whole of a microbatch model that was killed. Of one that
ended, and of which some batches succeeded, the other batches run; with a full refresh the whole model does, as each batch would begin it
anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from dbt_runner import carry_over
from dbt_runner.events import BAD_STATUSES, DONE_STATUSES, Batch, CommandResult, EarlierCommand, NodeResult, StepReport
from dbt_runner.request import AttemptRequest, Command
from dbt_runner.store import Item, Store, node_prefix, run_pk, step_prefix

_TESTS = ("test", "unit_test")


def read(store: Store, asked: AttemptRequest, commands: Sequence[Command], carried: Sequence[Item] = ()) -> list[EarlierCommand]:
    """What was left of each command by earlier attempts of the step, and by the runs that this one resumes.

    Empty for the first attempt of a run that resumes none, which asks nobody.

    Args:
        carried: the results that stand of runs on another release, the oldest first.
    """
    key = asked.key
    runs = [run_pk(key.environment, run.run_id) for run in carry_over.of_this_release(asked)] + ([key.pk] if key.attempt > 1 else [])
    if not runs and not carried:
        return []
    # A node that one run finished is left out by the next: where two have it, the later one knows better.
    nodes = {item["sk"]: item for pk in runs for item in store.query(pk, node_prefix(key.name))}
    outcomes = [item for pk in runs for item in store.query(pk, step_prefix(key.position, key.name))]
    kept = {item["sk"]: item for item in carried if item["sk"] not in nodes}
    return earlier_commands(commands, list(nodes.values()), outcomes, list(kept.values()))


def earlier_commands(
    commands: Sequence[Command], nodes: Sequence[Item], outcomes: Sequence[Item], carried: Sequence[Item] = ()
) -> list[EarlierCommand]:
    """Puts together what is left of each command.

    A command is finished if an outcome calls it successful, or if a later command has results: a step stops at the first command
    that fails. The table holds the last result of a node only, which is enough: an earlier command that also had it is finished.

    Args:
        commands: the step's commands.
        nodes: the step's NODE items.
        outcomes: the step's STEP items, in any order.
        carried: further NODE items, of another release. They finish no command: this release may select other nodes for it.
    """
    succeeded = {index: said for item in outcomes for index, said in enumerate(item.get("commands", ())) if said["success"]}
    furthest = max((item["command"] for item in nodes), default=-1)
    earlier = []
    for index, command in enumerate(commands):
        own = [item for item in (*nodes, *carried) if item["command"] == index]
        done = [item for item in own if item["status"] in DONE_STATUSES]
        # An operation is all that run-operation has; in other commands it is a hook.
        operated = command.verb == ("run-operation",) and bool(done)
        finished = index in succeeded or index < furthest or operated
        kept = own if finished else [item for item in done if item["resource_type"] != "operation"]
        said = succeeded.get(index, {})
        earlier.append(
            EarlierCommand(
                finished=finished,
                done=tuple(_node(item) for item in kept),
                selected=said.get("selected"),
                seconds=said["seconds"] if "seconds" in said else _seconds(own),
                partial=() if finished else tuple(node for item in own if (node := _node(item)).status in BAD_STATUSES and node.unfinished),
            )
        )
    return earlier


def merge(report: StepReport, earlier: Sequence[EarlierCommand]) -> StepReport:
    """The report of the whole step: what earlier attempts finished, and on top of it what this one did."""
    nodes = {node.unique_id: node for command in earlier for node in command.done}
    finished = [CommandResult(index, True, command.seconds, command.selected) for index, command in enumerate(earlier) if command.finished]
    return replace(report, nodes={**nodes, **report.nodes}, commands=[*finished, *report.commands])


def merge_run_results(document: Mapping[str, Any], done: Sequence[NodeResult], seconds: float) -> dict[str, Any]:
    """dbt's run_results.json of an attempt, made one of all attempts.

    The nodes of earlier attempts are written from their items in the table: the role of a task may not read what earlier ones put
    into the bucket. Hence they have one span of time for all phases, no compiled code, and of the adapter's response the rows.

    Args:
        document: by schema v6, https://schemas.getdbt.com/dbt/run-results/v6.json; its metadata and args are kept.
        done: what was left out because it was done before.
        seconds: how long earlier attempts took for the command.
    """
    before = {node.unique_id for node in done}
    results = [_run_result(node) for node in done] + [result for result in document["results"] if result["unique_id"] not in before]
    return {**document, "results": results, "elapsed_time": document["elapsed_time"] + seconds}


def _node(item: Item) -> NodeResult:
    return NodeResult(
        command=item["command"],
        unique_id=item["unique_id"],
        resource_type=item["resource_type"],
        name=item["name"],
        status=item["status"],
        message=item.get("message", ""),
        started_at=item.get("started_at", ""),
        ended_at=item.get("ended_at", ""),
        seconds=item.get("seconds", 0.0),
        thread=item.get("thread", ""),
        relation=item.get("relation", ""),
        rows=item.get("rows"),
        failures=item.get("failures"),
        batches=tuple(Batch(**batch) for batch in item.get("batches", ())),
        batches_total=item.get("batches_total", 0),
    )


def _seconds(nodes: Sequence[Item]) -> float:
    """From the first start to the last end of an attempt's nodes, for all attempts together."""
    total = 0.0
    for attempt in {_attempt(item) for item in nodes}:
        timed = [item for item in nodes if _attempt(item) == attempt and item.get("started_at") and item.get("ended_at")]
        if timed:
            first, last = min(item["started_at"] for item in timed), max(item["ended_at"] for item in timed)
            total += (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    return round(total, 3)


def _attempt(item: Item) -> tuple[str | None, int]:
    """Which attempt of which run last ran a node."""
    return item.get("pk"), item["attempt"]


def _run_result(node: NodeResult) -> dict[str, Any]:
    timed = node.started_at and node.ended_at
    return {
        "status": node.status,
        "timing": [{"name": "execute", "started_at": node.started_at, "completed_at": node.ended_at}] if timed else [],
        "thread_id": node.thread,
        "execution_time": node.seconds,
        "adapter_response": {} if node.rows is None else {"rows_affected": node.rows},
        "message": node.message or None,
        "failures": node.failures or 0 if node.resource_type in _TESTS else node.failures,
        "unique_id": node.unique_id,
        "compiled": None,
        "compiled_code": None,
        "relation_name": node.relation or None,
        "batch_results": _batch_results(node),
    }


def _batch_results(node: NodeResult) -> dict[str, Any] | None:
    if not node.batches:
        return None
    windows = [(batch.failed, [batch.starts_at, batch.ends_at]) for batch in sorted(node.batches, key=lambda batch: batch.starts_at)]
    return {
        "successful": [window for failed, window in windows if not failed],
        "failed": [window for failed, window in windows if failed],
    }
