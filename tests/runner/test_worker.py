"""The worker by real dbt on DuckDB: what dbt does to a node arrives, and what it says in between harms nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from dbt_runner import outcome
from dbt_runner.errors import MODEL_ERROR, NOTHING_SELECTED, STALE_SOURCE
from dbt_runner.request import parse_command
from runner import projects, warm
from runner.projects import Ended, Supervised

# dbt is started once for the tests of a step.
pytestmark = pytest.mark.xdist_group("worker")


@dataclass(frozen=True)
class Step:
    """A step that ran, and the folder with its artifacts."""

    commands: Sequence[str]
    ended: Ended
    target: Path

    def outcome(self) -> outcome.Outcome:
        return outcome.classify(self.ended.report, [parse_command(text, "commands") for text in self.commands], "duckdb")

    def run_results(self, name: str) -> list[str]:
        """The nodes of one run_results.json."""
        return [result["unique_id"] for result in json.loads((self.target / name).read_text())["results"]]


def run(work: Path, *commands: str, popen: Callable[..., subprocess.Popen[bytes]] = warm.supervised) -> Step:
    with Supervised(work, commands, popen=popen) as supervised:
        return Step(commands, supervised.end(), work / "target")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Step:
    work = tmp_path_factory.mktemp("good")
    projects.write(work / "project", projects.GOOD)
    return run(work, "seed", "run", "source freshness", "snapshot", "test", "run-operation greet", "docs generate", popen=subprocess.Popen)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Step:
    work = tmp_path_factory.mktemp("bad")
    projects.write(work / "project", projects.BAD)
    return run(work, "run-operation greet", "build", "run-operation greet")


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Step:
    work = tmp_path_factory.mktemp("stale")
    projects.write(work / "project", projects.STALE)
    return run(work, "run-operation load", "list --select nothing", "source freshness")


@pytest.fixture(scope="module")
def failed_operation(tmp_path_factory: pytest.TempPathFactory) -> Step:
    work = tmp_path_factory.mktemp("operation")
    projects.write(work / "project", projects.BAD)
    return run(work, "run --select nothing", "run-operation fail")


def test_every_kind_of_node_that_succeeds_is_reported(good: Step) -> None:
    assert good.ended.statuses == {
        "seed.tiny.raw_orders": "success",
        "operation.tiny.tiny-on-run-start-0": "success",
        "operation.tiny.tiny-on-run-start-1": "success",
        "model.tiny.orders": "success",
        "model.tiny.big_orders": "success",
        "snapshot.tiny.orders_over_time": "success",
        "test.tiny.not_null_orders_id.84ef11d8fe": "pass",
        "test.tiny.accepted_values_orders_amount__10.2d5c95d5d5": "warn",
        "unit_test.tiny.big_orders.only_big_ones": "pass",
        "source.tiny.raw.fresh": "pass",
        "source.tiny.raw.ageing": "warn",
        "macro.tiny.greet": "success",
    }
    assert good.outcome().error is None


def test_a_node_says_when_and_where_it_ran(good: Step) -> None:
    node = good.ended.report.nodes["model.tiny.big_orders"]
    assert (node.resource_type, node.name, node.command) == ("model", "big_orders", 1)
    assert node.relation == '"warehouse"."main"."big_orders"'
    assert node.thread
    assert node.started_at.endswith("Z") and node.started_at <= node.ended_at
    assert good.ended.report.nodes["seed.tiny.raw_orders"].rows == 2
    assert good.ended.report.nodes["test.tiny.accepted_values_orders_amount__10.2d5c95d5d5"].failures == 1
    assert good.ended.report.nodes["macro.tiny.greet"].resource_type == "operation"


def test_each_command_says_how_many_nodes_it_selected(good: Step) -> None:
    assert [(c.index, c.success, c.selected) for c in good.ended.report.commands] == [
        (0, True, 1),
        (1, True, 2),
        (2, True, 2),
        (3, True, 1),
        (4, True, 3),
        (5, True, None),
        (6, True, None),
    ]


def test_docs_generate_does_not_overwrite_what_became_of_a_node(good: Step) -> None:
    assert "model.tiny.orders" in good.run_results("run_results.json"), "docs generate compiles the model and calls that success"
    assert good.ended.report.nodes["model.tiny.orders"].command == 1
    assert good.ended.told.count("model.tiny.orders") == 1


def test_run_results_of_earlier_commands_are_kept_and_none_passes_for_another_ones(good: Step) -> None:
    kept = {path.parent.name: good.run_results(f"{path.parent.name}/{path.name}") for path in good.target.glob("command-*/*")}
    hooks = {"operation.tiny.tiny-on-run-start-0", "operation.tiny.tiny-on-run-start-1"}
    assert {name: set(nodes) - hooks for name, nodes in kept.items()} == {
        "command-0": {"seed.tiny.raw_orders"},
        "command-1": {"model.tiny.orders", "model.tiny.big_orders"},
        # command-2, source freshness, writes sources.json instead.
        "command-3": {"snapshot.tiny.orders_over_time"},
        "command-4": {unique_id for unique_id in good.ended.statuses if unique_id.startswith(("test.", "unit_test."))},
        "command-5": {"macro.tiny.greet"},
    }
    assert (good.target / "sources.json").exists()


def test_the_log_ends_with_the_last_command(good: Step) -> None:
    """What a driver's library says when the process ends is nothing that people should look into."""
    assert [good.ended.log[-1].get(key) for key in ("message", "command", "success")] == ["command ended", 6, True]


