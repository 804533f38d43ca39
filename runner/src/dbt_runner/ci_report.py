"""What a check came to, for the tools around a pull request: JUnit's XML for the machine, a few lines of Markdown for people."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from xml.etree import ElementTree

from dbt_runner.ci import Check
from dbt_runner.events import FAIL_STATUSES
from dbt_runner.runs import NodeResultRow
from dbt_runner.words import clean, count, counts_of, duration, one_line

_MAX_ROWS = 20
# In a table a pipe ends a cell, also in code. GitHub Flavored Markdown, "Tables (extension)"
_PIPE = "\\|"
# https://www.w3.org/TR/xml/#charsets
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(check: Check) -> bytes:
    """The check as one test suite with a test case a node, and one for the run where it ended badly by itself.

    https://github.com/testmoapp/junitxml: dbt's failing tests are failures, all else that is wrong is an error.
    """
    nodes = check.nodes
    of_run = not check.passed and not any(node.failed for node in nodes)
    kinds = Counter("failures" if node.status in FAIL_STATUSES else "errors" for node in nodes if node.failed)
    numbers = {
        "tests": len(nodes) + of_run,
        "failures": kinds["failures"],
        "errors": kinds["errors"] + of_run,
        "skipped": sum(node.status == "skipped" for node in nodes),
        "time": f"{sum(node.seconds for node in nodes):.3f}",
    }
    attributes = {name: str(value) for name, value in numbers.items()}
    suites = ElementTree.Element("testsuites", {"name": "dbt-runner ci", **attributes})
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _xml(f"dbt {check.environment}"), **attributes})
    if check.detail:
        run = check.detail.run
        suite.set("timestamp", _xml(run.started_at))
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in _facts(check):
            ElementTree.SubElement(properties, "property", {"name": name, "value": _xml(value)})
    for node in nodes:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _xml(node.resource_type), "name": _xml(node.unique_id), "time": f"{node.seconds:.3f}"}
        )
        if node.failed:
            _problem(case, "failure" if node.status in FAIL_STATUSES else "error", node.status, node.message or node.status)
        elif node.status == "skipped":
            ElementTree.SubElement(case, "skipped")
    if of_run:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "run", "name": "run", "time": "0.000"})
        _problem(case, "error", check.error or "", check.message)
    ElementTree.indent(suites)
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document


def markdown(check: Check) -> str:
    """The check in a few lines: what became of it, and the first nodes that failed."""
    counts = Counter(node.status for node in check.nodes)
    if not check.passed:
        head = f"dbt: {check.error}"
    elif counts:
        head = f"dbt: {count(len(check.nodes), 'node')} built beside {check.environment}"
    else:
        head = f"dbt: no node differs from what {check.environment} runs"
    lines = [f"### {_text(head, 200)}", ""]
    lines += [f"- {name}: {_code(value, 200)}" for name, value in _facts(check)]
    if counts:
        lines.append(f"- nodes: {_text(counts_of(counts), 300)}")
    if check.detail and check.detail.run.seconds is not None:
        lines.append(f"- time: {duration(check.detail.run.seconds)}")
    failed = [node for node in check.nodes if node.failed]
    if failed:
        lines += ["", "| node | status | message |", "|---|---|---|", *_rows(failed)]
        if len(failed) > _MAX_ROWS:
            lines += ["", f"and {count(len(failed) - _MAX_ROWS, 'more')}: `dbt-runner show --nodes failed` lists them all"]
    elif not check.passed:
        lines += ["", _code(check.message, 1000)]
    return "\n".join(lines) + "\n"


def _rows(nodes: list[NodeResultRow]) -> Iterator[str]:
    for node in nodes[:_MAX_ROWS]:
        cells = (_code(node.unique_id, 200), _text(node.status, 40), _code(node.message or "", 300))
        yield f"| {' | '.join(cell.replace('|', _PIPE) for cell in cells)} |"


def _facts(check: Check) -> Iterator[tuple[str, str]]:
    if check.release:
        yield "release", check.release
    if check.detail:
        run = check.detail.run
        if run.defer_to:
            yield "compared with", run.defer_to
        if run.schema_suffix:
            yield "schemas", f"..._{run.schema_suffix}"
        yield "run", run.run_id


def _problem(case: ElementTree.Element, kind: str, type_: str, message: str) -> None:
    problem = ElementTree.SubElement(case, kind, {"type": _xml(type_), "message": _xml(one_line(message, 300))})
    problem.text = _xml(clean(message))


def _xml(text: str) -> str:
    return _NOT_IN_XML.sub("", clean(text))


def _text(text: str, limit: int) -> str:
    """A few words of our own, with names in them, on one line of Markdown that says nothing but them."""
    plain = re.sub(r"([\\`*_\[\]~#$!])", r"\\\1", html.escape(one_line(text, limit), quote=False))
    # Mentions and addresses become links after Markdown has been read, so that a backslash does not help: a comment parts them.
    return re.sub(r"(@|:|www)(?=\S)", r"\1<!-- -->", plain)


def _code(text: str, limit: int) -> str:
    """Words of others as a span of code: in it Markdown knows no HTML, link, image, mention or reference, and only a backtick ends it."""
    line = one_line(text, limit).replace("`", "'").strip()
    return f"`{line}`" if line else ""
