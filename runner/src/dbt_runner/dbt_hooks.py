"""The one place that reaches into dbt: it has dbt leave out nodes that are done, keep away from what another release has built, find
seeds where the project is now, and say when it has parsed.

dbt has an interface for the first only in `dbt retry`, which wants the earlier attempt's run_results.json; a worker that was killed
left none. So this mends the method that retry's own task overrides, get_graph_queue, in both classes that have one, for as long
as a command runs. tests/runner/test_resume.py fails when a new dbt is no longer made that way. The second looks at the same place,
tests/runner/test_slim_ci.py fails when it no longer does. tests/runner/test_parse_cache.py says whether the third is still needed,
tests/security/test_parse_cache.py fails when the fourth comes at another moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from dbt.artifacts.schemas.batch_results import BatchResults
from dbt.compilation import Linker
from dbt.graph import GraphQueue
from dbt.parser.manifest import ManifestLoader
from dbt.task.base import BaseRunner
from dbt.task.build import BuildTask
from dbt.task.run import MicrobatchBatchRunner, RunTask
from dbt.task.runnable import GraphRunnableTask
from dbt_common.exceptions import DbtRuntimeError

from dbt_runner.known_versions import KnownVersions

Window = tuple[datetime, datetime]
KNOWN = KnownVersions("dbt-core", (1, 10), (1, 12))


class UnknownDbt(Exception):
    """This version of dbt may be made in another way; leaving out by guess could leave out too much."""


class WouldReplace(Exception):
    """A selected node would be built where the release that is compared with has its own."""


@contextlib.contextmanager
def leaving_out(done: Collection[str]) -> Iterator[set[str]]:
    """Commands that run inside leave out nodes that are done; it is for one command at a time.

    Args:
        done: unique ids.

    Yields:
        a set that gets the nodes which the command selected and left out. Ephemeral models are no part of it: dbt does not run
        them, it needs them in its graph to compile others.

    Raises:
        UnknownDbt: this version is not one of the KNOWN ones.
    """
    left_out: set[str] = set()
    with _queues(lambda original: _leaving_out(original, frozenset(done), left_out)):
        yield left_out


@contextlib.contextmanager
def batch_by_batch(seen: Callable[[Any, str, datetime, datetime], None], unfinished: Mapping[str, Sequence[Window]]) -> Iterator[None]:
    """Commands that run inside tell of each batch of a microbatch model, and run of some models the given batches alone.

    dbt keeps what became of a batch only until its model ends, and then its window alone. It has an interface for running some batches
    in `dbt retry` only, which hands them to its task as `batch_map`; this does the same. With a full refresh it does not, because each
    batch would begin the model anew. A dbt that is none of the KNOWN ones is left as it is.

    Args:
        seen: called with dbt's result of a batch, the model's unique_id and the window, on the thread that ran it.
        unfinished: the windows to run, by unique_id.
    """
    if not KNOWN.has_installed:
        yield
        return

    def run_with_hooks(self: Any, manifest: Any) -> Any:
        result = BaseRunner.run_with_hooks(self, manifest)
        seen(result, self.node.unique_id, *self.batches[self.batch_idx])
        return result

    MicrobatchBatchRunner.run_with_hooks = run_with_hooks
    try:
        with _queues(lambda original: _with_batches(original, unfinished)):
            yield
    finally:
        del MicrobatchBatchRunner.run_with_hooks


@contextlib.contextmanager
def staying_apart() -> Iterator[None]:
    """Commands that run inside build nothing where the release that they compare with has something; they end with WouldReplace.

    A project may name schemas in its own way, and not by the target's. All is selected by then, and nothing has run.

    Raises:
        UnknownDbt: this version is not one of the KNOWN ones.
    """
    with _queues(_staying_apart):
        yield


@contextlib.contextmanager
def _queues(wrap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]]) -> Iterator[None]:
    """Inside, dbt's tasks make their queues by what `wrap` makes of their own method."""
    _check_version()
    originals = {task: task.__dict__["get_graph_queue"] for task in (GraphRunnableTask, BuildTask)}
    try:
        for task, original in originals.items():
            task.get_graph_queue = wrap(original)
        yield
    finally:
        for task, original in originals.items():
            task.get_graph_queue = original


