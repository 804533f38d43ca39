"""Who depends on whom, and who owns what: the part of dbt's manifest.json that people are told of.

https://docs.getdbt.com/reference/artifacts/manifest-json
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbt_runner import untrusted_files

_SECTIONS = ("nodes", "sources", "exposures", "unit_tests", "metrics", "semantic_models", "saved_queries")
_TESTS = ("test", "unit_test")


@dataclass(frozen=True)
class ManifestNode:
    """What the manifest says about a node, a source or an exposure.

    Attributes:
        path: the file that defines it, relative to its project; empty where there is none.
        relation: its name in the warehouse, quoted as dbt quotes it; empty where there is none.
        owner: `meta.owner`, else the owner of its group or of the exposure; of a test without a `meta.owner`, the owner of what it
            tests, whose group dbt gives it, but not its meta. Empty where nobody is named.
    """

    unique_id: str
    resource_type: str
    name: str
    path: str = ""
    owner: str = ""
    parents: tuple[str, ...] = ()
    relation: str = ""

    @property
    def is_test(self) -> bool:
        return self.resource_type in _TESTS


@dataclass(frozen=True)
class Lineage:
    """The graph of a release's project. Without a manifest it is empty, and everything here answers with nothing."""

    nodes: Mapping[str, ManifestNode] = field(default_factory=dict)
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def get(self, unique_id: str) -> ManifestNode | None:
        return self.nodes.get(unique_id)

    def downstream(self, unique_id: str) -> Iterator[str]:
        """All that depends on a node, the nearest first; for a test, all that depends on what it tests."""
        node = self.nodes.get(unique_id)
        starts = node.parents if node is not None and node.is_test else (unique_id,)
        seen = {*starts, unique_id}
        queue = deque(starts)
        while queue:
            for child in self.children.get(queue.popleft(), ()):
                if child not in seen:
                    seen.add(child)
                    queue.append(child)
                    yield child

    def order(self) -> list[str]:
        """Every node after its parents."""
        waiting = {unique_id: sum(parent in self.nodes for parent in node.parents) for unique_id, node in self.nodes.items()}
        ready = deque(unique_id for unique_id, number in waiting.items() if not number)
        ordered: list[str] = []
        while ready:
            unique_id = ready.popleft()
            ordered.append(unique_id)
            for child in self.children.get(unique_id, ()):
                waiting[child] -= 1
                if not waiting[child]:
                    ready.append(child)
        return ordered


def from_manifest(manifest: Mapping[str, Any]) -> Lineage:
    """The graph of a manifest.json; what is not there or not as it should be is left out."""
    groups = {str(group.get("name")): _name_of(group.get("owner")) for group in _values(manifest, "groups")}
    nodes: dict[str, ManifestNode] = {}
    tested: dict[str, str] = {}  # of tests that name nobody: what they are a test of
    for section in _SECTIONS:
        for raw in _values(manifest, section):
            unique_id = str(raw.get("unique_id"))
            depends_on = raw.get("depends_on")
            parents = depends_on.get("nodes") if isinstance(depends_on, Mapping) else None
            nodes[unique_id] = ManifestNode(
                unique_id=unique_id,
                resource_type=str(raw.get("resource_type", "")),
                name=f"{raw['source_name']}.{raw.get('name')}" if "source_name" in raw else str(raw.get("name", unique_id)),
                path=str(raw.get("original_file_path") or ""),
                owner=_owner(raw, groups),
                parents=tuple(dict.fromkeys(map(str, parents))) if isinstance(parents, Sequence) else (),
                relation=str(raw.get("relation_name") or ""),
            )
            if nodes[unique_id].is_test and not _owner_in_meta(raw):
                tested[unique_id] = str(raw.get("attached_node") or "")
    for test, of in tested.items():
        node = nodes[test]
        attached = nodes.get(of) or (nodes.get(node.parents[0]) if len(node.parents) == 1 else None)
        if attached is not None and attached.owner:
            nodes[test] = replace(node, owner=attached.owner)
    children: dict[str, list[str]] = {}
    for node in nodes.values():
        for parent in node.parents:
            if parent in nodes:
                children.setdefault(parent, []).append(node.unique_id)
    return Lineage(nodes, {parent: tuple(of) for parent, of in children.items()})


@dataclass(frozen=True)
class Concern:
    """Whom a node that failed concerns.

    Attributes:
        owner: as a ManifestNode has it.
        blocked: how many nodes were skipped for it.
    """

    owner: str = ""
    blocked: int = 0


def concerns(manifest: Path, failed: Iterable[str], skipped: Collection[str]) -> dict[str, Concern]:
    """Whom nodes that failed concern, by their unique_id; nobody is known where the manifest cannot be read.

    Args:
        manifest: a manifest.json, which a worker that was killed may have left in part or not at all.
        failed: unique_ids.
        skipped: unique_ids.
    """
    try:
        graph = from_manifest(untrusted_files.read_object(manifest))
    except Exception:
        # Any JSON may be there, also some that nests deeper than the interpreter's stack.
        return {}
    known = [node for unique_id in failed if (node := graph.get(unique_id)) is not None]
    return {node.unique_id: Concern(node.owner, sum(below in skipped for below in graph.downstream(node.unique_id))) for node in known}


