"""What may stand for a run: every command that takes one takes the same words, and offers to resume only what can be resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import click
import pytest
from click.testing import CliRunner

from dbt_runner import cli, report, resumption, runs
from dbt_runner import config as configuration
from dbt_runner.cli import aws
from dbt_runner.cli.common import RunReference
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.report.failures import what_to_do
from dbt_runner.store import Store, archive_key
from runner.recorded_runs import ENVIRONMENT, MACHINE, LiveAlias, create_machine, record_outcome, record_run, step_result

OLDER, NEWEST = "hourly-20261121-aaaaaa", "hourly-20261122-bbbbbb"
DAYS = {OLDER: "2026-11-21", NEWEST: "2026-11-22"}
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


TREE = dict(commands(cli.cli))


def takes_run(parameter: click.Parameter) -> bool:
    """By its name. --run-id is the name that a new run gets."""
    named = re.fullmatch(r"run|.*_run", parameter.name or "") or parameter.make_metavar(click.Context(cli.cli)) == "RUN"
    return bool(named) and not (isinstance(parameter, click.Option) and parameter.is_flag)


CALLS = {
    path: (*path, parameter.opts[-1]) if isinstance(parameter, click.Option) else path
    for path, command in TREE.items()
    for parameter in command.params
    if isinstance(parameter.type, RunReference)
}
# Whatever else a command has to be told. `--run --archive` is a command of its own: it asks the bucket alone.
WAYS: dict[str, tuple[str, ...]] = {
    **{" ".join(path): arguments for path, arguments in CALLS.items()},
    "verify --archive": ("verify", "--archive", "--run"),
    "release verify --archive": ("release", "verify", "--archive", "--run"),
}
MORE = {"report": ("--output", "-"), "resume": ("--json",)}


def test_each_parameter_that_means_a_run_is_resolved_in_the_same_way() -> None:
    assert {("show",), ("status",), ("logs",), ("report",), ("resume",), ("verify",), ("release", "verify")} <= set(CALLS)
    for path, command in TREE.items():
        for parameter in command.params:
            assert isinstance(parameter.type, RunReference) == takes_run(parameter), (path, parameter.name)


@pytest.fixture
def left(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Store:
    """Two runs that failed, in the table and in the bucket."""
    stepfunctions = boto3.client("stepfunctions")
    create_machine(stepfunctions)
    clients = {"stepfunctions": LiveAlias(stepfunctions), "logs": Logs()}
    monkeypatch.setattr(aws, "client", lambda service: clients[service])
    monkeypatch.setattr(runs, "_PAUSES_BEFORE_UNKNOWN", (0.0, 0.0))
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", ENVIRONMENT)
    for run_id, day in DAYS.items():
        ending: dict[str, Any] = {"status": "FAILED", "error": "Dbt.ModelError", "ended_at": f"{day}T10:05:00.000Z"}
        record_run(store, run_id, f"{day}T10:00:00.000Z", results=[step_result("build", {"error": 1}, error="Dbt.ModelError")], **ending)
        record_outcome(store, run_id, 2, "build")
        row = {"run_id": run_id, "environment": ENVIRONMENT, "started_at": f"{day}T10:00:00.000Z", **ending}
        store.upload_new(json.dumps(row).encode(), archive_key("runs", ENVIRONMENT, day, run_id))
    return store


class Logs:
    """CloudWatch Logs that have a line of whatever run they are asked for."""

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, *, filterPattern: str, **_: Any) -> list[dict[str, Any]]:
        asked = re.search(r'"(hourly[^"]*)"', filterPattern)
        assert asked is not None
        line = {"run_id": asked[1], "message": f"of {asked[1]}"}
        return [{"events": [{"timestamp": 0, "eventId": asked[1], "message": json.dumps(line)}]}]


def said(way: str, *run: str) -> str:
    """Everything that a command says, less what is of the moment. Whether it went well is nothing here."""
    result = CliRunner().invoke(cli.cli, [*WAYS[way], *run, *MORE.get(way, ())])
    if result.exception is not None and not isinstance(result.exception, (SystemExit, TypedError)):
        raise result.exception
    text = f"{result.output}{result.exception or ''}"
    return re.sub(r"resume-\w+-\w+|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?", "", text)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_found_by_its_id_by_the_beginning_of_it_and_as_the_last(left: Store, way: str) -> None:
    for run_id, references in ((NEWEST, ("hourly-20261122", "last")), (OLDER, ("hourly-20261121-a",))):
        whole = said(way, run_id)
        assert run_id in whole
        for reference in references:
            assert said(way, reference) == whole, reference


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("reference", "message"), [("hourly", "several runs begin with hourly"), ("nightly", "has no run nightly")])
def test_what_means_no_run_or_several_is_refused_by_every_command(left: Store, way: str, reference: str, message: str) -> None:
    result = CliRunner().invoke(cli.cli, [*WAYS[way], reference, *MORE.get(way, ())])
    assert isinstance(result.exception, TypedError) and result.exception.kind is INVALID_REQUEST
    assert message in result.exception.message


@pytest.mark.parametrize("way", WAYS)
def test_an_environment_without_runs_has_no_last_one(left: Store, way: str) -> None:
    other = {**json.loads(left.get(f"ENV#{ENVIRONMENT}", "CONFIG")["config"]), "environment": "empty"}  # type: ignore[index]
    left.put({"pk": "ENV#empty", "sk": "CONFIG", "config": json.dumps(other)})
    result = CliRunner().invoke(cli.cli, [*WAYS[way], "last", *MORE.get(way, ()), "--environment", "empty"])
    assert isinstance(result.exception, TypedError) and "no runs yet" in result.exception.message


# --- what can be resumed ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(left: Store) -> runs.Run:
    return next(runs.list_runs(left, configuration.load(left, ENVIRONMENT)))


@pytest.fixture
def settings(left: Store) -> EnvironmentConfig:
    return configuration.load(left, ENVIRONMENT)


NOTHING: dict[str, Any] = {"steps": ()}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one that goes on": ({"ended_at": None}, "has not ended yet"),
    "one that has no record yet": ({"recorded": False}, "has not ended yet"),
    "one that succeeded": ({"status": "SUCCEEDED", "error": None}, "nothing left of it to do"),
    "one that was skipped": ({"status": "SKIPPED", "error": None}, "nothing left of it to do"),
    "one that was refused": ({"release": None}, "never came as far as its steps"),
    "one whose request was none": ({"plan": ()}, "never came as far as its steps"),
    "one of long ago": ({"ended_at": "2026-08-01T00:00:00.000Z"}, "more than 90 days ago"),
    "one that does not compile": ({**NOTHING, "error": "Dbt.CompilationError"}, "before anything of it ran"),
    "one with an invalid request": ({**NOTHING, "error": "Dbt.InvalidRequest"}, "before anything of it ran"),
    "one without credentials": ({**NOTHING, "error": "Dbt.AccessDenied"}, "before anything of it ran"),
    "one that selects nothing": ({**NOTHING, "error": "Dbt.NothingSelected"}, "before anything of it ran"),
    "one whose release is gone": ({**NOTHING, "error": "Dbt.ReleaseNotFound"}, "before anything of it ran"),
    "one whose release is damaged": ({**NOTHING, "error": "Dbt.ReleaseCorrupt"}, "before anything of it ran"),
    "the end of a long chain": ({"resumed_runs": 50}, "a chain of 50 runs"),
    "one of a pull request": ({"release": f"ci-{'0' * 32}"}, "was of a pull request"),
    "one with SQL of its caller": (
        {"job": None, "plan": (runs.PlannedStep("x", ("show --inline 'select 1'",), "fail"),)},
        "no longer takes",
    ),
}
TAKEN: dict[str, dict[str, Any]] = {
    "one whose model failed": {},
    "one that was interrupted before anything ran": {**NOTHING, "error": "Dbt.Interrupted", "status": "ABORTED"},
    "one whose warehouse was away": {**NOTHING, "error": "Dbt.WarehouseUnavailable"},
    "one whose second step does not compile": {"error": "Dbt.CompilationError"},
    "one that resumed another and found no credentials": {**NOTHING, "error": "Dbt.AccessDenied", "resumed_from": OLDER, "resumed_runs": 1},
}


def offered(run: runs.Run, settings: EnvironmentConfig) -> str:
    """The commands that a report advises."""
    found = report.find(report.Sources(runs.RunDetail(run, (), ()), settings))
    return "".join(str(part) for part in what_to_do(found))


@pytest.mark.parametrize(("changes", "says"), REFUSED.values(), ids=REFUSED)
def test_what_the_command_refuses_no_report_offers(
    left: Store, run: runs.Run, settings: EnvironmentConfig, changes: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(run, **changes)
    refusal = resumption.refusal(settings, other, NOW)
    assert refusal is not None and says in refusal and refusal.startswith(f"run {run.run_id}")
    assert resumption.refusal(settings, other, NOW, on_current=True) is not None
    assert "dbt-runner resume" not in offered(other, settings)
    monkeypatch.setattr(runs, "find_run", lambda *_: other)
    for more in ((), ("--release", "current")):
        result = CliRunner().invoke(cli.cli, ["resume", run.run_id, *more])
        assert isinstance(result.exception, TypedError) and says in result.exception.message


@pytest.mark.parametrize("changes", TAKEN.values(), ids=TAKEN)
def test_what_can_be_resumed_is_offered_and_taken(
    left: Store, run: runs.Run, settings: EnvironmentConfig, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(run, **changes)
    assert f"dbt-runner resume --environment prod {run.run_id}" in offered(other, settings)
    assert f"dbt-runner resume --environment prod {run.run_id} --release current" in offered(other, settings)
    monkeypatch.setattr(runs, "find_run", lambda *_: other)
    result = CliRunner().invoke(cli.cli, ["resume", run.run_id], catch_exceptions=False)
    assert result.exit_code == 0 and "Started run resume-" in result.output


def test_what_compares_with_a_release_is_offered_on_its_own_release_only(run: runs.Run, settings: EnvironmentConfig) -> None:
    other = replace(run, defer_to="1.4.0")
    assert resumption.refusal(settings, other, NOW) is None
    assert "--release current" not in offered(other, settings) and "dbt-runner resume" in offered(other, settings)


def test_ninety_days_are_those_of_step_functions(run: runs.Run, settings: EnvironmentConfig) -> None:
    assert run.ended_at is not None
    end = datetime.fromisoformat(run.ended_at)
    assert resumption.refusal(settings, run, end + timedelta(days=90)) is None
    assert resumption.refusal(settings, run, end + timedelta(days=90, seconds=1)) is not None


@pytest.mark.parametrize(
    ("version", "more", "says"),
    [
        ("1.4.3", (), "is on release 1.4.2, current is 1.4.3: this resumes it on 1.4.2; on 1.4.3 with --release current"),
        ("1.4.3", ("--release", "current"), "is on release 1.4.2, current is 1.4.3: this resumes it on 1.4.3"),
        ("1.4.2", (), None),
    ],
)
def test_a_resume_says_which_release_it_has(left: Store, version: str, more: tuple[str, ...], says: str | None) -> None:
    left.put({"pk": f"POINTER#{ENVIRONMENT}", "sk": "RELEASE#CURRENT", "version": version})
    result = CliRunner().invoke(cli.cli, ["resume", "last", *more, "--json"], catch_exceptions=False)
    assert json.loads(result.stdout)["resumed_from"] == NEWEST
    assert (f"Run {NEWEST} {says}\n" if says else "") == result.stderr
    started = aws.client("stepfunctions").list_executions(stateMachineArn=MACHINE)["executions"][0]["executionArn"]
    document = json.loads(aws.client("stepfunctions").describe_execution(executionArn=started)["input"])
    assert document == {"resume": NEWEST, "trigger": "cli", **({"release": "current"} if more else {})}


def test_a_resume_takes_no_release_but_the_current_one(left: Store) -> None:
    result = CliRunner().invoke(cli.cli, ["resume", "last", "--release", "1.4.3"])
    assert result.exit_code == 2 and "'current'" in result.output
