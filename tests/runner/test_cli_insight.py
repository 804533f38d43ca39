"""logs, history and cost, as people and scripts call them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli, costs, run_logs
from dbt_runner.cli import aws
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.run_logs import LogQuery
from dbt_runner.store import Store
from runner.recorded_runs import LiveAlias, create_machine, node_item, record_outcome, record_run, step_result
from runner.report_runs import outcome_of, run_of, step_of

GROUP, FUNCTION_GROUP = "/analytics/prod/runner", "/aws/lambda/analytics-prod"
Call = Callable[..., Result]


@pytest.fixture
def call(store: Store, environment: dict[str, Any], logs: Logs, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls dbt-runner on the tests' environment."""
    stepfunctions = boto3.client("stepfunctions")
    create_machine(stepfunctions)
    clients = {"stepfunctions": LiveAlias(stepfunctions), "logs": logs}
    monkeypatch.setattr(aws, "client", lambda service: clients[service])
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")
    return lambda *arguments: CliRunner().invoke(cli.cli, arguments)


def printed(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.stdout


def refused(result: Result) -> str:
    assert isinstance(result.exception, TypedError)
    assert result.exception.kind is INVALID_REQUEST
    return result.exception.message


@pytest.fixture
def days(store: Store) -> None:
    """Five daily runs: orders worked on the 1st and 2nd, failed on the 3rd, was skipped on the 4th, and failed on the 5th."""
    statuses = ("success", "success", "error", "skipped", "error")
    for day, status in enumerate(statuses, start=1):
        run_id, started_at = f"daily-{day}", f"2026-11-0{day}T06:00:00.000Z"
        bad = status != "success"
        results = [step_result("health_check"), step_result("build", {status: 1}, error="Dbt.ModelError" if bad else None)]
        record_run(
            store, run_id, started_at, status="FAILED" if bad else "SUCCEEDED", ended_at=f"2026-11-0{day}T06:10:00.000Z", results=results,
            job="daily" if day % 2 else "hourly",
        )  # fmt: skip
        store.put(node_item(run_id, "build", "orders", status, started_at=f"2026-11-0{day}T06:01:00.000Z", seconds=day))
        store.put(node_item(run_id, "build", "orders_by_day", started_at=f"2026-11-0{day}T06:02:00.000Z"))


# --- history ---------------------------------------------------------------------------------------------------------


def test_history_says_since_when_a_node_fails(call: Call, days: None) -> None:
    found = json.loads(printed(call("history", "--node", "orders", "--json")))
    assert found["unique_id"] == "model.shop.orders"
    assert [(result["run_id"], result["status"]) for result in found["results"]] == [
        ("daily-5", "error"),
        ("daily-4", "skipped"),
        ("daily-3", "error"),
        ("daily-2", "success"),
        ("daily-1", "success"),
    ]
    assert (found["failing_since"], found["failing_since_run"]) == ("2026-11-03T06:01:00.000Z", "daily-3")
    assert (found["last_success"], found["median_seconds"]) == ("2026-11-02T06:01:00.000Z", 1.5)


def test_history_of_a_job_and_of_a_node_by_its_unique_id(call: Call, days: None) -> None:
    found = json.loads(printed(call("history", "-n", "model.shop.orders_by_day", "--job", "hourly", "--limit", "1", "--json")))
    assert [result["run_id"] for result in found["results"]] == ["daily-4"]
    assert found["failing_since"] is None


def test_history_for_people(call: Call, days: None) -> None:
    text = printed(call("history", "--node", "orders", "--limit", "3"))
    assert "Fails since" in text and "run daily-3" in text
    assert "not in these runs" in text


def test_history_reads_results_by_their_keys_and_scans_nothing(
    call: Call, store: Store, days: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    queried = []
    query = Store.query
    monkeypatch.setattr(Store, "query", lambda self, pk, *a, **k: queried.append(pk) or query(self, pk, *a, **k))  # type: ignore[func-returns-value]
    printed(call("history", "--node", "model.shop.orders"))
    assert queried == ["ENV#prod"]


@pytest.mark.parametrize("node", ["nothing", "model.shop.nothing"])
def test_history_of_a_node_that_no_run_has(call: Call, days: None, node: str) -> None:
    assert refused(call("history", "--node", node)).startswith(f"--node {node}: no run")


def test_history_of_a_name_that_several_nodes_have(call: Call, store: Store, days: None) -> None:
    store.put({**node_item("daily-5", "build", "orders"), "sk": "NODE#build#seed.shop.orders", "unique_id": "seed.shop.orders"})
    assert "several nodes have this name: model.shop.orders, seed.shop.orders" in refused(call("history", "--node", "orders"))


def test_more_keys_than_a_batch_holds_are_read(store: Store) -> None:
    keys = [("ENV#prod", f"RUN#{n:03d}") for n in range(250)]
    store.put_many({"pk": pk, "sk": sk} for pk, sk in keys)
    assert sorted((item["pk"], item["sk"]) for item in store.get_many([*keys, ("ENV#prod", "none")])) == keys


# --- logs ------------------------------------------------------------------------------------------------------------


class Logs:
    """CloudWatch Logs as far as a time goes; moto refuses events of the past and takes JSON patterns for words."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.of_function: list[dict[str, Any]] = []

    def get_paginator(self, operation: str) -> Logs:
        assert operation == "filter_log_events"
        return self

    def paginate(self, *, logGroupName: str, filterPattern: str, startTime: int, endTime: int = 1 << 62) -> Iterator[dict[str, Any]]:
        events = {GROUP: self.events, FUNCTION_GROUP: self.of_function}[logGroupName]
        assert filterPattern.startswith("{ ($.run_id = ")
        yield from ({"events": [event]} for event in list(events) if startTime <= event["timestamp"] <= endTime)

    def write(self, message: str, run_id: str = "daily-5", at: str = "2026-11-05T06:01:00.000Z", **fields: Any) -> None:
        line = {"time": at, "level": "info", "message": message, "run_id": run_id, "step": "build", "attempt": 1, **fields}
        moment = int(datetime.fromisoformat(at).timestamp() * 1000)
        events = self.of_function if fields.get("step") == "on_lambda" else self.events
        events.append({"eventId": f"{id(events)}-{len(events)}", "timestamp": moment, "message": json.dumps(line)})


@pytest.fixture
def logs() -> Logs:
    return Logs()


def test_logs_are_those_of_the_run_the_step_and_the_node(call: Call, days: None, logs: Logs) -> None:
    logs.write("of another run", run_id="daily-4")
    logs.write("of the step before", step="freshness")
    logs.write("of another time", at="2026-11-05T06:30:00.000Z")
    logs.events.append({**logs.events[1], "eventId": "x", "message": "no JSON"})
    logs.write("worker started", worker_pid=7)
    logs.write("1 of 2 ERROR orders", level="error", node="model.shop.orders")
    assert [json.loads(line)["message"] for line in printed(call("logs", "daily-5", "--json")).splitlines()] == [
        "of the step before",
        "worker started",
        "1 of 2 ERROR orders",
    ]
    assert len(printed(call("logs", "daily-5", "--step", "build")).splitlines()) == 2
    (line,) = printed(call("logs", "--node", "orders")).splitlines()
    assert line.endswith("build/1 ERROR  1 of 2 ERROR orders")
    assert "worker_pid=7" in printed(call("logs", "--step", "build"))


def test_logs_of_lambda_stand_between_those_of_containers_in_the_order_of_their_time(
    call: Call, store: Store, environment: dict[str, Any], days: None, logs: Logs
) -> None:
    function = {"function": "arn", "timeout_seconds": 900, "memory": 2048, "log_group": FUNCTION_GROUP}
    store.put({"pk": "ENV#prod", "sk": "CONFIG", "config": json.dumps({**environment, "lambda": function})})
    logs.write("first", step="on_lambda", at="2026-11-05T06:01:00.000Z")
    logs.of_function.append({**logs.of_function[0], "eventId": "x", "message": "REPORT RequestId: 1 Duration: 5 ms"})
    logs.write("second", at="2026-11-05T06:02:00.000Z")
    logs.write("third", step="on_lambda", at="2026-11-05T06:03:00.000Z")
    lines = printed(call("logs", "daily-5", "--json")).splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["first", "second", "third"]


def test_a_filter_pattern_asks_cloudwatch_for_the_same() -> None:
    query = LogQuery("daily-5", "build", 'model.shop."x')
    assert query.pattern == '{ ($.run_id = "daily-5") && ($.step = "build") && ($.node = "model.shop.\\"x") }'


def test_following_ends_with_the_run_and_shows_each_line_once(store: Store, environment: dict[str, Any], logs: Logs) -> None:
    run = run_of("RUNNING", run_id="daily-5", started_at="2026-11-05T06:00:00.000Z", ended_at=None)
    logs.write("first")
    looks = iter(("2", "3", "ended"))

    def refreshed(before: Any) -> Any:
        look = next(looks)
        logs.write(f"look {look}")
        return (
            run_of("SUCCEEDED", run_id="daily-5", started_at=run.started_at, ended_at="2026-11-05T06:10:00.000Z")
            if look == "ended"
            else run
        )

    late = iter((lambda: None, lambda: None, lambda: logs.write("a line that arrived late")))
    lines = run_logs.follow(logs, [GROUP], run, LogQuery("daily-5"), refreshed, interval=0, sleep=lambda _: next(late, lambda: None)())
    assert [line["message"] for line in lines] == ["first", "look 2", "look 3", "look ended", "a line that arrived late"]


# --- cost ------------------------------------------------------------------------------------------------------------


def test_cost_counts_the_runs_of_the_month(call: Call, store: Store, days: None) -> None:
    record_outcome(store, "daily-5", 1, "build", artifacts=[{"key": "k", "sha256": "0" * 64, "bytes": 1024**3}], seconds=3570)
    found = json.loads(printed(call("cost", "--month", "2026-11", "--json")))
    assert [(job["job"], job["runs"]) for job in found["jobs"]] == [("daily", 3), ("hourly", 2)]
    daily = found["jobs"][0]
    # An hour with the pull on 1 vCPU and 4 GB, on Spot, as it was the first of three attempts; ARM64.
    assert (daily["vcpu_hours"], daily["gb_hours"]) == (1, 4)
    assert daily["fargate"] == pytest.approx(0.3 * (0.03238 + 4 * 0.00356), abs=1e-6)
    assert daily["storage"] == pytest.approx(0.023, abs=1e-4)
    assert found["total"] == pytest.approx(sum(job["total"] for job in found["jobs"]))
    assert (found["prices_region"], found["month"]) == ("us-east-1", "2026-11")
    assert json.loads(printed(call("cost", "--month", "2026-10", "--json")))["jobs"] == []


def test_cost_for_people_says_whose_prices_they_are(call: Call, days: None) -> None:
    text = printed(call("cost", "--month", "2026-11"))
    assert "list prices of us-east-1, 2026-03-01; an estimate" in text
    assert "no runs" in printed(call("cost", "-m", "2026-10"))


def test_another_attempt_costs_what_its_size_and_capacity_cost(environment: dict[str, Any]) -> None:
    from dbt_runner import config

    environment["compute"]["sizes"] = [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}]
    parsed = config.parse(json.dumps(environment))
    outcomes = [
        outcome_of(attempt=1, error="Dbt.OutOfMemory", seconds=30),
        outcome_of(attempt=3, seconds=30),
        outcome_of("docs", 2, seconds=1),
    ]
    found = costs.cost_of_month(parsed, "2026-11", [(run_of(steps=(step_of(),)), outcomes, 0)], costs.load_prices())
    minute = (0.03238 + 4 * 0.00356) / 60
    assert found.jobs[0].fargate == pytest.approx(minute * (0.3 + 2 * 1 + 0.3), abs=1e-6)


def test_a_call_of_lambda_costs_its_memory_by_the_millisecond_and_what_follows_its_own_size(environment: dict[str, Any]) -> None:
    from dbt_runner import config

    sizes = [{"cpu": 1024, "memory": 2048}, {"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}]
    environment["compute"].update(sizes=sizes, spot=False)
    environment["lambda"] = {"function": "arn", "timeout_seconds": 900, "memory": 2048, "log_group": "x"}
    outcomes = [
        outcome_of("health_check", 1, compute="lambda", seconds=1.2341),
        outcome_of(attempt=1, compute="lambda", error="Dbt.OutOfMemory", seconds=100),
        outcome_of(attempt=2, seconds=30),
    ]
    prices = costs.load_prices()
    found = costs.cost_of_month(config.parse(json.dumps(environment)), "2026-11", [(run_of(steps=(step_of(),)), outcomes, 0)], prices)
    assert found.jobs[0].lambda_ == pytest.approx(
        2 * (1.235 + 100) * prices.lambda_gb_second["ARM64"] + 2 * prices.lambda_request, abs=1e-6
    )
    # More memory than the function has: not the first size, which has as much.
    assert found.jobs[0].fargate == pytest.approx((0.03238 + 4 * 0.00356) / 60, abs=1e-6)


def test_a_price_table_of_ones_own_must_be_whole(call: Call, days: None, tmp_path: Path) -> None:
    prices = json.loads(Path(costs.__file__).with_name("prices.json").read_text())
    own = tmp_path / "prices.json"
    own.write_text(json.dumps({**prices, "region": "eu-central-1"}))
    assert "list prices of eu-central-1" in printed(call("cost", "-m", "2026-11", "--prices", str(own)))
    del prices["s3_put"]
    own.write_text(json.dumps(prices))
    assert refused(call("cost", "--prices", str(own))) == f"--prices {own}: s3_put is missing"
    assert "cannot be read" in refused(call("cost", "--prices", str(tmp_path / "none.json")))
    assert refused(call("cost", "--month", "2026-13")) == "--month 2026-13: give a month such as 2026-11"
