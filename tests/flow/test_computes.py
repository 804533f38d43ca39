"""The same image on Fargate and on Lambda: the same records, whichever runs a step, and a step that goes on from one to the other."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dbt_runner.store import Item
from flow.support import Stack
from processes import status_of

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]

# What differs from one run to the next, whatever runs it. The parse cache is that of an environment's first run, or not.
OF_THE_RUN = {"pk", "holder", "node_rows", "started_at", "ended_at", "seconds", "peak_memory_mib", "parse", "thread"}


def outcome_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """An outcome without its compute, and without what no two runs share."""
    kept = {key: value for key, value in item.items() if key not in OF_THE_RUN | {"compute"}}
    kept["commands"] = [{key: value for key, value in command.items() if key != "seconds"} for command in item.get("commands", [])]
    kept["artifacts"] = sorted(artifact["key"].rsplit("/", 1)[1] for artifact in item.get("artifacts", []))
    return kept


def told(stack: Stack, environment: str, execution: str, steps: set[str]) -> dict[str, Any]:
    """What a run left about some of its steps."""
    nodes = [node for node in stack.nodes(environment, execution).values() if node["step"] in steps]
    return {
        "outcomes": {o["step"]: outcome_of(o) for o in stack.outcomes(environment, execution) if o["step"] in steps},
        "nodes": {
            # A DuckDB database is named after its file, which is named after the environment.
            node["unique_id"]: json.loads(
                json.dumps({key: value for key, value in node.items() if key not in OF_THE_RUN}, default=str).replace(environment, "<env>")
            )
            for node in nodes
        },
    }


def computes(stack: Stack, environment: str, execution: str) -> dict[str, str]:
    return {outcome["step"]: outcome["compute"] for outcome in stack.outcomes(environment, execution)}


def steps_on(stack: Stack, **computes: str) -> list[dict[str, Any]]:
    """Steps of the sample project's main job, each on a compute."""
    steps = stack.config("queue").jobs["hourly"]["steps"]
    return [{**step, "compute": computes[step["name"]]} for step in steps if step["name"] in computes]


ON_LAMBDA = {"seed": "lambda", "freshness": "lambda", "build": "lambda", "docs": "lambda"}
MIXED = {"seed": "lambda", "freshness": "lambda", "build": "fargate"}


# MIXED has both.
@pytest.mark.parametrize("where", [pytest.param(ON_LAMBDA, id="lambda", marks=pytest.mark.slow), pytest.param(MIXED, id="mixed")])
def test_a_run_leaves_the_same_records_wherever_its_steps_run(
    stack: Stack, hourly: tuple[Mapping[str, Any], Item], where: dict[str, str]
) -> None:
    execution, record = stack.run("queue", {"steps": steps_on(stack, **where), "release": "shop-1"})
    assert execution["status"] == "SUCCEEDED", record.get("cause")
    assert computes(stack, "queue", execution["executionArn"]) == {"health_check": "lambda", **where}
    on_fargate = hourly[0]["executionArn"]
    assert set(computes(stack, "local", on_fargate).values()) == {"fargate"}
    steps = {"health_check", *where}
    assert told(stack, "queue", execution["executionArn"], steps) == told(stack, "local", on_fargate, steps)
    in_record = {s["step"]: (s["status"], s["attempts"], s["counts"]) for s in json.loads(hourly[1]["steps"]) if s["step"] in steps}
    assert {s["step"]: (s["status"], s["attempts"], s["counts"]) for s in json.loads(record["steps"])} == in_record
    assert (record["release_digest"], record["image"], record["versions"]) == tuple(
        hourly[1][key] for key in ("release_digest", "image", "versions")
    )


def test_a_step_that_outgrows_lambda_does_the_rest_on_fargate_and_runs_each_node_once(stack: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    step = {"name": "build", "commands": ["run --select fast slow_once"], "compute": "lambda", "on_timeout": "fargate"}
    execution = stack.start("queue", {"steps": [step], "vars": {"flag": str(flag)}})
    stack.wait_until_slow_runs("queue", execution)
    flag.touch()
    # The alarm that the attempt has set for itself, now instead of after most of 15 minutes. The worker is the handler's child.
    handler = parent_of(stack.worker_pid(execution, "build"))
    os.kill(handler, signal.SIGALRM)

    assert stack.execution_ended(execution)["status"] == "SUCCEEDED"
    record = stack.record("queue", execution)
    [_, build] = json.loads(record["steps"])
    assert (build["status"], build["attempts"], build["counts"]) == ("SUCCEEDED", 2, {"success": 2})
    first, second = [o for o in stack.outcomes("queue", execution) if o["step"] == "build"]
    assert (first["compute"], first["error"], second["compute"], second.get("error")) == ("lambda", "Dbt.Interrupted", "fargate", None)
    assert "the function's time is over" in first["message"]
    nodes = {unique_id.rsplit(".")[-1]: node["attempt"] for unique_id, node in stack.nodes("queue", execution).items()}
    assert nodes == {"fast": 1, "slow_once": 2}
    assert executions(stack, "queue", flag) == {"fast": 1, "slow_once": 1}
    # Stopping was the attempt's own work: nobody had to kill the sandbox.
    assert Path(f"/proc/{handler}").exists()


def executions(stack: Stack, environment: str, flag: Path) -> Counter[str]:
    """How often the models of a run were executed, as they wrote it into the warehouse themselves."""
    path = stack.config(environment).warehouse.settings["path"]
    with duckdb.connect(path, read_only=True) as connection:
        rows = connection.execute("select node from executions where flag = ?", [str(flag)]).fetchall()
    return Counter(node for (node,) in rows)


def parent_of(pid: int) -> int:
    status = status_of(pid)
    assert status is not None, f"process {pid} is gone"
    return status[1]
