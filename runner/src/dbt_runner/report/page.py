"""The report as one HTML page, in the order in which a reader asks: what failed, why, what is blocked, what do I do; then the rest.

The page opens at once for 5,000 nodes and stays below 3 MB: what could grow without bounds (messages, above all) has a limit, and
where something was left out the page says so and names the command that has all of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources

from dbt_runner import __version__
from dbt_runner.errors import ERRORS, TEST_FAILURE
from dbt_runner.report import charts, links
from dbt_runner.report.advice import ADVICE
from dbt_runner.report.findings import BUILT, Findings, Problem, StepTime, blockage, ran
from dbt_runner.report.markup import Markup, escape, join, tag
from dbt_runner.report.sources import Freshness
from dbt_runner.run_records import NodeResultRow, Outcome, Run
from dbt_runner.store import timestamp
from dbt_runner.words import count, counts_of, duration, one_line, size

MESSAGE_BYTES = 400_000  # of all messages together, as HTML
_OPEN_CARDS = 8  # failed nodes that are shown with their whole message
_CARDS = 40  # those that have it behind a click
_ROWS = 500  # rows of a table whose rows have messages
_NAMES = 60  # names in a list
_NAMES_IN_CARD = 12
_SLOWEST = 15
_OPEN_UP_TO = 60  # a table of nodes with at most so many rows is open from the start

_WORDS = {
    "STARTING": "is starting",
    "RUNNING": "is running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "SKIPPED": "was skipped",
    "ABORTED": "was aborted",
    "TIMED_OUT": "ran out of time",
    "INCOMPLETE": "incomplete",
    "PENDING": "not begun",
}
_KIND = {
    **dict.fromkeys(("SUCCEEDED", "success", "pass"), "good"),
    **dict.fromkeys(("FAILED", "ABORTED", "TIMED_OUT", "INCOMPLETE", "error", "runtime error", "partial success", "fail"), "bad"),
    **dict.fromkeys(("SKIPPED", "warn"), "odd"),
    **dict.fromkeys(("RUNNING", "STARTING"), "active"),
}


@dataclass
class _Messages:
    """Other people's texts, as long as there is room for them."""

    left: int = MESSAGE_BYTES
    shortened: int = field(default=0, init=False)

    def whole(self, text: str | None) -> Markup | None:
        """A block with the whole text."""
        if not text:
            return None
        escaped = escape(text.strip())
        if len(escaped.encode()) > self.left:
            return self.line(text)
        self.left -= len(escaped.encode())
        return tag("pre", escaped, tabindex=0, dir="auto")

    def line(self, text: str | None, limit: int = 240) -> Markup | None:
        """The beginning of the text, on one line."""
        if not text:
            return None
        escaped = escape(one_line(text, limit))
        if len(escaped.encode()) > self.left:
            self.shortened += 1
            return None
        self.left -= len(escaped.encode())
        return tag("bdi", escaped)


def render(found: Findings, *, now: datetime, written_by: str | None = None) -> str:
    """The page.

    Args:
        now: when it is made; also the end of what is still going on.
        written_by: who made it before the run's record was closed, such as "step build, attempt 1"; None when somebody asked for it.
    """
    run, messages = found.run, _Messages()
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
            tag("title", f"{run.run_id} {_WORDS.get(run.status, run.status)} ({run.environment})"),
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


# --- head ------------------------------------------------------------------------------------------------------------


def _header(found: Findings, now: datetime, written_by: str | None, messages: _Messages) -> Markup:
    run = found.run
    kind = _KIND.get(run.status, "")
    facts = (
        ("Error", run.error),
        ("Environment", run.environment),
        ("Job", run.job or "none: steps of its own"),
        ("Release", run.release),
        ("Started", _time(run.started_at)),
        ("Duration", duration(run.seconds) if run.ended_at else f"{duration(_age(run, now))} so far"),
        ("Started by", _trigger(run)),
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
        tag("h1", tag("bdi", run.run_id), f" {_WORDS.get(run.status, run.status)}"),
        _lead(found, messages),
        _so_far(found, now, written_by),
        tag("dl", [tag("div", tag("dt", name), tag("dd", tag("bdi", value))) for name, value in facts if value], class_="facts"),
        class_="head",
    )


