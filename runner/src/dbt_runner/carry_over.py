"""What a run that was made on another release leaves to one that resumes it on this release.

A resume on a new release is a new run of it, less the nodes whose earlier results still stand. A result stands if nothing that it
rests on has changed: neither the node, nor the macros that it calls, nor any node above it. Nothing above it may have failed, either,
or have run again since. What decides are the manifests that were published with the releases, and their digests are held before they
are read. What is not known to be the same counts as changed. Changes that act on nodes without being named by them, such as those of
vars in dbt_project.yml, refuse the resume by their name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner import admission, project_yaml, release, release_diff
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, TypedError
from dbt_runner.events import DONE_STATUSES
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest, Command
from dbt_runner.store import NODE_PREFIX, Item, Store, run_pk

# Commands whose results can stand. A check of freshness asks for the time, hooks and operations belong to a command as a whole: these
# run again.
_VERBS = frozenset({("build",), ("run",), ("seed",), ("snapshot",), ("test",)})
# What differs between two parses of the same file: when it was parsed, and where.
_VOLATILE = frozenset({"created_at", "root_path", "build_path", "compiled_path"})
# dbt compares a seed of more than 1 MiB by its path: https://docs.getdbt.com/reference/node-selection/methods#state
_UNKNOWN_CONTENT = "path"
# Keys of dbt_project.yml that configure nodes or say where they are: the manifest has what they do. Hooks run again with their command.
_IN_MANIFEST = frozenset(
    {
        *("models", "seeds", "snapshots", "tests", "data_tests", "data-tests", "unit_tests", "sources", "exposures", "metrics", "analyses"),
        *("semantic-models", "saved-queries", "functions", "version", "config-version", "require-dbt-version", "profile", "dbt-cloud"),
        *("model-paths", "seed-paths", "snapshot-paths", "test-paths", "analysis-paths", "macro-paths", "docs-paths", "asset-paths"),
        *(
            "function-paths",
            "clean-targets",
            "target-path",
            "log-path",
            "packages-install-path",
            "on-run-start",
            "on-run-end",
            "query-comment",
        ),
    }
)
_PROJECT_FILE = "dbt_project.yml"
_SHOWN = 20


@dataclass(frozen=True)
class EarlierRun:
    """A run that this one resumes.

    Attributes:
        place: among the runs, the oldest first.
        release: the version that it ran.
    """

    place: int
    run_id: str
    release: str


@dataclass(frozen=True)
class Comparison:
    """What changes from one release to another for the nodes of the latter.

    Attributes:
        changed: the nodes and sources that are not the same in both, by themselves or by a macro, without those below them.
        unsafe: what differs and acts on nodes that do not name it.
    """

    changed: frozenset[str]
    unsafe: tuple[str, ...]


def runs_of(asked: AttemptRequest) -> list[EarlierRun]:
    """The runs that a run resumes, the oldest first."""
    releases = asked.resumed_releases or [asked.release] * len(asked.resumes)
    pairs = reversed(list(zip(asked.resumes, releases, strict=True)))
    return [EarlierRun(place, run_id, version) for place, (run_id, version) in enumerate(pairs)]


def of_this_release(asked: AttemptRequest) -> list[EarlierRun]:
    """The last of these runs, as many as had the release of this one: their results are those of earlier attempts."""
    found: list[EarlierRun] = []
    for run in reversed(runs_of(asked)):
        if run.release != asked.release:
            break
        found.insert(0, run)
    return found


def read(store: Store, asked: AttemptRequest, commands: Sequence[Command], project: Path, work: Path, log: JsonLog) -> list[Item]:
    """The NODE items of the step that still stand of runs on another release.

    Args:
        store: the audit store.
        asked: an attempt of a run that resumes one on another release.
        commands: those of its step.
        project: its release, unpacked.
        work: a folder for the other releases; must not exist yet.

    Raises:
        TypedError: Dbt.InvalidRequest for a release from which this one differs in a way that acts on nodes without being named by
            them, or that the environment does not take; Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
    """
    if asked.defer_to is not None:
        raise _refused(f"the run compares with release {asked.defer_to}")
    others = runs_of(asked)[: -len(of_this_release(asked)) or None]
    after = _manifest(store, asked.release)
    comparisons = {version: _compared(store, asked, version, after, project, work) for version in {run.release for run in others}}
    ran = [(run.place, item) for run in runs_of(asked) for item in store.query(run_pk(asked.key.environment, run.run_id), NODE_PREFIX)]
    if asked.key.attempt > 1 or asked.key.position > 1:
        ran += [(len(asked.resumes), item) for item in store.query(asked.key.pk, NODE_PREFIX)]
    changed = {run.place: comparisons[run.release].changed for run in others}
    step = [(place, item) for place, item in ran if item["step"] == asked.key.name and place in changed and _can_stand(item, commands)]
    standing = stand(step, ran, changed, _parents(after))
    names = sorted({name for comparison in comparisons.values() for name in comparison.changed})
    log.info(
        "resuming a run of another release",
        releases=sorted(comparisons),
        nodes_kept=len(standing),
        nodes_changed=len(names),
        changed=names[:_SHOWN],
    )
    return standing


def stand(
    results: Iterable[tuple[int, Item]],
    ran: Iterable[tuple[int, Item]],
    changed: Mapping[int, Collection[str]],
    parents: Mapping[str, Collection[str]],
) -> list[Item]:
    """Those results that still stand.

    Args:
        results: NODE items with the places of their runs; places grow with time.
        ran: the same for all nodes of all runs, in any order.
        changed: by the place of a run, the nodes that are not what they were in it.
        parents: the nodes that each node of the new release depends on; what is not in here is not of the release.
    """
    last: dict[str, int] = {}
    done: dict[str, bool] = {}
    for place, item in sorted(ran, key=lambda each: each[0]):
        unique_id, well = item["unique_id"], item["status"] in DONE_STATUSES
        # Of several steps of one run all have to have ended well.
        done[unique_id] = well and (done[unique_id] if last.get(unique_id) == place else True)
        last[unique_id] = place
    children: dict[str, list[str]] = {}
    for child, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(child)
    fallen: dict[int, set[str]] = {}
    for place, differing in changed.items():
        redone = {name for name, when in last.items() if when > place or not done[name]}
        fallen[place] = _below({*differing, *redone}, children)
    return [item for place, item in results if item["unique_id"] in parents and item["unique_id"] not in fallen[place]]


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compares the manifests of two releases, as dbt wrote them.

    Raises:
        KeyError, TypeError, AttributeError: one of them is no manifest.
    """
    unsafe = []
    if before["metadata"]["adapter_type"] != after["metadata"]["adapter_type"]:
        unsafe.append("the adapter")
    old, new = release_diff.members(before), release_diff.members(after)
    differing = {name for name in old.keys() | new.keys() if not _same(old.get(name), new.get(name))}
    macros = {name for name in differing if name.startswith("macro.")}
    of_dbt = {name.rpartition(".")[2] for name in (*before["macros"], *after["macros"]) if name not in old and name not in new}
    for name in sorted(macros):
        # dbt finds these by their names, and calls them for every node.
        own = name.rpartition(".")[2]
        if own.startswith("materialization_") or own in of_dbt or own.partition("__")[2] in of_dbt:
            unsafe.append(name)
    touched = _users(macros, old, new)
    nodes = frozenset(
        name
        for name, member in new.items()
        if not name.startswith("macro.") and (name in differing or not touched.isdisjoint(_macros_of(member)))
    )
    return Comparison(nodes, tuple(unsafe))


