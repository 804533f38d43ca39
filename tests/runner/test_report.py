"""The run report: what it finds in a run, and that nothing which it shows can break it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli, report
from dbt_runner.cli import aws
from dbt_runner.errors import ERRORS, INVALID_REQUEST, TypedError
from dbt_runner.lineage import from_manifest, longest_chain
from dbt_runner.report import links
from dbt_runner.report.advice import ADVICE
from dbt_runner.report.findings import blockage, find
from dbt_runner.report.markup import Markup, escape, join, tag
from dbt_runner.report.pieces import MESSAGE_BYTES
from dbt_runner.report.sources import Freshness, from_folder
from dbt_runner.run_records import NodeResultRow, RunDetail
from dbt_runner.store import Store
from runner.conftest import config_of
from runner.recorded_runs import LiveAlias, create_machine, node_item, record_outcome, record_run
from runner.report_runs import CONFIG, at, large, manifest_of, node, outcome_of, page, run_of, sources_of, step_of

# --- lineage -----------------------------------------------------------------------------------------------------------

# a -> b -> d, a -> c -> d; a test of b alone, one of b and c; a dashboard reads d
DIAMOND = {
    "model.shop.a": [],
    "model.shop.b": ["model.shop.a"],
    "model.shop.c": ["model.shop.a"],
    "model.shop.d": ["model.shop.b", "model.shop.c"],
    "test.shop.of_b": ["model.shop.b"],
    "test.shop.of_both": ["model.shop.b", "model.shop.c"],
    "exposure.shop.board": ["model.shop.d"],
}


def test_downstream_is_what_depends_on_a_node_and_for_a_test_on_what_it_tests() -> None:
    lineage = from_manifest(manifest_of(DIAMOND))
    models = [unique_id for unique_id in lineage.downstream("model.shop.b") if not unique_id.startswith("test.")]
    assert models == ["model.shop.d", "exposure.shop.board"]
    assert set(lineage.downstream("test.shop.of_b")) == {"model.shop.d", "exposure.shop.board", "test.shop.of_both"}
    assert list(lineage.downstream("model.shop.unknown")) == []


@pytest.mark.parametrize(
    ("tests", "chain", "seconds"),
    [
        ([], ["a", "c", "d"], 8.0),
        (["test.shop.of_b"], ["a", "b", "of_b", "d"], 13.0),
        (["test.shop.of_both"], ["a", "c", "of_both", "d"], 17.0),
    ],
    ids=["no test gates", "a test of b gates d", "a test of both gates d"],
)
def test_the_longest_chain_goes_through_the_tests_that_a_build_waits_for(tests: list[str], chain: list[str], seconds: float) -> None:
    times = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0, "of_b": 6.0, "of_both": 9.0}
    measured = {u: times[u.rpartition(".")[2]] for u in DIAMOND if not u.startswith(("exposure", "test"))}
    measured |= {test: times[test.rpartition(".")[2]] for test in tests}
    found = longest_chain(from_manifest(manifest_of(DIAMOND)), measured, tests)
    assert ([unique_id.rpartition(".")[2] for unique_id in found.unique_ids], found.seconds) == (chain, seconds)


def test_a_test_of_several_nodes_gates_only_what_depends_on_all_of_them() -> None:
    edges = {**DIAMOND, "model.shop.only_b": ["model.shop.b"]}
    times = {"model.shop.b": 1.0, "model.shop.c": 1.0, "test.shop.of_both": 50.0, "model.shop.only_b": 5.0, "model.shop.d": 1.0}
    found = longest_chain(from_manifest(manifest_of(edges)), times, ["test.shop.of_both"])
    assert found.unique_ids[-2:] == ("test.shop.of_both", "model.shop.d")


def test_unit_tests_run_one_after_the_other_before_the_model_that_they_test() -> None:
    edges = {**DIAMOND, "unit_test.shop.u1": ["model.shop.b"], "unit_test.shop.u2": ["model.shop.b"]}
    times = {"model.shop.a": 1.0, "model.shop.b": 2.0, "model.shop.c": 1.0, "model.shop.d": 1.0}
    units = {"unit_test.shop.u1": 3.0, "unit_test.shop.u2": 4.0}
    found = longest_chain(from_manifest(manifest_of(edges)), {**times, **units}, list(units))
    assert ([unique_id.rpartition(".")[2] for unique_id in found.unique_ids], found.seconds) == (["a", "u1", "u2", "b", "d"], 11.0)


def test_nodes_that_did_not_run_still_connect_and_without_a_manifest_the_slowest_is_the_chain() -> None:
    times = {"model.shop.a": 1.0, "model.shop.d": 2.0}  # b and c are ephemeral
    assert longest_chain(from_manifest(manifest_of(DIAMOND)), times).unique_ids == ("model.shop.a", "model.shop.d")
    assert longest_chain(from_manifest({}), times).unique_ids == ("model.shop.d",)
    assert longest_chain(from_manifest({}), {}).unique_ids == ()


@pytest.mark.parametrize(
    ("entry", "owner"),
    [
        ({"meta": {"owner": "@ann"}}, "@ann"),
        ({"config": {"meta": {"owner": {"name": "Ann", "email": "a@example.com"}}}}, "Ann"),
        ({"meta": {"owner": ["@ann", "@bob"]}}, "@ann, @bob"),
        ({"group": "sales"}, "Sales team"),
        ({"config": {"group": "sales"}}, "Sales team"),
        ({"meta": {"owner": "@ann"}, "group": "sales"}, "@ann"),
        ({"owner": {"email": "o@example.com"}}, "o@example.com"),
        ({"group": "unknown"}, ""),
        ({"meta": None, "config": "x", "owner": 3.5}, ""),
    ],
)
def test_an_owner_is_metas_or_the_groups(entry: dict[str, Any], owner: str) -> None:
    groups = {"group.shop.sales": {"name": "sales", "owner": {"name": "Sales team", "email": "s@example.com"}}}
    lineage = from_manifest(manifest_of(DIAMOND, nodes={"model.shop.a": entry}, groups=groups))
    assert lineage.nodes["model.shop.a"].owner == owner


@pytest.mark.parametrize(
    ("entry", "owner"),
    [
        ({}, "@ann"),
        ({"group": "sales"}, "@ann"),
        ({"group": "sales", "meta": {"owner": "@bob"}}, "@bob"),
        ({"group": "sales", "attached_node": "model.shop.c"}, "Sales team"),
    ],
    ids=["of what it tests", "before the group that dbt gives it", "its own", "of a node without an owner"],
)
def test_a_test_is_owned_by_who_owns_what_it_tests(entry: dict[str, Any], owner: str) -> None:
    groups = {"group.shop.sales": {"name": "sales", "owner": {"name": "Sales team"}}}
    nodes = {"test.shop.of_b": entry, "model.shop.b": {"meta": {"owner": "@ann"}}}
    assert from_manifest(manifest_of(DIAMOND, nodes=nodes, groups=groups)).nodes["test.shop.of_b"].owner == owner


@pytest.mark.parametrize("manifest", [{}, {"nodes": []}, {"nodes": {"x": None, "y": {"unique_id": "y", "depends_on": {"nodes": None}}}}])
def test_a_manifest_that_is_not_as_it_should_be_is_no_reason_to_fail(manifest: dict[str, Any]) -> None:
    assert longest_chain(from_manifest(manifest), {"m": 1.0}).unique_ids == ("m",)


# --- findings ----------------------------------------------------------------------------------------------------------


def failed_diamond() -> report.Sources:
    nodes = [
        node("a"),
        node("b", status="error", message="Database Error in model b", start=11, seconds=2),
        node("c", start=11, seconds=3),
        node("d", status="skipped", start=14, seconds=0),
        node("of_b", "test", "skipped", 14, 0),
        node("board", "exposure", "skipped", 14, 0),
        node("lost", status="skipped", start=14, seconds=0),
    ]
    manifest = manifest_of(
        DIAMOND,
        nodes={"model.shop.b": {"original_file_path": "models/b.sql", "config": {"meta": {"owner": "@ann"}}}},
        exposures={"exposure.shop.board": {"owner": {"name": "Sales"}}},
    )
    run = run_of("FAILED", error="Dbt.ModelError", cause="build: 1 of 7 nodes failed: b", steps=(step_of(status="FAILED"),), reason="why")
    failure = ({"unique_id": "model.shop.b", "status": "error", "message": "x"},)
    return sources_of(nodes, manifest, run, [outcome_of(error="Dbt.ModelError", message="1 of 7 nodes failed", failures=failure)])


def test_what_failed_and_what_it_blocked() -> None:
    found = find(failed_diamond())
    [problem] = found.problems
    assert (problem.node.name, problem.owner, [n.name for n in problem.blocked]) == ("b", "@ann", ["d", "of_b", "board"])
    assert [exposure.name for exposure in problem.exposures] == ["board"]
    assert [n.name for n in found.unexplained] == ["lost"]
    assert found.not_run == ("docs",)
    assert [(time.step, [n.name for n in time.chain]) for time in found.times] == [("build", ["a", "c"])]


def test_a_node_of_another_step_is_not_blocked_by_a_failure() -> None:
    manifest = manifest_of(DIAMOND)
    nodes = [node("b", status="error"), node("d", status="skipped", step="later")]
    found = find(sources_of(nodes, manifest))
    assert (found.problems[0].blocked, [n.name for n in found.unexplained]) == ((), ["d"])


def test_a_failed_test_blocks_what_is_below_the_tested_node_and_stands_before_it_in_the_graph() -> None:
    nodes = [node("of_b", "test", "fail", failures=3), node("d", status="skipped")]
    graph = blockage(find(sources_of(nodes, manifest_of(DIAMOND))))
    assert graph.layers == (("test.shop.of_b",), ("model.shop.d",), ("exposure.shop.board",))
    assert graph.lines == (("test.shop.of_b", "model.shop.d"), ("model.shop.d", "exposure.shop.board"))


def test_a_line_over_several_layers_passes_beside_the_nodes_between() -> None:
    edges = {"model.shop.x": [], "model.shop.y": ["model.shop.x"], "model.shop.z": ["model.shop.x", "model.shop.y"]}
    nodes = [node("x", status="error"), node("y", status="skipped"), node("z", status="skipped")]
    graph = blockage(find(sources_of(nodes, manifest_of(edges))))
    [over] = [line for line in graph.lines if len(line) == 3]
    assert (over[0], over[2]) == ("model.shop.x", "model.shop.z")
    assert set(graph.layers[1]) == {"model.shop.y", over[1]}


STALE = Freshness("source.shop.raw.old", "error", at(0), 90000.0, "12 hours", "1 day")


def stale(*nodes: NodeResultRow, owner: str = "") -> report.Sources:
    """The diamond above a source that was found stale in a step of its own."""
    edges = {"source.shop.raw.old": [], **DIAMOND, "model.shop.a": ["source.shop.raw.old"]}
    entry = {"source_name": "raw", "name": "old", "meta": {"owner": owner}}
    manifest = manifest_of(edges, sources={"source.shop.raw.old": entry}, nodes={"model.shop.b": {"meta": {"owner": "@ann"}}})
    looked = replace(node("old", "source", "error", step="freshness"), unique_id="source.shop.raw.old")
    run = run_of("FAILED", error="Dbt.ModelError", steps=(step_of("freshness", "FAILED", error="Dbt.StaleSource"),))
    outcomes = (outcome_of("freshness", 1, error="Dbt.StaleSource"), outcome_of("build", 2, error="Dbt.ModelError"))
    return sources_of([looked, *nodes], manifest, run, outcomes, freshness=(STALE,))


def test_a_stale_source_leads_to_who_reads_it_but_blocks_nothing_of_another_step() -> None:
    assert blockage(find(stale(node("a"), node("d")))).lines == (("source.shop.raw.old", "exposure.shop.board"),)
    graph = blockage(find(stale(node("b", status="error"), node("d", status="skipped"))))
    assert graph.layers == (("model.shop.b",), ("model.shop.d",), ("exposure.shop.board",))
    assert "source.shop.raw.old" not in graph.statuses


def test_a_graph_that_is_too_large_says_how_much_it_leaves_out() -> None:
    edges = {"model.shop.x": [], **{f"model.shop.n{i}": ["model.shop.x"] for i in range(100)}}
    nodes = [node("x", status="error"), *(node(f"n{i}", status="skipped") for i in range(100))]
    graph = blockage(find(sources_of(nodes, manifest_of(edges))), most=30)
    assert (sum(map(len, graph.layers)), graph.left_out) == (30, 71)


# --- the page ----------------------------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The elements of a page with their attributes' names, and its text; fails on what is not closed in its order."""

    _VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.hrefs: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, tuple(key for key, _ in attributes)))
        self.hrefs += [value or "" for key, value in attributes if key in ("href", "src")]
        if name not in self._VOID:
            self._open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self._open.pop() == name

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


