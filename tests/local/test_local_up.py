"""The lines that `dbt-runner local up` prints for another terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.local import session


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    """`local up` with such a file, on a stack that is up at once."""

    def serve(home: Path, variables: Any, *, say: Any, ready: Callable[[Any], None]) -> None:
        ready(SimpleNamespace(environ={"DBT_RUNNER_TABLE": "dbt-audit"}))

    monkeypatch.setattr(session, "serve", serve)

    def call(content: str) -> Result:
        (tmp_path / "environments.json").write_text(content)
        return CliRunner().invoke(cli.cli, ["local", "up", "--environments", str(tmp_path / "environments.json")])

    return call


@pytest.mark.parametrize(
    ("names", "first", "others"),
    [(["prod"], "prod", []), (["prod", "ci"], "prod", ["ci"]), (["prod", "local", "ci"], "local", ["prod", "ci"])],
)
def test_the_environment_is_one_that_the_file_has(up: Callable[[str], Result], names: list[str], first: str, others: list[str]) -> None:
    lines = up(json.dumps({name: {} for name in names})).stdout.splitlines()
    assert f"export DBT_RUNNER_ENVIRONMENT={first}" in lines
    assert [line for line in lines if line.startswith("#")] == ([f"# or one of: {', '.join(others)}"] if others else [])


@pytest.mark.parametrize("content", ["", "[]", "{}", "7", '{"a b; rm -rf /": {}}', '{"$(id)": {}}', '{"a\\nb": {}}'])
def test_a_file_without_environments_is_refused_before_anything_starts(up: Callable[[str], Result], content: str) -> None:
    result = up(content)
    assert isinstance(result.exception, TypedError) and result.exception.kind is INVALID_REQUEST
    assert "environments.json" in result.exception.message
    assert "export" not in result.stdout
