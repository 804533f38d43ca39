"""The parts of a report that say what the run did: steps and attempts, time, tests, freshness, every node, and the record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from dbt_runner.report import charts, links
from dbt_runner.report.findings import TESTS, Findings, StepTime, ran
from dbt_runner.report.markup import Markup, tag
from dbt_runner.report.pieces import KIND, NAMES, ROWS, Messages, name_of, pairs_of, rest_of, started_by, status_of, table_of, time_of
from dbt_runner.words import count, counts_of, duration, one_line, size

_SLOWEST = 15
_OPEN_UP_TO = 60  # a table of nodes with at most so many rows is open from the start


def steps(found: Findings, messages: Messages) -> Iterable[object]:
    """The steps in their order, those that were not run too, and behind a click each attempt."""
    rows = [
        (
            step.step,
            # What another run has done has no attempt here, and says whose it was.
            status_of(step.status, None if step.attempts else step.message),
            str(step.attempts or ""),
            counts_of(step.counts),
            duration(step.seconds) if step.attempts else "",
            step.error,
        )
        for step in found.run.steps
    ]
    rows += [(name, status_of("PENDING", "not run"), "", "", "", "") for name in found.not_run]
    if not rows:
        return
    yield table_of("Steps in their order", ("Step", "Status", "#Attempts", "Nodes", "#Duration", "Error"), rows, visible=False)
    details = []
    for outcome in found.sources.detail.outcomes:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(outcome.versions.items()))
        commands = "; ".join(f"{c.get('command')} ({duration(c.get('seconds'))})" for c in outcome.commands)
        facts = (
            ("Commands", commands),
            ("Started", time_of(outcome.started_at) if outcome.started_at else None),
            ("Duration", duration(outcome.seconds)),
            ("Peak memory", f"{outcome.peak_memory_mib:,} MiB" if outcome.peak_memory_mib else None),
            ("Compute", outcome.compute),
            ("Versions", versions),
            ("Message", messages.line(outcome.message, 600)),
            ("Evidence", messages.line(outcome.why, 600)),
            ("Left out", messages.line("; ".join(outcome.left_out), 600)),
        )
        title = f"{outcome.step}, attempt {outcome.attempt}: {outcome.error or 'succeeded'}"
        details.append(tag("details", tag("summary", title), tag("dl", pairs_of(facts), class_="pairs")))
    yield tag("h3", "Attempts")
    yield details


def dbt_warnings(found: Findings, messages: Messages) -> Iterable[object]:
    """What dbt warned of beside the results of nodes, each warning once."""
    warnings = found.sources.detail.dbt_warnings
    if warnings:
        rows = [(each.event, f"{each.count:,}", messages.line(each.text, 600)) for each in warnings]
        yield table_of("What dbt warned of", ("Kind", "#Times", "Warning"), rows, visible=False)


def where_the_time_went(found: Findings) -> Iterable[object]:
    """The attempts on one axis, and each step's nodes by thread with its critical path."""
    strip = charts.steps_strip(found)
    if strip is not None:
        yield tag("p", "Each band is an attempt of a step. Between them containers start.", class_="quiet")
        yield strip
    if found.times:
        longest = max(found.times, key=lambda time: time.wall)
        yield [_step_time(time, found, is_open=time is longest) for time in found.times]
    slowest = sorted(filter(ran, found.nodes), key=lambda node: -node.seconds)[:_SLOWEST]
    rows = [
        (name_of(n.unique_id, n.name), n.step, n.resource_type, duration(n.seconds), f"{n.rows:,}" if n.rows is not None else "")
        for n in slowest
    ]
    if len(found.nodes) > _SLOWEST:
        table = table_of("Slowest nodes", ("Node", "Step", "Type", "#Duration", "#Rows"), rows, visible=False)
        yield tag("details", tag("summary", f"The {len(rows)} slowest nodes"), table)


def _step_time(time: StepTime, found: Findings, *, is_open: bool) -> Markup:
    share = f"{100 * time.chain_seconds / time.wall:.0f} %" if time.wall else "all"
    average = time.busy / time.wall if time.wall else 0.0
    title = f"{time.step}: nodes for {duration(time.wall)} on {count(time.threads, 'thread')}, critical path {duration(time.chain_seconds)}"
    says = (
        f"Critical path: the longest chain of nodes that wait for each other took {share} of the time. More threads shorten the rest, only "
        f"faster nodes shorten this. On average {average:.1f} of {count(time.threads, 'thread')} worked."
    )
    many = "" if found.lineage.nodes else " Without a manifest the path is the slowest node alone."
    shown = time.chain[:NAMES]
    items = [tag("li", name_of(n.unique_id, n.name), " ", tag("span", duration(n.seconds), class_="quiet")) for n in shown]
    return tag(
        "details",
        tag("summary", title),
        _legend(found, time),
        charts.timeline(found, time),
        tag("p", says + many),
        tag("ol", items, class_="path"),
        rest_of(len(time.chain) - len(shown)),
        open=is_open,
    )


def _legend(found: Findings, time: StepTime) -> Markup:
    nodes = [node for node in found.nodes if node.step == time.step]
    keys = [("", "done")]
    keys += [("bad", "failed")] if any(node.failed for node in nodes) else []
    keys += [("odd", "warned")] if any(node.status == "warn" for node in nodes) else []
    keys += [("path", "on the critical path")]
    drawn = [(tag("span", class_=f"key {kind}".strip(), aria_hidden="true"), says) for kind, says in keys]
    return tag("p", [[tag("span", key, f" {says}", class_="legend"), " "] for key, says in drawn], class_="quiet")


