"""What a run leaves when it has ended, for announce to tell of."""

from __future__ import annotations

import json
from typing import Any

from asl.fakes import ENVIRONMENT, EXECUTION, NOW, RUN_ID, RUN_KEY, STARTED_AT, TABLE, Cloud

STEP = {"status": "SUCCEEDED", "attempts": 1, "error": None, "message": None, "counts": {}, "seconds": 1.5}
FAILED_STEP = {**STEP, "status": "FAILED", "attempts": 2, "error": "Dbt.ModelError", "message": "1 of 3 nodes failed"}
REQUEST = {"job": "hourly", "steps": [{"name": "freshness"}, {"name": "build"}]}
ENDED = {
    "run_id": RUN_ID,
    "execution": EXECUTION,
    "job": "hourly",
    "trigger": "schedule",
    "request": json.dumps(REQUEST),
    "release": "1.4.2",
    "status": "SUCCEEDED",
    "started_at": STARTED_AT,
    "ended_at": NOW,
    "artifacts": f"runs/prod/2026/11/22/{RUN_ID}/",
    "steps": json.dumps([{**STEP, "step": "health_check"}, {**STEP, "step": "freshness"}, {**STEP, "step": "build"}]),
}
FAILED = {
    **ENDED,
    "status": "FAILED",
    "error": "Dbt.ModelError",
    "cause": "build: 1 of 3 nodes failed",
    "steps": json.dumps([{**STEP, "step": "health_check"}, {**STEP, "step": "freshness"}, {**FAILED_STEP, "step": "build"}]),
}


def node(name: str, **more: Any) -> dict[str, Any]:
    """A node that failed, as an outcome holds it."""
    values = {"unique_id": {"S": name}, "status": {"S": "error"}, "message": {"S": f"{name} is broken"}}
    return {"M": {**values, **more}}


def leave(cloud: Cloud, record: dict[str, str], *failures: dict[str, Any]) -> None:
    """Leaves what a run leaves: its record, and the outcome of its last attempt of the step `build`."""
    cloud.put(RUN_KEY, **record)
    key = {"pk": {"S": f"RUN#{ENVIRONMENT}#{RUN_ID}"}, "sk": {"S": "STEP#02#build#2"}}
    cloud.dynamodb.put_item(TableName=TABLE, Item={**key, "failures": {"L": list(failures)}})
