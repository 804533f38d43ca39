"""What a report says, before it is said: what failed, what that blocked, where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise

from dbt_runner.errors import STALE_SOURCE, TEST_FAILURE
from dbt_runner.lineage import Chain, Lineage, ManifestNode, longest_chain
from dbt_runner.report.sources import Freshness, Sources
from dbt_runner.run_records import NodeResultRow, Run, seconds_between

# Resource types that hold or deliver data. The others (tests, hooks, exposures) only look at them.
BUILT = frozenset({"model", "snapshot", "seed", "source", "analysis", "saved_query", "semantic_model", "metric"})
TESTS = ("test", "unit_test")


@dataclass(frozen=True)
class Problem:
    """A node that failed.

    Attributes:
        known: what the manifest says about it; None without a manifest or where it is a hook.
        blocked: nodes of the same step that dbt skipped and that depend on it, the nearest first.
        exposures: what is read by people and depends on it.
        freshness: of a source, how old its data was found to be.
    """

    node: NodeResultRow
    known: ManifestNode | None
    blocked: tuple[NodeResultRow, ...]
    exposures: tuple[ManifestNode, ...]
    freshness: Freshness | None = None

    @property
    def owner(self) -> str:
        return self.known.owner if self.known else ""


@dataclass(frozen=True)
class StepTime:
    """Where the time of a step went.

    Attributes:
        chain: its critical path.
        wall: seconds from the first node's start to the last one's end.
        busy: seconds of all its nodes in sum.
        threads: how many threads had work.
    """

    step: str
    chain: tuple[NodeResultRow, ...]
    chain_seconds: float
    wall: float
    busy: float
    threads: int


@dataclass(frozen=True)
class Findings:
    """All that a report says.

    Attributes:
        problems: the nodes that failed, those that block most first.
        blocked: all nodes that were skipped, each once.
        unexplained: those of them that no failed node explains: dbt stopped, or there is no manifest.
        not_run: steps that the run did not come to; empty while it goes on.
        times: of each step that ran nodes, in their order.
    """

    sources: Sources
    problems: tuple[Problem, ...]
    blocked: tuple[NodeResultRow, ...]
    unexplained: tuple[NodeResultRow, ...]
    warnings: tuple[NodeResultRow, ...]
    not_run: tuple[str, ...]
    times: tuple[StepTime, ...]

    @property
    def run(self) -> Run:
        return self.sources.detail.run

    @property
    def nodes(self) -> tuple[NodeResultRow, ...]:
        return self.sources.detail.nodes

    @property
    def lineage(self) -> Lineage:
        return self.sources.lineage

    @property
    def is_open(self) -> bool:
        """Whether the run's record was not closed when this was read."""
        return self.run.ended_at is None

    def owners_of(self, error: str) -> tuple[str, ...]:
        """Who owns the nodes that an error is about, each once: of stale sources, of failed tests, or of what could not be built."""
        kinds = {STALE_SOURCE.name: ("source",), TEST_FAILURE.name: TESTS}

        def is_meant(kind: str) -> bool:
            return kind in kinds[error] if error in kinds else kind not in ("source", *TESTS)

        owners = (problem.owner for problem in self.problems if problem.owner and is_meant(problem.node.resource_type))
        return tuple(dict.fromkeys(owners))

    @property
    def exposures(self) -> tuple[ManifestNode, ...]:
        """What people read and what a failure stands above, each once."""
        return tuple({exposure.unique_id: exposure for problem in self.problems for exposure in problem.exposures}.values())


