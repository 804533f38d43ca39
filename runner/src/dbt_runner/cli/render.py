"""What people see of runs: their records, where they are, and what is in the audit table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from dbt_runner.account import Account
from dbt_runner.cli.terminal import Column, Rows, facts, section, styled
from dbt_runner.errors import ERRORS
from dbt_runner.runs import EnvironmentStatus, NodeResultRow, Outcome, Run, RunDetail, StepResult
from dbt_runner.store import Item
from dbt_runner.warning_tally import DbtWarning
from dbt_runner.words import clean, counts_of, duration, local_time, one_line, size

_LAST_NODES = 8
# Of a microbatch model, those that did not succeed.
_BATCHES = 10


def _elapsed(run: Run) -> str:
    if run.seconds is not None or run.ended_at is not None:
        return duration(run.seconds)
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(run.started_at)).total_seconds()))


def run_list(runs: Sequence[Run]) -> RenderableType:
    """Runs as a table, in the order given."""
    if not runs:
        return Text("no runs", style="dim")
    columns = (
        Column("started", whole=True),
        Column("run", whole=True),
        Column("job"),
        Column("status", whole=True),
        Column("error"),
        Column("release"),
        Column("nodes", right=True, whole=True),
        Column("duration", right=True, whole=True),
    )
    return Rows(columns, (_run_row(run) for run in runs))


def _run_row(run: Run) -> Sequence[str | Text]:
    nodes = sum(sum(step.counts.values()) for step in run.steps)
    return (
        local_time(run.started_at, zone=False),
        run.run_id,
        run.job or "",
        styled(run.status),
        (run.error or "").removeprefix("Dbt."),
        run.release or "",
        f"{nodes:,}" if nodes else "",
        _elapsed(run),
    )


def run_record(detail: RunDetail) -> RenderableType:
    """All that is known of a run."""
    run = detail.run
    owner = ERRORS[run.error].owner if run.error in ERRORS else None
    known = {step.step for step in run.steps}
    not_run = ", ".join(step.name for step in run.plan if step.name not in known) if run.ended_at else ""
    head = facts(
        (
            ("Run", run.run_id),
            ("Environment", run.environment),
            ("Status", styled(run.status)),
            ("Error", f"{run.error} (who acts: {owner})" if owner else run.error),
            ("Cause", run.cause),
            ("Job", run.job),
            ("Release", run.release),
            ("Commit", run.git_commit),
            ("Compared with", run.defer_to),
            ("Schemas", f"..._{run.schema_suffix}" if run.schema_suffix else None),
            ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(run.versions.items()))),
            ("Image", run.image),
            ("Resumes", run.resumed_from),
            ("Trigger", run.trigger),
            ("Reason", run.reason),
            ("Variables", json.dumps(run.vars) if run.vars else None),
            ("Full refresh", "yes" if run.full_refresh else None),
            ("Started", local_time(run.started_at)),
            ("Duration", _elapsed(run)),
            ("Artifacts", run.artifacts),
            ("Not run", not_run),
            ("Not published", _unpublished(detail)),
        )
    )
    parts: list[RenderableType] = [head]
    parts += section("", _step_table(run.steps) if run.steps else None)
    parts += section("", _node_table(detail.nodes) if detail.nodes else None)
    parts += section("Failures", *_failures(detail))
    parts += section("Warnings of dbt", _warning_table(detail.dbt_warnings) if detail.dbt_warnings else None)
    parts += section("Artifacts", _artifact_table(run, detail.outcomes) if any(o.artifacts for o in detail.outcomes) else None)
    return Group(*parts)


def run_status(detail: RunDetail) -> RenderableType:
    """A run at a glance: where it is, and what finished last."""
    run = detail.run
    head = facts(
        (
            ("Run", run.run_id),
            ("Status", Text.assemble(styled(run.status), _since(run))),
            ("Error", run.error),
            ("Cause", run.cause),
            ("Job", run.job),
            ("Release", run.release),
            ("Not published", _unpublished(detail)),
        )
    )
    last = sorted((node for node in detail.nodes if node.ended_at), key=lambda node: node.ended_at or "")[-_LAST_NODES:]
    parts: list[RenderableType] = [head]
    parts += section("", _step_table(run.steps) if run.steps else None)
    parts += section("Last nodes", _node_table(last) if last else None)
    return Group(*parts)


def environment(status: EnvironmentStatus) -> RenderableType:
    """An environment at a glance."""
    release, lock, running = status.release, status.lock, status.running
    if lock is None:
        held = Text("free")
    else:
        held = Text(f"held by run {lock.run_id} since {local_time(lock.since)}")
        if running is None:
            held.append(", which has ended: the next run takes it over")
    head = facts(
        (
            ("Environment", status.environment),
            ("Release", _release(status) if release else "none: dbt-runner release promote makes one current"),
            ("Lock", held),
            (
                "Running",
                Text.assemble(running.run.run_id, "  ", styled(running.run.status), _since(running.run)) if running else "nothing",
            ),
        )
    )
    parts: list[RenderableType] = [head]
    parts += section("", _step_table(running.run.steps) if running and running.run.steps else None)
    parts += section("Last runs", run_list(status.last))
    return Group(*parts)


def _unpublished(detail: RunDetail) -> str | None:
    """The pages that the run should have left and has not, with what to do."""
    missing = dict.fromkeys(page for outcome in detail.outcomes for page in outcome.unpublished)
    if not missing:
        return None
    remedy = f" (dbt-runner report --environment {detail.run.environment} {detail.run.run_id} makes the report)"
    return ", ".join(missing) + (remedy if "report" in missing else "")


def _release(status: EnvironmentStatus) -> str | None:
    release = status.release
    if release is None:
        return None
    since = f" since {local_time(release.promoted_at)}" if release.promoted_at else ""
    by = f", by {release.promoted_by}" if release.promoted_by else ""
    before = f" (before it {release.previous})" if release.previous else ""
    return f"{release.version}{since}{by}{before}"


def _since(run: Run) -> str:
    started = local_time(run.started_at)
    return f" after {_elapsed(run)}, started {started}" if run.ended_at else f" for {_elapsed(run)}, since {started}"


def _step_table(steps: Sequence[StepResult]) -> RenderableType:
    columns = (
        Column("step", whole=True),
        Column("status", whole=True),
        Column("attempts", right=True),
        Column("nodes"),
        Column("duration", right=True, whole=True),
        Column("error", whole=True),
    )
    return Rows(
        columns,
        (
            (
                step.step,
                styled(step.status),
                str(step.attempts) if step.attempts else "",
                counts_of(step.counts),
                duration(step.seconds) if step.attempts else "",
                step.error or "",
            )
            for step in steps
        ),
    )


def _node_table(nodes: Sequence[NodeResultRow]) -> RenderableType:
    columns = (
        Column("step"),
        Column("type"),
        Column("node", whole=True),
        Column("status", whole=True),
        Column("duration", right=True, whole=True),
        Column("message", cut=True),
    )
    return Rows(
        columns,
        (
            (
                node.step,
                node.resource_type,
                node.name,
                styled(node.status),
                duration(node.seconds),
                one_line(node.message, 120) if node.failed else "",
            )
            for node in nodes
        ),
    )


def _failures(detail: RunDetail) -> Iterator[RenderableType]:
    """What failed, each with its message in full: first the steps, then the nodes."""
    last = {outcome.step: outcome for outcome in detail.outcomes}
    for step in detail.run.steps:
        if step.error:
            outcome = last.get(step.step)
            message = (outcome.message if outcome else None) or step.message
            yield from _failure(f"step {step.step}, attempt {step.attempts}: {step.error}", message, outcome.why if outcome else None)
    seen = set()
    for node in detail.nodes:
        if node.failed:
            seen.add(node.unique_id)
            title = f"{node.unique_id}: {node.status} (step {node.step}, attempt {node.attempt})"
            yield from _failure(title, node.message, *(one_line(line, 200) for line in node.batch_lines(_BATCHES)))
    for outcome in last.values():
        for failure in outcome.failures:
            if failure["unique_id"] not in seen:
                yield from _failure(f"{failure['unique_id']}: {failure['status']} (step {outcome.step})", failure.get("message"))


def _failure(title: str, *texts: str | None) -> Iterator[RenderableType]:
    yield Text(clean(title), style="red")
    for text in texts:
        if text:
            yield Padding(Text(clean(text)), (0, 0, 0, 2))


def _warning_table(warnings: Sequence[DbtWarning]) -> RenderableType:
    columns = (Column("times", right=True, whole=True), Column("kind", whole=True), Column("warning"))
    return Rows(columns, ((f"{each.count:,}", each.event, one_line(each.text, 600)) for each in warnings))


def _artifact_table(run: Run, outcomes: Sequence[Outcome]) -> RenderableType:
    """Files relative to the run's prefix. The digest's first twelve digits tell two files apart; --json has all of it."""
    prefix = (run.artifacts or "").partition("//")[2].partition("/")[2]
    columns = (Column("file", whole=True), Column("size", right=True, whole=True), Column("sha256", whole=True))
    artifacts = (artifact for outcome in outcomes for artifact in outcome.artifacts)
    return Rows(columns, ((a["key"].removeprefix(prefix), size(a["bytes"]), a["sha256"][:12]) for a in artifacts))


def audit_items(items: Iterable[Item]) -> RenderableType:
    """Items of the audit table by their keys; the nodes of a step are one line."""
    rows: list[tuple[str, str, str]] = []
    nodes: Counter[tuple[str, str]] = Counter()
    for item in items:
        if "unique_id" in item:
            nodes[item["pk"], str(item["step"])] += 1
        else:
            # The first of these that an item has says most about it.
            says = next((str(item[key]) for key in ("error", "status", "version", "exit_code", "run_id") if item.get(key) is not None), "")
            rows.append((item["pk"], item["sk"], f"exit code {says}" if says == "0" else says))
    rows += [(pk, f"NODE#{step}#...", f"{number} nodes") for (pk, step), number in nodes.items()]
    return Group(Text("Audit items", style="bold"), Rows((Column("pk"), Column("sk"), Column("")), sorted(rows)))


def account(told: Account) -> RenderableType:
    """A run as the long-term audit tells it."""
    run, promotion = told.run, told.promotion
    by = f"{promotion['promoted_by']} at {promotion['promoted_at']}" if promotion else None
    release = next((row for row in told.attempts if row.get("release_digest")), {})
    steps = dict.fromkeys(row["step"] for row in told.attempts)
    return facts(
        (
            ("Run", f"{run['run_id']} of {run['environment']}, {run['status']}"),
            ("Job", run.get("job")),
            ("Error", run.get("error")),
            ("Cause", one_line(run["cause"], 300) if run.get("cause") else None),
            ("Started", run["started_at"]),
            ("Ended", run.get("ended_at")),
            ("Asked by", " ".join(filter(None, (run.get("trigger"), run.get("reason"))))),
            ("Release", run.get("release")),
            ("Promoted by", by),
            ("Why", (promotion or {}).get("reason")),
            ("Commit", release.get("git_commit")),
            ("Bundle", release.get("release_digest")),
            ("Manifest", release.get("manifest_digest")),
            ("Image", run.get("image")),
            ("Steps", ", ".join(steps)),
            ("Nodes", counts_of(told.counts)),
        )
    )
