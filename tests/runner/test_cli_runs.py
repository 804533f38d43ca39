"""start, status, show and list, as people and scripts call them."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import jsonschema
import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli, runs, words
from dbt_runner import config as configuration
from dbt_runner.cli import aws, render
from dbt_runner.cli.progress import Progress, show_progress
from dbt_runner.cli.terminal import write
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.runs import NodeResultRow, Run, RunDetail, StepResult
from dbt_runner.store import Store, timestamp
from runner.recorded_runs import LiveAlias, create_machine, execution_arn, node_item, record_outcome, record_run, step_result

STARTED = "2026-11-22T10:00:00.000Z"
ENDED = "2026-11-22T10:02:05.000Z"
ESCAPE = "\x1b"

Call = Callable[..., Result]


@pytest.fixture
def stepfunctions(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> LiveAlias:
    client = boto3.client("stepfunctions")
    create_machine(client)
    alias = LiveAlias(client)
    monkeypatch.setattr(aws, "client", lambda service: {"stepfunctions": alias}[service])
    return alias


@pytest.fixture
def call(store: Store, stepfunctions: LiveAlias, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls dbt-runner on the tests' environment."""
    monkeypatch.setattr(runs, "_PAUSES_BEFORE_UNKNOWN", (0.0, 0.0))
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    monkeypatch.setenv("FORCE_COLOR", "1")  # not even this may colour what is no terminal
    return lambda *arguments: CliRunner().invoke(cli.cli, arguments)


