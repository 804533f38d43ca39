"""Attempt after attempt of one step: each runs what is left, and the last one's record speaks for all.

Real dbt on DuckDB, one thread, so that the order is known. The project counts its own executions in the warehouse.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import signal
import subprocess
import threading
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import config, resume, supervisor
from dbt_runner.events import CommandResult, EarlierCommand, NodeResult, StepReport, WorkerSpec
from dbt_runner.request import AttemptRequest, parse_command
from dbt_runner.store import Item, Store, run_pk
from dbt_runner.wire import decode
from dbt_runner.worker import Worker
from runner import projects
from runner.attempts import PREFIX, Run, publish
from runner.conftest import config_of
from runner.projects import wait_until

ROOT = Path(__file__).parents[2]
BUILD = "build --event-time-start 2024-01-01 --event-time-end 2024-01-04"
MODELS = {"staged", "checked", "counted", "daily", "fragile", "after_fragile", "gated", "after_gated"}
TESTS = {"not_null_staged_id", "checked_as_is", "not_null_after_gated_id", "gated_as_is"}
BEFORE_THE_KILL = {"raw", "staged", "not_null_staged_id", "checked", "checked_as_is", "counted", "daily", "gated_as_is"}
AFTER_THE_KILL = {"fragile", "after_fragile", "gated", "after_gated", "not_null_after_gated_id", "history"}

# dbt is started as rarely as possible: all tests of the one story share it.
pytestmark = [pytest.mark.xdist_group("resume"), pytest.mark.usefixtures("warm_worker")]


class Warehouse:
    """A step with its attempts on one DuckDB file; by default of the project `resumable`."""

    def __init__(self, store: Store, folder: Path, *commands: str, files: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.path = folder / "warehouse.duckdb"
        environment = config_of("prod")
        environment["warehouse"]["settings"].update(path=str(self.path), threads=1)
        self.run = Run(store, environment)
        self.run.steps[0]["commands"] = list(commands)
        publish(store, folder / "project", projects.resumable(folder) if files is None else files)

    def attempt(self, number: int, *, without: Sequence[str] = ()) -> int:
        """An attempt with these files gone."""
        for name in without:
            (self.folder / name).unlink()
        return self.run.attempt(number=number)

    def killed_attempt(self, number: int) -> int:
        """An attempt whose worker is killed as soon as it has come to a closed gate."""
        started: list[subprocess.Popen[bytes]] = []
        starter = vars(supervisor)["subprocess"]
        popen = starter.Popen

        def note(*arguments: Any, **keywords: Any) -> subprocess.Popen[bytes]:
            started.append(popen(*arguments, **keywords))
            return started[-1]

        def kill() -> None:
            wait_until(lambda: (self.folder / "reached").exists() or bool(started and started[0].poll() is not None))
            started[0].send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(starter, "Popen", note)
            killer.start()
            exit_code = self.run.attempt(number=number)
            killer.join()
        (self.folder / "reached").unlink()
        return exit_code

    def close(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        with duckdb.connect(str(self.path)) as connection:
            return connection.sql(sql).fetchall()  # type: ignore[no-any-return]

    def executions(self) -> Counter[str]:
        return Counter(name for (name,) in self.ask("select name from executions"))

    def outcome(self, number: int) -> Item:
        return self.run.outcome(f"STEP#01#build#{number}")

    def attempts(self) -> dict[str, int]:
        """By which attempt each node has its result; operations are left out."""
        return {n["name"]: n["attempt"] for n in self.run.nodes().values() if n["resource_type"] != "operation"}

    def lose(self, prefix: str) -> None:
        """Removes items of the run, as if its container had been killed before it wrote them."""
        for item in list(self.run.store.query("RUN#prod#r-1", prefix)):
            key = {"pk": {"S": item["pk"]}, "sk": {"S": item["sk"]}}
            boto3.client("dynamodb").delete_item(TableName=self.run.store.table, Key=key)

    def started(self, number: int) -> set[str]:
        """The names of the nodes that dbt began to run in an attempt, by its log."""
        path = self.folder / f"attempt-{number}.log"
        assert self.run.store.download(f"{PREFIX}build/{number}/dbt.log", path)
        words = {word for line in path.read_text().splitlines() if " START " in line for word in line.split()}
        # A model comes with its schema, and a unit test with its model.
        return {word.rsplit(":", 1)[-1].rsplit(".", 1)[-1] for word in words} & {"raw", *MODELS, *TESTS, "history"}

    def run_results(self, number: int, name: str = "run_results.json") -> Any:
        """An attempt's artifact, read as dbt reads it."""
        from dbt.artifacts.schemas.run import RunResultsArtifact

        path = self.folder / f"attempt-{number}.json"
        assert self.run.store.download(f"{PREFIX}build/{number}/{name}", path)
        return RunResultsArtifact.read_and_check_versions(str(path))


