"""What became of the batches of microbatch models, from dbt's hooks to the result of their model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from dbt_runner.events import BAD_STATUSES, Batch, Failure, NodeResult, kept_batches
from dbt_runner.store import timestamp


class BatchResults:
    """The batches of one command, by their model. dbt's threads call it.

    Args:
        earlier: models of which an earlier attempt ran some batches well; these stay part of the result.
    """

    def __init__(self, earlier: Sequence[NodeResult] = ()) -> None:
        self._earlier = {node.unique_id: node for node in earlier}
        self._seen: dict[str, list[Batch]] = {}
        self._failures: dict[int, Failure] = {}

    def unfinished(self) -> Mapping[str, Sequence[tuple[datetime, datetime]]]:
        """The windows that are left to do, by the unique_id of the model."""
        return {
            unique_id: [(datetime.fromisoformat(batch.starts_at), datetime.fromisoformat(batch.ends_at)) for batch in node.unfinished]
            for unique_id, node in self._earlier.items()
        }

    def keep_failure(self, failure: Failure) -> None:
        """Takes the exception that dbt handles on this thread: the result of a failed batch says `ERROR` only."""
        self._failures[threading.get_ident()] = failure

    def add(self, result: Any, unique_id: str, start: datetime, end: datetime) -> None:
        """Takes dbt's result of a batch, on the thread that ran it."""
        failure = self._failures.pop(threading.get_ident(), None)
        batch = Batch(_moment(start), _moment(end), str(result.status), seconds=max(0.0, round(result.execution_time or 0.0, 3)))
        if str(result.status) in BAD_STATUSES:
            batch = replace(batch, message=failure.message if failure else result.message or "")
        self._seen.setdefault(unique_id, []).append(batch)

    def complete(self, result: NodeResult) -> NodeResult:
        """A model's result with its batches. Where some failed, its message says why the first of them did."""
        seen = self._seen.pop(result.unique_id, [])
        if not seen:
            return result
        earlier = self._earlier.get(result.unique_id)
        windows = {(batch.starts_at, batch.ends_at) for batch in seen}
        before = [batch for batch in earlier.batches if (batch.starts_at, batch.ends_at) not in windows] if earlier else []
        total = max(len(seen) + len(before), earlier.batches_total if earlier else 0)
        result = replace(result, batches=kept_batches([*before, *seen]), batches_total=total)
        failed = next((batch for batch in result.batches if batch.message), None)
        if failed is None or result.status not in BAD_STATUSES:
            return result
        return replace(result, message=f"{result.message}: batch {failed.starts_at} to {failed.ends_at}: {failed.message}")


def _moment(moment: datetime) -> str:
    """A window's edge as the store writes it; empty where milliseconds cannot say it."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return "" if moment.microsecond % 1000 else timestamp(moment)