@pytest.fixture(params=["UTC", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def printed(result: Result) -> str:
    """What a call printed that went well."""
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def refused(result: Result) -> str:
    """The message of a call that the caller got wrong."""
    assert isinstance(result.exception, TypedError)
    assert result.exception.kind is INVALID_REQUEST
    return result.exception.message


def failed_run(store: Store, run_id: str = "my-run") -> None:
    results = [
        step_result("health_check"),
        step_result("build", {"error": 1, "success": 1, "skipped": 1}, error="Dbt.ModelError", message="1 of 3 nodes failed"),
    ]
    record_run(
        store, run_id, STARTED, status="FAILED", ended_at=ENDED, error="Dbt.ModelError", cause="build: orders failed", reason="ticket 123",
        results=results,
    )  # fmt: skip
    record_outcome(store, run_id, 0, "health_check")
    record_outcome(
        store, run_id, 2, "build", exit_code=10, error="Dbt.ModelError", message="1 of 3 nodes failed", why="status 'error' of orders",
        artifacts=[{"key": f"runs/prod/2026/11/22/{run_id}/build/1/run_results.json", "sha256": "ab12" * 16, "bytes": 2048}],
    )  # fmt: skip
    message = "Database Error in model orders\n  column [id] does not exist\n  compiled code at target/orders.sql"
    store.put_many(
        [
            node_item(run_id, "build", "orders", "error", message=message, started_at="2026-11-22T10:00:07.000Z"),
            node_item(run_id, "build", "customers", started_at="2026-11-22T10:00:06.000Z"),
            node_item(run_id, "build", "daily_sales", "skipped", started_at="2026-11-22T10:00:08.000Z"),
        ]
    )


# --- JSON ------------------------------------------------------------------------------------------------------------

TEXT = {"type": "string"}
TEXT_OR_NULL = {"type": ["string", "null"]}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
TIME_OR_NULL = {"anyOf": [TIME, {"type": "null"}]}
NUMBER = {"type": "number"}
COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}


def record(**properties: Any) -> dict[str, Any]:
    """An object with exactly these keys."""
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


STEP = record(step=TEXT, status=TEXT, attempts={"type": "integer"}, error=TEXT_OR_NULL, message=TEXT_OR_NULL, counts=COUNTS, seconds=NUMBER)
RUN = record(
    run_id=TEXT,
    environment=TEXT,
    execution={"type": "string", "pattern": "^arn:"},
    status={"enum": ["STARTING", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "ABORTED", "TIMED_OUT"]},
    recorded={"type": "boolean"},
    started_at=TIME,
    ended_at=TIME_OR_NULL,
    seconds={"type": ["number", "null"]},
    error=TEXT_OR_NULL,
    cause=TEXT_OR_NULL,
    job=TEXT_OR_NULL,
    trigger=TEXT_OR_NULL,
    reason=TEXT_OR_NULL,
    release=TEXT_OR_NULL,
    vars={"type": "object"},
    full_refresh={"type": "boolean"},
    artifacts={"type": ["string", "null"], "pattern": "^s3://"},
    resumed_from=TEXT_OR_NULL,
    resumed_runs={"type": "integer"},
    defer_to=TEXT_OR_NULL,
    schema_suffix=TEXT_OR_NULL,
    release_digest=TEXT_OR_NULL,
    git_commit=TEXT_OR_NULL,
    image=TEXT_OR_NULL,
    versions={"type": "object"},
    plan=list_of(record(name=TEXT, commands=list_of(TEXT), on_failure={"enum": ["fail", "continue"]})),
    steps=list_of(STEP),
)
DETAIL = record(
    run=RUN,
    outcomes=list_of(
        record(
            position={"type": "integer"}, step=TEXT, attempt={"type": "integer"}, exit_code={"type": ["integer", "null"]},
            error=TEXT_OR_NULL, message=TEXT_OR_NULL, why=TEXT_OR_NULL, counts=COUNTS, failures=list_of({"type": "object"}),
            commands=list_of({"type": "object"}), artifacts=list_of(record(key=TEXT, sha256=TEXT, bytes={"type": "integer"})),
            started_at=TIME_OR_NULL, ended_at=TIME_OR_NULL, seconds=NUMBER, peak_memory_mib={"type": ["integer", "null"]},
            versions={"type": "object"}, compute=TEXT_OR_NULL, parse={"type": "object"}, release={"type": "object"}, image=TEXT_OR_NULL,
            unpublished=list_of(TEXT), left_out=list_of(TEXT), warnings=list_of({"type": "object"}),
            fault=TEXT_OR_NULL, state={"type": "object"},
        )
    ),
    nodes=list_of(
        record(
            unique_id=TEXT, step=TEXT, attempt={"type": "integer"}, command={"type": "integer"}, resource_type=TEXT, name=TEXT, status=TEXT,
            message=TEXT_OR_NULL, started_at=TIME_OR_NULL, ended_at=TIME_OR_NULL, seconds=NUMBER, thread=TEXT_OR_NULL,
            relation=TEXT_OR_NULL, rows={"type": ["integer", "null"]}, failures={"type": ["integer", "null"]},
            batches=list_of(record(starts_at=TEXT, ends_at=TEXT, status=TEXT, message=TEXT, seconds=NUMBER)),
            batches_total={"type": "integer"},
        )
    ),
)  # fmt: skip
ENVIRONMENT = record(
    environment=TEXT,
    release={
        "anyOf": [
            {"type": "null"},
            record(version=TEXT, previous=TEXT_OR_NULL, promoted_at=TIME_OR_NULL, promoted_by=TEXT_OR_NULL, reason=TEXT_OR_NULL),
        ]
    },
    lock={"anyOf": [{"type": "null"}, record(run_id=TEXT, owner=TEXT, since=TIME, lease_until=TIME)]},
    running={"anyOf": [{"type": "null"}, DETAIL]},
    last=list_of(RUN),
)


def checked(text: str, schema: dict[str, Any]) -> Any:
    document = json.loads(text)
    jsonschema.validate(document, schema)
    return document


def test_the_json_of_a_run_has_the_documented_keys(call: Call, store: Store, zone: str) -> None:
    failed_run(store)
    for command in ("show", "status"):
        document = checked(printed(call(command, "my-run", "--json")), DETAIL)
        assert document["run"]["started_at"] == STARTED
        assert [step["step"] for step in document["run"]["steps"]] == ["health_check", "build"]
        assert [node["name"] for node in document["nodes"]] == ["customers", "orders", "daily_sales"]


def test_the_json_of_a_list_is_a_list_of_runs(call: Call, store: Store) -> None:
    assert checked(printed(call("list", "--json")), list_of(RUN)) == []
    failed_run(store)
    [run] = checked(printed(call("list", "--json")), list_of(RUN))
    assert (run["error"], run["seconds"], run["vars"]) == ("Dbt.ModelError", 125.0, {"day": "2026-11-22"})


def test_the_json_of_an_environment_has_the_documented_keys(call: Call, store: Store) -> None:
    checked(printed(call("status", "--json")), ENVIRONMENT)
    running(store)
    document = checked(printed(call("status", "--json")), ENVIRONMENT)
    assert (document["lock"]["run_id"], document["running"]["run"]["run_id"], document["release"]["version"]) == ("now", "now", "1.4.2")


def test_the_json_of_a_start_is_the_run(call: Call, stepfunctions: LiveAlias) -> None:
    run = checked(printed(call("start", "--job", "hourly", "--json")), RUN)
    assert run["status"] == "STARTING"
    assert stepfunctions.started() == [run["run_id"]]


def test_with_failed_nodes_only_json_has_only_those(call: Call, store: Store) -> None:
    failed_run(store)
    document = checked(printed(call("show", "my-run", "--nodes", "failed", "--json")), DETAIL)
    assert [node["name"] for node in document["nodes"]] == ["orders"]


def test_batches_of_a_microbatch_model_are_shown_with_their_reasons(call: Call, store: Store) -> None:
    failed_run(store)
    days = [f"2026-11-{day:02d}T00:00:00.000Z" for day in range(1, 20)]
    bad = [
        {"starts_at": start, "ends_at": end, "status": "error", "seconds": 1, "message": "a bad \x1b[2Jday"}
        for start, end in itertools.pairwise(days[:12])
    ]
    done = [{"starts_at": days[17], "ends_at": days[18], "status": "success", "seconds": 2.5}]
    store.put(node_item("my-run", "build", "orders", "partial success", message="PARTIAL", batches=[*bad, *done], batches_total=12))
    shown = printed(call("show", "my-run"))
    assert "11 of 12 batches did not succeed; a resume runs them only" in shown
    assert shown.count("to 2026-11-") == 10 and "and 1 more" in shown and "\x1b" not in shown
    document = checked(printed(call("show", "my-run", "--json")), DETAIL)
    [node] = [node for node in document["nodes"] if node["name"] == "orders"]
    assert (len(node["batches"]), node["batches_total"]) == (12, 12)
    assert node["batches"][-1] == {**done[0], "message": ""}


# --- start -----------------------------------------------------------------------------------------------------------


def request_of(stepfunctions: LiveAlias, run_id: str) -> Any:
    return json.loads(stepfunctions.describe_execution(executionArn=execution_arn(run_id))["input"])


def test_start_asks_for_what_its_options_say(call: Call, stepfunctions: LiveAlias) -> None:
    printed(
        call(
            *("start", "--job", "hourly", "--release", "1.4.1", "--vars", '{"day": "2026-11-22"}', "--full-refresh"),
            *("--reason", "ticket 123", "--run-id", "my-run"),
        )
    )
    assert request_of(stepfunctions, "my-run") == {
        "job": "hourly",
        "release": "1.4.1",
        "vars": '{"day": "2026-11-22"}',
        "full_refresh": True,
        "reason": "ticket 123",
        "trigger": "cli",
    }


def test_steps_of_the_same_name_are_one_step_of_several_commands(call: Call, stepfunctions: LiveAlias) -> None:
    printed(call("start", "-s", "fix: seed", "-s", "check: test --vars-free", "-s", "fix: run --select a:b", "--run-id", "my-run"))
    assert request_of(stepfunctions, "my-run") == {
        "steps": [{"name": "fix", "commands": ["seed", "run --select a:b"]}, {"name": "check", "commands": ["test --vars-free"]}],
        "trigger": "cli",
    }


def test_start_says_how_the_run_can_be_followed(call: Call, stepfunctions: LiveAlias) -> None:
    output = printed(call("start", "--job", "hourly"))
    [run_id] = stepfunctions.started()
    assert output == (f"Started run {run_id} in environment prod.\nFollow it: dbt-runner status --environment prod --follow {run_id}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --job or --step"),
        (("--job", "hourly", "--step", "fix: run"), "either --job or --step"),
        (("--job", "nightly"), "it has: hourly"),
        (("--step", "run"), "give a name and a command"),
        (("--step", "fix:"), "give a name and a command"),
        (("--step", "Fix: run"), r"steps\[0\].name"),
        (("--step", "fix: rm -rf"), r"steps\[0\].commands\[0\]"),
        (("--job", "hourly", "--vars", "day=1"), "--vars: is not JSON"),
        (("--job", "hourly", "--vars", "[1]"), "vars"),
        (("--job", "hourly", "--release", "../x"), "release"),
        (("--job", "hourly", "--reason", "x" * 501), "reason"),
        (("--job", "hourly", "--run-id", "a b"), "run id 'a b'"),
    ],
)
def test_a_start_that_makes_no_sense_starts_nothing(call: Call, stepfunctions: LiveAlias, arguments: tuple[str, ...], message: str) -> None:
    assert re.search(message, refused(call("start", *arguments)))
    assert stepfunctions.started() == []