@pytest.fixture
def warehouse(store: Store, tmp_path: Path) -> Callable[..., Warehouse]:
    return lambda *commands, **options: Warehouse(store, tmp_path, *commands, **options)


# --- a step of several commands, killed in the middle, with a model broken before ----------------------------------------


@dataclass(frozen=True)
class Story:
    """What two attempts left: the store's items, the artifact of the last one, and what is in the warehouse."""

    warehouse: Warehouse
    nodes: Mapping[str, Item]
    outcomes: Sequence[Item]
    attempts: Mapping[str, int]
    started: set[str]
    run_results: Any


@pytest.fixture(scope="module")
def resumed(
    audit_store: Callable[[], contextlib.AbstractContextManager[Store]], tmp_path_factory: pytest.TempPathFactory, warm_worker: None
) -> Story:
    """In the first attempt `fragile` fails, and the worker is killed while `gated` runs; nothing is in the second one's way."""
    with audit_store() as store:
        step = Warehouse(store, tmp_path_factory.mktemp("resumed"), "seed", f"{BUILD} --exclude raw", "run-operation announce")
        step.close("gated", "broken")
        assert step.killed_attempt(1) == 40
        assert step.run.nodes()["model.tiny.fragile"]["status"] == "error"
        assert set(step.attempts()) == BEFORE_THE_KILL | {"fragile"}
        assert step.attempt(2, without=["gated", "broken"]) == 0, step.outcome(2)
        run_results = step.run_results(2, "command-1/run_results.json")
        return Story(step, step.run.nodes(), [step.outcome(1), step.outcome(2)], step.attempts(), step.started(2), run_results)


def test_what_had_succeeded_is_not_executed_again(resumed: Story) -> None:
    executions = resumed.warehouse.executions()
    assert {name: executions[name] for name in {"raw", *MODELS}} == dict.fromkeys({"raw", *MODELS}, 1)
    assert resumed.started == AFTER_THE_KILL, "tests and unit tests neither"


def test_each_node_has_its_result_by_the_attempt_that_ran_it(resumed: Story) -> None:
    assert resumed.attempts == {**dict.fromkeys(BEFORE_THE_KILL, 1), **dict.fromkeys(AFTER_THE_KILL, 2)}


def test_everything_is_in_the_warehouse_as_if_there_had_been_one_attempt(resumed: Story) -> None:
    ask = resumed.warehouse.ask
    tables = {name for (name,) in ask("select table_name from information_schema.tables where table_schema = 'main'")}
    assert tables == {"raw", "executions", "history", *MODELS}
    assert ask("select n from counted") == [(3,)]
    assert ask("select count(*) from daily union all select count(*) from history") == [(3,), (3,)]


def test_hooks_run_in_each_attempt_of_their_command_and_operations_once(resumed: Story) -> None:
    executions = resumed.warehouse.executions()
    # `seed` and both attempts of `build` began; one of these three did not end.
    assert (executions["start"], executions["end"], executions["announce"]) == (3, 2, 1)


