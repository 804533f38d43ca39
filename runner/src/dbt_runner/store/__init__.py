"""The audit store: one table, one bucket, and what is called how in them.

docs/architecture.md describes what the items hold. This package knows keys and types, not meanings.
"""

from __future__ import annotations

from dbt_runner.store.access import AlreadyThere, Store, StoredObject, client_config, sha256_of
from dbt_runner.store.attribute_values import Item
from dbt_runner.store.batches import BATCH, Refused, is_refusal
from dbt_runner.store.keys import (
    CLAIM,
    CONFIG,
    CURRENT_RELEASE,
    LOCK,
    NODE_PREFIX,
    POINTER_PREFIX,
    PROMOTION_PREFIX,
    RELEASE_META,
    RELEASES,
    RUN_PREFIX,
    STEP_PREFIX,
    archive_key,
    archive_prefix,
    cache_key,
    documentation_key,
    environment_pk,
    node_prefix,
    node_sk,
    now,
    pin_key,
    pointer_pk,
    release_key,
    release_pk,
    run_pk,
    step_prefix,
    step_sk,
    timestamp,
)

__all__ = [
    "BATCH",
    "CLAIM",
    "CONFIG",
    "CURRENT_RELEASE",
    "LOCK",
    "NODE_PREFIX",
    "POINTER_PREFIX",
    "PROMOTION_PREFIX",
    "RELEASES",
    "RELEASE_META",
    "RUN_PREFIX",
    "STEP_PREFIX",
    "AlreadyThere",
    "Item",
    "Refused",
    "Store",
    "StoredObject",
    "archive_key",
    "archive_prefix",
    "cache_key",
    "client_config",
    "documentation_key",
    "environment_pk",
    "is_refusal",
    "node_prefix",
    "node_sk",
    "now",
    "pin_key",
    "pointer_pk",
    "release_key",
    "release_pk",
    "run_pk",
    "sha256_of",
    "step_prefix",
    "step_sk",
    "timestamp",
]