def find(sources: Sources) -> Findings:
    """Looks at what was read of a run."""
    run, nodes, lineage = sources.detail.run, sources.detail.nodes, sources.lineage
    skipped = {(node.step, node.unique_id): node for node in nodes if node.status == "skipped"}
    fresh = {entry.unique_id: entry for entry in sources.freshness}
    failed = [replace(_problem(node, skipped, lineage), freshness=fresh.get(node.unique_id)) for node in nodes if node.failed]
    problems = sorted(failed, key=lambda problem: -len(problem.blocked))
    explained = {(node.step, node.unique_id) for problem in problems for node in problem.blocked}
    began = {step.step for step in run.steps if step.status != "PENDING"}
    return Findings(
        sources=sources,
        problems=tuple(problems),
        blocked=tuple(skipped.values()),
        unexplained=tuple(node for key, node in skipped.items() if key not in explained),
        warnings=tuple(node for node in nodes if node.status == "warn"),
        not_run=tuple(step.name for step in run.plan if step.name not in began) if run.ended_at else (),
        times=tuple(_times(run, nodes, lineage)),
    )


def ran(node: NodeResultRow) -> bool:
    """Whether something was done for a node."""
    return node.status not in ("skipped", "no-op")


def _problem(node: NodeResultRow, skipped: Mapping[tuple[str, str], NodeResultRow], lineage: Lineage) -> Problem:
    below = list(lineage.downstream(node.unique_id))
    known = [lineage.nodes[unique_id] for unique_id in below if unique_id in lineage.nodes]
    return Problem(
        node=node,
        known=lineage.get(node.unique_id),
        blocked=tuple(skipped[node.step, unique_id] for unique_id in below if (node.step, unique_id) in skipped),
        exposures=tuple(entry for entry in known if entry.resource_type == "exposure"),
    )


def _times(run: Run, nodes: Sequence[NodeResultRow], lineage: Lineage) -> Iterable[StepTime]:
    commands = {step.name: step.commands for step in run.plan}
    for step in dict.fromkeys(node.step for node in nodes):
        did = {node.unique_id: node for node in nodes if node.step == step and ran(node) and node.started_at and node.ended_at}
        if not did:
            continue
        gating = [unique_id for unique_id, node in did.items() if node.resource_type in ("test", "unit_test") and _is_build(commands, node)]
        chain: Chain = longest_chain(lineage, {unique_id: node.seconds for unique_id, node in did.items()}, gating)
        first = min(node.started_at or "" for node in did.values())
        last = max(node.ended_at or "" for node in did.values())
        yield StepTime(
            step=step,
            chain=tuple(did[unique_id] for unique_id in chain.unique_ids),
            chain_seconds=round(chain.seconds, 3),
            wall=seconds_between(first, last) or 0.0,
            busy=round(sum(node.seconds for node in did.values()), 3),
            threads=len({node.thread for node in did.values()}),
        )


def _is_build(commands: Mapping[str, Sequence[str]], node: NodeResultRow) -> bool:
    of_step = commands.get(node.step, ())
    return node.command < len(of_step) and of_step[node.command].split()[:1] == ["build"]


# --- the graph of what failed ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blockage:
    """What failed and what that blocked, as a graph.

    Attributes:
        layers: by how far they are from what failed, the places from top to bottom: unique_ids, and where a line passes.
        lines: of each line the places that it goes through, from a node to a node.
        statuses: of each node, as dbt names it; exposures have "exposure".
        left_out: how many nodes did not fit.
    """

    layers: tuple[tuple[str, ...], ...]
    lines: tuple[tuple[str, ...], ...]
    statuses: Mapping[str, str]
    left_out: int