def _trigger(run: Run) -> str:
    who = {"schedule": "its schedule", "cli": "the command line", "direct": "a direct call"}
    return who.get(run.trigger or "direct", run.trigger or "")


def _lead(found: Findings, messages: _Messages) -> Markup:
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
    command = tag("code", _command("report", found.run, found.run.run_id))
    who = (
        f"This was written at the end of {written_by}, when the run's record was not closed yet"
        if written_by
        else "The run is not closed yet"
    )
    return tag("p", f"{who}: it is the run as it was at ", _time(timestamp(now)), ". ", command, " makes a newer report.", class_="note")


def _age(run: Run, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(run.started_at)).total_seconds())


# --- sections --------------------------------------------------------------------------------------------------------


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


def _sections(found: Findings, messages: _Messages) -> Iterator[_Section | None]:
    yield _section("failed", "What failed", _failures(found, messages))
    yield _section("next", "What to do", _what_to_do(found))
    graph = blockage(found)
    picture = join(charts.blocked_graph(graph, found.lineage), _left_out(graph.left_out))
    yield _section("blocked", "What is blocked", _blocked(found, picture))
    yield _section("steps", "Steps and attempts", _steps(found, messages))
    yield _section("time", "Where the time went", _time_parts(found))
    yield _section("tests", "Tests", _tests(found, messages))
    yield _section("freshness", "Freshness of sources", _freshness(found))
    yield _section("nodes", "All nodes", _all_nodes(found))
    yield _section("record", "The record", _record(found))


def _failures(found: Findings, messages: _Messages) -> Iterable[object]:
    for outcome in _failed_attempts(found):
        if outcome.message and not (outcome.failures and found.problems):
            yield _attempt_card(outcome, messages)
    for place, problem in enumerate(found.problems[:_CARDS]):
        yield _card(problem, messages, is_open=place < _OPEN_CARDS)
    rest = found.problems[_CARDS:]
    if rest:
        rows = [
            (
                _name(problem.node.unique_id, problem.node.name),
                problem.node.resource_type,
                _status(problem.node.status),
                problem.owner,
                str(len(problem.blocked) or ""),
                messages.line(problem.node.message),
            )
            for problem in rest[:_ROWS]
        ]
        title = f"{count(len(rest), 'further failed node')}"
        table = _table(title, ("Node", "Type", "Status", "Owner", "#Blocks", "Message"), rows)
        yield tag("details", tag("summary", title), table, _left_out(len(rest) - _ROWS))


def _failed_attempts(found: Findings) -> list[Outcome]:
    """Of each failed step the last attempt."""
    last = {outcome.step: outcome for outcome in found.sources.detail.outcomes}
    return [outcome for outcome in last.values() if outcome.error]


def _attempt_card(outcome: Outcome, messages: _Messages) -> Markup:
    return tag(
        "article",
        tag("h3", f"Step {outcome.step}: {outcome.error}", class_="mark bad"),
        messages.whole(outcome.message),
        tag("p", "Why it is this error: ", messages.line(outcome.why, 600), class_="quiet") if outcome.why else None,
        class_="card",
    )


def _card(problem: Problem, messages: _Messages, *, is_open: bool) -> Markup:
    node, known = problem.node, problem.known
    what = node.resource_type.replace("_", " ")
    if known and known.is_test and known.parents:
        what += f" of {_names(parent.rpartition('.')[2] for parent in known.parents)}"
    facts: list[object] = [f"{what}, step {node.step}, {node.status} after {duration(node.seconds)}"]
    if node.failures:
        facts.append(count(node.failures, "failing row"))
    if node.attempt > 1:
        facts.append(f"attempt {node.attempt}")
    if known and known.path:
        facts.append(tag("code", known.path))
    if problem.owner:
        facts.append(["owner: ", tag("strong", tag("bdi", problem.owner))])
    consequences: list[list[object]] = []
    if blocked := [n for n in problem.blocked if n.resource_type in BUILT]:
        names = _names((n.name for n in blocked), _NAMES_IN_CARD)
        consequences.append([tag("strong", f"Blocks {count(len(blocked), 'node')}:"), f" {names}"])
    if problem.exposures:
        readers = _names((exposure.name for exposure in problem.exposures), _NAMES_IN_CARD)
        consequences.append([tag("strong", "Read by"), f" {readers}"])
    name = known.name if known and known.resource_type == "source" else node.name
    title = tag("h3", tag("bdi", name, title=node.unique_id), class_="mark bad")
    nothing = None if problem.freshness else tag("p", "dbt said nothing more about it.", class_="quiet")
    body = (
        tag("p", [[" · " if i else None, fact] for i, fact in enumerate(facts)], class_="quiet"),
        tag("p", _staleness(problem.freshness)) if problem.freshness else None,
        messages.whole(node.message) or nothing,
        [tag("p", text, class_="consequence") for text in consequences],
    )
    return tag("article", title, body, class_="card") if is_open else tag("details", tag("summary", title), body, class_="card")


