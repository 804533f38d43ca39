"""DynamoDB: writes that are atomic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from moto.dynamodb.models import DynamoDBBackend

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


@patch("dynamodb.atomic-writes", PATCHES)
def atomic_writes(patch: Patch) -> None:
    """moto's server answers each request on a thread of its own and looks at a write's condition some time before it writes.

    Of two conditional writes at the same moment both succeed there, so that two runs get one lock. On AWS a condition and its write are one
    step: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/WorkingWithItems.html#WorkingWithItems.ConditionalUpdate
    """
    lock = threading.RLock()

    def alone(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with lock:
                return original(*args, **kwargs)

        return call

    for name in ("put_item", "update_item", "delete_item", "transact_write_items"):
        patch.set(DynamoDBBackend, name, alone(getattr(DynamoDBBackend, name)))