def ends_with(store: Store, **attributes: Any) -> Callable[[str, Any], None]:
    """Closes the record of a run as soon as it has been started."""

    def on_start(run_id: str, started: Any) -> None:
        record_run(store, run_id, timestamp(started), ended_at=timestamp(started), results=[], **attributes)

    return on_start


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("status", "error", "exit_code"),
    [
        ("SUCCEEDED", None, 0),
        ("SKIPPED", None, 0),
        ("FAILED", "Dbt.TestFailure", 11),
        ("FAILED", "Dbt.SomethingNewer", 1),
        ("TIMED_OUT", "Dbt.Timeout", 42),
        ("ABORTED", "Dbt.Interrupted", 40),
    ],
)
def test_waiting_ends_with_the_exit_code_of_the_runs_error(
    call: Call, store: Store, stepfunctions: LiveAlias, status: str, error: str | None, exit_code: int, as_json: bool
) -> None:
    stepfunctions.on_start = ends_with(store, status=status, error=error, cause=None if status == "SUCCEEDED" else "because of this")
    result = call("start", "--job", "hourly", "--wait", *(["--json"] if as_json else []))
    assert result.exit_code == exit_code
    if as_json:
        assert checked(result.stdout, RUN)["status"] == status
    else:
        assert status in result.stdout
        assert ("because of this" in result.stdout) == (status != "SUCCEEDED")


