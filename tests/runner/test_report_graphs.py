"""The report of any graph: whatever depends on whatever and however it ended, there is a page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import report
from dbt_runner.lineage import from_manifest
from dbt_runner.report.findings import blockage
from runner.report_runs import manifest_of, node, outcome_of, page, run_of, sources_of
from security.fuzzing import bounded

_STATUSES = ("success", "error", "skipped", "fail", "pass", "warn", "no-op", "partial success")


@st.composite
def _runs(draw: st.DrawFn) -> report.Sources:
    """A run over a random graph: models, versions, ephemeral ones, tests of one or several nodes, unit tests, exposures.

    Some nodes are not in the manifest (disabled, or of another release), some parents do not exist, and some graphs have a cycle, which
    only a manifest that dbt did not write can have.
    """
    number = draw(st.integers(1, 12))
    names = [f"model.shop.m{i}" if i % 3 else f"model.shop.m{i}.v{i}" for i in range(number)]
    acyclic = draw(st.booleans())
    edges: dict[str, list[str]] = {}
    for i, name in enumerate(names):
        edges[name] = draw(st.lists(st.sampled_from([*(names[:i] if acyclic else names), "model.shop.gone"]), max_size=3, unique=True))
    for i in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(("test", "unit_test", "exposure", "snapshot", "seed")))
        edges[f"{kind}.shop.t{i}"] = draw(st.lists(st.sampled_from(names), max_size=3, unique=True))
    ran = draw(st.lists(st.sampled_from(sorted(edges)), unique=True, min_size=1))
    nodes = []
    for unique_id in ran:
        kind, _, name = unique_id.partition(".shop.")
        nodes.append(node(name, kind, draw(st.sampled_from(_STATUSES)), draw(st.floats(0, 50)), draw(st.floats(0, 9)), unique_id=unique_id))
    for unique_id in draw(st.lists(st.sampled_from(sorted(edges)), unique=True, max_size=2)):
        edges.pop(unique_id)
    failed = any(each.failed for each in nodes)
    run = run_of("FAILED" if failed else "SUCCEEDED", error="Dbt.ModelError" if failed else None)
    return sources_of(nodes, manifest_of(edges), run, [outcome_of(error="Dbt.ModelError" if failed else None)])


@bounded(60)
@given(_runs())
def test_any_graph_makes_a_page_in_which_each_line_leads_one_layer_on(sources: report.Sources) -> None:
    assert page(sources).startswith("<!DOCTYPE html>")
    graph = blockage(report.find(sources))
    layer_of = {place: number for number, layer in enumerate(graph.layers) for place in layer}
    for line in graph.lines:
        assert [layer_of[place] for place in line] == list(range(layer_of[line[0]], layer_of[line[0]] + len(line)))
    assert set(graph.statuses) <= set(layer_of)


def test_a_failed_test_stands_before_what_it_kept_from_running() -> None:
    edges = {"model.shop.a": [], "model.shop.b": ["model.shop.a"], "model.shop.c": ["model.shop.b"], "test.shop.unique_a": ["model.shop.a"]}
    nodes = [node("a"), node("unique_a", "test", "fail"), node("b", status="skipped"), node("c", status="skipped")]
    found = report.find(sources_of(nodes, manifest_of(edges), run_of("FAILED", error="Dbt.TestFailure")))
    assert blockage(found).layers == (("test.shop.unique_a",), ("model.shop.b",), ("model.shop.c",))
    assert from_manifest(manifest_of(edges)).nodes["test.shop.unique_a"].is_test
