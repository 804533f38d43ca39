"""People's commands against a stack that runs in another process: start, status, show, list, releases, and local's own errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flow.support import FAULTS, SHOP, Stack

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]


def test_start_waits_and_ends_with_the_exit_code_of_the_error(stack: Stack) -> None:
    done = stack.cli("start", "--step", "fix: run --select broken", "--reason", "ticket 123", "--wait", check=False)
    assert done.returncode == 10, done.stderr
    assert "Dbt.ModelError" in done.stdout

    shown = json.loads(stack.cli("show", "last", "--json").stdout)
    assert (shown["run"]["status"], shown["run"]["error"], shown["run"]["reason"]) == ("FAILED", "Dbt.ModelError", "ticket 123")
    listed = json.loads(stack.cli("list", "--json", "--limit", "1").stdout)
    assert [run["run_id"] for run in listed] == [shown["run"]["run_id"]]
    assert "model" in stack.cli("show", shown["run"]["run_id"]).stdout
    status = json.loads(stack.cli("status", "--json").stdout)
    assert (status["lock"], status["release"]["version"]) == (None, "faults-1")


def test_start_refuses_an_unknown_job_and_starts_nothing(stack: Stack) -> None:
    before = stack.cli("list", "--json").stdout
    done = stack.cli("start", "--job", "weekly", check=False)
    assert done.returncode == 30
    assert "weekly" in done.stderr and "hourly" in done.stderr
    assert stack.cli("list", "--json").stdout == before


def test_a_version_is_published_once(stack: Stack) -> None:
    again = stack.cli("release", "publish", "--project", str(SHOP), "--version", "shop-1", "--json")
    assert json.loads(again.stdout)["new"] is False
    other = stack.cli("release", "publish", "--project", str(FAULTS), "--version", "shop-1", check=False)
    assert other.returncode == 30
    assert "shop-1" in other.stderr


def _local(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DBT_TEST_MARK": str(cwd)}
    return subprocess.run(
        [sys.executable, "-m", "dbt_runner", "local", "run", *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _left_running(mark: Path) -> list[str]:
    """Processes that inherited a variable of ours and live on."""
    wanted = f"DBT_TEST_MARK={mark}".encode()
    left = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in entry.read_bytes().split(b"\0"):
                left.append(entry.parent.name)
        except OSError:
            continue
    return left


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to look for processes that are left running")
def test_local_run_of_something_that_is_no_project_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    project = tmp_path / "bad"
    project.mkdir()
    (project / "dbt_project.yml").write_text("name: bad\nversion: '1.0'\nprofile: x\n")
    (project / "models").mkdir()
    (project / "models" / "m.sql").write_text("select * from {{ ref('nobody') }}")

    for arguments, code, words in (
        (["--project", str(tmp_path / "empty")], 30, "dbt_project.yml"),
        (["--project", str(project)], 12, "nobody"),
    ):
        done = _local(*arguments, cwd=tmp_path)
        assert done.returncode == code, done.stdout + done.stderr
        assert "local: FAILED: Dbt." in done.stderr and words in done.stderr
    assert _left_running(tmp_path) == []