def test_the_last_outcome_speaks_for_the_whole_step(resumed: Story) -> None:
    first, last = resumed.outcomes
    assert last["counts"] == Counter(node["status"] for node in resumed.nodes.values())
    assert set(last["counts"]) == {"success", "pass"} and last["counts"]["pass"] == 4
    assert last["failures"] == []
    assert [failure["unique_id"] for failure in first["failures"]] == ["model.tiny.fragile"]
    assert [(c["command"], c["success"], c.get("selected")) for c in last["commands"]] == [
        ("seed", True, 1),
        (f"{BUILD} --exclude raw", True, 13),
        ("run-operation announce", True, None),
    ]
    assert last["commands"][0] == first["commands"][0], "a finished command keeps its numbers"


def test_run_results_of_the_last_attempt_are_those_of_all_and_dbt_reads_them(resumed: Story) -> None:
    results = {result.unique_id: result for result in resumed.run_results.results}
    assert len(results) == len(resumed.run_results.results), "no node is there twice"
    # Of the nodes of this command, dbt's own artifact has all but the ephemeral ones.
    of_the_command = {unique_id for unique_id, node in resumed.nodes.items() if node["command"] == 1}
    hooks = {unique_id for unique_id in resumed.nodes if unique_id.startswith("operation.")}
    assert set(results) - hooks == of_the_command - hooks - {"model.tiny.shared"}
    assert {unique_id: str(result.status) for unique_id, result in results.items()} == {
        unique_id: resumed.nodes[unique_id]["status"] for unique_id in results
    }
    before, after = results["model.tiny.checked"], results["model.tiny.gated"]
    assert before.relation_name == '"warehouse"."main"."checked"'
    assert before.thread_id and before.timing[0].started_at <= before.timing[0].completed_at
    assert before.timing[0].completed_at < after.timing[0].started_at, "times of both can be compared"
    assert results["unit_test.tiny.checked.checked_as_is"].failures == 0


# --- other ways to be interrupted ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_was_skipped_runs_when_what_failed_does(warehouse: Callable[..., Warehouse]) -> None:
    step = warehouse("seed", "run --select staged fragile+")
    step.close("broken")
    assert step.attempt(1) == 10
    assert step.run.nodes()["model.tiny.after_fragile"]["status"] == "skipped"
    assert step.attempt(2) == 10, "still broken"
    assert [failure["unique_id"] for failure in step.outcome(2)["failures"]] == ["model.tiny.fragile"]
    assert (step.outcome(2)["counts"]["error"], step.outcome(2)["counts"]["skipped"]) == (1, 1)
    assert step.attempt(3, without=["broken"]) == 0
    assert step.attempts() == {"raw": 1, "staged": 1, "fragile": 3, "after_fragile": 3}
    assert step.executions()["staged"] == step.executions()["raw"] == 1
    assert set(step.outcome(3)["counts"]) == {"success"} and step.outcome(3)["failures"] == []


@pytest.mark.slow
def test_where_all_is_done_nothing_is_executed(warehouse: Callable[..., Warehouse]) -> None:
    step = warehouse("build --select +checked --exclude shared --fail-fast")
    assert step.attempt(1) == 0
    first, executions = step.outcome(1), step.executions()
    assert step.attempt(2) == 0
    assert step.executions() == executions, "neither a node nor a hook"
    assert (step.outcome(2)["counts"], step.outcome(2)["commands"]) == (first["counts"], first["commands"])
    # Without its outcome nobody knows whether the command's hooks ran.
    step.lose("STEP#")
    assert step.attempt(3) == 0
    assert step.executions() == executions + Counter(["start", "end"])
    assert step.outcome(3)["commands"][0]["selected"] == first["commands"][0]["selected"] == 5
    nodes = {result.unique_id for result in step.run_results(3).results}
    assert {"seed.tiny.raw", "model.tiny.checked", "unit_test.tiny.checked.checked_as_is"} < nodes
    # The result of a unit test got lost, but not that of its model, which dbt would only run together.
    step.lose("STEP#")
    step.lose("NODE#build#unit_test.")
    assert step.attempt(4) == 0
    assert step.started(4) == {"checked_as_is"}
    assert step.attempts()["checked_as_is"] == 4
    assert step.executions()["checked"] == 1