@contextlib.contextmanager
def finding_seeds() -> Iterator[None]:
    """Commands that run inside take seeds from the project that they run on, also when another run of it made the parse cache.

    dbt writes a seed's folder into its parse and believes it later on. dbt itself looks into the project first, but an adapter that
    reads the file on its own (DuckDB's) goes to a folder that was another container's. A dbt that is none of the KNOWN ones is left
    as it is.
    """
    if not KNOWN.has_installed:
        yield
        return
    original = ManifestLoader.__dict__["get_full_manifest"]

    def get_full_manifest(cls: Any, /, config: Any, **options: Any) -> Any:
        manifest = original.__func__(cls, config, **options)
        projects = config.load_dependencies()
        for node in manifest.nodes.values():
            if getattr(node, "root_path", None) is not None:
                node.root_path = projects[node.package_name].project_root
        return manifest

    ManifestLoader.get_full_manifest = classmethod(get_full_manifest)
    try:
        yield
    finally:
        ManifestLoader.get_full_manifest = original


@contextlib.contextmanager
def ending_typed() -> Iterator[None]:
    """Commands that run inside end with an error of dbt's own where dbt lets something else through.

    A Python model that calls sys.exit() ends the thread that runs it, and dbt waits for its result until the step's time is over. A
    circle of models ends the command with a bare RuntimeError. A dbt that is none of the KNOWN ones is left as it is.
    """
    if not KNOWN.has_installed:
        yield
        return
    execute, find_cycles = BaseRunner.__dict__["compile_and_execute"], Linker.__dict__["find_cycles"]

    def compile_and_execute(self: Any, manifest: Any, ctx: Any) -> Any:
        try:
            return execute(self, manifest, ctx)
        except SystemExit as exc:
            raise DbtRuntimeError(f"SystemExit: {exc.code}: the node's code ended its process, which only dbt may do") from exc

    def find_cycles_typed(self: Any) -> None:
        if cycle := find_cycles(self):
            raise DbtRuntimeError(f"Found a cycle: {cycle}")

    BaseRunner.compile_and_execute, Linker.find_cycles = compile_and_execute, find_cycles_typed
    try:
        yield
    finally:
        BaseRunner.compile_and_execute, Linker.find_cycles = execute, find_cycles


@contextlib.contextmanager
def keeping_results(kept: list[Any]) -> Iterator[None]:
    """Commands that run inside add the results of their nodes to `kept`, also those that end with an exception and answer without them.

    A hook of on-run-end whose Jinja fails is such an exception: dbt has counted all nodes by then, and has told of no node that it skipped
    and of no hook that ended well. A dbt that is none of the KNOWN ones adds nothing.
    """
    if not KNOWN.has_installed:
        yield
        return
    original = GraphRunnableTask.__dict__["execute_with_hooks"]

    def execute_with_hooks(self: Any, selected_uids: Any) -> Any:
        try:
            return original(self, selected_uids)
        finally:
            kept.extend(self.node_results)

    GraphRunnableTask.execute_with_hooks = execute_with_hooks
    try:
        yield
    finally:
        GraphRunnableTask.execute_with_hooks = original


@contextlib.contextmanager
def after_parse(parsed: Callable[[], None]) -> Iterator[None]:
    """Commands that run inside call `parsed` when dbt has read the project and written its partial_parse.msgpack.

    By then dbt has rendered the project's own Jinja, with `execute` false. It has executed no query, hook or node. A dbt that is none of
    the KNOWN ones calls nothing.
    """
    if not KNOWN.has_installed:
        yield
        return
    original = ManifestLoader.__dict__["get_full_manifest"]

    def get_full_manifest(cls: Any, /, config: Any, **options: Any) -> Any:
        manifest = original.__func__(cls, config, **options)
        parsed()
        return manifest

    ManifestLoader.get_full_manifest = classmethod(get_full_manifest)
    try:
        yield
    finally:
        ManifestLoader.get_full_manifest = original


