"""The record of an environment's promotions, held against the long-term audit.

The pointer and the record of its moves are items that the environment's deployer writes and could therefore replace. The rows of the
long-term audit are by the same hand, but each was written once: what is replaced in the table differs from its row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dbt_runner import pins, promotion
from dbt_runner.errors import RELEASE_CORRUPT, TypedError
from dbt_runner.integrity import Check
from dbt_runner.store import CURRENT_RELEASE, PROMOTION_PREFIX, Item, Store, archive_prefix, pin_key, pointer_pk

_ROW_LIMIT = 65_536


def check_promotions(store: Store, environment: str) -> list[Check]:
    """Compares pointer, record, rows and pins; a `problem` is something that does not hold."""
    rows = {key: _row(store, key) for key in store.keys(archive_prefix("promotions", environment))}
    moves: dict[str, promotion.Promotion] = {}
    checks: list[Check] = []
    for item in store.query(pointer_pk(environment), PROMOTION_PREFIX):
        move = _read(environment, item)
        if move is None or item["sk"] != f"{PROMOTION_PREFIX}{move.promoted_at}":
            checks.append(Check(f"{item['pk']} {item['sk']}", "is not what a promotion leaves"))
        else:
            moves[promotion.row_key(move)] = move
    checks += [Check(key, _compared(rows.get(key), moves.get(key))) for key in sorted({*rows, *moves})]
    for version, move in {move.version: move for move in moves.values()}.items():
        checks.append(Check(pin_key(environment, version), _pinned(store, move)))
    if pointer := store.get(pointer_pk(environment), CURRENT_RELEASE):
        checks.append(Check(f"{pointer['pk']} {CURRENT_RELEASE}", _stands(_read(environment, pointer), rows)))
    return checks


def _stands(standing: promotion.Promotion | None, rows: Mapping[str, Mapping[str, Any] | None]) -> str | None:
    """What is wrong with where the pointer stands; it has to be the last move that the long-term audit knows."""
    if standing is None:
        return "is not what a promotion leaves"
    latest = max(rows, default=None)
    if latest is None:
        return f"stands at {standing.version}; the long-term audit knows no promotion"
    if promotion.row_key(standing) == latest and rows[latest] == promotion.row_of(standing):
        return None
    return f"stands at {standing.version}; the last promotion in the long-term audit is {latest}, of {(rows[latest] or {}).get('version')}"


def _read(environment: str, item: Item) -> promotion.Promotion | None:
    try:
        return promotion.from_item(environment, item, changed=True)
    except TypedError as exc:
        if exc.kind is not RELEASE_CORRUPT:
            raise
        return None


def _compared(row: Mapping[str, Any] | None, move: promotion.Promotion | None) -> str | None:
    if row is None:
        return "is not in the bucket, or cannot be read: the table has a promotion that the long-term audit does not know"
    if move is None:
        return "has no item in the table: the record of this promotion was replaced"
    record = promotion.row_of(move)
    differing = sorted(name for name in {*row, *record} if row.get(name) != record.get(name))
    return f"differs from the table's record in {', '.join(differing)}" if differing else None


def _pinned(store: Store, move: promotion.Promotion) -> str | None:
    try:
        pin = pins.read(store, move.environment, move.version)
    except TypedError as exc:
        if exc.kind is not RELEASE_CORRUPT:
            raise
        return "cannot be read"
    if pin is None:
        return f"is not in the bucket: {move.version} was not promoted by dbt-runner"
    held = (move.digest, move.manifest_digest, move.project)
    return (
        None if (pin.digest, pin.manifest_digest, pin.project) == held else f"names other content than the promotion of {move.promoted_at}"
    )


def _row(store: Store, key: str) -> Mapping[str, Any] | None:
    try:
        row = json.loads(store.read(key, _ROW_LIMIT) or b"null")
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
