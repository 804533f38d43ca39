"""The report as one HTML page, in the order in which a reader asks: what failed, why, what is blocked, what do I do; then the rest.

The page opens at once for 5,000 nodes and stays below 3 MB: what could grow without bounds (messages, above all) has a limit, and
where something was left out the page says so and names the command that has all of it.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

from dbt_runner import __version__
from dbt_runner.report import charts, failures, particulars
from dbt_runner.report.findings import BUILT, Findings, blockage
from dbt_runner.report.markup import Markup, join, tag
from dbt_runner.report.pieces import KIND, WORDS, Messages, command_to_copy, rest_of, started_by, time_of
from dbt_runner.run_records import NodeResultRow, Run
from dbt_runner.store import timestamp
from dbt_runner.words import count, duration


def render(found: Findings, *, now: datetime, written_by: str | None = None) -> str:
    """The page.

    Args:
        now: when it is made; also the end of what is still going on.
        written_by: who made it before the run's record was closed, such as "step build, attempt 1"; None when somebody asked for it.
    """
    run, messages = found.run, Messages()
    style = Markup(resources.files("dbt_runner.report").joinpath("style.css").read_text(encoding="utf-8"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    sections = [each for each in _sections(found, messages) if each is not None]
    return "<!DOCTYPE html>\n" + tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            # Should markup get in all the same, it can neither run nor fetch anything.
            tag(
                "meta",
                http_equiv="Content-Security-Policy",
                content=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
            ),
            tag("meta", name="referrer", content="no-referrer"),
            _mark(run),
            tag("link", rel="icon", href="data:,"),
            tag("title", f"{run.run_id} {WORDS.get(run.status, run.status)} ({run.environment})"),
            tag("style", style),
        ),
        tag(
            "body",
            tag("a", "Skip to the report", href="#main", class_="skip"),
            _header(found, now, written_by, messages),
            tag(
                "div",
                tag("nav", tag("ul", [tag("li", tag("a", each.title, href=f"#{each.name}")) for each in sections]), aria_label="Parts"),
                tag("main", [each.markup for each in sections], id="main"),
                class_="page",
            ),
            _footer(found, now, messages),
        ),
        lang="en",
    )


def is_of(page: bytes, run: Run) -> bool:
    """Whether a page is the report of a run that has ended, as its record says now that it has."""
    return str(_mark(run)).encode() in page[:20_000]


def _mark(run: Run) -> Markup:
    """What the run came to, for programs."""
    return tag("meta", name="dbt-run", content=" ".join(filter(None, (run.run_id, run.status, run.error))))


def _header(found: Findings, now: datetime, written_by: str | None, messages: Messages) -> Markup:
    run = found.run
    kind = KIND.get(run.status, "")
    facts = (
        ("Error", run.error),
        ("Environment", run.environment),
        ("Job", run.job or "none: steps of its own"),
        ("Release", run.release),
        ("Started", time_of(run.started_at)),
        ("Duration", duration(run.seconds) if run.ended_at else f"{duration(_age(run, now))} so far"),
        ("Started by", started_by(run)),
        ("Reason", run.reason),
    )
    return tag(
        "header",
        tag(
            "p",
            tag("span", run.status.replace("_", " ").lower(), class_=f"pill mark {kind}"),
            tag("span", "dbt run report", class_="what"),
            class_="over",
        ),
        tag("h1", tag("bdi", run.run_id), f" {WORDS.get(run.status, run.status)}"),
        _lead(found, messages),
        _so_far(found, now, written_by),
        tag("dl", [tag("div", tag("dt", name), tag("dd", tag("bdi", value))) for name, value in facts if value], class_="facts"),
        class_="head",
    )


def _lead(found: Findings, messages: Messages) -> Markup:
    """What a reader who reads one sentence should know."""
    run = found.run
    if run.status == "SUCCEEDED" and not found.problems:
        total = sum(sum(step.counts.values()) for step in run.steps)
        warned = f" {count(len(found.warnings), 'node warns', 'nodes warn')}." if found.warnings else ""
        return tag("p", f"{count(len(run.steps), 'step')}, {count(total, 'node result')}, nothing failed.{warned}", class_="lead")
    parts: list[object] = []
    if found.problems:
        parts.append(f"{_by_type([problem.node for problem in found.problems])} failed. ")
        blocked = sum(1 for node in found.blocked if node.resource_type in BUILT)
        if blocked:
            parts.append(f"{count(blocked, 'node')} could not be built because of that. ")
        if found.exposures:
            parts.append(f"{count(len(found.exposures), 'exposure')} may show old or wrong data. ")
    elif run.error:
        parts += [tag("strong", run.error), ": ", messages.line(run.cause, 400), " "]
    elif run.cause:
        parts.append(messages.line(run.cause, 400))
    if found.not_run:
        parts.append(f"Not run: {', '.join(found.not_run)}.")
    if run.status == "SUCCEEDED":
        parts.append("The run went on, as its job says.")
    if not parts:
        parts.append("Nothing has failed so far." if found.is_open else "The record says no more.")
    return tag("p", parts, class_="lead")


def _by_type(nodes: Sequence[NodeResultRow]) -> str:
    kinds = Counter(node.resource_type.replace("_", " ") for node in nodes)
    *others, last = [count(number, kind) for kind, number in kinds.most_common()]
    return f"{', '.join(others)} and {last}" if others else last


def _so_far(found: Findings, now: datetime, written_by: str | None) -> Markup | None:
    if not found.is_open:
        return (
            tag("p", f"Written at the end of {written_by}, just before the run's record was closed.", class_="quiet")
            if written_by
            else None
        )
    command = tag("code", command_to_copy("report", found.run, found.run.run_id))
    who = (
        f"This was written at the end of {written_by}, when the run's record was not closed yet"
        if written_by
        else "The run is not closed yet"
    )
    return tag("p", f"{who}: it is the run as it was at ", time_of(timestamp(now)), ". ", command, " makes a newer report.", class_="note")


def _age(run: Run, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(run.started_at)).total_seconds())


@dataclass(frozen=True)
class _Section:
    name: str
    title: str
    markup: Markup


def _section(name: str, title: str, *parts: object) -> _Section | None:
    """A part of the page; None where there is nothing to say."""
    body = join(*parts)
    if not body:
        return None
    return _Section(name, title, tag("section", tag("h2", title, id=f"{name}-title"), body, id=name, aria_labelledby=f"{name}-title"))


def _sections(found: Findings, messages: Messages) -> Iterator[_Section | None]:
    yield _section("failed", "What failed", failures.failures(found, messages))
    yield _section("next", "What to do", failures.what_to_do(found))
    graph = blockage(found)
    picture = join(charts.blocked_graph(graph, found.lineage), rest_of(graph.left_out))
    yield _section("blocked", "What is blocked", failures.blocked(found, picture))
    yield _section("steps", "Steps and attempts", particulars.steps(found, messages))
    yield _section("time", "Where the time went", particulars.where_the_time_went(found))
    yield _section("tests", "Tests", particulars.tests(found, messages))
    yield _section("freshness", "Freshness of sources", particulars.freshness(found))
    yield _section("warnings", "Warnings of dbt", particulars.dbt_warnings(found, messages))
    yield _section("nodes", "All nodes", particulars.all_nodes(found))
    yield _section("record", "The record", particulars.record(found))


def _footer(found: Findings, now: datetime, messages: Messages) -> Markup:
    short = (
        f" {count(messages.shortened, 'message is', 'messages are')} left out to keep this page small; dbt-runner show has all of them."
        if messages.shortened
        else ""
    )
    return tag(
        "footer",
        tag(
            "p",
            ["Made at ", time_of(timestamp(now)), f" by dbt-runner {__version__} from the audit store of {found.sources.config.name}."],
            f" Times are in UTC.{short}",
        ),
    )