def blockage(found: Findings, most: int = 40) -> Blockage:
    """The failed nodes that blocked something, and what they blocked; tests that were skipped are left out of it."""
    lineage = found.lineage
    failed = [problem for problem in found.problems if problem.exposures or any(node.resource_type in BUILT for node in problem.blocked)]
    statuses = {problem.node.unique_id: problem.node.status for problem in failed}
    for problem in failed:
        for node in problem.blocked:
            if node.resource_type in BUILT:
                statuses.setdefault(node.unique_id, node.status)
    for exposure in found.exposures:
        statuses.setdefault(exposure.unique_id, "exposure")
    shown = list(statuses)[:most]
    gates: dict[str, list[str]] = {}
    for problem in failed:
        if problem.known is not None and problem.known.is_test:
            for parent in problem.known.parents:
                gates.setdefault(parent, []).append(problem.node.unique_id)
    # What failed leads to what it blocked in its own step and to what people read: a source that was found stale may have blocked nothing.
    reach = {p.node.unique_id: {*(node.unique_id for node in p.blocked), *(entry.unique_id for entry in p.exposures)} for p in failed}
    above = {}
    for unique_id in shown:
        near = {other for other in shown if other not in reach or unique_id in reach[other]}
        above[unique_id] = [] if unique_id in reach else _nearest_above(unique_id, near, gates, lineage)
    depth = _depths(above)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for unique_id in shown:
        layers[depth[unique_id]].append(unique_id)
    lines = []
    for child in shown:
        for parent in above[child]:
            if depth[parent] >= depth[child]:
                continue  # part of a cycle, which only a manifest that dbt did not write can hold
            # A line over several layers gets a place of its own in each, or it would seem to lead through another node.
            between = [f"{parent} > {child} > {layer}" for layer in range(depth[parent] + 1, depth[child])]
            for layer, place in enumerate(between, depth[parent] + 1):
                layers[layer].append(place)
            lines.append((parent, *between, child))
    alone = set(reach) - {place for line in lines for place in line}
    drawn = [[place for place in layer if place not in alone] for layer in layers]
    left_out = len(statuses) - len(shown)
    statuses = {unique_id: status for unique_id, status in statuses.items() if unique_id not in alone}
    return Blockage(tuple(map(tuple, _untangled(drawn, lines))), tuple(lines), statuses, left_out)


def _depths(above: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How far each node is from what failed: one more than the farthest of those above it.

    The order comes from the edges that are drawn, not from the manifest's: a failed test stands above the children of what it tests,
    which no manifest says.

    Args:
        above: for each node those directly above it, each a key too.
    """
    waiting = {unique_id: len(parents) for unique_id, parents in above.items()}
    below: dict[str, list[str]] = {}
    for unique_id, parents in above.items():
        for parent in parents:
            below.setdefault(parent, []).append(unique_id)
    depth = dict.fromkeys(above, 0)
    ready = [unique_id for unique_id, number in waiting.items() if not number]
    while ready:
        unique_id = ready.pop()
        for child in below.get(unique_id, ()):
            depth[child] = max(depth[child], depth[unique_id] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return depth


def _nearest_above(unique_id: str, shown: set[str], gates: Mapping[str, Sequence[str]], lineage: Lineage) -> list[str]:
    """What is shown and stands above a node, with nothing that is shown between them."""
    node = lineage.get(unique_id)
    if node is None or node.is_test:
        return []
    found: dict[str, None] = {}
    seen = {unique_id}
    waiting = list(node.parents)
    while waiting:
        parent = waiting.pop()
        if parent in seen:
            continue
        seen.add(parent)
        for test in gates.get(parent, ()):
            if test in shown:
                found[test] = None
        if parent in shown:
            found[parent] = None
        elif (above := lineage.get(parent)) is not None:
            waiting.extend(above.parents)
    return list(found)


def _untangled(layers: Sequence[Sequence[str]], lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each layer in the order of what its places come from, so that few lines cross."""
    before: dict[str, list[str]] = {}
    for line in lines:
        for start, end in pairwise(line):
            before.setdefault(end, []).append(start)
    place: dict[str, float] = {}

    def middle(name: str) -> float:
        known = [place[start] for start in before.get(name, ())]
        return sum(known) / len(known) if known else 0.0

    ordered = []
    for layer in layers:
        ordered.append(sorted(layer, key=middle))
        place.update({name: position / len(layer) for position, name in enumerate(ordered[-1])})
    return ordered


def moment(text: str) -> float:
    """A time of the store in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