HOSTILE = [
    "</script><script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    "\"><a href='javascript:alert(1)'>x</a>",
    "' onmouseover='alert(1)",
    "--><!-- ]]>",
    "&lt;b&gt; &amp;amp; &#0;",
    "a\x00b\x1b[31mred\x1b[0m\x07\x9b31m",
    "abc\u202edcba\u2066 \u200f",
    "\ud800 \ufffe \U0001f9e8 \u05e9\u05dc\u05d5\u05dd",
    "{{ 7 * 7 }} ${7*7} <%= 7 %>",
]


def full_of(text: str) -> report.Sources:
    """A run in which everything that somebody else may write is this text."""
    row = node("x", status="error", message=text, relation=text, failures=3, resource_type="model", thread=text)
    bad = NodeResultRow(**{**vars(row), "name": text, "unique_id": f"model.{text}", "status": "error"})
    below = NodeResultRow(**{**vars(row), "name": f"{text} below", "unique_id": f"model.below {text}", "status": "skipped"})
    test = NodeResultRow(**{**vars(row), "name": text, "unique_id": f"test.{text}", "resource_type": "test", "status": "warn"})
    entry = {"unique_id": bad.unique_id, "resource_type": "model", "name": text, "original_file_path": text, "meta": {"owner": text}}
    child = {"unique_id": below.unique_id, "resource_type": "model", "name": text, "depends_on": {"nodes": [bad.unique_id]}}
    board = {"unique_id": "exposure.x", "resource_type": "exposure", "name": text, "owner": {"name": text}}
    manifest = manifest_of(
        {},
        nodes={bad.unique_id: entry, below.unique_id: child},
        exposures={"exposure.x": {**board, "depends_on": {"nodes": [below.unique_id]}}},
    )
    run = run_of("FAILED", run_id=text, job=text, reason=text, trigger=text, release=text, error=text, cause=text, vars={text: text})
    outcome = outcome_of(
        error=text,
        message=text,
        why=text,
        versions={text: text},
        compute=text,
        commands=({"command": text, "seconds": 1.0},),
        artifacts=({"key": text, "sha256": text, "bytes": 3},),
    )
    freshness = (Freshness(f"source.{text}", text, text, 3.0, text, text),)
    return sources_of([bad, below, test], manifest, run, [outcome], freshness=freshness, missing=(text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_text_holds_the_page_has_the_same_elements(text: str) -> None:
    assert Outline(page(full_of(text))).elements == Outline(page(full_of("harmless text"))).elements


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_a_character_that_acts(text: str) -> None:
    made = page(full_of(text))
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe]", made) is None
    made.encode()
    assert "javascript:" not in " ".join(Outline(made).hrefs)


def test_text_is_shown_as_it_is_except_for_what_acts() -> None:
    assert escape("<b> & 'c' \"d\" \u05e9\u05dc") == "&lt;b&gt; &amp; &#x27;c&#x27; &quot;d&quot; \u05e9\u05dc"
    assert escape("a\u202eb") == "ab"
    assert escape("\ud800") == "\ufffd"
    assert tag("p", "<", Markup("<b>"), ["&", None, ""], title='"', hidden=True, lang=None) == '<p title="&quot;" hidden>&lt;<b>&amp;</p>'
    assert join(part for part in ("<", ["a"])) == "&lt;a"


def test_the_page_asks_for_nothing_and_its_links_lead_to_the_console_or_into_itself() -> None:
    outline = Outline(page(failed_diamond()))
    assert {name for name, _ in outline.elements} & {"script", "img", "iframe", "object", "form", "input", "base"} == set()
    assert not any(key.startswith("on") or key == "style" for _, keys in outline.elements for key in keys)
    outside = [href for href in outline.hrefs if not href.startswith(("#", "data:,"))]
    assert len(outside) == 3 and all(href.startswith("https://eu-central-1.console.aws.amazon.com/") for href in outside)
    assert "url(" not in page(failed_diamond()) and "@import" not in page(failed_diamond())


def test_the_reader_learns_first_what_failed_what_is_blocked_and_what_to_do() -> None:
    text = Outline(page(failed_diamond())).text
    head, _, body = text.partition("The record")  # the last of the links to the parts
    assert "hourly-1 failed 1 model failed. 2 nodes could not be built because of that. 1 exposure may show old or wrong data." in head
    assert "Not run: docs." in head
    order = [
        "What failed",
        "b model, step build",
        "models/b.sql",
        "@ann",
        "Database Error in model b",
        "Blocks 1 node: d",
        "Read by board",
        "What to do",
        "Dbt.ModelError",
        "dbt-runner resume --environment prod hourly-1",
        "What is blocked",
        "Steps and attempts",
        "Where the time went",
        "All nodes",
        "The record",
    ]
    assert [words for words in order if words not in body] == []
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "1 of them no failed node explains" in text


def test_a_good_run_says_so_and_has_no_section_for_failures() -> None:
    run = run_of(steps=(step_of(counts={"success": 2}),))
    text = Outline(page(sources_of([node("a"), node("b", status="warn", message="m")], manifest_of(DIAMOND), run))).text
    assert "hourly-1 succeeded" in text and "1 step, 2 node results, nothing failed. 1 node warns." in text
    assert "What failed" not in text and "What to do" not in text


def test_a_run_that_goes_on_says_so_and_who_wrote_the_report() -> None:
    run = run_of("RUNNING", ended_at=None, seconds=None)
    text = Outline(page(sources_of([], None, run, [outcome_of()]), written_by="step build, attempt 1")).text
    assert "hourly-1 is running" in text
    assert "This was written at the end of step build, attempt 1, when the run's record was not closed yet" in text
    assert "dbt-runner report --environment prod hourly-1 makes a newer report" in text
    assert "Not run" not in text


def test_commands_to_copy_are_quoted_for_the_shell() -> None:
    text = Outline(page(sources_of([], None, run_of("FAILED", error="Dbt.ModelError", job="a; rm -rf $HOME")))).text
    assert "--job 'a; rm -rf $HOME'" in text


def test_a_failure_without_nodes_shows_the_attempts_message() -> None:
    outcome = outcome_of("health_check", 0, error="Dbt.WarehouseUnavailable", message="connection refused", why="FailedToConnectError")
    run = run_of("FAILED", error="Dbt.WarehouseUnavailable", cause="health_check: connection refused")
    text = Outline(page(sources_of([], None, run, [outcome]))).text
    assert "Step health_check: Dbt.WarehouseUnavailable connection refused" in text
    assert "FailedToConnectError" in text


def test_tests_and_sources_are_listed_with_what_is_wrong_first() -> None:
    freshness = (
        Freshness("source.shop.raw.good", "pass", at(0), 60.0, "12 hours", "1 day"),
        Freshness("source.shop.raw.old", "error", at(0), 90000.0, "12 hours", "1 day"),
    )
    nodes = [node("of_b", "test", "fail", message="Got 3 results", failures=3), node("fine", "test", "pass")]
    text = Outline(page(sources_of(nodes, manifest_of(DIAMOND), freshness=freshness))).text
    assert "2 tests: 1 fail, 1 pass." in text
    assert "of_b fail b 3 Got 3 results" in text
    assert text.index("raw.old error") < text.index("raw.good pass")
    assert "1d 01h" in text


def test_a_stale_source_says_how_old_it_is_and_what_it_may_be() -> None:
    text = Outline(page(stale())).text
    assert "raw.old source, step freshness, error after 1.0s" in text
    assert f"Its newest row was loaded at {STALE.loaded_at[:10]}" in text  # type: ignore[index]
    assert "1d 01h before. It warns after 12 hours and fails after 1 day." in text
    assert "dbt said nothing more" not in text


def test_each_error_is_for_the_owners_of_its_own_nodes() -> None:
    text = Outline(page(stale(node("b", status="error"), owner="@loaders"))).text
    assert "Dbt.StaleSource , for the source's owner (@loaders):" in text
    assert "Dbt.ModelError , for the model's owner (@ann):" in text


def test_every_error_has_its_advice() -> None:
    assert list(ADVICE) == list(ERRORS)


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_links_lead_to_the_partitions_console(partition: str) -> None:
    document = config_of("prod")
    document["state_machine"] = document["state_machine"].replace("arn:aws:", f"arn:{partition}:")
    domain = {"aws": "aws.amazon.com", "aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"}[partition]
    assert links.execution(report.Sources(RunDetail(run_of(), (), ()), CONFIG).config, run_of()).endswith(run_of().execution)
    from dbt_runner import config

    assert f"console.{domain}/" in links.execution(config.parse(json.dumps(document)), run_of())


def test_the_log_link_names_group_and_run_as_the_console_escapes_them() -> None:
    link = links.logs(CONFIG, run_of(), CONFIG.log_group)
    assert "log-group/$252Fanalytics$252Fprod$252Frunner/log-events$3FfilterPattern$3D" in link
    assert "hourly-1" in link


@pytest.mark.parametrize(
    ("computes", "groups"),
    [
        ([], ["$252Fanalytics$252Fprod$252Frunner"]),
        (["fargate"], ["$252Fanalytics$252Fprod$252Frunner"]),
        (["lambda"], ["$252Faws$252Flambda$252Fanalytics-prod"]),
        (["lambda", "fargate"], ["$252Fanalytics$252Fprod$252Frunner", "$252Faws$252Flambda$252Fanalytics-prod"]),
    ],
)
def test_the_log_links_are_those_of_where_the_run_ran(computes: list[str], groups: list[str]) -> None:
    function = {"function": "arn", "timeout_seconds": 900, "memory": 2048, "log_group": "/aws/lambda/analytics-prod"}
    sources = sources_of([node("orders")], outcomes=[outcome_of(attempt=n, compute=compute) for n, compute in enumerate(computes, start=1)])
    made = page(replace(sources, config=replace(CONFIG, function=function)))
    assert re.findall(r"log-groups/log-group/([^/]+)/log-events", made) == groups


# --- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"models": 2500, "tests_per_model": 1, "failed": 20},
        {"models": 5000, "tests_per_model": 0, "failed": 5000, "message": "<&\"'>\n" * 700},
    ],
    ids=["2,500 models and their tests", "5,000 failures with long messages that escaping makes longer"],
)
def test_5000_nodes_stay_below_3_mb(arguments: dict[str, Any]) -> None:
    sources = large(**arguments)
    assert len(sources.detail.nodes) == 5000
    made = page(sources)
    assert len(made.encode()) < 3_000_000
    Outline(made)
    # All of them are in the pictures and in the table.
    ran = [n for n in sources.detail.nodes if n.status != "skipped"]
    assert made.count("<rect ") >= len(ran)
    assert made.count('<th scope="row">') >= 5000