def _staleness(fresh: Freshness) -> list[object]:
    newest = ["Its newest row was loaded at ", _time(fresh.loaded_at), f", {duration(fresh.age)} before."] if fresh.loaded_at else []
    limits = [f"{verb} after {after}" for verb, after in (("warns", fresh.warn_after), ("fails", fresh.error_after)) if after]
    return [*newest, f" It {' and '.join(limits)}." if limits else None]


def _names(names: Iterable[str], most: int = _NAMES) -> str:
    all_of_them = [one_line(name, 80) for name in names]
    more = f" and {len(all_of_them) - most:,} more" if len(all_of_them) > most else ""
    return ", ".join(all_of_them[:most]) + more


def _what_to_do(found: Findings) -> Iterable[object]:
    run = found.run
    errors = dict.fromkeys(filter(None, (run.error, *(outcome.error for outcome in _failed_attempts(found)))))
    if not errors:
        return
    if any(problem.node.resource_type in ("test", "unit_test") for problem in found.problems):
        errors.setdefault(TEST_FAILURE.name)
    items = []
    for name in errors:
        owner = ERRORS[name].owner if name in ERRORS else "the platform team"
        owners = found.owners_of(name) if "owner" in owner else ()
        people = f" ({', '.join(owners)})" if owners else ""
        items.append(tag("li", tag("strong", name), f", for {owner}{people}: {ADVICE.get(name, 'Look at the log.')}"))
    yield tag("ol", items)
    commands = [(_command("show", run, run.run_id), "everything that is recorded")]
    if not found.is_open:
        commands.append((_command("resume", run, run.run_id), "do the rest of it, on its own release"))
    if run.job and not found.is_open:
        commands.append((_command("start", run, "--job", run.job, "--wait"), "start the job again"))
    yield tag("ul", [tag("li", tag("code", command), f" {says}") for command, says in commands], class_="commands")


def _command(name: str, run: Run, *arguments: str) -> str:
    """A command to copy; what other people named is quoted for the shell."""
    return shlex.join(["dbt-runner", name, "--environment", run.environment, *arguments])


def _blocked(found: Findings, picture: Markup) -> Iterable[object]:
    if not found.blocked:
        yield picture
        return
    tests = sum(1 for node in found.blocked if node.resource_type in ("test", "unit_test"))
    named = [node for node in found.blocked if node.resource_type in BUILT]
    text = f"{count(len(named), 'node')}" + (f" and {count(tests, 'test')}" if tests else "")
    was = "was" if len(named) + tests == 1 else "were"
    yield tag("p", f"{text} {was} skipped because something before them failed. In the warehouse they are as the last good run left them.")
    if found.unexplained:
        why = "dbt stopped before it came to them" if found.lineage.nodes else "there is no manifest to say what each waited for"
        yield tag("p", f"{len(found.unexplained):,} of them no failed node explains: {why}.")
    yield picture
    if named:
        yield tag("details", tag("summary", f"Their names ({len(named):,})"), tag("p", _names(node.name for node in named)))
    if found.exposures:
        rows = [(_name(e.unique_id, e.name), e.owner) for e in found.exposures[:_ROWS]]
        yield _table("What people read that stands on it", ("Exposure", "Owner"), rows)


