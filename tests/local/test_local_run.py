"""`local run` before its stack: what is asked for, and what the project would miss, is said before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dbt_runner import cli, stage
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST, TypedError
from dbt_runner.local import session
from dbt_runner.publisher import Publisher


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"dbt_project.yml": "name: shop\nvars: {known: 1, other: {nested: 2}}", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_run_has_the_options_that_the_command_was_given() -> None:
    assert session.run_input("hourly") == {"job": "hourly", "trigger": "local"}
    asked = session.run_input("build", vars={"day": "2026-11-22"}, full_refresh=True)
    assert asked == {"job": "build", "trigger": "local", "vars": {"day": "2026-11-22"}, "full_refresh": True}


def test_a_selection_goes_to_each_command_that_builds_or_tests() -> None:
    steps = session.run_input("hourly", select=("orders+", "tag:a b"))["steps"]
    assert [step["commands"][0] for step in steps] == [
        "seed --select orders+ 'tag:a b'",
        "source freshness --select orders+ 'tag:a b'",
        "build --exclude resource_type:seed --select orders+ 'tag:a b'",
        "docs generate --static",
    ]
    assert steps[1]["on_failure"] == "continue"


def test_what_the_project_misses_is_told_from_its_text(tmp_path: Path) -> None:
    source = project(
        tmp_path,
        {
            "models/a.sql": "{{ env_var('REGION') }}, {{ env_var( \"GIVEN\" ) }}, {{ env_var('WITH', 'default') }} {# env_var('NOT') #}",
            "models/b.yml": "x: \"{{ env_var('REGION') }} {{ var('day') }} {{ var('known') }} {{ var('nested') }} {{ my_var('x') }}\"",
            "macros/m.sql": "{{ var('day') }} {{ var('asked') }} {{ var('with', 1) }} {{ adapter.var('y') }}",
            "target/c.sql": "{{ env_var('GENERATED') }}",
        },
    )
    missing = session._missing(stage.read_project(source), Publisher.of({}, ["GIVEN=1"]), {"asked": 1})
    assert list(missing) == [
        "models/a.sql needs the environment variable REGION: pass --env REGION=VALUE",
        "macros/m.sql needs the variable day: pass --vars '{\"day\": VALUE}'",
    ]


def test_a_project_that_may_miss_something_is_parsed_before_the_stack_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def candidate(*arguments: Any) -> None:
        raise TypedError(COMPILATION_ERROR, "Env var required but not provided: 'REGION'")

    monkeypatch.setattr(session, "_candidate", candidate)
    monkeypatch.setattr(session, "LocalStack", lambda *_, **__: pytest.fail("the stack was started"))
    source = project(tmp_path, {"models/a.sql": "{{ env_var('REGION') }}"})
    said: list[str] = []
    with pytest.raises(TypedError, match="REGION"):
        session.run_project(source, session.run_input("build"), tmp_path / "home", say=said.append, watch=lambda details: next(details))
    assert said[0] == "warning: models/a.sql needs the environment variable REGION: pass --env REGION=VALUE"


def test_parse_run_and_stack_get_the_same_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        """The stack would start now."""

    seen: dict[str, Any] = {}

    def stack(home: Path, *, variables: dict[str, Any], **_: Any) -> None:
        seen["stack"] = variables["env_vars"]
        raise Enough

    def candidate(project: Path, folder: Path, say: object, vars: object, publisher: Publisher) -> None:
        seen.update(vars=vars, parse=dict(publisher.given))

    monkeypatch.setattr(session, "_candidate", candidate)
    monkeypatch.setattr(session, "LocalStack", stack)
    monkeypatch.setenv("REGION", "eu")
    source = project(tmp_path, {"models/a.sql": "{{ env_var('REGION') }} {{ var('day') }}"})
    arguments = ["local", "run", "--project", str(source), "--env", "REGION", "--env", "A=1=2", "--vars", json.dumps({"day": 1})]
    done = CliRunner().invoke(cli.cli, arguments)
    assert isinstance(done.exception, Enough)
    assert seen == {"stack": {"REGION": "eu", "A": "1=2"}, "parse": {"REGION": "eu", "A": "1=2"}, "vars": {"day": 1}}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--env", "AWS_PROFILE=x"], "a project never gets it"),
        (["--env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set in this environment"),
        (["--env", "DB_PASSWORD=hunter2-hunter2"], "DB_PASSWORD is named like a secret"),
        (["--vars", "[]"], "--vars: must be a JSON object"),
        (["--select", "a\nb"], "must not contain control characters"),
        (["--job", "weekly"], "has no job weekly"),
    ],
)
def test_what_can_be_refused_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str) -> None:
    monkeypatch.setattr(session, "_candidate", lambda *_: pytest.fail("the project was packed"))
    done = CliRunner().invoke(cli.cli, ["local", "run", "--project", str(project(tmp_path, {})), *arguments])
    said = done.stderr + (done.exception.message if isinstance(done.exception, TypedError) else "")
    assert says in said and "hunter2" not in said
    assert done.exit_code == INVALID_REQUEST.exit_code or isinstance(done.exception, TypedError)
