"""A run while it goes on: live on a terminal, line by line anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TextIO

from rich.live import Live

from dbt_runner.cli.guard import harmless
from dbt_runner.cli.render import run_status
from dbt_runner.cli.terminal import Cleaned, console_of, is_terminal
from dbt_runner.runs import NodeResultRow, RunDetail, StepResult
from dbt_runner.words import counts_of, duration, one_line

_NODES_PER_LINE = 50
_FAILED_NODES_IN_PROGRESS = 10


def show_progress(details: Iterable[RunDetail], *, stream: TextIO | None = None) -> RunDetail:
    """Shows a run while it goes on: live on a terminal, where nothing of it stays; anywhere else a line for each change.

    Args:
        details: the run again and again, such as dbt_runner.runs.follow gives it; at least once.

    Returns:
        The last of them.
    """
    stream = stream or sys.stdout
    detail = None
    if is_terminal(stream):
        with Live(console=console_of(stream), auto_refresh=False, transient=True) as live:
            for detail in details:
                live.update(Cleaned(run_status(detail)), refresh=True)
    else:
        progress = Progress()
        for detail in details:
            stream.writelines(f"{harmless(line)}\n" for line in progress.lines(detail))
            stream.flush()
    if detail is None:
        raise ValueError("there was no run to show")
    return detail


def _clock() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


@dataclass
class Progress:
    """Turns what is known of a run now into the lines that say what is new since the last time.

    A line for each change of the run and its steps, for the first failed nodes, and for each fifty nodes of a step.
    """

    clock: Callable[[], str] = _clock
    _run_status: str = ""
    _steps: dict[str, str] = field(default_factory=dict)
    _nodes: dict[str, int] = field(default_factory=dict)
    _failed: set[tuple[str, str, int]] = field(default_factory=set)

    def lines(self, detail: RunDetail) -> list[str]:
        run = detail.run
        news: list[str] = []
        if run.status != self._run_status and not run.ended_at:
            release = f", release {run.release}" if run.release else ""
            news.append(f"run {run.run_id} {run.status}{release}")
        news += self._failed_nodes(detail.nodes)
        for step in run.steps:
            news += self._step(step)
        if run.status != self._run_status and run.ended_at:
            why = ": ".join(part for part in (run.error, one_line(run.cause, 300)) if part)
            news.append(f"run {run.run_id} {run.status} after {duration(run.seconds)}" + (f": {why}" if why else ""))
            missing = dict.fromkeys(page for outcome in detail.outcomes for page in outcome.unpublished)
            news += [f"{page} could not be published: dbt-runner logs says why" for page in missing]
        self._run_status = run.status
        return [f"{self.clock()}  {line}" for line in news]

    def _failed_nodes(self, nodes: Iterable[NodeResultRow]) -> Iterator[str]:
        for node in nodes:
            key = (node.step, node.unique_id, node.attempt)
            if node.failed and key not in self._failed:
                self._failed.add(key)
                if len(self._failed) <= _FAILED_NODES_IN_PROGRESS:
                    yield f"node {node.name} {node.status}: {one_line(node.message, 200)}"
                elif len(self._failed) == _FAILED_NODES_IN_PROGRESS + 1:
                    yield "more nodes failed; dbt-runner show lists them all"

    def _step(self, step: StepResult) -> Iterator[str]:
        state = f"{step.status} {step.attempts}"
        nodes = sum(step.counts.values())
        if state != self._steps.get(step.step) and step.status != "PENDING":
            attempt = f" (attempt {step.attempts})" if step.attempts > 1 else ""
            line = f"step {step.step} {step.status}{attempt}"
            if step.status != "RUNNING":
                line += f" after {duration(step.seconds)}"
                line += f": {counts_of(step.counts)}" if nodes else ""
                line += f": {step.error}" if step.error else ""
            yield line
        if step.status == "RUNNING" and nodes // _NODES_PER_LINE > self._nodes.get(step.step, 0):
            self._nodes[step.step] = nodes // _NODES_PER_LINE
            yield f"step {step.step} {nodes:,} nodes: {counts_of(step.counts)}"
        self._steps[step.step] = state
