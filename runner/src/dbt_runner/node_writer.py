"""Writes node results to the table while the step runs, so that the death of the container loses little."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from dbt_runner import outages
from dbt_runner.events import Batch, NodeResult
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptKey
from dbt_runner.store import BATCH, Item, Refused, Store, node_sk
from dbt_runner.texts import fit

# What a SIGKILL of the container can lose: the results of this time, and less than a batch of them. A call costs about 3 ms of processor
# time and an item 0.3 ms, so that this is about 1 % of one processor at the most; see docs/architecture.md.
FLUSH_SECONDS = 0.25
# After a write that failed: the clients have tried three times by then.
RETRY_SECONDS = 2.0
_MAX_MESSAGE = 4000
# Of an item that DynamoDB refuses, in bytes of UTF-8: an item holds 400 KB in all.
_MAX_REDUCED_ID, _MAX_REDUCED_TEXT = 300_000, 1_000
_MAX_TOLD, _MAX_TOLD_ID = 10, 200


class ResultsNotWritten(Exception):
    """The step is over, and the table still takes no node results.

    Args:
        results: those that are in the log only.
    """

    def __init__(self, results: Sequence[NodeResult]) -> None:
        super().__init__(f"{len(results)} node results could not be written")
        self.results = results


class NodeWriter:
    """Writes node results to the table from a thread of its own.

    The first result is written at once. After that results are written FLUSH_SECONDS after the last write, or as soon as there are as
    many as one call takes.

    A write that fails is tried again after RETRY_SECONDS; leaving the context writes the rest, with patience. A result that DynamoDB
    refuses is written with its key and status alone, and `left_out` names it.

    Args:
        store: one without patience: while the step runs, the next batch is the next try.
        flush_seconds, retry_seconds: in place of the constants.

    Raises:
        ResultsNotWritten: on leaving the context, when that failed, too. All that is known of these nodes is in the log by then.
    """

    def __init__(
        self,
        store: Store,
        key: AttemptKey,
        log: JsonLog,
        patience: Callable[[Callable[[], None]], None] = outages.once,
        flush_seconds: float = FLUSH_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._store = store
        self._patience = patience
        self._key = key
        self._log = log
        self._flush_seconds = flush_seconds
        self._retry_seconds = retry_seconds
        self._queue: queue.SimpleQueue[NodeResult | None] = queue.SimpleQueue()
        self._pending: dict[str, NodeResult] = {}
        self._items: dict[tuple[int, str], Item] = {}
        self._refused: dict[tuple[int, str], str] = {}
        self._thread = threading.Thread(target=self._work, name="node-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        try:
            self._patience(self._flush)
        except Exception as exc:
            results = list(self._pending.values())
            told = [asdict(result) for result in results]
            self._log.listed("error", "node results could not be written", "results", told, error=repr(exc)[:1000])
            raise ResultsNotWritten(results) from exc

    def add(self, result: NodeResult) -> None:
        """Takes a result for writing; returns at once."""
        self._queue.put(result)

    @property
    def items(self) -> list[Item]:
        """Every result that was added, as an item; of a node that two commands ran, both."""
        return list(self._items.values())

    @property
    def left_out(self) -> list[str]:
        """What DynamoDB refused, as an outcome says it; a short list."""
        told = [f"{what} of {unique_id[:_MAX_TOLD_ID]}" for (_, unique_id), what in list(self._refused.items())[:_MAX_TOLD]]
        rest = len(self._refused) - len(told)
        return [*told, f"the same of {rest} other nodes"] if rest else told

    def _work(self) -> None:
        may_flush_at, failed = 0.0, False
        while True:
            wait = max(0.0, may_flush_at - time.monotonic()) if self._pending else None
            try:
                result = self._queue.get(timeout=wait)
            except queue.Empty:
                pass
            else:
                if result is None:
                    return
                self._pending[result.unique_id] = result
                self._items[result.command, result.unique_id] = self._item(result)
            is_full = len(self._pending) >= BATCH and not failed
            if is_full or time.monotonic() >= may_flush_at:
                failed = not self._try_flush()
                may_flush_at = time.monotonic() + (self._retry_seconds if failed else self._flush_seconds)

    def _try_flush(self) -> bool:
        try:
            self._flush()
        except Exception as exc:
            # Nothing is dropped: the batch stays pending and goes with the next one.
            self._log.warning("node results could not be written yet", error=repr(exc)[:1000], pending=len(self._pending))
            return False
        return True

    def _flush(self) -> None:
        items = [self._items[result.command, result.unique_id] for result in self._pending.values()]
        if not items:
            return
        if refused := self._store.put_many(items, rounds=1):
            reduced = [self._reduce(each) for each in refused]
            for each in self._store.put_many(reduced, rounds=1):
                self._log.error("DynamoDB takes nothing of a node's result", node=each.item["unique_id"], reason=each.reason[:1000])
                self._refused[each.item["command"], each.item["unique_id"]] = "the result, which DynamoDB refuses,"
        self._pending.clear()

    def _reduce(self, refused: Refused) -> Item:
        """What is left of an item that DynamoDB refuses; from now on the item is that. The log has the whole of it."""
        item = refused.item
        key = item["command"], item["unique_id"]
        self._log.error("DynamoDB refuses a node's result: its key and its status are written", result=item, reason=refused.reason[:1000])
        self._refused[key] = "details, which DynamoDB refuses,"
        self._items[key] = reduced(item, refused.reason)
        return self._items[key]

    def _item(self, result: NodeResult) -> Item:
        return {
            "pk": self._key.pk,
            "sk": node_sk(self._key.name, result.unique_id),
            "unique_id": result.unique_id,
            "step": self._key.name,
            "attempt": self._key.attempt,
            "command": result.command,
            "resource_type": result.resource_type,
            "name": result.name,
            "status": result.status,
            "message": result.message[:_MAX_MESSAGE],
            "started_at": result.started_at,
            "ended_at": result.ended_at,
            "seconds": result.seconds,
            "thread": result.thread,
            "relation": result.relation or None,
            "rows": result.rows,
            "failures": result.failures,
            "batches": [_batch(batch) for batch in result.batches] or None,
            "batches_total": result.batches_total or None,
        }


def _batch(batch: Batch) -> dict[str, Any]:
    return {name: value for name, value in asdict(batch).items() if name != "message" or value}


def reduced(item: Mapping[str, Any], reason: str) -> Item:
    """An item that says which node it is about and how it ended, and has no value that DynamoDB could refuse."""
    texts = {name: _cut(str(item[name]), _MAX_REDUCED_TEXT) for name in ("resource_type", "name", "status", "started_at", "ended_at")}
    return {
        **{name: item[name] for name in ("pk", "sk", "step", "attempt", "command")},
        **texts,
        "unique_id": _cut(item["unique_id"], _MAX_REDUCED_ID),
        "message": _cut(f"DynamoDB refused the details of this result, which the log has: {reason}", _MAX_REDUCED_TEXT),
        "seconds": 0.0,
        "thread": "",
    }


def _cut(text: str, most: int) -> str:
    """As much of the beginning of a text as fits into so many bytes."""
    return fit(text[:most]).encode()[:most].decode(errors="ignore")
