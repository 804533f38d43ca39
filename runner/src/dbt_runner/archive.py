"""The long-term audit: what an attempt leaves in the bucket as rows, JSON lines that outlive the items of the table.

Each attempt writes one object with a row of its own and one with a row for each node that it ran. They are written once: IAM lets the
task role write new objects only, so that nobody in a container rewrites what an earlier one has said. The closing row of the run is
the state machine's, that of a promotion is promotion.py's. modules/audit_store/athena has the tables that read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dbt_runner.errors import OUT_OF_MEMORY
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptKey
from dbt_runner.store import RUN_PREFIX, AlreadyThere, Item, Store, StoredObject, archive_key, node_prefix, step_prefix

ATTEMPTS, NODES = "attempts", "nodes"


@dataclass
class Archive:
    """The rows of one attempt.

    Args:
        run_key: the run item's sort key.
        run: the run item, as far as the state machine had filled it when the container was started.
    """

    store: Store
    key: AttemptKey
    run_key: str
    run: Mapping[str, Any]
    log: JsonLog
    _nodes: bytes = field(default=b"", init=False)
    _earlier: Sequence[Item] = field(default=(), init=False)
    _left: dict[int, list[Item]] = field(default_factory=dict, init=False)

    def look_back(self) -> None:
        """Reads what earlier attempts of the step left, before this one overwrites any of it.

        An attempt whose container was killed has written no rows. The nodes that it had put into the table get theirs now.
        """
        if self.key.attempt == 1:
            return
        self._earlier = list(self.store.query(self.key.pk, step_prefix(self.key.position, self.key.name)))
        told = {outcome["attempt"] for outcome in self._earlier}
        for item in self.store.query(self.key.pk, node_prefix(self.key.name)):
            if item["attempt"] not in told:
                self._left.setdefault(item["attempt"], []).append(item)

    def prepare(self, nodes: Iterable[Item]) -> StoredObject | None:
        """Makes the rows of the nodes, and says what they will be; None where there are none."""
        self._nodes = self._lines(nodes)
        if not self._nodes:
            return None
        return StoredObject(self._object(NODES, self.key.attempt), hashlib.sha256(self._nodes).hexdigest(), len(self._nodes))

    def write(self, outcome: Item, sizes: Sequence[Mapping[str, Any]]) -> bool:
        """Writes all rows. Failing to do so fails no attempt: the table still has all of it.

        Args:
            outcome: the outcome's item.
            sizes: those of the tasks on Fargate that the environment has; the smallest one first.

        Returns:
            Whether the bucket has every row now.
        """
        bodies = {self._object(NODES, attempt): self._lines(items) for attempt, items in self._left.items()}
        bodies[self._object(NODES, self.key.attempt)] = self._nodes
        bodies[self._object(ATTEMPTS, self.key.attempt)] = self._attempt(outcome, sizes)
        # Each on its own: an object that an earlier attempt did write must not keep out what this one has to say.
        written = [self._upload(key, body) for key, body in bodies.items() if body]
        return all(written)

    def _upload(self, key: str, body: bytes) -> bool:
        try:
            self.store.upload_new(body, key)
        except AlreadyThere as exc:
            self.log.error("another container of this attempt has written its rows of the long-term audit already", key=str(exc))
        except Exception as exc:
            self.log.error("the rows of the long-term audit could not be written; the table has what they would say", error=repr(exc))
        else:
            return True
        return False

    def _object(self, table: str, attempt: int) -> str:
        date = self.run_key.removeprefix(RUN_PREFIX)[:10]
        return archive_key(table, self.key.environment, date, f"{self.key.run_id}.{self.key.name}.{attempt}")

    def _lines(self, items: Iterable[Item]) -> bytes:
        return b"".join(_line({**self._about(), **_attributes(item)}) for item in items)

    def _about(self) -> dict[str, Any]:
        return {
            "environment": self.key.environment,
            "run_id": self.key.run_id,
            "job": self.run.get("job"),
            "release": self.run.get("release"),
        }

    def _attempt(self, outcome: Item, sizes: Sequence[Mapping[str, Any]]) -> bytes:
        release = outcome.get("release") or {}
        row = {**_attributes(outcome), "position": self.key.position, **self._about()}
        row |= {"release_digest": release.get("digest"), **{name: release.get(name) for name in ("manifest_digest", "git_commit")}}
        if outcome["compute"] == "fargate" and sizes:
            # As the state machine does it: each attempt that ran out of memory moves to the next size.
            moves = sum(1 for earlier in self._earlier if earlier.get("error") == OUT_OF_MEMORY.name)
            size = sizes[min(moves, len(sizes) - 1)]
            row |= {"cpu": size.get("cpu"), "memory_mib": size.get("memory")}
        return _line(row)


def _attributes(item: Item) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("pk", "sk")}


def _line(row: Mapping[str, Any]) -> bytes:
    """One row: what is not known is left out, as it is in the table."""
    known = {name: value for name, value in row.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