def _steps(found: Findings, messages: _Messages) -> Iterable[object]:
    rows = [
        (
            step.step,
            # What another run has done has no attempt here, and says whose it was.
            _status(step.status, None if step.attempts else step.message),
            str(step.attempts or ""),
            counts_of(step.counts),
            duration(step.seconds) if step.attempts else "",
            step.error,
        )
        for step in found.run.steps
    ]
    rows += [(name, _status("PENDING", "not run"), "", "", "", "") for name in found.not_run]
    if not rows:
        return
    yield _table("Steps in their order", ("Step", "Status", "#Attempts", "Nodes", "#Duration", "Error"), rows, visible=False)
    details = []
    for outcome in found.sources.detail.outcomes:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(outcome.versions.items()))
        commands = "; ".join(f"{c.get('command')} ({duration(c.get('seconds'))})" for c in outcome.commands)
        facts = (
            ("Commands", commands),
            ("Started", _time(outcome.started_at) if outcome.started_at else None),
            ("Duration", duration(outcome.seconds)),
            ("Peak memory", f"{outcome.peak_memory_mib:,} MiB" if outcome.peak_memory_mib else None),
            ("Compute", outcome.compute),
            ("Versions", versions),
            ("Message", messages.line(outcome.message, 600)),
            ("Evidence", messages.line(outcome.why, 600)),
        )
        title = f"{outcome.step}, attempt {outcome.attempt}: {outcome.error or 'succeeded'}"
        details.append(tag("details", tag("summary", title), tag("dl", _pairs(facts), class_="pairs")))
    yield tag("h3", "Attempts")
    yield details


def _time_parts(found: Findings) -> Iterable[object]:
    strip = charts.steps_strip(found)
    if strip is not None:
        yield tag("p", "Each band is an attempt of a step. Between them containers start.", class_="quiet")
        yield strip
    if found.times:
        longest = max(found.times, key=lambda time: time.wall)
        yield [_step_time(time, found, is_open=time is longest) for time in found.times]
    slowest = sorted(filter(ran, found.nodes), key=lambda node: -node.seconds)[:_SLOWEST]
    rows = [
        (_name(n.unique_id, n.name), n.step, n.resource_type, duration(n.seconds), f"{n.rows:,}" if n.rows is not None else "")
        for n in slowest
    ]
    if len(found.nodes) > _SLOWEST:
        table = _table("Slowest nodes", ("Node", "Step", "Type", "#Duration", "#Rows"), rows, visible=False)
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
    shown = time.chain[:_NAMES]
    items = [tag("li", _name(n.unique_id, n.name), " ", tag("span", duration(n.seconds), class_="quiet")) for n in shown]
    return tag(
        "details",
        tag("summary", title),
        _legend(found, time),
        charts.timeline(found, time),
        tag("p", says + many),
        tag("ol", items, class_="path"),
        _left_out(len(time.chain) - len(shown)),
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


def _tests(found: Findings, messages: _Messages) -> Iterable[object]:
    tests = [node for node in found.nodes if node.resource_type in ("test", "unit_test")]
    if not tests:
        return
    numbers = Counter(node.status for node in tests)
    yield tag("p", f"{count(len(tests), 'test')}: {counts_of(numbers)}.")
    notable = [node for node in tests if node.failed or node.status == "warn"]
    if not notable:
        return
    rows = []
    for node in notable[:_ROWS]:
        known = found.lineage.get(node.unique_id)
        tested = ", ".join(parent.rpartition(".")[2] for parent in known.parents) if known else ""
        rows.append(
            (
                _name(node.unique_id, node.name),
                _status(node.status),
                tested,
                f"{node.failures:,}" if node.failures else "",
                messages.line(node.message),
            )
        )
    yield _table("Tests that failed or warn", ("Test", "Status", "Tests", "#Failing rows", "Message"), rows)
    yield _left_out(len(notable) - _ROWS)


def _freshness(found: Findings) -> Iterable[object]:
    rows = [
        (
            _name(entry.unique_id, _source_name(found, entry.unique_id)),
            _status(entry.status),
            _time(entry.loaded_at) if entry.loaded_at else "",
            duration(entry.age),
            entry.warn_after,
            entry.error_after,
        )
        for entry in sorted(found.sources.freshness, key=lambda entry: (_KIND.get(entry.status) == "good", entry.unique_id))
    ]
    if rows:
        columns = ("Source", "Status", "Newest row", "#Age", "#Warns after", "#Fails after")
        yield _table("Sources by the last look at them", columns, rows[:_ROWS], visible=False)
        yield _left_out(len(rows) - _ROWS)


def _source_name(found: Findings, unique_id: str) -> str:
    known = found.lineage.get(unique_id)
    return known.name if known else ".".join(unique_id.split(".")[-2:])


def _all_nodes(found: Findings) -> Iterable[object]:
    for step in dict.fromkeys(node.step for node in found.nodes):
        nodes = [node for node in found.nodes if node.step == step]
        several = any(node.attempt > 1 for node in nodes)
        columns = ("Node", "Type", "Status", "#Duration", "#Rows", *(["#Attempt"] if several else []))
        rows = [
            (
                one_line(node.name, 160),
                node.resource_type,
                _status(node.status),
                duration(node.seconds) if ran(node) else "",
                f"{node.rows:,}" if node.rows is not None else "",
                *([str(node.attempt)] if several else []),
            )
            for node in nodes
        ]
        counts = counts_of(Counter(node.status for node in nodes))
        table = _table(f"Nodes of step {step} by their start", columns, rows, visible=False)
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


def _record(found: Findings) -> Iterable[object]:
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
        ("Started", _time(run.started_at)),
        ("Ended", _time(run.ended_at) if run.ended_at else None),
        ("Started by", _trigger(run)),
        ("Reason", run.reason),
        ("Variables", one_line(json.dumps(run.vars, ensure_ascii=False), 2000) if run.vars else None),
        ("Full refresh", "yes" if run.full_refresh else None),
        ("Error", run.error),
        ("Cause", one_line(run.cause, 1000) if run.cause else None),
    )
    yield tag("dl", _pairs(facts), class_="pairs")
    if found.sources.missing:
        yield tag("p", f"No longer in the bucket: {', '.join(found.sources.missing)}.", class_="note")
    if digests:
        prefix = (run.artifacts or "").partition("//")[2].partition("/")[2]
        rows = [(tag("bdi", str(a["key"]).removeprefix(prefix)), size(int(a["bytes"])), tag("code", a["sha256"])) for a in digests[:_ROWS]]
        table = _table("Artifacts with their sha256", ("File", "#Size", "sha256"), rows, visible=False)
        yield tag("details", tag("summary", f"{count(len(digests), 'artifact')} with their sha256"), table)


