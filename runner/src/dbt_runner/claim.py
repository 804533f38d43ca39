"""The claim: of all containers that are started for one run, one at a time may work.

An answer of RunTask can get lost, so that a second task is started beside the first; the state that waits for a task can end before the
task does. So an attempt claims its place in the run before anything else, and the state machine closes a place before it goes on without
knowing how the attempt there ended. Both are conditional writes of one item: what is claimed is known by its task, so that it can be
stopped and waited for, and what comes after the close executes nothing.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass

from dbt_runner.errors import LOCK_LOST, TypedError
from dbt_runner.request import AttemptKey
from dbt_runner.store import CLAIM, AlreadyThere, Store, now

# The state machine counts alike.
_ATTEMPTS = 1000
_FREE = (
    "(attribute_not_exists(closed_up_to) OR closed_up_to < :place) AND "
    "(attribute_not_exists(place) OR place < :place OR (place = :place AND holder = :holder))"
)


@dataclass(frozen=True)
class Claim:
    """One container's right to work at a place of a run.

    Attributes:
        place: of the attempt in its run; later attempts and later steps have higher ones.
        holder: this container's word for itself, which no other one has.
    """

    place: int
    holder: str


def place(position: int, attempt: int) -> int:
    """The place of an attempt: steps count from 1, the health check is 0, attempts count from 1."""
    return position * _ATTEMPTS + attempt


def take(store: Store, key: AttemptKey, compute: str, task: str | None, seconds: float | None) -> Claim:
    """Claims an attempt for this container.

    Args:
        compute: where this is, as outcomes call it.
        task: the ARN of the task of ECS, by which it can be stopped; on Lambda the id of the request.
        seconds: after this long at most it ends by itself; None where it does not.

    Raises:
        TypedError: Dbt.LockLost when another container has the attempt or a later one, or the state machine has given the attempt up.
    """
    mine = Claim(place(key.position, key.attempt), uuid.uuid4().hex)
    item = {
        "place": mine.place,
        "holder": mine.holder,
        "claimed_at": now(),
        "compute": compute,
        "task": task,
        "ends_by": None if seconds is None else math.ceil(time.time() + seconds),
    }
    try:
        store.update(key.pk, CLAIM, item, condition=_FREE, values={":place": mine.place, ":holder": mine.holder})
    except AlreadyThere as exc:
        raise TypedError(LOCK_LOST, _refusal(store, key, mine), f"the claim of place {mine.place} was refused") from exc
    return mine


def _refusal(store: Store, key: AttemptKey, mine: Claim) -> str:
    found = store.get(key.pk, CLAIM) or {}
    who = "the state machine has given it up"
    if found.get("closed_up_to", -1) < mine.place:
        who = f"it is that of {found.get('task') or 'another container'} since {found.get('claimed_at')}"
    return f"attempt {key.attempt} of {key.name} is not this container's: {who}; nothing was executed"
