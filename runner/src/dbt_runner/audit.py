"""The outcome of an attempt as an item of the table. The results of its nodes are node_writer's."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dbt_runner.claim import Claim
from dbt_runner.events import CommandResult, NodeResult
from dbt_runner.lineage import Concern
from dbt_runner.outcome import Outcome
from dbt_runner.release import ReleaseMeta
from dbt_runner.request import AttemptKey
from dbt_runner.store import Item, Store, StoredObject
from dbt_runner.store.attribute_values import marshal
from dbt_runner.texts import fit
from dbt_runner.warning_tally import MAX_WARNINGS, DbtWarning
from dbt_runner.wire import UNKNOWN

_MAX_OWNER = 200
# The state machine reads an outcome as one payload, of at most 256 KiB: whatever is in it has a limit of its own, in bytes of JSON.
_MAX_OUTCOME_TEXT = 4000
_MAX_OUTCOME_COMMAND = 1000
_MAX_OUTCOME_ID = 2000
_MAX_STATUSES = 20
_MAX_LEFT_OUT, _MAX_LEFT_OUT_TEXT = 20, 300
_MAX_WARNING_TEXT = 600
# With its types, as DynamoDB answers it and the state machine reads it. https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
_MAX_OUTCOME = 262_144 - 4_096


@dataclass(frozen=True)
class Evidence:
    """What an outcome item says beside the outcome.

    Attributes:
        commands: the texts of the step's commands; `results` are those of the first ones, as far as the step came.
        release: None where the attempt did not come as far as finding it.
        state: the release that was compared with; None as above, and where there was none.
        concerns: whom the failed nodes concern, by unique_id.
        image: digest of the image that ran it; None where nothing knows it.
        parse: whether dbt started from the parse cache, and why not; empty when it came to no parse.
        left_out: what the worker told or left that was not taken, one text each.
        warnings: what dbt warned of.
        node_rows: where the long-term audit has the nodes that this attempt ran; None where it ran none.
    """

    started_at: str
    ended_at: str
    seconds: float
    commands: Sequence[str] = ()
    results: Sequence[CommandResult] = ()
    artifacts: Sequence[StoredObject] = ()
    peak_memory_mib: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    compute: str = ""
    parse: Mapping[str, str] = field(default_factory=dict)
    release: ReleaseMeta | None = None
    state: ReleaseMeta | None = None
    image: str | None = None
    node_rows: StoredObject | None = None
    left_out: Sequence[str] = ()
    warnings: Sequence[DbtWarning] = ()
    concerns: Mapping[str, Concern] = field(default_factory=dict)


def outcome_item(key: AttemptKey, claim: Claim, outcome: Outcome, evidence: Evidence) -> Item:
    """The outcome as an item of the table; docs/architecture.md describes its attributes. It is within the limits, whatever it is about."""
    item = {
        "pk": key.pk,
        "sk": key.outcome_sk,
        "step": key.name,
        "attempt": key.attempt,
        "holder": claim.holder,
        "exit_code": outcome.exit_code,
        "error": outcome.error.name if outcome.error else None,
        "message": _cut(outcome.message) or None,
        "why": _cut(outcome.why) or None,
        "counts": _counts(outcome.counts),
        "fault": outcome.fault,
        "failures": [_failure(node, evidence.concerns.get(node.unique_id, Concern())) for node in outcome.failures],
        "commands": [
            {"command": _cut(text, _MAX_OUTCOME_COMMAND), "success": c.success, "selected": c.selected, "seconds": c.seconds}
            for text, c in zip(evidence.commands, evidence.results, strict=False)
        ],
        "artifacts": [asdict(artifact) for artifact in evidence.artifacts],
        "started_at": evidence.started_at,
        "ended_at": evidence.ended_at,
        "seconds": round(evidence.seconds, 3),
        "peak_memory_mib": evidence.peak_memory_mib,
        "versions": dict(evidence.versions),
        "compute": evidence.compute,
        "release": _release(evidence.release),
        "state": _release(evidence.state),
        "image": evidence.image,
        "parse": {name: _cut(text) for name, text in evidence.parse.items()} or None,
        "node_rows": asdict(evidence.node_rows) if evidence.node_rows else None,
        "left_out": [_cut(text, _MAX_LEFT_OUT_TEXT) for text in evidence.left_out[:_MAX_LEFT_OUT]] or None,
        "warnings": [
            {"event": warning.event, "text": _cut(warning.text, _MAX_WARNING_TEXT), "count": warning.count}
            for warning in evidence.warnings[: MAX_WARNINGS + 1]
        ]
        or None,
    }
    if outcome_size(item) > _MAX_OUTCOME:
        # The limits of its parts add up to less, so this is a part without one. What ends the step stays, and says so.
        item |= {"failures": [], "commands": [], "artifacts": [], "warnings": None, "left_out": ["the rest of the outcome: it is too long"]}
    return item


def reduced(item: Item, reason: str) -> Item:
    """What is left of an outcome that DynamoDB refuses: what decides over the run, and no value that could be refused."""
    kept = ("pk", "sk", "step", "attempt", "holder", "exit_code", "error", "started_at", "ended_at", "seconds", "compute")
    return {
        **{name: item[name] for name in kept},
        "message": item["message"],
        "counts": item["counts"],
        "failures": [],
        "commands": [],
        "artifacts": [],
        "peak_memory_mib": 0,
        "versions": {},
        "left_out": [_cut(f"the rest of the outcome, which DynamoDB refuses: {reason}", _MAX_LEFT_OUT_TEXT)],
    }


def outcome_size(item: Item) -> int:
    """Bytes of the item as the state machine reads it."""
    return len(json.dumps({"Item": marshal(item)}, ensure_ascii=False).encode())


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Nodes by status, the most frequent statuses by name. The state machine carries these through the whole run."""
    named = dict(sorted(counts.items(), key=lambda each: -each[1])[:_MAX_STATUSES])
    rest = sum(counts.values()) - sum(named.values())
    return {**named, UNKNOWN: named.get(UNKNOWN, 0) + rest} if rest else named