def test_what_jinja_prints_and_logs_becomes_lines_of_the_log(good: Step) -> None:
    assert "printed by a model" in good.ended.messages
    assert "greetings" in good.ended.messages
    assert all(line["run_id"] == "r-1" and line["level"] in ("info", "warning", "error") for line in good.ended.log)
    assert all(message.strip() for message in good.ended.messages)
    warned = next(line for line in good.ended.log if "WARN freshness" in line["message"])
    assert (warned["level"], warned["node"]) == ("warning", "source.tiny.raw.ageing")
    assert "greetings" in (good.target / "dbt.log").read_text()


def test_error_failure_and_what_they_skip_are_reported(bad: Step) -> None:
    assert bad.ended.statuses == {
        "macro.tiny.greet": "success",
        "model.tiny.good": "success",
        "model.tiny.odd": "success",
        "model.tiny.broken": "error",
        "model.tiny.after_broken": "skipped",
        "model.tiny.doubted": "skipped",
        "test.tiny.accepted_values_odd_id__2.5063271bcf": "fail",
        "unit_test.tiny.doubted.wrong_about_doubted": "fail",
    }
    assert "no_such_column" in bad.ended.report.nodes["model.tiny.broken"].message


def test_an_error_brings_the_drivers_own_exception(bad: Step) -> None:
    """dbt keeps a node's message only. An operation's exception comes by another event."""
    failure = bad.ended.report.nodes["model.tiny.broken"].failure
    assert failure is not None and [link.type for link in failure.chain] == ["DbtRuntimeError", "BinderException"]
    assert bad.ended.report.nodes["model.tiny.good"].failure is None
    assert bad.ended.report.nodes["test.tiny.accepted_values_odd_id__2.5063271bcf"].failure is None


def test_a_step_stops_at_its_first_command_that_fails(bad: Step) -> None:
    assert [(c.index, c.success) for c in bad.ended.report.commands] == [(0, True), (1, False)]
    assert bad.ended.report.finished
    assert "model.tiny.broken" in bad.run_results("run_results.json")
    assert bad.run_results("command-0/run_results.json") == ["macro.tiny.greet"]
    assert bad.ended.report.nodes["macro.tiny.greet"].command == 0


def test_a_broken_model_counts_more_than_a_failed_test(bad: Step) -> None:
    result = bad.outcome()
    assert result.error is MODEL_ERROR
    assert "model.tiny.broken" in result.message and "no_such_column" in result.message
    failed = {unique_id for unique_id, status in bad.ended.statuses.items() if status in ("error", "fail")}
    assert {node.unique_id for node in result.failures} == failed


def test_files_of_the_project_are_no_modules_of_the_worker(bad: Step) -> None:
    """The project holds a yaml.py, a click.py and a dbt_runner.py that would raise."""
    assert bad.ended.report.commands, bad.ended.messages


def test_a_stale_source_and_one_that_is_not_there_are_told_apart(stale: Step) -> None:
    assert stale.ended.statuses == {
        "macro.tiny.load": "success",
        "source.tiny.raw.late": "error",
        "source.tiny.raw.missing": "runtime error",
    }
    assert stale.outcome().error is STALE_SOURCE


def test_a_failed_operation_is_a_node_with_a_message(failed_operation: Step) -> None:
    result = failed_operation.outcome()
    assert failed_operation.ended.statuses == {"macro.tiny.fail": "error"}
    assert result.error is MODEL_ERROR
    assert "no_such_column" in result.message


def test_a_command_that_selects_nothing_says_so(failed_operation: Step) -> None:
    report = failed_operation.ended.report
    assert (report.commands[0].success, report.commands[0].selected) == (True, 0)
    ended_well = replace(report, commands=report.commands[:1], returncode=0, nodes={})
    alone = outcome.classify(ended_well, [parse_command("run --select nothing", "commands")], "duckdb")
    assert alone.error is NOTHING_SELECTED
