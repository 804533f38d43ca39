"""A run that ended badly, for the tests of those that do the rest of it."""

from __future__ import annotations

import json
from typing import Any

from asl.fakes import EARLIER_AT, EARLIER_KEY, OTHER_EXECUTION, OTHER_RUN, Cloud

STEPS = [
    {"name": "freshness", "commands": ["source freshness"], "on_failure": "continue", "timeout_seconds": 600},
    {"name": "build", "commands": ["build"], "on_failure": "fail", "timeout_seconds": 3600},
    {"name": "docs", "commands": ["docs generate"], "on_failure": "continue", "timeout_seconds": 600},
]


def result(step: str, status: str = "SUCCEEDED", **changes: object) -> dict[str, Any]:
    """A step's result as a record has it."""
    return {"step": step, "status": status, "attempts": 1, "error": None, "message": None, "counts": {}, "seconds": 1, **changes}


def leave(cloud: Cloud, *results: dict[str, Any], status: str = "FAILED", **attributes: str | None) -> None:
    """Leaves the record of a run of three steps that has ended.

    Args:
        results: of its steps.
        attributes: of the record, in place of its own; None for one that it lacks.
    """
    request = {"job": "hourly", "steps": STEPS, "vars": {"day": "yesterday"}, "full_refresh": True, "trigger": "schedule", "reason": "old"}
    record = {
        "run_id": OTHER_RUN,
        "execution": OTHER_EXECUTION,
        "job": "hourly",
        "trigger": "schedule",
        "release": "1.3.9",
        "request": json.dumps(request),
        "status": status,
        "started_at": EARLIER_AT,
        "ended_at": EARLIER_AT,
        "artifacts": f"runs/prod/2026/11/22/{OTHER_RUN}/",
        "steps": json.dumps(results),
        **attributes,
    }
    cloud.statuses[OTHER_EXECUTION] = "FAILED"
    cloud.put(EARLIER_KEY, **{name: value for name, value in record.items() if value is not None})