def _failure(node: NodeResult, concern: Concern) -> dict[str, Any]:
    said = {"unique_id": _cut(node.unique_id, _MAX_OUTCOME_ID), "status": node.status, "message": _cut(node.message)}
    if concern.owner:
        said["owner"] = _cut(concern.owner, _MAX_OWNER)
    return {**said, "blocked": concern.blocked} if concern.blocked else said


def _cut(text: str, most: int = _MAX_OUTCOME_TEXT) -> str:
    """As much of the beginning of a text as fits into so many bytes of a JSON string."""
    text = fit(text[:most])
    while (size := len(json.dumps(text, ensure_ascii=False).encode()) - 2) > most:
        text = text[: len(text) * most // size]
    return text


def let_expire(store: Store, outcome: Item, nodes: Sequence[Item], days: int) -> None:
    """Gives the items of an attempt a time at which DynamoDB may delete them. Only for what the long-term audit has.

    Args:
        outcome: as it was written; its claim has to hold still.
        nodes: all that the attempt has added.
        days: from now.

    Raises:
        AlreadyThere: the attempt is another container's by now.
    """
    expires_at = int(time.time()) + days * 86_400
    store.put({**outcome, "expires_at": expires_at}, only_over="holder")
    # Of a node that two commands ran the table has the later result.
    store.put_many({item["sk"]: {**item, "expires_at": expires_at} for item in nodes}.values())


def record_unpublished(store: Store, outcome: Item, pages: Sequence[str]) -> None:
    """Adds to an outcome that was written which pages people will not find.

    Raises:
        AlreadyThere: the attempt is another container's by now.
    """
    condition, values = "holder = :holder", {":holder": outcome["holder"]}
    store.update(outcome["pk"], outcome["sk"], {"unpublished": list(pages)}, condition=condition, values=values)


def _release(meta: ReleaseMeta | None) -> dict[str, Any] | None:
    if meta is None:
        return None
    return {name: getattr(meta, name) for name in ("version", "digest", "manifest_digest", "git_commit", "dbt_version")}
