"""A bad release and the way back, by the commands that people call."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.support import FAULTS, Stack

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]

ENVIRONMENT = "busy"
FAST = {"steps": [{"name": "fast", "commands": ["run --select fast"]}]}


@pytest.fixture
def versions(stack: Stack, tmp_path: Path) -> Iterator[None]:
    """The releases good-2 and bad-3; afterwards the environment runs what it ran before."""
    for version, sql in (("good-2", "select 2 as id"), ("bad-3", "select no_such_column")):
        project = tmp_path / version
        shutil.copytree(FAULTS, project)
        (project / "models" / "fast.sql").write_text(sql)
        stack.cli("release", "publish", "--project", str(project), "--version", version)
    yield
    stack.cli("release", "promote", "--environment", ENVIRONMENT, "--version", "faults-1")


@pytest.mark.usefixtures("versions")
def test_a_bad_release_is_rolled_back_by_one_command(stack: Stack) -> None:
    def promote(version: str) -> None:
        stack.cli("release", "promote", "-e", ENVIRONMENT, "-V", version, "--reason", "release day")

    promote("good-2")
    _, before = stack.run(ENVIRONMENT, FAST)
    promote("bad-3")
    execution = stack.start(ENVIRONMENT, FAST)
    broken = stack.record(ENVIRONMENT, execution)
    back = json.loads(stack.cli("release", "rollback", "-e", ENVIRONMENT, "--reason", "fast is broken", "--json").stdout)
    _, after = stack.run(ENVIRONMENT, FAST)

    assert [(record["release"], record["status"], record.get("error")) for record in (before, broken, after)] == [
        ("good-2", "SUCCEEDED", None),
        ("bad-3", "FAILED", "Dbt.ModelError"),
        ("good-2", "SUCCEEDED", None),
    ]
    assert (back["version"], back["previous"], back["reason"]) == ("good-2", "bad-3", "fast is broken")
    moves = json.loads(stack.cli("release", "list", "--promotions", "-e", ENVIRONMENT, "--json").stdout)
    assert [move["version"] for move in moves[:3]] == ["good-2", "bad-3", "good-2"]
    assert {move["promoted_by"] for move in moves[:3]} == {back["promoted_by"]}

    difference = json.loads(stack.cli("release", "diff", "good-2", "bad-3", "--json").stdout)
    assert difference["changed"] == [{"unique_id": "model.shop.fast", "what": ["code"]}]
    assert (difference["added"], difference["removed"]) == ([], [])
    for arguments in (["--version", "good-2"], ["--run", after["run_id"], "-e", ENVIRONMENT]):
        assert "unaltered" in stack.cli("verify", *arguments).stdout