def tests(found: Findings, messages: Messages) -> Iterable[object]:
    """How many tests there were, and those that somebody should look at."""
    tests = [node for node in found.nodes if node.resource_type in TESTS]
    if not tests:
        return
    numbers = Counter(node.status for node in tests)
    yield tag("p", f"{count(len(tests), 'test')}: {counts_of(numbers)}.")
    notable = [node for node in tests if node.failed or node.status == "warn"]
    if not notable:
        return
    rows = []
    for node in notable[:ROWS]:
        known = found.lineage.get(node.unique_id)
        tested = ", ".join(parent.rpartition(".")[2] for parent in known.parents) if known else ""
        rows.append(
            (
                name_of(node.unique_id, node.name),
                status_of(node.status),
                tested,
                f"{node.failures:,}" if node.failures else "",
                messages.line(node.message),
            )
        )
    yield table_of("Tests that failed or warn", ("Test", "Status", "Tests", "#Failing rows", "Message"), rows)
    yield rest_of(len(notable) - ROWS)


def freshness(found: Findings) -> Iterable[object]:
    """How old the data of each source was, the worst first."""
    rows = [
        (
            name_of(entry.unique_id, _source_name(found, entry.unique_id)),
            status_of(entry.status),
            time_of(entry.loaded_at) if entry.loaded_at else "",
            duration(entry.age),
            entry.warn_after,
            entry.error_after,
        )
        for entry in sorted(found.sources.freshness, key=lambda entry: (KIND.get(entry.status) == "good", entry.unique_id))
    ]
    if rows:
        columns = ("Source", "Status", "Newest row", "#Age", "#Warns after", "#Fails after")
        yield table_of("Sources by the last look at them", columns, rows[:ROWS], visible=False)
        yield rest_of(len(rows) - ROWS)


def _source_name(found: Findings, unique_id: str) -> str:
    known = found.lineage.get(unique_id)
    return known.name if known else ".".join(unique_id.split(".")[-2:])


def all_nodes(found: Findings) -> Iterable[object]:
    """Every node of each step."""
    for step in dict.fromkeys(node.step for node in found.nodes):
        nodes = [node for node in found.nodes if node.step == step]
        several = any(node.attempt > 1 for node in nodes)
        columns = ("Node", "Type", "Status", "#Duration", "#Rows", *(["#Attempt"] if several else []))
        rows = [
            (
                one_line(node.name, 160),
                node.resource_type,
                status_of(node.status),
                duration(node.seconds) if ran(node) else "",
                f"{node.rows:,}" if node.rows is not None else "",
                *([str(node.attempt)] if several else []),
            )
            for node in nodes
        ]
        counts = counts_of(Counter(node.status for node in nodes))
        table = table_of(f"Nodes of step {step} by their start", columns, rows, visible=False)
        yield tag("details", tag("summary", f"{step}: {counts}"), table, open=len(found.nodes) <= _OPEN_UP_TO)


def _logs(found: Findings) -> Iterator[tuple[str, str]]:
    """The log groups that the run wrote to, each with what tells it from the other one."""
    config = found.sources.config
    computes = {outcome.compute for outcome in found.sources.detail.outcomes}
    if config.function is None or "lambda" not in computes:
        yield config.log_group, ""
        return
    if computes != {"lambda"}:
        yield config.log_group, " (Fargate)"
    yield config.function["log_group"], " (Lambda)"


def record(found: Findings) -> Iterable[object]:
    """What is on record of the run: links, release, versions, request, and the artifacts with their digests."""
    run, config = found.run, found.sources.config
    digests = [artifact for outcome in found.sources.detail.outcomes for artifact in outcome.artifacts]
    versions = {name: version for outcome in found.sources.detail.outcomes for name, version in outcome.versions.items()}
    where = links.artifacts(config, run)
    yield tag(
        "ul",
        tag("li", tag("a", "Execution in Step Functions", href=links.execution(config, run), rel="noreferrer")),
        *(
            tag("li", tag("a", f"Log in CloudWatch{of}", href=links.logs(config, run, group), rel="noreferrer"))
            for group, of in _logs(found)
        ),
        tag("li", tag("a", "Artifacts in S3", href=where, rel="noreferrer")) if where else None,
        class_="links",
    )
    facts = (
        ("Run", run.run_id),
        ("Execution", run.execution),
        ("Release", run.release),
        ("Release's digest", run.release_digest),
        ("Commit", run.git_commit),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))),
        ("Image", run.image),
        ("Started", time_of(run.started_at)),
        ("Ended", time_of(run.ended_at) if run.ended_at else None),
        ("Started by", started_by(run)),
        ("Reason", run.reason),
        ("Variables", one_line(json.dumps(run.vars, ensure_ascii=False), 2000) if run.vars else None),
        ("Full refresh", "yes" if run.full_refresh else None),
        ("Error", run.error),
        ("Cause", one_line(run.cause, 1000) if run.cause else None),
    )
    yield tag("dl", pairs_of(facts), class_="pairs")
    if found.sources.missing:
        yield tag("p", f"No longer in the bucket: {', '.join(found.sources.missing)}.", class_="note")
    if digests:
        prefix = (run.artifacts or "").partition("//")[2].partition("/")[2]
        rows = [(tag("bdi", str(a["key"]).removeprefix(prefix)), size(int(a["bytes"])), tag("code", a["sha256"])) for a in digests[:ROWS]]
        table = table_of("Artifacts with their sha256", ("File", "#Size", "sha256"), rows, visible=False)
        yield tag("details", tag("summary", f"{count(len(digests), 'artifact')} with their sha256"), table)