@pytest.mark.slow
def test_a_source_that_was_fresh_is_not_asked_again(warehouse: Callable[..., Warehouse]) -> None:
    sources = """
sources:
  - name: raw
    schema: main
    config: { loaded_at_field: loaded_at, freshness: { error_after: { count: 1, period: day } } }
    tables: [{ name: early }, { name: late }]
"""
    files = {"dbt_project.yml": projects.PROJECT, "models/models.yml": sources}
    step = warehouse("source freshness", files=files)
    step.ask("create table early as select current_timestamp as loaded_at")
    assert step.attempt(1) == 10, "there is no table `late`"
    step.ask("alter table early rename to late")
    assert step.attempt(2) == 0
    assert step.attempts() == {"early": 1, "late": 2}
    assert step.outcome(2)["counts"] == {"pass": 2}
    assert step.outcome(2)["commands"][0]["selected"] == 2


@pytest.mark.slow
def test_a_microbatch_model_is_done_only_when_all_its_batches_are(warehouse: Callable[..., Warehouse]) -> None:
    step = warehouse(f"run --select daily {BUILD.removeprefix('build ')}")
    step.close("daily")
    # `staged` is there from before, and no node of this step ended.
    step.run.steps.append({"name": "before", "commands": ["build --select raw staged"], "on_failure": "fail", "timeout_seconds": 80})
    assert step.run.attempt(position=2) == 0
    # Steps do not go back: the claim of the one that was there before would refuse it.
    step.lose("CLAIM")
    assert step.killed_attempt(1) == 40
    assert not [node for node in step.run.nodes().values() if node["step"] == "build"], "one batch is not the model"
    assert step.attempt(2, without=["daily"]) == 0
    assert step.run.nodes()["model.tiny.daily"]["attempt"] == 2
    assert step.ask("select id from daily order by id") == [(1,), (2,), (3,)]
    assert step.outcome(2)["commands"][0]["selected"] == 1