def _can_stand(item: Item, commands: Sequence[Command]) -> bool:
    command = item.get("command", 0)
    return item["resource_type"] != "operation" and command < len(commands) and commands[command].verb in _VERBS


def _same(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    if old is None or new is None:
        return False
    if (new.get("checksum") or {}).get("name") == _UNKNOWN_CONTENT:
        return False
    return {k: v for k, v in old.items() if k not in _VOLATILE} == {k: v for k, v in new.items() if k not in _VOLATILE}


def _users(changed: Collection[str], *releases: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Macros that changed, and those that call them, in turn. A dispatched macro calls whatever is named <prefix>__<its name>."""
    callers: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for members in releases:
        for name, member in members.items():
            if name.startswith("macro."):
                by_name.setdefault(name.rpartition(".")[2], []).append(name)
                for called in _macros_of(member):
                    callers.setdefault(called, []).append(name)
    for own, names in by_name.items():
        for dispatcher in by_name.get(own.partition("__")[2], ()):
            for name in names:
                callers.setdefault(name, []).append(dispatcher)
    return _below(set(changed), callers)


def _macros_of(member: Mapping[str, Any]) -> Collection[str]:
    return (member.get("depends_on") or {}).get("macros") or ()


def _parents(manifest: Mapping[str, Any]) -> dict[str, Collection[str]]:
    members = release_diff.members(manifest)
    return {name: (member.get("depends_on") or {}).get("nodes") or () for name, member in members.items()}


def _below(names: set[str], children: Mapping[str, Sequence[str]]) -> set[str]:
    """The names, and all that comes after them."""
    found, waiting = set(names), list(names)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _compared(store: Store, asked: AttemptRequest, version: str, after: Mapping[str, Any], project: Path, work: Path) -> Comparison:
    meta = admission.admit(store, asked, version, "resume")
    before = _manifest(store, version)
    # The manifest does not have everything of dbt_project.yml.
    fetched = release.fetch(store, version, work / version)
    admission.require_same(meta, fetched)
    try:
        found = compare(before, after)
    except (KeyError, TypeError, AttributeError) as exc:
        raise TypedError(
            RELEASE_CORRUPT, f"the manifests of {version} and {asked.release} cannot be compared: start a new run", why=repr(exc)[:300]
        ) from exc
    unsafe = [*_settings(fetched.project, project), *found.unsafe]
    if unsafe:
        more = f" and {len(unsafe) - _SHOWN} more" if len(unsafe) > _SHOWN else ""
        raise _refused(
            f"{asked.release} differs from {version}, the release of the run, in what acts on nodes that do not name it: "
            f"{', '.join(unsafe[:_SHOWN])}{more}"
        )
    return found


def _manifest(store: Store, version: str) -> Mapping[str, Any]:
    try:
        return release.manifest(store, version)
    except (ValueError, RecursionError) as exc:
        raise TypedError(RELEASE_CORRUPT, f"the manifest of release {version} cannot be read: publish the project again") from exc


def _settings(before: Path, after: Path) -> Iterator[str]:
    """What two projects set otherwise beside the configuration of their nodes, packages included."""
    found = [{str(path.relative_to(root)): path for path in sorted(root.rglob(_PROJECT_FILE))} for root in (before, after)]
    for name in sorted({*found[0], *found[1]}):
        old, new = (_keys(files.get(name)) for files in found)
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                yield f"{key} in {name}"
    profiles = [(root / "profiles.yml").read_bytes() if (root / "profiles.yml").is_file() else b"" for root in (before, after)]
    if profiles[0] != profiles[1]:
        yield "profiles.yml"


def _keys(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    return {str(key): value for key, value in project_yaml.read(path, Path(path.name)).items() if key not in _IN_MANIFEST}


def _refused(problem: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"resume: {problem}; start a new run")
