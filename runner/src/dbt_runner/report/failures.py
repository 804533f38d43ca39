"""The parts of a report that somebody has to act on: what failed and why, what to do, and what is blocked until then."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from dbt_runner import resumption
from dbt_runner.errors import ERRORS, TEST_FAILURE
from dbt_runner.report.advice import ADVICE
from dbt_runner.report.findings import BUILT, TESTS, Findings, Problem
from dbt_runner.report.markup import Markup, join, tag
from dbt_runner.report.pieces import (
    ROWS,
    Messages,
    command_to_copy,
    failed_attempts,
    name_of,
    names_of,
    rest_of,
    status_of,
    table_of,
    time_of,
)
from dbt_runner.report.sources import Freshness
from dbt_runner.request import CURRENT
from dbt_runner.run_records import Outcome
from dbt_runner.words import count, duration

_OPEN_CARDS = 8  # failed nodes that are shown with their whole message
_CARDS = 40  # those that have it behind a click
_NAMES_IN_CARD = 12
_BATCHES = 20  # of a microbatch model, those that did not succeed


def failures(found: Findings, messages: Messages) -> Iterable[object]:
    """A card for each failed node, the worst first, and before them what failed without a node."""
    for outcome in failed_attempts(found):
        if outcome.message and not (outcome.failures and found.problems):
            yield _attempt_card(outcome, messages)
    for place, problem in enumerate(found.problems[:_CARDS]):
        yield _card(problem, messages, is_open=place < _OPEN_CARDS)
    rest = found.problems[_CARDS:]
    if rest:
        rows = [
            (
                name_of(problem.node.unique_id, problem.node.name),
                problem.node.resource_type,
                status_of(problem.node.status),
                problem.owner,
                str(len(problem.blocked) or ""),
                messages.line(problem.node.message),
            )
            for problem in rest[:ROWS]
        ]
        title = f"{count(len(rest), 'further failed node')}"
        table = table_of(title, ("Node", "Type", "Status", "Owner", "#Blocks", "Message"), rows)
        yield tag("details", tag("summary", title), table, rest_of(len(rest) - ROWS))


def _attempt_card(outcome: Outcome, messages: Messages) -> Markup:
    return tag(
        "article",
        tag("h3", f"Step {outcome.step}: {outcome.error}", class_="mark bad"),
        messages.whole(outcome.message),
        tag("p", "Why it is this error: ", messages.line(outcome.why, 600), class_="quiet") if outcome.why else None,
        class_="card",
    )


def _card(problem: Problem, messages: Messages, *, is_open: bool) -> Markup:
    node, known = problem.node, problem.known
    what = node.resource_type.replace("_", " ")
    if known and known.is_test and known.parents:
        what += f" of {names_of(parent.rpartition('.')[2] for parent in known.parents)}"
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
        names = names_of((n.name for n in blocked), _NAMES_IN_CARD)
        consequences.append([tag("strong", f"Blocks {count(len(blocked), 'node')}:"), f" {names}"])
    if problem.exposures:
        readers = names_of((exposure.name for exposure in problem.exposures), _NAMES_IN_CARD)
        consequences.append([tag("strong", "Read by"), f" {readers}"])
    name = known.name if known and known.resource_type == "source" else node.name
    title = tag("h3", tag("bdi", name, title=node.unique_id), class_="mark bad")
    nothing = None if problem.freshness else tag("p", "dbt said nothing more about it.", class_="quiet")
    body = (
        tag("p", [[" · " if i else None, fact] for i, fact in enumerate(facts)], class_="quiet"),
        tag("p", _staleness(problem.freshness)) if problem.freshness else None,
        messages.whole(node.message) or nothing,
        messages.whole("\n".join(node.batch_lines(_BATCHES))),
        [tag("p", text, class_="consequence") for text in consequences],
    )
    return tag("article", title, body, class_="card") if is_open else tag("details", tag("summary", title), body, class_="card")


def _staleness(fresh: Freshness) -> list[object]:
    newest = ["Its newest row was loaded at ", time_of(fresh.loaded_at), f", {duration(fresh.age)} before."] if fresh.loaded_at else []
    limits = [f"{verb} after {after}" for verb, after in (("warns", fresh.warn_after), ("fails", fresh.error_after)) if after]
    return [*newest, f" It {' and '.join(limits)}." if limits else None]


def what_to_do(found: Findings) -> Iterable[object]:
    """Advice for each error with whom it is for, and the commands that one will want."""
    run = found.run
    errors = dict.fromkeys(filter(None, (run.error, *(outcome.error for outcome in failed_attempts(found)))))
    if not errors:
        return
    if any(problem.node.resource_type in TESTS for problem in found.problems):
        errors.setdefault(TEST_FAILURE.name)
    items = []
    for name in errors:
        owner = ERRORS[name].owner if name in ERRORS else "the platform team"
        owners = found.owners_of(name) if "owner" in owner else ()
        people = f" ({', '.join(owners)})" if owners else ""
        items.append(tag("li", tag("strong", name), f", for {owner}{people}: {ADVICE.get(name, 'Look at the log.')}"))
    yield tag("ol", items)
    commands = [(command_to_copy("show", run, run.run_id), "everything that is recorded")]
    if not found.is_open:
        commands += list(_resumes(found))
    if run.job and not found.is_open:
        commands.append((command_to_copy("start", run, "--job", run.job, "--wait"), "start the job again"))
    yield tag("ul", [tag("li", tag("code", command), f" {says}") for command, says in commands], class_="commands")


def _resumes(found: Findings) -> Iterable[tuple[str, str]]:
    """The ways to resume the run that the command itself takes."""
    run, environment, now = found.run, found.sources.config, datetime.now(UTC)
    if resumption.refusal(environment, run, now) is None:
        yield command_to_copy("resume", run, run.run_id), "do the rest of it, on its own release"
    if resumption.refusal(environment, run, now, on_current=True) is None:
        yield command_to_copy("resume", run, run.run_id, "--release", CURRENT), "do the rest on the current release, once one mends it"


def blocked(found: Findings, picture: Markup) -> Iterable[object]:
    """What was not built, as a picture and by name, and who reads it."""
    if not found.blocked:
        yield join(tag("p", "Nothing was skipped. What stands on it was built from what there is."), picture) if picture else None
        return
    tests = sum(1 for node in found.blocked if node.resource_type in TESTS)
    named = [node for node in found.blocked if node.resource_type in BUILT]
    text = f"{count(len(named), 'node')}" + (f" and {count(tests, 'test')}" if tests else "")
    was = "was" if len(named) + tests == 1 else "were"
    yield tag("p", f"{text} {was} skipped because something before them failed. In the warehouse they are as the last good run left them.")
    if found.unexplained:
        why = "dbt stopped before it came to them" if found.lineage.nodes else "there is no manifest to say what each waited for"
        yield tag("p", f"{len(found.unexplained):,} of them no failed node explains: {why}.")
    yield picture
    if named:
        yield tag("details", tag("summary", f"Their names ({len(named):,})"), tag("p", names_of(node.name for node in named)))
    if found.exposures:
        rows = [(name_of(e.unique_id, e.name), e.owner) for e in found.exposures[:ROWS]]
        yield table_of("What people read that stands on it", ("Exposure", "Owner"), rows)