def test_who_stops_waiting_hears_that_the_run_goes_on(call: Call, stepfunctions: LiveAlias, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[RunDetail]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(runs, "follow", interrupted)
    result = call("start", "--job", "hourly", "--run-id", "my-run", "--wait")
    assert result.exit_code == 130
    assert "my-run goes on" in result.stderr
    assert "--follow my-run" in result.stderr


# --- status ----------------------------------------------------------------------------------------------------------


def running(store: Store) -> None:
    """A run that is at its second step, with its lock and a release."""
    record_run(store, "now", STARTED)
    record_outcome(store, "now", 1, "freshness")
    store.put(node_item("now", "build", "stg_orders"))
    store.put({"pk": "ENV#prod", "sk": "LOCK", "owner": execution_arn("now"), "run_id": "now", "since": STARTED, "lease_until": 1795364100})
    store.put({"pk": "POINTER#prod", "sk": "RELEASE#CURRENT", "version": "1.4.2", "promoted_at": STARTED, "promoted_by": "the pipeline"})


def test_status_shows_an_environment_at_a_glance(call: Call, store: Store) -> None:
    running(store)
    for number in range(7):
        record_run(store, f"old-{number}", f"2026-11-21T0{number}:00:00.000Z", status="SUCCEEDED", ended_at=STARTED, results=[])
    output = printed(call("status"))
    assert re.search(r"Release +1\.4\.2 since 2026-11-22 .*by the pipeline", output)
    assert re.search(r"Lock +held by run now since 2026-11-22", output)
    assert re.search(r"Running +now +RUNNING for ", output)
    assert re.search(r"build +RUNNING +1 +1 success", output)
    assert re.findall(r"old-\d", output) == ["old-6", "old-5", "old-4", "old-3"]


def test_status_of_a_new_environment_says_what_it_lacks(call: Call) -> None:
    output = printed(call("status"))
    assert re.search(r"Release +none: dbt-runner release promote", output)
    assert re.search(r"Lock +free", output)
    assert re.search(r"Running +nothing", output)
    assert "no runs" in output


def test_status_shows_how_far_a_run_is(call: Call, store: Store) -> None:
    running(store)
    output = printed(call("status", "now"))
    assert re.search(r"freshness +SUCCEEDED", output)
    assert re.search(r"docs +PENDING", output)
    assert re.search(r"Last nodes\n.*\n.*stg_orders +success", output)


def test_status_shows_a_run_that_has_no_record_yet(call: Call) -> None:
    printed(call("start", "--job", "hourly", "--run-id", "my-run"))
    assert re.search(r"Status +STARTING", printed(call("status", "my-run")))


@pytest.mark.parametrize("command", ["status", "show"])
def test_a_run_that_does_not_exist_is_said_so(call: Call, command: str) -> None:
    assert "has no run nowhere" in refused(call(command, "nowhere"))


def test_following_a_run_that_ended_prints_how_it_ended(call: Call, store: Store) -> None:
    failed_run(store)
    lines = [line.partition("  ")[2] for line in printed(call("status", "my-run", "--follow")).splitlines()]
    assert lines == [
        "node orders error: Database Error in model orders column [id] does not exist compiled code at target/orders.sql",
        "step health_check SUCCEEDED after 12s",
        "step build FAILED after 12s: 1 error, 1 skipped, 1 success: Dbt.ModelError",
        "run my-run FAILED after 2m 05s: Dbt.ModelError: build: orders failed",
    ]


def test_following_without_a_run_follows_the_one_that_is_running(call: Call, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    running(store)
    followed: list[str] = []
    original = runs.follow

    def until_now(store: Store, stepfunctions: Any, config: Any, run: Run, **_: Any) -> Iterator[RunDetail]:
        followed.append(run.run_id)
        record_run(store, "now", STARTED, status="SUCCEEDED", ended_at=ENDED, results=[])
        return original(store, stepfunctions, config, run)

    monkeypatch.setattr(runs, "follow", until_now)
    assert "run now SUCCEEDED" in printed(call("status", "--follow"))
    assert followed == ["now"]


# --- progress --------------------------------------------------------------------------------------------------------


def node(name: str, status: str = "success") -> NodeResultRow:
    fields = dict.fromkeys((field.name for field in dataclasses.fields(NodeResultRow)), None)
    values: dict[str, Any] = {**fields, "unique_id": f"model.shop.{name}", "name": name, "step": "build", "status": status}
    return NodeResultRow(**{**values, "attempt": 1, "command": 0, "resource_type": "model", "message": f"about {name}", "seconds": 1.0})


def build(status: str, count: int = 0, error: str | None = None, attempts: int = 1) -> StepResult:
    return StepResult("build", status, attempts, error, None, {"success": count} if count else {}, 3.0)


def moment(status: str, *steps: StepResult, nodes: tuple[NodeResultRow, ...] = (), **attributes: Any) -> RunDetail:
    run = Run("my-run", "prod", execution_arn("my-run"), status, True, STARTED, steps=steps, **attributes)
    return RunDetail(run, (), nodes)


def test_progress_has_one_line_for_each_change() -> None:
    progress = Progress(clock=lambda: "10:00:00")
    moments = [
        moment("STARTING"),
        moment("STARTING"),
        moment("RUNNING", build("PENDING"), release="1.4.2"),
        moment("RUNNING", build("RUNNING")),
        moment("RUNNING", build("RUNNING", 10)),
        moment("RUNNING", build("FAILED", 12, "Dbt.Interrupted")),
        moment("RUNNING", build("RUNNING", 12, attempts=2)),
        moment("RUNNING", build("SUCCEEDED", 20, attempts=2)),
        moment("SUCCEEDED", build("SUCCEEDED", 20, attempts=2), ended_at=ENDED, seconds=125.0),
    ]
    assert [line for each in moments for line in progress.lines(each)] == [
        "10:00:00  run my-run STARTING",
        "10:00:00  run my-run RUNNING, release 1.4.2",
        "10:00:00  step build RUNNING",
        "10:00:00  step build FAILED after 3.0s: 12 success: Dbt.Interrupted",
        "10:00:00  step build RUNNING (attempt 2)",
        "10:00:00  step build SUCCEEDED (attempt 2) after 3.0s: 20 success",
        "10:00:00  run my-run SUCCEEDED after 2m 05s",
    ]


def test_progress_counts_nodes_by_fifties() -> None:
    progress = Progress(clock=lambda: "")
    lines = [line.strip() for count in range(1, 161) for line in progress.lines(moment("RUNNING", build("RUNNING", count)))]
    assert lines[2:] == [f"step build {count} nodes: {count} success" for count in (50, 100, 150)]


def test_progress_names_the_first_failed_nodes_once_and_says_that_there_are_more() -> None:
    progress = Progress(clock=lambda: "")
    nodes = tuple(node(f"m{number:02d}", "error") for number in range(25))
    lines = [line.strip() for known in (4, 4, 25, 25) for line in progress.lines(moment("RUNNING", nodes=nodes[:known]))]
    assert lines == [
        "run my-run RUNNING",
        *(f"node m{n:02d} error: about m{n:02d}" for n in range(10)),
        "more nodes failed; dbt-runner show lists them all",
    ]


# --- show and list ---------------------------------------------------------------------------------------------------


def test_show_has_the_whole_record(call: Call, store: Store) -> None:
    failed_run(store)
    output = printed(call("show", "my-run"))
    for pattern in (
        r"Status +FAILED",
        r"Error +Dbt\.ModelError \(who acts: the model's owner\)",
        r"Cause +build: orders failed",
        r"Job +hourly",
        r"Release +1\.4\.2",
        r"Trigger +schedule",
        r"Reason +ticket 123",
        r"Duration +2m 05s",
        r"Artifacts +s3://analytics-audit-123456789012-eu-central-1/runs/prod/2026/11/22/my-run/",
        r"Not run +freshness, docs",
        r"health_check +SUCCEEDED +1",
        r"build +FAILED +1 +1 error, 1 skipped, 1 success +12s +Dbt\.ModelError",
        r"build +model +customers +success +1\.0s\n.* orders +error .*\n.* daily_sales +skipped",
        r"step build, attempt 1: Dbt\.ModelError\n  1 of 3 nodes failed\n  status 'error' of orders\n",
        r"model\.shop\.orders: error .*\n  Database Error in model orders\n    column \[id\] does not exist\n    compiled code",
        r"build/1/run_results\.json +2\.0 KiB +ab12ab12ab12\n",
    ):
        assert re.search(pattern, output), pattern


def test_show_without_a_run_shows_the_last_one(call: Call, store: Store) -> None:
    record_run(store, "older", "2026-11-21T10:00:00.000Z")
    failed_run(store)
    assert printed(call("show")) == printed(call("show", "my-run"))


def test_show_lists_only_failed_nodes_when_asked_to(call: Call, store: Store) -> None:
    failed_run(store)
    output = printed(call("show", "my-run", "--nodes", "failed"))
    assert "orders" in output
    assert "customers" not in output


def test_show_names_failures_of_which_only_the_outcome_knows(call: Call, store: Store) -> None:
    record_run(store, "my-run", STARTED, status="FAILED", ended_at=ENDED, error="Dbt.TestFailure", results=[])
    lost = {"unique_id": "test.shop.lost", "status": "fail", "message": "Got 3 results"}
    record_outcome(store, "my-run", 2, "build", error="Dbt.TestFailure", failures=[lost])
    assert re.search(r"test\.shop\.lost: fail .*\n  Got 3 results", printed(call("show", "my-run")))


def test_list_shows_the_newest_runs_first_and_no_more_than_asked_for(call: Call, store: Store) -> None:
    for hour in range(1, 4):
        started_at = f"2026-11-22T0{hour}:00:00.000Z"
        results = [step_result("a", {"success": 1200}), step_result("b", {"fail": 34})]
        record_run(store, f"run-{hour}", started_at, status="FAILED", error="Dbt.TestFailure", ended_at=started_at, results=results)
    header, *rows = printed(call("list", "--limit", "2")).splitlines()
    assert header.split() == ["started", "run", "job", "status", "error", "release", "nodes", "duration"]
    assert [row.split()[2:] for row in rows] == [
        [f"run-{hour}", "hourly", "FAILED", "TestFailure", "1.4.2", "1,234", "0.0s"] for hour in (3, 2)
    ]


def test_list_filters(call: Call, store: Store, zone: str) -> None:
    record_run(store, "early", "2026-11-21T14:59:00.000Z", status="FAILED", job="nightly")
    record_run(store, "late", "2026-11-21T15:00:00.000Z", status="SUCCEEDED")
    early, late = "early" in (tokyo := printed(call("list", "--since", "2026-11-22"))), "late" in tokyo
    assert (early, late) == ((False, True) if zone == "Asia/Tokyo" else (False, False))
    assert "early" not in printed(call("list", "--since", "2026-11-21T15:00:00+0000"))
    assert "late" not in printed(call("list", "--status", "failed"))
    assert "late" not in printed(call("list", "--job", "nightly"))


def test_people_read_local_times(call: Call, store: Store, zone: str) -> None:
    failed_run(store)
    expected = {"UTC": "2026-11-22 10:00:00 UTC", "Asia/Tokyo": "2026-11-22 19:00:00 JST"}[zone]
    assert f"Started      {expected}" in printed(call("show", "my-run"))


# --- terminals and other places --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    def of_width(width: int) -> Terminal:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return Terminal()

    return of_width


def plain_lines(terminal: Terminal) -> list[str]:
    return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in terminal.getvalue().splitlines()]


@pytest.mark.parametrize("arguments", [("list",), ("status",), ("status", "my-run"), ("status", "my-run", "--follow"), ("show", "my-run")])
def test_what_is_no_terminal_gets_no_escape_sequences_and_no_trailing_spaces(call: Call, store: Store, arguments: tuple[str, ...]) -> None:
    failed_run(store)
    output = printed(call(*arguments))
    assert ESCAPE not in output
    assert [line for line in output.splitlines() if line != line.rstrip()] == []


def test_what_is_no_terminal_gets_names_whole_whatever_its_width(call: Call, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    record_run(store, "r" * 80, STARTED)
    store.put(node_item("r" * 80, "build", "n" * 300))
    assert re.search(rf"^2026-11-22 \S+ +{'r' * 80} +hourly +RUNNING", printed(call("list")), re.MULTILINE)
    assert re.search(rf"^build +model +{'n' * 300} +success", printed(call("show", "r" * 80)), re.MULTILINE)


def sample(store: Store) -> tuple[RunDetail, list[Run]]:
    config = configuration.load(store, "prod")
    listed = list(runs.list_runs(store, config))
    return runs.detail_of(store, listed[0]), listed


def test_a_terminal_of_100_columns_is_enough(store: Store, environment: dict[str, Any], terminal: Callable[[int], Terminal]) -> None:
    failed_run(store, "hourly-20261122T100000-a1b2c3")
    store.put(node_item("hourly-20261122T100000-a1b2c3", "build", "accepted_values_orders_status__" + "x" * 200, "fail", message="y" * 500))
    record_run(store, "hourly-20261122T090000-d4e5f6", "2026-11-22T09:00:00.000Z", status="FAILED", error="Dbt.WarehouseUnavailable")
    detail, listed = sample(store)
    screen = terminal(100)
    write(render.run_list(listed), render.run_record(detail), render.run_status(detail), stream=screen)
    assert max(len(line) for line in plain_lines(screen)) <= 100
    assert any("hourly-20261122T090000-d4e5f6 hourly FAILED" in line for line in plain_lines(screen))
    assert f"{ESCAPE}[31mFAILED" in screen.getvalue()


def test_a_wide_terminal_shows_ids_and_names_whole(store: Store, environment: dict[str, Any], terminal: Callable[[int], Terminal]) -> None:
    run_id, name = "r" * 80, "n" * 120
    record_run(store, run_id, STARTED, error="Dbt.WarehouseUnavailable", status="FAILED", ended_at=ENDED, results=[])
    store.put(node_item(run_id, "build", name, "error", message="y" * 500))
    detail, listed = sample(store)
    screen = terminal(200)
    write(render.run_list(listed), render.run_record(detail), stream=screen)
    assert any(run_id in line and "FAILED" in line for line in plain_lines(screen))
    assert any(name in line and "error" in line for line in plain_lines(screen))


def test_a_narrow_terminal_folds_ids_instead_of_cutting_them(
    store: Store, environment: dict[str, Any], terminal: Callable[[int], Terminal]
) -> None:
    run_id = "".join(f"{number:02d}" for number in range(40))
    record_run(store, run_id, STARTED)
    screen = terminal(60)
    write(render.run_list(sample(store)[1]), stream=screen)
    _, *rows = plain_lines(screen)
    start = rows[0].index("00010203")
    column = "".join(re.match(r"[0-9]*", row[start:]).group() for row in rows)  # type: ignore[union-attr]
    assert column == run_id


def test_progress_on_a_terminal_is_live_and_leaves_nothing(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(100)
    last = moment("SUCCEEDED", ended_at=ENDED, seconds=125.0)
    assert show_progress(iter([moment("RUNNING", build("RUNNING", 3)), last]), stream=screen) is last
    assert "3 success" in screen.getvalue()
    assert "\x1b[2K" in screen.getvalue()  # what was shown is erased


def test_escape_sequences_in_a_warehouses_message_do_not_reach_the_screen(call: Call, store: Store) -> None:
    record_run(
        store, "my-run", STARTED, status="FAILED", ended_at=ENDED, cause="\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J [b]not markup[/b]"
    )
    assert re.search(r"Cause +red \[b\]not markup\[/b\]\n", printed(call("show", "my-run")))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""), (0, "0.0s"), (0.0002, "0.0s"), (0.034, "34ms"), (0.096, "0.1s"), (0.44, "0.4s"),
        (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m 00s"), (125, "2m 05s"),
        (3599.7, "1h 00m"), (3780, "1h 03m"), (86399.9, "1d 00h"), (180000, "2d 02h"),
    ],
)  # fmt: skip
def test_durations_are_as_people_say_them(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (18 * 1024**2, "18.0 MiB")])
def test_sizes_are_as_people_say_them(count: int, text: str) -> None:
    assert words.size(count) == text


# --- the command line itself -----------------------------------------------------------------------------------------


def test_a_typed_error_is_one_line_and_an_exit_code(
    call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dbt-runner", "show", "nowhere"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 30
    assert capsys.readouterr().err == (
        "dbt-runner: Dbt.InvalidRequest: environment prod has no run nowhere: dbt-runner list shows the runs it has\n"
    )


@pytest.mark.parametrize("command", ["start", "status", "show", "list"])
def test_the_environment_must_be_named(command: str) -> None:
    result = CliRunner().invoke(cli.cli, [command])
    assert result.exit_code == 2
    assert "'--environment' / '-e'" in result.stderr


@pytest.mark.parametrize("module", ["dbt_runner.cli", "dbt_runner.cli.runs"])
def test_the_command_line_imports_nothing_heavy_before_it_is_needed(module: str) -> None:
    code = f"import {module}, sys; print(*sorted({{'boto3', 'botocore', 'rich', 'dbt', 'jsonschema'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