def test_messages_that_do_not_fit_are_counted_and_the_page_says_what_has_them() -> None:
    nodes = [node(f"n{i}", status="error", message="&" * 4000) for i in range(1500)]
    made = page(sources_of(nodes, None, run_of("FAILED", error="Dbt.ModelError")))
    assert 0.9 * MESSAGE_BYTES < made.count("&amp;&amp;") * len("&amp;&amp;") <= MESSAGE_BYTES
    text = Outline(made).text
    assert re.search(r"\d+ messages are left out to keep this page small; dbt-runner show has all of them", text)
    assert "1,460 further failed nodes" in text and "960 more are left out" in text


# --- where it comes from -----------------------------------------------------------------------------------------------


def test_half_a_manifest_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"nodes": {"a"')
    (tmp_path / "sources.json").write_text("[]")
    sources = from_folder(CONFIG, RunDetail(run_of(), (), ()), tmp_path)
    assert (sources.lineage.nodes, sources.freshness) == ({}, ())


def test_freshness_is_read_as_dbt_writes_it(tmp_path: Path) -> None:
    results = [
        {
            "unique_id": "source.shop.raw.a",
            "status": "warn",
            "max_loaded_at": at(0),
            "max_loaded_at_time_ago_in_s": 12.5,
            "criteria": {"warn_after": {"count": 1, "period": "day"}, "error_after": {"count": None, "period": None}},
        },
        {"unique_id": "source.shop.raw.b", "status": "runtime error", "error": "no such table"},
    ]
    (tmp_path / "sources.json").write_text(json.dumps({"results": results}))
    assert from_folder(CONFIG, RunDetail(run_of(), (), ()), tmp_path).freshness == (
        Freshness("source.shop.raw.a", "warn", at(0), 12.5, "1 day", ""),
        Freshness("source.shop.raw.b", "runtime error", None, None, "", ""),
    )


Call = Callable[..., Result]


@pytest.fixture
def call(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    client = boto3.client("stepfunctions")
    create_machine(client)
    services = {"stepfunctions": LiveAlias(client)}
    monkeypatch.setattr(aws, "client", lambda service: services[service])
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.cli, arguments)


def record(store: Store, folder: Path) -> str:
    """A failed run with a manifest in the bucket; returns the manifest's key."""
    record_run(store, "run-1", at(0), status="FAILED", error="Dbt.ModelError", cause="build: b failed", ended_at=at(60), results=[])
    key = "runs/prod/2026/11/22/run-1/build/1/manifest.json"
    (folder / "m.json").write_text(json.dumps(manifest_of(DIAMOND)))
    store.upload(folder / "m.json", key)
    command = "runs/prod/2026/11/22/run-1/build/1/command-0/manifest.json"
    artifacts = [{"key": key, "sha256": "0" * 64, "bytes": 3}, {"key": command, "sha256": "1" * 64, "bytes": 3}]
    record_outcome(store, "run-1", 2, "build", error="Dbt.ModelError", message="b failed", artifacts=artifacts)
    store.put_many([node_item("run-1", "build", "b", "error", message="no such column"), node_item("run-1", "build", "d", "skipped")])
    return key


def test_the_command_writes_the_report_of_a_recorded_run(store: Store, call: Call, tmp_path: Path) -> None:
    record(store, tmp_path)
    result = call("report", "run-1")
    assert (result.exit_code, result.output.split()[0]) == (0, "run-1.html")
    text = Outline((tmp_path / "run-1.html").read_text(encoding="utf-8")).text
    assert "no such column" in text and "Blocks 1 node: d" in text and "Read by board" in text

    answer = json.loads(call("report", "--output", "x.html", "--json").output)
    assert (answer["run_id"], answer["file"], answer["bytes"]) == ("run-1", "x.html", (tmp_path / "x.html").stat().st_size)
    assert call("report", "-o", "-").output.startswith("<!DOCTYPE html>")


def test_open_alone_leaves_nothing_in_the_working_directory(
    store: Store, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(store, tmp_path)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    before = sorted(tmp_path.iterdir())
    assert call("report", "--open").exit_code == 0
    assert [uri.rpartition("/")[2] for uri in opened] == ["run-1.html"] and opened[0].startswith("file:///")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("said", "used"), [({}, True), ({"error": "Dbt.TestFailure"}, False), ({"status": "SUCCEEDED", "error": None}, False)]
)
def test_the_published_report_is_used_where_it_is_that_of_the_record(
    store: Store, call: Call, tmp_path: Path, said: dict[str, Any], used: bool
) -> None:
    """The run can have ended otherwise than its last attempt thought when it wrote the report."""
    record(store, tmp_path)
    ended = {"status": "FAILED", "run_id": "run-1", "error": "Dbt.ModelError", **said}
    published = page(sources_of([], None, run_of(**ended)))
    store.upload_body(published.encode(), "runs/prod/2026/11/22/run-1/report.html", "text/html")
    assert (call("report", "-o", "-").output == published) is used
    assert call("report", "-o", "-", "--new").output != published


def test_artifacts_that_are_gone_are_named(store: Store, call: Call, tmp_path: Path) -> None:
    key = record(store, tmp_path)
    boto3.client("s3").delete_object(Bucket=store.bucket, Key=key)
    assert f"No longer in the bucket: {key}." in Outline(call("report", "-o", "-").output).text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("nobody",), "no run nobody"), (("run-1", "-o", "-", "--json"), "--output -"), (("run-1", "-o", "missing/x.html"), "missing/x.html")],
)
def test_what_cannot_be_done_is_said_by_name(store: Store, call: Call, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    record(store, tmp_path)
    error = call("report", *arguments).exception
    assert isinstance(error, TypedError) and error.kind is INVALID_REQUEST and words in error.message
