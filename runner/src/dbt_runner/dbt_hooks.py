"""The one place that reaches into dbt: it has dbt leave out nodes that are done.

dbt has an interface for this only in `dbt retry`, which wants the earlier attempt's run_results.json; a worker that was killed
left none. So this mends the method that retry's own task overrides, get_graph_queue, in both classes that have one, for as long
as a command runs. tests/runner/test_resume.py fails when a new dbt is no longer made that way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from importlib import metadata
from typing import Any

from dbt.graph import GraphQueue
from dbt.task.build import BuildTask
from dbt.task.runnable import GraphRunnableTask

# The versions whose source was read: from the first to before the second.
KNOWN = ((1, 10), (1, 12))


class UnknownDbt(Exception):
    """This version of dbt may be made in another way; leaving out by guess could leave out too much."""


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
    _check_version(metadata.version("dbt-core"))
    left_out: set[str] = set()
    originals = {task: task.__dict__["get_graph_queue"] for task in (GraphRunnableTask, BuildTask)}
    try:
        for task, original in originals.items():
            task.get_graph_queue = _leaving_out(original, frozenset(done), left_out)
        yield left_out
    finally:
        for task, original in originals.items():
            task.get_graph_queue = original


class _NothingLeft(GraphQueue):  # type: ignore[misc]  # dbt brings no types
    """A queue without nodes. With --fail-fast, dbt waits for a node to end before it asks whether there is one."""

    def wait_until_something_was_done(self) -> int:
        return 0


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


def _check_version(version: str) -> None:
    first, before = KNOWN
    if not first <= tuple(int(part) for part in version.split(".")[:2]) < before:
        raise UnknownDbt(
            f"dbt-core {version} is none of the versions that a step can be resumed with "
            f"(from {'.'.join(map(str, first))} to before {'.'.join(map(str, before))}): start a new run"
        )
