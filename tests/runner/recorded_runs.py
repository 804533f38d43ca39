"""Items of runs as the state machine and the runner write them, by the contract of docs/architecture.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dbt_runner.store import Store, node_sk, step_sk

ENVIRONMENT = "prod"
MACHINE = "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod"
STEPS: tuple[Mapping[str, Any], ...] = (
    {"name": "freshness", "commands": ["source freshness"], "on_failure": "continue", "timeout_seconds": 600},
    {"name": "build", "commands": ["build"], "on_failure": "fail", "timeout_seconds": 3600},
    {"name": "docs", "commands": ["docs generate"], "on_failure": "continue", "timeout_seconds": 600},
)


def execution_arn(run_id: str) -> str:
    return f"{MACHINE.replace(':stateMachine:', ':execution:')}:{run_id}"


def record_run(store: Store, run_id: str, started_at: str, *, steps: Sequence[Mapping[str, Any]] = STEPS, **attributes: Any) -> None:
    """Writes a run's record. `results` in the attributes are the steps of a closed run."""
    results = attributes.pop("results", None)
    store.put(
        {
            "pk": f"ENV#{ENVIRONMENT}",
            "sk": f"RUN#{started_at}#{run_id}",
            "run_id": run_id,
            "execution": execution_arn(run_id),
            "job": "hourly",
            "trigger": "schedule",
            "release": "1.4.2",
            "request": json.dumps({"job": "hourly", "steps": steps, "vars": {"day": "2026-11-22"}, "full_refresh": False}),
            "status": "RUNNING",
            "started_at": started_at,
            "artifacts": f"runs/{ENVIRONMENT}/{started_at[:10].replace('-', '/')}/{run_id}/",
            "steps": None if results is None else json.dumps(results),
            **attributes,
        }
    )


def step_result(
    step: str, counts: Mapping[str, int] | None = None, *, error: str | None = None, message: str | None = None
) -> dict[str, Any]:
    """A step as the state machine records it in a closed run."""
    return {
        "step": step,
        "status": "FAILED" if error else "SUCCEEDED",
        "attempts": 1,
        "error": error,
        "message": message,
        "counts": counts or {},
        "seconds": 12.5,
    }


def record_outcome(store: Store, run_id: str, position: int, step: str, *, attempt: int = 1, **attributes: Any) -> None:
    store.put(
        {
            "pk": f"RUN#{ENVIRONMENT}#{run_id}",
            "sk": step_sk(position, step, attempt),
            "step": step,
            "attempt": attempt,
            "exit_code": 0,
            "counts": {},
            "failures": [],
            "commands": [],
            "artifacts": [],
            "started_at": "2026-11-22T10:00:05.000Z",
            "ended_at": "2026-11-22T10:00:15.000Z",
            "seconds": 10,
            "peak_memory_mib": 412,
            "versions": {"dbt-core": "1.11.0"},
            "compute": "fargate",
            **attributes,
        }
    )


def node_item(run_id: str, step: str, name: str, status: str = "success", **attributes: Any) -> dict[str, Any]:
    return {
        "pk": f"RUN#{ENVIRONMENT}#{run_id}",
        "sk": node_sk(step, f"model.shop.{name}"),
        "unique_id": f"model.shop.{name}",
        "step": step,
        "attempt": 1,
        "command": 0,
        "resource_type": "model",
        "name": name,
        "status": status,
        "message": "OK",
        "started_at": "2026-11-22T10:00:06.000Z",
        "ended_at": "2026-11-22T10:00:07.000Z",
        "seconds": 1,
        "thread": "Thread-1",
        "relation": None,
        "rows": None,
        "failures": None,
        **attributes,
    }


class LiveAlias:
    """A Step Functions client for moto, which starts no alias: refuses callers that do not use it and takes it off the ARN.

    Args:
        client: moto's client.
        on_start: called with the run id and the start date of each execution that was started.
    """

    def __init__(self, client: Any, on_start: Callable[[str, Any], None] = lambda run_id, started: None) -> None:
        self._client = client
        self.on_start = on_start

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def start_execution(self, *, stateMachineArn: str, **arguments: Any) -> Any:
        assert stateMachineArn == f"{MACHINE}:live"
        answer = self._client.start_execution(stateMachineArn=MACHINE, **arguments)
        self.on_start(arguments["name"], answer["startDate"])
        return answer

    def started(self) -> list[str]:
        return [execution["name"] for execution in self._client.list_executions(stateMachineArn=MACHINE)["executions"]]


def create_machine(client: Any) -> None:
    """The environment's state machine, which on moto only keeps its executions."""
    definition = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
    client.create_state_machine(
        name="analytics-prod", definition=definition, roleArn="arn:aws:iam::123456789012:role/analytics-prod-states"
    )
