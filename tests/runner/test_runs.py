"""Starting runs and reading what is known of them."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dbt_runner import config as configuration
from dbt_runner import executions, runs
from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.store import Item, Store, timestamp
from runner.recorded_runs import (
    MACHINE,
    LiveAlias,
    create_machine,
    execution_arn,
    node_item,
    record_outcome,
    record_run,
    step_result,
)

NOON = "2026-11-22T12:00:00.000Z"
NOW = datetime(2026, 11, 22, 12, 1, tzinfo=UTC)


@pytest.fixture
def config(store: Store, environment: dict[str, Any]) -> EnvironmentConfig:
    return configuration.load(store, "prod")


@pytest.fixture
def stepfunctions(store: Store) -> Any:
    client = boto3.client("stepfunctions")
    create_machine(client)
    return LiveAlias(client)


class Refusing:
    """A Step Functions client whose every look at an execution fails with this code."""

    def __init__(self, client: Any, code: str) -> None:
        self.exceptions = client.exceptions
        self._code = code

    def describe_execution(self, **_: Any) -> Any:
        raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "DescribeExecution")


# --- starting --------------------------------------------------------------------------------------------------------


def test_a_start_hands_the_request_to_the_live_state_machine(stepfunctions: Any, config: EnvironmentConfig) -> None:
    run = runs.start_run(stepfunctions, config, {"job": "hourly", "reason": "ticket 123", "trigger": "cli"}, "my-run")
    execution = stepfunctions.describe_execution(executionArn=run.execution)
    assert json.loads(execution["input"]) == {"job": "hourly", "reason": "ticket 123", "trigger": "cli"}
    assert (run.run_id, run.status, run.recorded, run.job, run.reason) == ("my-run", "STARTING", False, "hourly", "ticket 123")
    assert run.execution == execution_arn("my-run")


@pytest.mark.parametrize(
    ("document", "stem"),
    [({"job": "hourly"}, "hourly"), ({"steps": [{"name": "fix", "commands": ["run"]}, {"name": "z", "commands": ["run"]}]}, "fix")],
)
def test_a_made_up_run_id_says_what_runs_and_when(stepfunctions: Any, config: EnvironmentConfig, document: Any, stem: str) -> None:
    ids = [runs.start_run(stepfunctions, config, document, now=NOW).run_id for _ in range(2)]
    assert all(re.fullmatch(rf"{stem}-20261122T120100-[0-9a-f]{{6}}", run_id) for run_id in ids)
    assert ids[0] != ids[1]


def test_the_longest_step_name_makes_a_run_id_that_aws_takes(stepfunctions: Any, config: EnvironmentConfig) -> None:
    run = runs.start_run(stepfunctions, config, {"steps": [{"name": "a" * 40, "commands": ["run"]}]})
    assert len(run.run_id) <= 80
    assert stepfunctions.started() == [run.run_id]


def test_an_unknown_job_starts_nothing_and_names_the_known_ones(stepfunctions: Any, config: EnvironmentConfig) -> None:
    with pytest.raises(TypedError, match="has no job nightly; it has: hourly") as caught:
        runs.start_run(stepfunctions, config, {"job": "nightly"})
    assert caught.value.kind is INVALID_REQUEST
    assert stepfunctions.started() == []


def test_a_command_that_the_runner_refuses_starts_nothing(stepfunctions: Any, config: EnvironmentConfig) -> None:
    with pytest.raises(TypedError, match=r"steps\[0\]\.commands\[0\].*--target"):
        runs.start_run(stepfunctions, config, {"steps": [{"name": "fix", "commands": ["run --target dev"]}]})
    assert stepfunctions.started() == []


@pytest.mark.parametrize("run_id", ["", "last", "with space", "slash/ed", "-dash-first", "é", "dots.are.not.logged", "x" * 81])
def test_an_unusable_run_id_starts_nothing(stepfunctions: Any, config: EnvironmentConfig, run_id: str) -> None:
    with pytest.raises(TypedError, match="use 1 to 80 letters"):
        runs.start_run(stepfunctions, config, {"job": "hourly"}, run_id)
    assert stepfunctions.started() == []


def test_the_same_request_under_the_id_of_an_open_run_is_that_run(stepfunctions: Any, config: EnvironmentConfig) -> None:
    first = runs.start_run(stepfunctions, config, {"job": "hourly", "vars": {"a": 1, "b": 2}}, "my-run")
    again = runs.start_run(stepfunctions, config, {"vars": {"b": 2, "a": 1}, "job": "hourly"}, "my-run")
    assert again == first
    assert stepfunctions.started() == ["my-run"]


def test_another_request_under_the_id_of_an_open_run_is_refused(stepfunctions: Any, config: EnvironmentConfig) -> None:
    runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    with pytest.raises(TypedError, match="my-run is running with another request") as caught:
        runs.start_run(stepfunctions, config, {"job": "hourly", "full_refresh": True}, "my-run")
    assert caught.value.kind is INVALID_REQUEST


def test_the_id_of_a_run_that_has_ended_is_refused(stepfunctions: Any, config: EnvironmentConfig) -> None:
    run = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    stepfunctions.stop_execution(executionArn=run.execution)
    with pytest.raises(TypedError, match=r"my-run is the id of a run that has ended \(ABORTED\)"):
        runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")


@pytest.mark.parametrize("qualifier", ["", ":live", ":7"])
def test_the_execution_arn_does_not_name_the_alias(config: EnvironmentConfig, qualifier: str) -> None:
    assert executions.execution_arn(dataclasses.replace(config, state_machine=MACHINE + qualifier), "my-run") == execution_arn("my-run")


# --- listing and finding ---------------------------------------------------------------------------------------------


def hours(store: Store, count: int) -> None:
    """Runs hourly-00 to hourly-<count>, one an hour; every third failed, every fourth is of the job nightly."""
    for hour in range(count):
        started_at = f"2026-11-22T{hour:02d}:00:00.000Z"
        status = "FAILED" if hour % 3 == 0 else "SUCCEEDED"
        job = "nightly" if hour % 4 == 0 else "hourly"
        record_run(store, f"{job}-{hour:02d}", started_at, status=status, job=job, ended_at=started_at, results=[])


def test_runs_are_listed_newest_first(store: Store, config: EnvironmentConfig) -> None:
    hours(store, 5)
    assert [run.run_id for run in runs.list_runs(store, config)] == ["nightly-04", "hourly-03", "hourly-02", "hourly-01", "nightly-00"]


def test_runs_are_filtered_by_status_job_and_start(store: Store, config: EnvironmentConfig) -> None:
    hours(store, 12)
    since = datetime(2026, 11, 22, 4, tzinfo=UTC)
    assert [run.run_id for run in runs.list_runs(store, config, status="FAILED")] == ["hourly-09", "hourly-06", "hourly-03", "nightly-00"]
    assert [run.run_id for run in runs.list_runs(store, config, job="nightly")] == ["nightly-08", "nightly-04", "nightly-00"]
    assert [run.run_id for run in runs.list_runs(store, config, since=since)][-1] == "nightly-04"
    assert [run.run_id for run in runs.list_runs(store, config, status="SUCCEEDED", job="nightly", since=since)] == [
        "nightly-08",
        "nightly-04",
    ]


def test_runs_of_another_environment_are_not_listed(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "elsewhere", NOON, pk="ENV#dev")
    assert list(runs.list_runs(store, config)) == []


def test_a_record_is_found_by_its_execution_although_its_start_time_differs(
    store: Store, stepfunctions: Any, config: EnvironmentConfig
) -> None:
    started = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    recorded_at = timestamp(datetime.fromisoformat(started.started_at) + timedelta(seconds=4))
    record_run(store, "my-run-2", recorded_at)
    record_run(store, "my-run", recorded_at, reason="ticket 123")
    found = runs.find_run(store, stepfunctions, config, "my-run")
    assert (found.run_id, found.status, found.recorded, found.reason) == ("my-run", "RUNNING", True, "ticket 123")
    assert found.artifacts == f"s3://{config.bucket}/runs/prod/{recorded_at[:10].replace('-', '/')}/my-run/"


def test_a_run_without_a_record_yet_is_starting(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    document = {"steps": [{"name": "fix", "commands": ["run"]}], "release": "1.4.1", "reason": "ticket 123"}
    started = runs.start_run(stepfunctions, config, document, "my-run")
    found = runs.find_run(store, stepfunctions, config, "my-run")
    assert found == started
    assert (found.status, found.release, found.reason, found.closed) == ("STARTING", "1.4.1", "ticket 123", False)
    assert [step.name for step in found.plan] == ["fix"]


def test_a_run_that_ended_without_a_record_has_the_error_that_it_will_be_closed_with(
    store: Store, stepfunctions: Any, config: EnvironmentConfig
) -> None:
    started = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    stepfunctions.stop_execution(executionArn=started.execution)
    found = runs.find_run(store, stepfunctions, config, "my-run")
    assert (found.status, found.error, found.exit_code, found.closed) == ("ABORTED", "Dbt.Interrupted", 40, False)
    assert found.cause is not None and "analytics-prod-finalize" in found.cause


@pytest.mark.parametrize("reference", ["hourly-01", "hourly-01x"])
def test_a_run_whose_execution_is_gone_is_found_in_the_store(
    store: Store, stepfunctions: Any, config: EnvironmentConfig, reference: str
) -> None:
    record_run(store, reference, "2025-01-01T00:00:00.000Z")
    record_run(store, "hourly-01xyz", NOON)
    assert runs.find_run(store, stepfunctions, config, reference).run_id == reference


def test_who_may_not_look_at_executions_still_finds_runs(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    assert runs.find_run(store, Refusing(stepfunctions, "AccessDeniedException"), config, "my-run").run_id == "my-run"  # type: ignore[arg-type]


def test_another_error_of_step_functions_is_not_taken_for_a_missing_run(
    store: Store, stepfunctions: Any, config: EnvironmentConfig
) -> None:
    record_run(store, "my-run", NOON)
    with pytest.raises(ClientError, match="ThrottlingException"):
        runs.find_run(store, Refusing(stepfunctions, "ThrottlingException"), config, "my-run")  # type: ignore[arg-type]


def test_the_unique_beginning_of_a_run_id_is_enough(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    hours(store, 3)
    assert runs.find_run(store, stepfunctions, config, "hourly-02").run_id == "hourly-02"
    assert runs.find_run(store, stepfunctions, config, "nig").run_id == "nightly-00"


def test_an_ambiguous_beginning_names_the_runs_that_it_may_mean(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    hours(store, 4)
    with pytest.raises(TypedError, match="several runs begin with hourly: hourly-03, hourly-02, hourly-01;") as caught:
        runs.find_run(store, stepfunctions, config, "hourly")
    assert caught.value.kind is INVALID_REQUEST


def test_last_is_the_newest_recorded_run(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    hours(store, 3)
    assert runs.find_run(store, stepfunctions, config, "last").run_id == "hourly-02"


@pytest.mark.parametrize(
    ("reference", "message"),
    [("last", "has no runs yet"), ("nothing-like-it", "has no run nothing-like-it"), ("no*stars", "cannot be a run id"), ("", "cannot be")],
)
def test_a_run_that_does_not_exist_is_the_callers_error(
    store: Store, stepfunctions: Any, config: EnvironmentConfig, reference: str, message: str
) -> None:
    with pytest.raises(TypedError, match=message) as caught:
        runs.find_run(store, stepfunctions, config, reference, sleep=lambda _: None)
    assert caught.value.kind is INVALID_REQUEST


@pytest.mark.parametrize("unknown_for", [1, 2])
def test_a_run_that_has_just_been_started_is_found_though_it_is_unknown_for_a_moment(
    store: Store, stepfunctions: Any, config: EnvironmentConfig, monkeypatch: pytest.MonkeyPatch, unknown_for: int
) -> None:
    """DescribeExecution is eventually consistent."""
    runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    described, slept = executions.describe, list[float]()
    monkeypatch.setattr(runs, "describe", lambda *it: described(*it) if len(slept) >= unknown_for else None)
    found = runs.find_run(store, stepfunctions, config, "my-run", sleep=slept.append)
    assert (found.run_id, found.status, len(slept)) == ("my-run", "STARTING", unknown_for)


def test_the_id_of_a_run_that_is_unknown_for_a_moment_is_not_called_that_of_an_ended_one(
    stepfunctions: Any, config: EnvironmentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    monkeypatch.setattr(runs, "describe", lambda *_: None)
    with pytest.raises(TypedError, match="my-run is the id of another run"):
        runs.start_run(stepfunctions, config, {"job": "hourly", "full_refresh": True}, "my-run")


@pytest.mark.parametrize("request_", ["no JSON at all", "[1, 2]", '{"steps": "all of them", "vars": 3}', '{"steps": [1, {"name": 2}]}'])
def test_a_run_whose_request_was_refused_can_be_shown(store: Store, stepfunctions: Any, config: EnvironmentConfig, request_: str) -> None:
    record_run(store, "my-run", NOON, request=request_, status="FAILED", ended_at=NOON, error="Dbt.InvalidRequest", results=[])
    run = runs.find_run(store, stepfunctions, config, "my-run")
    assert (run.plan, run.vars, run.exit_code) == ((), {}, 30)


# --- steps -----------------------------------------------------------------------------------------------------------


def statuses(detail: runs.RunDetail) -> list[tuple[str, str]]:
    return [(step.step, step.status) for step in detail.run.steps]


def read(store: Store, config: EnvironmentConfig) -> runs.RunDetail:
    return runs.detail_of(store, next(runs.list_runs(store, config)), now=NOW)


def test_the_steps_of_an_open_run_come_from_what_its_attempts_left(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 0, "health_check")
    record_outcome(store, "my-run", 1, "freshness", error="Dbt.StaleSource", message="orders is stale", counts={"error": 1})
    store.put_many(
        [
            node_item("my-run", "build", "orders", started_at="2026-11-22T12:00:30.000Z"),
            node_item("my-run", "build", "customers", "error", started_at="2026-11-22T12:00:20.000Z"),
        ]
    )
    detail = read(store, config)
    assert statuses(detail) == [("health_check", "SUCCEEDED"), ("freshness", "FAILED"), ("build", "RUNNING"), ("docs", "PENDING")]
    freshness, build = detail.run.steps[1:3]
    assert (freshness.error, freshness.message, freshness.counts) == ("Dbt.StaleSource", "orders is stale", {"error": 1})
    assert (build.counts, build.attempts, build.seconds) == ({"error": 1, "success": 1}, 1, 40.0)


def test_a_step_runs_as_soon_as_the_one_before_it_has_ended(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    assert [status for _, status in statuses(read(store, config))] == ["PENDING", "PENDING", "PENDING"]
    record_outcome(store, "my-run", 0, "health_check", ended_at="2026-11-22T12:00:50.000Z")
    detail = read(store, config)
    assert statuses(detail)[1:] == [("freshness", "RUNNING"), ("build", "PENDING"), ("docs", "PENDING")]
    assert detail.run.steps[1].seconds == 10.0


def test_nothing_runs_after_a_failed_step_that_stops_the_run(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 0, "health_check")
    record_outcome(store, "my-run", 1, "freshness")
    record_outcome(store, "my-run", 2, "build", error="Dbt.TestFailure")
    assert statuses(read(store, config))[2:] == [("build", "FAILED"), ("docs", "PENDING")]


def test_the_nodes_of_a_later_attempt_say_that_the_step_runs_again(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 1, "freshness")
    record_outcome(store, "my-run", 2, "build", error="Dbt.Interrupted")
    store.put(node_item("my-run", "build", "orders", attempt=2))
    build = read(store, config).run.steps[1]
    assert (build.step, build.status, build.attempts) == ("build", "RUNNING", 2)


def test_an_aborted_run_still_says_how_far_it_was(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON, status="ABORTED", ended_at="2026-11-22T12:00:40.000Z", error="Dbt.Interrupted", results=[])
    record_outcome(store, "my-run", 1, "freshness")
    store.put(node_item("my-run", "build", "orders"))
    detail = read(store, config)
    assert statuses(detail) == [("freshness", "SUCCEEDED"), ("build", "INCOMPLETE")]
    assert detail.run.steps[1].counts == {"success": 1}


def test_the_steps_of_a_closed_run_are_those_of_its_record(store: Store, config: EnvironmentConfig) -> None:
    results = [
        step_result("health_check"),
        step_result("build", {"success": 3}, error="Dbt.OutOfMemory", message="the task left no outcome"),
    ]
    record_run(store, "my-run", NOON, status="FAILED", ended_at=NOON, error="Dbt.OutOfMemory", results=results)
    store.put(node_item("my-run", "build", "orders"))
    detail = read(store, config)
    assert [dataclasses.asdict(step) for step in detail.run.steps] == results


def test_nodes_are_in_the_order_of_steps_and_of_their_start(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    store.put_many(
        [
            node_item("my-run", "docs", "a", started_at="2026-11-22T12:00:01.000Z"),
            node_item("my-run", "build", "b", started_at="2026-11-22T12:00:03.000Z"),
            node_item("my-run", "build", "c", started_at="2026-11-22T12:00:02.000Z"),
        ]
    )
    assert [node.name for node in read(store, config).nodes] == ["c", "b", "a"]


def test_outcomes_are_in_the_order_of_steps_and_attempts(store: Store, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    for position, step, attempt in ((2, "build", 10), (2, "build", 2), (10, "late", 1), (0, "health_check", 1)):
        record_outcome(store, "my-run", position, step, attempt=attempt)
    outcomes = read(store, config).outcomes
    assert [(o.position, o.attempt) for o in outcomes] == [(0, 1), (2, 2), (2, 10), (10, 1)]


# --- following -------------------------------------------------------------------------------------------------------


class Script:
    """Does the next thing instead of each sleep; fails where following should have ended."""

    def __init__(self, *acts: Any) -> None:
        self._acts = iter(acts)
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        next(self._acts)()


def nothing() -> None:
    pass


def test_following_sees_a_run_from_its_start_to_its_end(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    started = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    started_at = timestamp(datetime.fromisoformat(started.started_at) + timedelta(milliseconds=7))
    script = Script(
        nothing,
        lambda: record_run(store, "my-run", started_at),
        lambda: record_outcome(store, "my-run", 1, "freshness"),
        lambda: record_run(
            store, "my-run", started_at, status="SUCCEEDED", ended_at=timestamp(NOW), results=[step_result("build", {"success": 3})]
        ),
    )
    seen = list(runs.follow(store, stepfunctions, config, started, interval=0.5, sleep=script.sleep))
    assert [detail.run.status for detail in seen] == ["STARTING", "STARTING", "RUNNING", "RUNNING", "SUCCEEDED"]
    assert ("build", "RUNNING") in statuses(seen[3])
    assert seen[-1].run.closed
    assert script.pauses == [0.5] * 4


def test_following_a_closed_run_ends_at_once(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON, status="FAILED", ended_at=NOON, error="Dbt.ModelError", results=[])
    run = runs.find_run(store, stepfunctions, config, "my-run")
    assert [d.run.status for d in runs.follow(store, stepfunctions, config, run, sleep=Script().sleep)] == ["FAILED"]


def test_following_an_aborted_run_waits_until_its_record_is_closed(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    run = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    record_run(store, "my-run", run.started_at)
    stepfunctions.stop_execution(executionArn=run.execution)
    close: dict[str, Any] = {"status": "ABORTED", "ended_at": timestamp(NOW), "cause": "by finalize", "results": []}
    script = Script(nothing, nothing, lambda: record_run(store, "my-run", run.started_at, **close))
    *_, last = runs.follow(store, stepfunctions, config, run, sleep=script.sleep)
    assert (last.run.status, last.run.cause, last.run.closed) == ("ABORTED", "by finalize", True)


def test_following_gives_up_on_a_record_that_nobody_closes(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    run = runs.start_run(stepfunctions, config, {"job": "hourly"}, "my-run")
    record_run(store, "my-run", run.started_at)
    stepfunctions.stop_execution(executionArn=run.execution)
    script = Script(*[nothing] * 100)
    *before, last = runs.follow(store, stepfunctions, config, run, interval=5, sleep=script.sleep)
    assert {detail.run.status for detail in before} == {"RUNNING"}
    assert (last.run.status, last.run.exit_code) == ("ABORTED", 40)
    assert last.run.cause is not None and "its record was not closed" in last.run.cause
    assert sum(script.pauses) == 60


class Counting(Store):
    """A store that keeps count of its readings."""

    def __init__(self, inner: Store) -> None:
        self.__dict__.update(inner.__dict__)
        self.prefixes: list[str] = []

    def query(self, pk: str, prefix: str = "", **options: Any) -> Any:
        self.prefixes.append(prefix)
        return super().query(pk, prefix, **options)


def test_following_does_not_read_again_what_cannot_change(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    counting = Counting(store)
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 1, "freshness")
    store.put_many([node_item("my-run", "freshness", "raw"), node_item("my-run", "build", "orders")])
    run = runs.find_run(store, stepfunctions, config, "my-run")
    seen = itertools.islice(runs.follow(counting, stepfunctions, config, run, sleep=lambda _: None), 5)
    assert [len(detail.nodes) for detail in seen] == [2] * 5
    assert counting.prefixes.count("NODE#freshness#") == 1
    assert counting.prefixes.count("NODE#build#") == 5
    assert counting.prefixes.count("NODE#docs#") == 0


def test_following_reads_a_large_step_less_often(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 1, "freshness")
    store.put_many(node_item("my-run", "build", f"m{number}") for number in range(1000))
    run = runs.find_run(store, stepfunctions, config, "my-run")
    pauses: list[float] = []
    list(itertools.islice(runs.follow(store, stepfunctions, config, run, interval=1, sleep=pauses.append), 2))
    assert pauses == [3]


# --- environments ----------------------------------------------------------------------------------------------------


def lock(run_id: str) -> Item:
    return {"pk": "ENV#prod", "sk": "LOCK", "owner": execution_arn(run_id), "run_id": run_id, "since": NOON, "lease_until": 1795364100}


def test_an_environment_shows_its_release_lock_running_run_and_last_runs(
    store: Store, stepfunctions: Any, config: EnvironmentConfig
) -> None:
    hours(store, 7)
    record_run(store, "my-run", NOON)
    record_outcome(store, "my-run", 1, "freshness")
    store.put(lock("my-run"))
    store.put({"pk": "POINTER#prod", "sk": "RELEASE#CURRENT", "version": "1.4.2", "promoted_at": NOON, "promoted_by": "ci"})
    status = runs.environment_status(store, stepfunctions, config)
    assert status.release == runs.CurrentRelease("1.4.2", None, NOON, "ci", None)
    assert status.lock == runs.Lock("my-run", execution_arn("my-run"), NOON, "2026-11-22T16:15:00.000Z")
    assert status.running is not None and statuses(status.running)[:2] == [("freshness", "SUCCEEDED"), ("build", "RUNNING")]
    assert [run.run_id for run in status.last] == ["my-run", "hourly-06", "hourly-05", "nightly-04", "hourly-03"]


def test_a_new_environment_has_nothing(store: Store, stepfunctions: Any, config: EnvironmentConfig) -> None:
    assert runs.environment_status(store, stepfunctions, config) == runs.EnvironmentStatus("prod", None, None, None, ())


@pytest.mark.parametrize("recorded", [True, False])
def test_a_lock_that_its_run_left_behind_is_no_running_run(
    store: Store, stepfunctions: Any, config: EnvironmentConfig, recorded: bool
) -> None:
    if recorded:
        record_run(store, "my-run", NOON, status="ABORTED", ended_at=NOON, results=[])
    store.put(lock("my-run"))
    status = runs.environment_status(store, stepfunctions, config)
    assert status.lock is not None and status.running is None