def _with_batches(original: Callable[[Any], Any], unfinished: Mapping[str, Sequence[Window]]) -> Callable[[Any], Any]:
    def get_graph_queue(task: Any) -> Any:
        queue = original(task)
        if unfinished and isinstance(task, RunTask) and not getattr(task.config.args, "FULL_REFRESH", False):
            # dbt adds the batches of before to the result's own, and knows a model that has none there for one that is new.
            task.batch_map = {
                unique_id: BatchResults(failed=sorted(windows))
                for unique_id, windows in unfinished.items()
                if unique_id in task.manifest.nodes and not task.manifest.nodes[unique_id].config.full_refresh
            }
        return queue

    return get_graph_queue


class _NothingLeft(GraphQueue):  # type: ignore[misc]  # dbt brings no types
    """A queue without nodes. With --fail-fast, dbt waits for a node to end before it asks whether there is one."""

    def wait_until_something_was_done(self) -> int:
        return 0


def _staying_apart(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def get_graph_queue(task: Any) -> Any:
        queue = original(task)
        state = task.previous_defer_state or task.previous_state
        # dbt says it better when there is no manifest.
        built = {_relation(node): node.unique_id for node in state.manifest.nodes.values()} if state and state.manifest else {}
        for unique_id in sorted(queue.get_selected_nodes()):
            relation = _relation(task.manifest.expect(unique_id))
            if relation and relation in built:
                raise WouldReplace(
                    f"{unique_id} would replace {relation}, which {built[relation]} of the release that is compared with has built: "
                    "its schema does not follow target.schema (a generate_schema_name macro, a fixed schema); the command executed nothing"
                )
        return queue

    return get_graph_queue


def _relation(node: Any) -> str | None:
    name: str | None = getattr(node, "relation_name", None)
    return name.casefold() if name else None


def _leaving_out(original: Callable[[Any], Any], done: frozenset[str], left_out: set[str]) -> Callable[[Any], Any]:
    def get_graph_queue(task: Any) -> Any:
        queue = original(task)
        selected: set[str] = queue.get_selected_nodes()
        ephemeral = {unique_id for unique_id in selected if task.manifest.expect(unique_id).is_ephemeral_model}
        left_out.update((selected & done) - ephemeral)
        left = selected - done
        if isinstance(task, BuildTask):
            left |= _sort_unit_tests(task, selected, done, left_out)
        if not left_out:
            return queue
        if not left:
            # dbt runs no hooks for a command without nodes, but this one has some; the attempt before may have ended in them.
            return _NothingLeft(task.graph.get_subset_graph(()).graph, task.manifest, selected)
        left |= ephemeral
        return GraphQueue(task.graph.get_subset_graph(left).graph, task.manifest, left)

    return get_graph_queue


def _sort_unit_tests(task: Any, selected: set[str], done: frozenset[str], left_out: set[str]) -> set[str]:
    """`build` keeps unit tests out of its queue and runs them before their model: takes away those that are done.

    Returns:
        the ones that are not done although their model is; they have to queue for themselves.
    """
    alone: set[str] = set()
    with_model: dict[str, list[str]] = {}
    for model, unit_tests in task.model_to_unit_test_map.items():
        left_out.update(done.intersection(unit_tests))
        left = [unique_id for unique_id in unit_tests if unique_id not in done]
        if model in selected & done:
            alone.update(left)
        elif left:
            with_model[model] = left
    task.model_to_unit_test_map = with_model
    # dbt adds their number to that of the queue.
    task.selected_unit_tests = {unique_id for unit_tests in with_model.values() for unique_id in unit_tests}
    return alone


def _check_version() -> None:
    if not KNOWN.has_installed:
        first, before = KNOWN.bounds
        raise UnknownDbt(
            f"dbt-core {KNOWN.installed} is none of the versions that a step can be resumed with, or run apart from another release "
            f"(from {first} to before {before}): start a new run"
        )