def _values(manifest: Mapping[str, Any], section: str) -> Iterator[Mapping[str, Any]]:
    entries = manifest.get(section)
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        if isinstance(entry, Mapping):
            yield entry


def _config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    config = raw.get("config")
    return config if isinstance(config, Mapping) else {}


def _owner(raw: Mapping[str, Any], groups: Mapping[str, str]) -> str:
    named = _owner_in_meta(raw) or _name_of(raw.get("owner"))
    return named or groups.get(str(raw.get("group") or _config(raw).get("group")), "")


def _owner_in_meta(raw: Mapping[str, Any]) -> str:
    metas = (raw.get("meta"), _config(raw).get("meta"), raw.get("source_meta"))
    return next((owner for meta in metas if isinstance(meta, Mapping) and (owner := _name_of(meta.get("owner")))), "")


def _name_of(owner: object) -> str:
    """dbt's owners are {"name", "email"}; in meta they are whatever the team writes."""
    if isinstance(owner, Mapping):
        owner = owner.get("name") or owner.get("email")
    if isinstance(owner, (list, tuple)):
        return ", ".join(filter(None, map(_name_of, owner)))
    return str(owner) if isinstance(owner, (str, int)) else ""


@dataclass(frozen=True)
class Chain:
    """Nodes of which each waited for the one before it, and how long they took in sum (seconds)."""

    unique_ids: tuple[str, ...]
    seconds: float


def longest_chain(lineage: Lineage, seconds: Mapping[str, float], gating_tests: Collection[str] = ()) -> Chain:
    """The chain of dependent nodes that took longest: no number of threads makes a run shorter than this.

    Args:
        seconds: of each node that ran. Nodes that did not run (sources, ephemeral models) cost nothing but still connect.
        gating_tests: tests that what is below the tested node waited for, as `dbt build` has it. A test of several nodes is waited
            for only by what depends on all of them. Unit tests run one after the other just before the model that they test.
    """
    before_model: dict[str, list[str]] = {}
    for unique_id in gating_tests:
        known = lineage.get(unique_id)
        if known is not None and known.resource_type == "unit_test" and known.parents:
            before_model.setdefault(known.parents[0], []).append(unique_id)
    units = {unit_test for tests in before_model.values() for unit_test in tests}
    gates = _gates(lineage, [test for test in gating_tests if test not in units])
    best: dict[str, float] = {}
    before: dict[str, str | None] = {}

    def settle(unique_id: str, parents: Iterable[str]) -> None:
        longest = max((parent for parent in parents if parent in best), key=lambda parent: best[parent], default=None)
        best[unique_id] = seconds.get(unique_id, 0.0) + (best[longest] if longest is not None else 0.0)
        before[unique_id] = longest

    for unique_id in lineage.order():
        node = lineage.nodes[unique_id]
        if node.is_test and unique_id in gating_tests:
            continue  # settled when the first node that waits for it is
        for test in gates.get(unique_id, ()):
            if test not in best:
                settle(test, lineage.nodes[test].parents)
        awaited: tuple[str, ...] = (*node.parents, *gates.get(unique_id, ()))
        for unit_test in before_model.get(unique_id, ()):
            settle(unit_test, awaited)
            awaited = (unit_test,)
        settle(unique_id, awaited)
    for unique_id in gating_tests:
        if unique_id not in best and unique_id in lineage.nodes:
            settle(unique_id, lineage.nodes[unique_id].parents)
    for unique_id in seconds:
        if unique_id not in best:
            settle(unique_id, ())
    if not best:
        return Chain((), 0.0)
    last: str | None = max(best, key=lambda unique_id: best[unique_id])
    total = best[last] if last is not None else 0.0
    chain: list[str] = []
    while last is not None:
        if last in seconds:
            chain.append(last)
        last = before[last]
    return Chain(tuple(reversed(chain)), total)


def _gates(lineage: Lineage, tests: Collection[str]) -> dict[str, list[str]]:
    """For each node, the tests of its parents that it waited for."""
    several = {test for test in tests if test in lineage.nodes and len(lineage.nodes[test].parents) > 1}
    ancestors = _ancestors(lineage, {parent for test in several for parent in lineage.nodes[test].parents}) if several else {}
    gates: dict[str, list[str]] = {}
    for test in tests:
        parents = lineage.nodes[test].parents if test in lineage.nodes else ()
        for child in dict.fromkeys(child for parent in parents for child in lineage.children.get(parent, ())):
            if not lineage.nodes[child].is_test and all(parent in ancestors.get(child, ()) for parent in parents if test in several):
                gates.setdefault(child, []).append(test)
    return gates


def _ancestors(lineage: Lineage, wanted: Collection[str]) -> dict[str, frozenset[str]]:
    """For each node, which of the wanted ones are above it."""
    above: dict[str, frozenset[str]] = {}
    for unique_id in lineage.order():
        found: set[str] = set()
        for parent in lineage.nodes[unique_id].parents:
            found |= above.get(parent, frozenset())
            if parent in wanted:
                found.add(parent)
        above[unique_id] = frozenset(found)
    return above