def _footer(found: Findings, now: datetime, messages: _Messages) -> Markup:
    short = (
        f" {count(messages.shortened, 'message is', 'messages are')} left out to keep this page small; dbt-runner show has all of them."
        if messages.shortened
        else ""
    )
    return tag(
        "footer",
        tag(
            "p",
            ["Made at ", _time(timestamp(now)), f" by dbt-runner {__version__} from the audit store of {found.sources.config.name}."],
            f" Times are in UTC.{short}",
        ),
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, visible: bool = True) -> Markup:
    """A table whose first column names its rows. A column whose name begins with # holds numbers; empty columns are left out."""
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i] for row in rows)]
    numeric = [i for i in kept if columns[i].startswith("#")]
    head = tag("tr", [tag("th", columns[i].removeprefix("#"), scope="col", class_="number" if i in numeric else None) for i in kept])
    body = [
        tag(
            "tr", [tag("th", row[i], scope="row") if i == 0 else tag("td", row[i], class_="number" if i in numeric else None) for i in kept]
        )
        for row in rows
    ]
    table = tag("table", tag("caption", caption, class_=None if visible else "hidden"), tag("thead", head), tag("tbody", body))
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _pairs(facts: Iterable[tuple[str, object]]) -> list[Markup]:
    return [join(tag("dt", name), tag("dd", tag("bdi", value))) for name, value in facts if value]


def _name(unique_id: str, name: str) -> Markup:
    """A node's name, with its unique_id to hover where the one does not end in the other."""
    return tag("span", one_line(name, 160), title=None if unique_id.endswith(f".{name}") else one_line(unique_id, 250))


def _status(status: str, words: str | None = None) -> Markup:
    says = words or (_WORDS.get(status, status) if status.isupper() else status)
    return tag("span", says, class_=f"mark {_KIND[status]}" if status in _KIND else None)


def _left_out(number: int) -> Markup | None:
    return (
        tag("p", f"{number:,} more are left out to keep this page small; dbt-runner show lists them.", class_="quiet")
        if number > 0
        else None
    )


def _time(moment: str) -> Markup:
    """A time of the store, to the second."""
    return tag("time", moment[:19].replace("T", " "), datetime=moment)
