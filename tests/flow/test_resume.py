"""The rest of a run that was aborted, in a new run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flow.support import Stack

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]


@pytest.mark.slow
def test_an_aborted_run_is_resumed_on_its_own_release(stack: Stack, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    execution = stack.start(
        "local", {"steps": [{"name": "build", "commands": ["run --select fast slow_once"]}], "vars": {"flag": str(flag)}}
    )
    run_id = execution.rsplit(":", 1)[1]
    refused = stack.cli("resume", run_id, check=False)
    assert (refused.returncode, "has not ended yet" in refused.stderr) == (30, True)
    stack.wait_until_slow_runs("local", execution)
    stack.abort(execution)
    assert stack.record("local", execution)["status"] == "ABORTED"

    flag.touch()
    stack.cli("release", "promote", "--environment", "local", "--version", "shop-1")
    try:
        resumed = json.loads(stack.cli("resume", run_id, "--reason", "ticket 7", "--wait", "--json").stdout)
    finally:
        stack.cli("release", "promote", "--environment", "local", "--version", "faults-1")
    assert (resumed["status"], resumed["release"], resumed["resumed_from"]) == ("SUCCEEDED", "faults-1", run_id)
    (ran,) = stack.nodes("local", resumed["execution"]).values()
    assert (ran["unique_id"], ran["status"]) == ("model.shop.slow_once", "success")
    (step,) = [step for step in resumed["steps"] if step["step"] == "build"]
    assert step["counts"] == {"success": 2}
    again = stack.cli("resume", resumed["run_id"], check=False)
    assert (again.returncode, "nothing left" in again.stderr) == (30, True)