MICROBATCH: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/daily.sql": """
{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='day', batch_size='day', begin='2024-01-01') }}
select timestamp '{{ model.batch.event_time_start }}' as day, get_current_timestamp() as made
{% if model.batch.id == '20240102' and there_is('broken') %}, error('no such day, says hunter2hunter2') as id{% endif %}
""",
    "models/after.sql": "{{ config(materialized='table') }} select day from {{ ref('daily') }}",
}


def test_of_a_microbatch_model_only_the_batches_that_failed_run_again(warehouse: Callable[..., Warehouse], tmp_path: Path) -> None:
    """Each batch is kept with its window, its status and the reason why it failed, also of attempts before the last one."""
    files = {**MICROBATCH, "macros/gate.sql": projects.resumable(tmp_path)["macros/gate.sql"]}
    step = warehouse("build --event-time-start 2024-01-01 --event-time-end 2024-01-05", files=files)
    step.run.environment["SNOWFLAKE_PASSWORD"] = "hunter2hunter2"
    step.run.environment["DBT_RUNNER_SECRETS"] = '{"SNOWFLAKE_PASSWORD": "arn"}'
    step.close("broken")
    day = "2024-01-{:02d}T00:00:00.000Z"

    def seen() -> tuple[str, list[tuple[str, str]]]:
        node = step.run.nodes()["model.tiny.daily"]
        assert node["batches_total"] == 4
        assert all(batch["ends_at"] > batch["starts_at"] for batch in node["batches"])
        return node["status"], [(batch["starts_at"], batch["status"]) for batch in node["batches"]]

    others = [(day.format(number), "success") for number in (1, 3, 4)]
    assert step.attempt(1) == 10
    assert seen() == ("partial success", [(day.format(2), "error"), *others])
    node = step.run.nodes()["model.tiny.daily"]
    [reason] = [batch["message"] for batch in node["batches"] if "message" in batch]
    assert "no such day" in reason and reason in node["message"], "what dbt says of the model is only how many batches failed"
    assert "hunter2" not in str(node)
    assert "no such day" in step.outcome(1)["message"]
    made = step.ask("select day, made from daily order by day")

    assert step.attempt(2) == 10, "the batch is still broken"
    assert seen() == ("error", [(day.format(2), "error"), *others])
    assert step.ask("select day, made from daily order by day") == made, "no other batch ran again"

    assert step.attempt(3, without=["broken"]) == 0
    assert seen() == ("success", [(day.format(number), "success") for number in (1, 2, 3, 4)])
    now = step.ask("select day, made from daily order by day")
    assert [row for row in now if row[0].day != 2] == made
    assert [row[0].day for row in now] == [1, 2, 3, 4]
    assert step.attempts() == {"daily": 3, "after": 3}


# --- what is left, by the items alone --------------------------------------------------------------------------------------


def node(name: str, command: int = 0, status: str = "success", **fields: Any) -> Item:
    kind = fields.pop("resource_type", "model")
    return {
        "unique_id": f"{kind}.tiny.{name}",
        "name": name,
        "resource_type": kind,
        "command": command,
        "status": status,
        "attempt": 1,
        **fields,
    }


def outcome(*commands: Mapping[str, Any]) -> Item:
    return {"attempt": 1, "commands": [{"command": "build", "seconds": 2.5, **command} for command in commands]}


def earlier(texts: Sequence[str], nodes: Sequence[Item] = (), outcomes: Sequence[Item] = ()) -> list[EarlierCommand]:
    return resume.earlier_commands([parse_command(text, "commands") for text in texts], nodes, outcomes)


def names(command: EarlierCommand) -> list[str]:
    return [result.name for result in command.done]


def test_a_model_of_which_no_batch_is_done_runs_as_a_whole() -> None:
    batches = [{"starts_at": "a", "ends_at": "b", "status": status} for status in ("error", "skipped")]
    item = node("daily", status="error", batches=batches, batches_total=2)
    assert earlier(["build"], [item])[0].partial == ()
    done = {"starts_at": "c", "ends_at": "d", "status": "success"}
    assert [each.name for each in earlier(["build"], [{**item, "batches": [*batches, done]}])[0].partial] == ["daily"]
    inexact = {"starts_at": "", "ends_at": "", "status": "error"}
    assert earlier(["build"], [{**item, "batches": [inexact, done]}])[0].partial == ()


@pytest.mark.parametrize("status", ["success", "pass", "warn", "no-op"])
def test_a_node_that_ended_well_is_done(status: str) -> None:
    [command] = earlier(["build"], [node("a", status=status)])
    assert (names(command), command.finished) == (["a"], False)


@pytest.mark.parametrize("status", ["error", "fail", "skipped", "runtime error", "partial success", "of a later dbt"])
def test_any_other_node_runs_again(status: str) -> None:
    [command] = earlier(["build"], [node("a", status=status)])
    assert (names(command), command.finished) == ([], False)


def test_a_command_is_finished_by_its_outcome_by_a_later_command_or_as_an_operation() -> None:
    said = outcome({"success": True, "selected": 3}, {"success": False, "selected": 2})
    assert [c.finished for c in earlier(["build", "test"], outcomes=[said])] == [True, False]
    assert [c.finished for c in earlier(["seed", "compile", "run"], [node("a", 2, "error")])] == [True, True, False]
    assert [c.finished for c in earlier(["run-operation greet"], [node("greet", resource_type="operation")])] == [True]
    assert [c.finished for c in earlier(["run-operation greet"], [node("greet", status="error", resource_type="operation")])] == [False]


def test_an_attempt_that_was_refused_takes_nothing_back() -> None:
    [command] = earlier(["build"], outcomes=[outcome({"success": True, "selected": 3}), outcome()])
    assert (command.finished, command.selected, command.seconds) == (True, 3, 2.5)


def test_hooks_of_a_command_that_is_not_finished_are_not_done() -> None:
    nodes = [node("start", resource_type="operation"), node("a")]
    assert names(earlier(["build"], nodes)[0]) == ["a"]
    assert names(earlier(["build", "test"], [*nodes, node("t", 1)])[0]) == ["start", "a"]


def test_the_time_of_earlier_attempts_is_that_of_their_nodes() -> None:
    times = [("10:00:00", "10:00:02", 1), ("10:00:01", "10:00:05", 1), ("11:00:00", "11:00:01.500", 2)]
    nodes = [
        node(str(i), started_at=f"2026-11-23T{start}Z", ended_at=f"2026-11-23T{end}Z") | {"attempt": attempt}
        for i, (start, end, attempt) in enumerate(times)
    ]
    assert earlier(["build"], [*nodes, node("untimed")])[0].seconds == 6.5


def test_results_of_this_attempt_replace_earlier_ones() -> None:
    old, new = (NodeResult(1, "model.tiny.a", "model", "a", "success", message) for message in ("old", "new"))
    left = [EarlierCommand(finished=True, selected=4, seconds=2.0), EarlierCommand(done=(old, replace(old, unique_id="model.tiny.b")))]
    merged = resume.merge(StepReport(nodes={"model.tiny.a": new}, commands=[CommandResult(1, True, 1.0)]), left)
    assert {unique_id: result.message for unique_id, result in merged.nodes.items()} == {"model.tiny.a": "new", "model.tiny.b": "old"}
    assert merged.commands == [CommandResult(0, True, 2.0, 4), CommandResult(1, True, 1.0)]


def asked(attempt: int = 1, *resumes: str) -> AttemptRequest:
    found = projects.asked(config.Warehouse("duckdb", {}, {}))
    return replace(found, key=replace(found.key, attempt=attempt), resumes=resumes)


def test_a_first_attempt_reads_nothing(store: Store) -> None:
    store.put({**node("a"), "pk": asked().key.pk, "sk": "NODE#build#a"})
    assert resume.read(store, asked(), [parse_command("build", "commands")]) == []
    assert names(resume.read(store, asked(2), [parse_command("build", "commands")])[0]) == ["a"]


def test_only_the_items_of_its_own_step_count(store: Store) -> None:
    store.put({**node("a"), "pk": asked().key.pk, "sk": "NODE#build_more#a"})
    store.put({**outcome({"success": True}), "pk": asked().key.pk, "sk": "STEP#01#build_more#1"})
    assert resume.read(store, asked(2), [parse_command("build", "commands")]) == [EarlierCommand()]


def test_what_resumed_runs_did_counts_and_the_latest_of_them_knows_best(store: Store) -> None:
    first, second = (run_pk(asked().key.environment, run) for run in ("first", "second"))
    left: list[tuple[str, str, dict[str, Any]]] = [
        (first, "a", {}),
        (first, "b", {"status": "error"}),
        (second, "b", {}),
        (second, "c", {"status": "error"}),
        (asked().key.pk, "c", {}),
    ]
    for pk, name, changes in left:
        store.put({**node(name, **changes), "pk": pk, "sk": f"NODE#build#{name}"})
    command = [parse_command("build", "commands")]
    assert names(resume.read(store, asked(1, "second", "first"), command)[0]) == ["a", "b"]
    assert names(resume.read(store, asked(2, "second", "first"), command)[0]) == ["a", "b", "c"]
    assert names(resume.read(store, asked(1, "first"), command)[0]) == ["a"]


def test_a_command_that_a_resumed_run_finished_is_finished(store: Store) -> None:
    store.put({**outcome({"success": True}), "pk": run_pk(asked().key.environment, "first"), "sk": "STEP#01#build#2"})
    assert resume.read(store, asked(1, "first"), [parse_command("build", "commands")])[0].finished


def test_the_worker_gets_what_is_left_over_its_standard_input(tmp_path: Path) -> None:
    left = [EarlierCommand(True, (), 4, 2.0), EarlierCommand(done=[NodeResult(1, "model.tiny.a", "model", "a", "success", rows=3)])]
    spec = replace(projects.spec(tmp_path, ["seed", "build"]), earlier=left)
    assert [replace(c, done=list(c.done)) for c in WorkerSpec.from_json(spec.to_json()).earlier] == [
        replace(c, done=list(c.done)) for c in left
    ]


# --- what it needs of dbt ---------------------------------------------------------------------------------------------------


def test_dbt_still_makes_its_queue_where_it_is_mended() -> None:
    """If this fails, read dbt/task/runnable.py and dbt/task/build.py of the new version before you extend dbt_hooks.KNOWN."""
    import dbt.cli.main  # noqa: F401  # It imports all tasks.
    from dbt.graph import Graph, GraphQueue
    from dbt.task.build import BuildTask
    from dbt.task.run import MicrobatchBatchRunner, RunTask
    from dbt.task.runnable import GraphRunnableTask

    def tasks(cls: type) -> Iterator[type]:
        yield cls
        for subclass in cls.__subclasses__():
            yield from tasks(subclass)

    assert {cls for cls in tasks(GraphRunnableTask) if "get_graph_queue" in vars(cls)} == {GraphRunnableTask, BuildTask}
    assert list(inspect.signature(BuildTask.get_graph_queue).parameters) == ["self"]
    assert list(inspect.signature(GraphQueue).parameters)[:3] == ["graph", "manifest", "selected"]
    assert list(inspect.signature(Graph.get_subset_graph).parameters) == ["self", "selected"]
    assert {"model_to_unit_test_map", "selected_unit_tests"} <= set(inspect.getclosurevars(BuildTask.handle_job_queue).unbound)
    assert "wait_until_something_was_done" in vars(GraphQueue)
    # Batches: the hook is put where the class has nothing of its own, and dbt's queue is made before it looks for `batch_map`.
    assert "run_with_hooks" not in vars(MicrobatchBatchRunner)
    assert {"batches", "batch_idx"} <= set(inspect.signature(MicrobatchBatchRunner).parameters)
    assert {"batch_map", "previous_batch_results"} <= set(RunTask.populate_microbatch_batches.__code__.co_names)
    assert "populate_microbatch_batches" in RunTask.before_run.__code__.co_names


def test_dbt_is_as_it_was_when_the_command_is_over() -> None:
    from dbt.task.build import BuildTask
    from dbt.task.run import MicrobatchBatchRunner
    from dbt.task.runnable import GraphRunnableTask

    from dbt_runner import dbt_hooks

    before = [vars(cls)["get_graph_queue"] for cls in (GraphRunnableTask, BuildTask)]
    with dbt_hooks.batch_by_batch(lambda *_: None, {}):
        assert "run_with_hooks" in vars(MicrobatchBatchRunner)
    assert "run_with_hooks" not in vars(MicrobatchBatchRunner)
    with pytest.raises(KeyboardInterrupt), dbt_hooks.leaving_out({"model.tiny.a"}):
        assert [vars(cls)["get_graph_queue"] for cls in (GraphRunnableTask, BuildTask)] != before
        raise KeyboardInterrupt
    assert [vars(cls)["get_graph_queue"] for cls in (GraphRunnableTask, BuildTask)] == before


def test_steps_are_resumed_with_each_version_that_the_runner_admits() -> None:
    from dbt_runner.dbt_hooks import KNOWN

    project = tomllib.loads((ROOT / "runner" / "pyproject.toml").read_text())["project"]
    first, before = KNOWN.bounds
    assert f"dbt-core>={first},<{before}" in project["dependencies"]


@pytest.mark.parametrize("version", ["1.9.8", "1.12.0b1", "2.0.0"])
def test_with_an_unknown_version_nothing_runs_and_the_command_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    left = [EarlierCommand(done=[NodeResult(0, "model.tiny.a", "model", "a", "success")])]
    events = io.StringIO()
    assert not Worker(replace(projects.spec(tmp_path, ["build"]), earlier=left), events, io.StringIO()).run()
    result = decode(events.getvalue().splitlines()[-1])
    assert isinstance(result, CommandResult) and result.exception
    assert result.exception.type == "UnknownDbt" and version in result.exception.message
