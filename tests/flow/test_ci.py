"""A pull request against the release that an environment runs, by the command that its CI calls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flow.support import FAULTS, Stack

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]

ENVIRONMENT = "busy"


@pytest.mark.slow
def test_a_pull_request_builds_what_it_changes_beside_what_is_there(stack: Stack, tmp_path: Path) -> None:
    stack.run(ENVIRONMENT, {"steps": [{"name": "fast", "commands": ["run --select fast"]}]})
    project = tmp_path / "pull_request"
    shutil.copytree(FAULTS, project)
    (project / "models" / "wrong.sql").write_text(
        "select 'known' as status, id, '{{ ref(\"fast\") }}' as built_from from {{ ref('fast') }}"
    )
    moves = stack.cli("release", "list", "--promotions", "-e", ENVIRONMENT, "--json").stdout

    files = ["--junit", str(tmp_path / "ci.xml"), "--summary", str(tmp_path / "ci.md")]
    arguments = ["ci", "-e", ENVIRONMENT, "--project", str(project), "--schema-suffix", "pr_7", "--reason", "pull request 7", "--json"]
    said = json.loads(stack.cli(*arguments, *files).stdout)

    # The model that changed and its test; not the parent, nor the models beside it.
    assert (said["passed"], said["run"]["status"], said["run"]["trigger"]) == (True, "SUCCEEDED", "ci")
    assert {(n["resource_type"], n["name"].split("_")[0], n["status"]) for n in said["nodes"]} == {
        ("model", "wrong", "success"),
        ("test", "accepted", "pass"),
    }
    assert (said["release"][:3], said["run"]["defer_to"], said["run"]["schema_suffix"]) == ("ci-", "faults-1", "pr_7")
    import duckdb

    with duckdb.connect(str(stack.home / f"{ENVIRONMENT}.duckdb")) as warehouse:
        assert warehouse.execute("select status, built_from from main_pr_7.wrong").fetchall() == [
            ("known", f'"{ENVIRONMENT}"."main"."fast"')
        ]
        schemas = "select table_name from information_schema.tables where table_schema = 'main_pr_7'"
        assert warehouse.execute(schemas).fetchall() == [("wrong",)]

    suite = ElementTree.parse(tmp_path / "ci.xml").getroot()
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("2", "0", "0")
    assert (tmp_path / "ci.md").read_text().startswith(f"### dbt: 2 nodes built beside {ENVIRONMENT}\n")
    assert stack.cli("release", "list", "--promotions", "-e", ENVIRONMENT, "--json").stdout == moves
