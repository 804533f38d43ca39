"""What runs on both implementations: each scenario is a story on one environment, and returns the paths of its executions.

Those of one environment follow each other; environments run side by side.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path as File
from typing import Any

from dbt_runner import promotion, publish, release
from dbt_runner.store import Store, environment_pk
from flow.support import FAULTS, wait_for
from second_aws.engine import FIRST, LARGEST, Engine
from second_aws.paths import Path, of_run

RELEASE, BROKEN = "faults-1", "broken-2"
QUICK = {"steps": [{"name": "quick", "commands": ["run --select fast"]}]}
SLOW = {"steps": [{"name": "long", "commands": ["run --select fast slow"]}]}

Paths = tuple[Path, ...]


@dataclass
class Scene:
    """One environment on one implementation, and what its scenarios have left for those that follow."""

    engine: Engine
    environment: str
    runs: dict[str, str] = field(default_factory=dict)

    def start(self, document: object) -> str:
        return self.engine.stack.start(self.environment, document)

    def paths(self, execution: str) -> Paths:
        return of_run(self.engine, self.environment, execution)

    def run(self, document: object) -> Paths:
        return self.paths(self.start(document))

    def start_slow(self, document: object = SLOW) -> str:
        """A run that is in its middle: `fast` is built, and `slow` is what dbt is busy with."""
        execution = self.start(document)
        self.engine.stack.wait_until_slow_runs(self.environment, execution)
        return execution

    def end(self, execution: str) -> Paths:
        self.engine.stack.abort(execution)
        paths = self.paths(execution)
        wait_for("free lock", lambda: True if self.engine.stack.lock(self.environment) is None else None, 60)
        return paths

    def promote(self, version: str) -> None:
        self.engine.stack.cli("release", "promote", "-e", self.environment, "-V", version)


def success(scene: Scene) -> Paths:
    """With documentation, which has a place of its own in the bucket."""
    return scene.run({"steps": [*QUICK["steps"], {"name": "docs", "commands": ["docs generate --static"], "on_failure": "continue"}]})


def failing_model(scene: Scene) -> Paths:
    execution = scene.start({"steps": [{"name": "build", "commands": ["run --select broken blocked"]}]})
    scene.runs["failed"] = execution.rsplit(":", 1)[1]
    return scene.paths(execution)


def failing_test(scene: Scene) -> Paths:
    """A failed test is not tried again."""
    return scene.run({"steps": [{"name": "build", "commands": ["build --select wrong"]}]})


def lock(scene: Scene) -> Paths:
    """A second run while another holds the lock; the first goes on."""
    scene.runs["slow"] = scene.start_slow()
    return scene.run(QUICK)


def abort(scene: Scene) -> Paths:
    """The run that `lock` left is aborted, or one of its own: its task stops, finalize closes its record and frees the lock."""
    return scene.end(scene.runs.pop("slow", "") or scene.start_slow())


def queue(scene: Scene) -> Paths:
    """A second run waits until the first has ended, and runs then."""
    first = scene.start(QUICK)
    wait_for("lock of the first run", lambda: scene.engine.stack.lock(scene.environment), 60)
    second = scene.start(QUICK)
    return (*scene.paths(first), *scene.paths(second))


def four_starts(scene: Scene) -> Paths:
    """Four starts at once: one runs. Which one is a matter of chance, so that the paths are in no order."""
    executions = [scene.start(QUICK) for _ in range(4)]
    return tuple(sorted((path for one in executions for path in scene.paths(one)), key=str))


def _interrupted(scene: Scene, interrupt: Callable[[str], object]) -> Paths:
    """A run whose first attempt is interrupted; the second one does the rest."""
    flag = scene.engine.home / f"flag-{uuid.uuid4().hex}"
    document = {"steps": [{"name": "build", "commands": ["run --select fast slow_once"]}], "vars": {"flag": str(flag)}}
    execution = scene.start_slow(document)
    flag.touch()
    interrupt(execution)
    return scene.paths(execution)


def stop(scene: Scene) -> Paths:
    """Its task is stopped from outside, as Fargate Spot does; the attempt says how far it came."""

    def stop_task(_execution: str) -> None:
        ecs, cluster = scene.engine.client("ecs"), f"dbt-{scene.environment}"
        [task] = ecs.list_tasks(cluster=cluster, desiredStatus="RUNNING")["taskArns"]
        ecs.stop_task(cluster=cluster, task=task, reason="Your Spot Task was interrupted.")

    return _interrupted(scene, stop_task)


def kill(scene: Scene) -> Paths:
    """The whole container dies without a word."""
    return _interrupted(scene, lambda execution: os.killpg(_supervisor(scene.engine.stack.worker_pid(execution, "build")), signal.SIGKILL))


def out_of_memory(scene: Scene) -> Paths:
    """The worker alone is killed: the next attempt has the next size."""
    return _interrupted(scene, lambda execution: os.kill(scene.engine.stack.worker_pid(execution, "build"), signal.SIGKILL))


def _supervisor(worker: int) -> int:
    return int(File(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])


def resume(scene: Scene) -> Paths:
    """What `failing_model` left is tried again, and fails again."""
    return scene.run({"resume": scene.runs["failed"]})


def resume_of_nothing(scene: Scene) -> Paths:
    return scene.run({"resume": "no-such-run"})


def rollback(scene: Scene) -> Paths:
    """A broken release, and the way back."""
    scene.promote(BROKEN)
    broken = scene.run(QUICK)
    scene.engine.stack.cli("release", "rollback", "-e", scene.environment)
    return (*broken, *scene.run(QUICK))


def on_lambda(scene: Scene) -> Paths:
    return scene.run({"steps": [{"name": "quick", "commands": ["run --select fast"], "compute": "lambda"}]})


def unknown_job(scene: Scene) -> Paths:
    return scene.run({"job": "nosuch"})


def unknown_release(scene: Scene) -> Paths:
    return scene.run({**QUICK, "release": "nosuch"})


def no_object(scene: Scene) -> Paths:
    return scene.run(["a", 1])


def expression(scene: Scene) -> Paths:
    return scene.run("{% $x %}")


def nulls(scene: Scene) -> Paths:
    return scene.run({"job": None, "steps": [None, {}], "vars": {"a": None, "b": [[]]}})


def no_command(scene: Scene) -> Paths:
    return scene.run({"steps": [{"name": "x", "commands": ["rm -rf /"]}]})


def odd_text(scene: Scene) -> Paths:
    """Characters that templates, JSON and logs stumble over are text."""
    return scene.run({**QUICK, "reason": 'ünï " \\ \u2028 😀 </script> {% 1/0 %}'})


def dead_owner(scene: Scene) -> Paths:
    """The lock of an execution that nobody knows is taken over."""
    machine = scene.engine.stack.config(scene.environment).state_machine.removesuffix(":live")
    owner = f"{machine.replace(':stateMachine:', ':execution:')}:gone"
    _hold(scene, owner)
    return scene.run(QUICK)


def ended_owner(scene: Scene) -> Paths:
    """The lock of an execution that has ended is taken over."""
    machine = scene.engine.stack.config(scene.environment).state_machine.removesuffix(":live")
    executions = scene.engine.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    _hold(scene, next(found["executionArn"] for found in executions if found["status"] != "RUNNING"))
    return scene.run(QUICK)


def _hold(scene: Scene, owner: str) -> None:
    hour = datetime.now(UTC) - timedelta(hours=1)
    scene.engine.client("dynamodb").put_item(
        TableName=scene.engine.table,
        Item={
            "pk": {"S": environment_pk(scene.environment)},
            "sk": {"S": "LOCK"},
            "owner": {"S": owner},
            "run_id": {"S": owner.rsplit(":", 1)[1]},
            "since": {"S": hour.strftime("%Y-%m-%dT%H:%M:%S.000Z")},
            "lease_until": {"N": str(int(time.time()) + 3600)},
        },
    )


def schedule(scene: Scene) -> Paths:
    """The schedule of a job, as Terraform made it, is due this minute: its run starts by itself.

    moto fires no schedule; there its target is started as the service would.
    """
    scheduler, group = scene.engine.client("scheduler"), f"dbt-{scene.environment}"
    made = scheduler.get_schedule(GroupName=group, Name="nightly")
    if scene.engine.name == FIRST:
        execution = scene.engine.client("stepfunctions").start_execution(
            stateMachineArn=made["Target"]["Arn"], input=made["Target"]["Input"]
        )["executionArn"]
        return scene.paths(execution)
    machine = scene.engine.stack.config(scene.environment).state_machine.removesuffix(":live")
    client = scene.engine.client("stepfunctions")

    def found() -> set[str]:
        return {run["executionArn"] for run in client.list_executions(stateMachineArn=machine, maxResults=1000)["executions"]}

    before = found()
    # An expression of the same kind: ministack remembers what a schedule had, and fires no at() after a cron().
    due = f"{datetime.now(UTC):cron(%M %H %d %m ? %Y)}"
    kept = {name: made[name] for name in ("GroupName", "Name", "FlexibleTimeWindow", "Target", "State")}
    scheduler.update_schedule(**kept, ScheduleExpression=due, ScheduleExpressionTimezone="UTC")
    [execution] = wait_for("scheduled run", lambda: found() - before or None, 60)
    return scene.paths(execution)


def alarm(scene: Scene) -> Paths:
    """A run that fails is counted, and the alarm on failed runs sees it. moto evaluates no alarms."""
    paths = scene.run({**QUICK, "release": "nosuch"})
    cloudwatch = scene.engine.client("cloudwatch")
    wait_for("count of failed runs", lambda: _failures(cloudwatch, scene.environment) or None, 60)
    if scene.engine.name != FIRST:
        name = f"dbt-{scene.environment}-failed"

        def state() -> bool | None:
            [found] = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
            return True if found["StateValue"] == "ALARM" else None

        wait_for(f"alarm {name}", state, 90)
    return paths


def _failures(cloudwatch: Any, environment: str) -> float:
    now = datetime.now(UTC)
    points = cloudwatch.get_metric_statistics(
        Namespace=f"dbt/dbt/{environment}",
        MetricName="RunsFailed",
        StartTime=now - timedelta(minutes=30),
        EndTime=now + timedelta(minutes=5),
        Period=300,
        Statistics=["Sum"],
    )["Datapoints"]
    return float(sum(point["Sum"] for point in points))


def largest_job(scene: Scene) -> Paths:
    """The largest job of the environment that is as large as docs/limits.md says."""
    paths = scene.run({"job": "largest", "trigger": "t" * 100, "reason": "r" * 500})
    assert paths[0].status == "SUCCEEDED", paths[0]
    return paths


# By environment, in order. `busy` has no health check: what costs a container less stands there.
SCENARIOS: Mapping[str, tuple[Callable[[Scene], Paths], ...]] = {
    "prod": (success, failing_model, resume, lock, abort, four_starts, stop, schedule, dead_owner),
    "prod-2": (on_lambda, queue, abort, unknown_job, no_object, expression, nulls, no_command, resume_of_nothing),
    "busy": (unknown_release, alarm, rollback, failing_test, kill, out_of_memory, lock, abort, odd_text, ended_owner),
    LARGEST: (largest_job,),
}


def names() -> list[str]:
    """Each scenario with its environment."""
    return [f"{environment}/{scenario.__name__}" for environment, scenarios in SCENARIOS.items() for scenario in scenarios]


def play(engine: Engine, environment: str) -> Iterator[tuple[str, Paths | Exception]]:
    """Plays the scenarios of an environment; one that fails does not keep the others from being played."""
    scene = Scene(engine, environment)
    for scenario in SCENARIOS[environment]:
        try:
            yield f"{environment}/{scenario.__name__}", scenario(scene)
        except (AssertionError, Exception) as exc:
            yield f"{environment}/{scenario.__name__}", exc
            _clear(scene)


def _clear(scene: Scene) -> None:
    """Ends whatever a scenario that failed has left, and goes back to the release of the scenarios."""
    client = scene.engine.client("stepfunctions")
    machine = scene.engine.stack.config(scene.environment).state_machine.removesuffix(":live")
    for run in client.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]:
        with contextlib.suppress(Exception):
            scene.end(run["executionArn"])
    with contextlib.suppress(Exception):
        scene.promote(RELEASE)


def candidates(folder: File) -> list[release.Candidate]:
    """The releases of the scenarios: one in which everything can be selected by name, and one whose first model is broken."""
    broken = folder / BROKEN
    shutil.copytree(FAULTS, broken)
    (broken / "models" / "fast.sql").write_text("select no_such_column")
    made = []
    for project, version in ((FAULTS, RELEASE), (broken, BROKEN)):
        target = folder / f"{version}-packed"
        target.mkdir()
        packed = publish.pack(project, version, "duckdb", target, lambda said: None)
        made.append(publish.parse(packed, "tests", lambda said: None))
    return made


def release_to(engine: Engine, made: Sequence[release.Candidate]) -> None:
    """Publishes the releases, and makes the first of them the current one of each environment."""
    store = Store(engine.client("dynamodb"), engine.client("s3"), engine.table, engine.bucket)
    for candidate in made:
        release.commit(store, candidate)
    for environment in SCENARIOS:
        promotion.promote(store, environment, RELEASE, by="tests", reason="the scenarios")
