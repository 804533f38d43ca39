"""Kills attempts of one step at random moments until it has ended, and counts what that cost.

Nothing here asks our own records what was executed: the warehouse counts executions itself (faults.project).
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbt_runner.events import DONE_STATUSES
from dbt_runner.store import Store
from faults import project
from faults.containers import Container, Run
from runner.attempts import publish

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TARGETS = ("worker", "supervisor", "both")
# So many more attempts than kills may a run take: one to finish, and some that were over before their signal came.
_SPARE_ATTEMPTS = 6
Relations = Mapping[str, list[tuple[Any, ...]]]


@dataclass
class Figures:
    """What a campaign of kills came to.

    Attributes:
        kills: by signal and target.
        doubles: nodes that were executed although an earlier attempt's result of them was in the store.
        lost: for each result that was not in the store although the warehouse has it, how many seconds it was old at the kill.
        unrecorded: attempts that nobody killed with SIGKILL before or after they had begun, and that left no outcome.
        different: relations that differ from those of the undisturbed run.
    """

    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    runs: int = 0
    nodes: int = 0
    doubles: list[str] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        oldest = f", the oldest {max(self.lost):.2f} s old" if self.lost else ""
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.kills.items()))
        return (
            f"kills {self.kills.total()} ({kinds}); runs of {self.nodes} nodes {self.runs}; resumes {self.resumes}; "
            f"double executions {len(self.doubles)}; lost results {len(self.lost)}{oldest}; "
            f"relations that differ {len(self.different)}; attempts without an outcome that should have one {len(self.unrecorded)}"
        )


class Campaign:
    """Runs of one project on one DuckDB file, each killed several times.

    Args:
        width: the project's size, see `project.files`.
        seed: decides signals, targets and moments.
    """

    def __init__(self, store: Store, endpoint: str, folder: Path, *, width: int, seed: int) -> None:
        self._store = store
        self._endpoint = endpoint
        self._path = folder / "warehouse.duckdb"
        self._random = random.Random(seed)
        self._deck: list[tuple[signal.Signals, str]] = []
        files = project.files(width)
        publish(store, folder / "project", files)
        self.figures = Figures(nodes=project.nodes(files))
        self._undisturbed = self._run_undisturbed()

    def _run_undisturbed(self) -> Relations:
        run = Run(self._store, self._endpoint, "undisturbed", self._path)
        with run.start(1) as container:
            assert container.wait() == 0, "".join(container.lines)
        executed = Counter(node for node, _ in self._executions())
        assert len(executed) == self.figures.nodes and set(executed.values()) == {1}, "each node counts itself"
        return self._relations()

    def run(self, run_id: str, kills: int) -> None:
        """One run on an empty warehouse: so many kills, and attempts until it has succeeded."""
        self._path.unlink()
        self._path.with_name(f"{self._path.name}.wal").unlink(missing_ok=True)
        run = Run(self._store, self._endpoint, run_id, self._path)
        self.figures.runs += 1
        for attempt in range(1, kills + _SPARE_ATTEMPTS):
            if self._attempt(run, attempt, kill=kills > 0) == 0:
                break
            kills -= 1
            self.figures.resumes += 1
        else:
            self.figures.unfinished.append(run_id)
        found = self._relations()
        names = set(found) | set(self._undisturbed)
        self.figures.different += [f"{run_id}: {name}" for name in names if found.get(name) != self._undisturbed.get(name)]

    def _attempt(self, run: Run, attempt: int, *, kill: bool) -> int:
        """One attempt, killed or not, and the books after it; returns its exit code."""
        done_before, executed_before = self._done(run), len(self._executions())
        with run.start(attempt) as container:
            killed = self._kill(container, left=self.figures.nodes - len(done_before)) if kill else None
            code = container.wait()
        executed = self._executions()[executed_before:]
        self.figures.doubles += [f"{run.run_id}/{attempt}: {node}" for node, _ in executed if node in done_before]
        done = self._done(run)
        if killed is not None:
            kind, moment, had_begun = killed
            self.figures.kills[kind] += 1
            self.figures.lost += [moment - executed_at for node, executed_at in executed if node not in done and executed_at < moment]
            if had_begun and kind not in ("SIGKILL to the supervisor", "SIGKILL to both") and run.outcome(attempt) is None:
                self.figures.unrecorded.append(f"{run.run_id}/{attempt}: {kind}")
        return code

    def _kill(self, container: Container, left: int) -> tuple[str, float, bool] | None:
        """Sends one signal at a random moment: its kind, when, and whether the worker was there; None where it came too late."""
        if not self._deck:
            self._deck = [(number, target) for number in _SIGNALS for target in _TARGETS]
            self._random.shuffle(self._deck)
        number, target = self._deck.pop()
        if self._random.random() < 0.25:
            # Somewhere before dbt says its first word.
            lines, pause = self._random.randint(0, 4), self._random.uniform(0, 1.5)
        else:
            # A node says that it begins and that it ends. Not all of what is left, or the first kill would mostly be the only one.
            lines, pause = 8 + self._random.randint(0, min(2 * left, 40)), self._random.uniform(0, 0.05)
        if not container.wait_for_lines(lines):
            return None
        time.sleep(pause)
        worker = container.worker
        if worker is None:
            target = "supervisor"
        processes = [pid for pid, name in ((worker, "worker"), (container.supervisor, "supervisor")) if pid and target in (name, "both")]
        moment = datetime.now(UTC).timestamp()
        if not container.signal(number, *processes):
            return None
        return f"{number.name} to {'both' if target == 'both' else f'the {target}'}", moment, worker is not None

    def _done(self, run: Run) -> set[str]:
        return {unique_id for unique_id, item in run.nodes().items() if item["status"] in DONE_STATUSES}

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        with duckdb.connect(str(self._path)) as connection:
            return connection.sql(sql).fetchall()  # type: ignore[no-any-return]

    def _executions(self) -> list[tuple[str, float]]:
        """The nodes that were executed, in that order, and when (epoch seconds)."""
        if not self._path.exists() or not self._ask("select 1 from information_schema.tables where table_name = 'executions'"):
            return []
        rows = self._ask("select node, moment from executions order by rowid")
        return [(node, datetime.fromisoformat(moment).timestamp()) for node, moment in rows]

    def _relations(self) -> Relations:
        names = [name for (name,) in self._ask("select table_name from information_schema.tables where table_schema = 'main'")]
        return {name: self._ask(f"select * from {name} order by all") for name in names if name != "executions"}
