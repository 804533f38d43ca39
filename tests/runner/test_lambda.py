"""The entry point on Lambda, in real processes behind AWS's own runtime client, with Lambda's limits: what a run does there and
what is left of it for the next one in the same sandbox.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from dbt_runner import lambda_handler, secret_variables
from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, TypedError
from dbt_runner.local import lambda_init
from dbt_runner.local.lambda_sandbox import LambdaSandbox
from dbt_runner.store import Store
from runner import projects
from runner.attempts import Run, publish
from runner.sandboxes import LIMITS, SECRET, World, invoke, left_in, server

__all__ = ["server"]

PROJECT: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/orders.sql": "{{ config(materialized='table') }} select 1 as id, '{{ env_var('TEAM') }}' as team",
    "models/answers.sql": "select id from {{ ref('orders') }}",
    "models/models.yml": "models: [{ name: orders, columns: [{ name: id, data_tests: [not_null, unique] }] }]",
}
# A worker that looks for what it must not find and leaves behind what the next one must not find.
NOSY = """
import pathlib, tempfile
own = pathlib.Path(os.environ["HOME"])
found = {
    "environ": dict(os.environ),
    "files": sorted(str(p.relative_to(own.parent)) for p in own.parent.rglob("*") if own not in (p, *p.parents)),
    "project": sorted(p.name for p in pathlib.Path(spec["project"]).iterdir()),
    "started": spec["project"],
}
with open(os.environ["FOUND"], "a") as file:
    print(json.dumps(found), file=file)
(own / "in_home").write_text("x")
(own.parent / "beside_home").mkdir()
(own.parent / "beside_home" / "file").write_text("x")
"""
DAEMON = """
child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdin=0, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
with open(os.environ["FOUND"] + ".pid", "a") as file:
    print(child.pid, file=file)
"""
LISTS_MODELS = """
models = spec["project"] + "/models/"
with open(os.environ["FOUND"], "a") as file:
    print(json.dumps({name: open(models + name).read() for name in sorted(os.listdir(models))}), file=file)
"""
ENDS_WELL = "node('model.tiny.orders')\ndone()\n"
SLOW = "node('model.tiny.orders')\ntry:\n    time.sleep(300)\nexcept KeyboardInterrupt:\n    done(False)\n"


@pytest.fixture
def world(store: Store, environment: dict[str, Any], server: str, tmp_path: Path) -> Iterator[World]:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    publish(store, tmp_path / "project", PROJECT)
    world = World(Run(store, environment), server, tmp_path)
    world.plan()
    yield world
    world.close()


def looked(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world.folder / "found").read_text().splitlines()]


def nosy(world: World, more: str = "") -> LambdaSandbox:
    return world.sandbox(environ={**world.scripted(NOSY + more + ENDS_WELL), "FOUND": str(world.folder / "found")})


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_step_runs_with_real_dbt_under_the_limits_of_lambda(world: World) -> None:
    """Without semaphores, with no place to write but its own; and once more in the same sandbox, from the unpacked release."""
    sandbox = world.sandbox()
    assert invoke(sandbox, 0) == {"exit_code": 0, "error": None}, world.lines[-20:]
    assert world.run.outcome("STEP#00#health_check#1")["compute"] == "lambda"
    assert invoke(sandbox) == {"exit_code": 0, "error": None}, world.lines[-20:]
    outcome = world.run.outcome()
    assert (outcome["compute"], outcome["exit_code"], outcome["counts"]) == ("lambda", 0, {"success": 2, "pass": 2})
    assert {artifact["key"].rsplit("/", 1)[1] for artifact in outcome["artifacts"]} >= {"run_results.json", "manifest.json", "dbt.log"}
    assert set(world.run.nodes()) >= {"model.tiny.orders", "model.tiny.answers"}
    assert {path.split("/")[0] for path in left_in(sandbox)} == {"releases"}
    assert all(json.loads(line) for line in world.lines)


def test_dbt_itself_needs_the_semaphores_that_lambda_lacks(tmp_path: Path) -> None:
    """The patch is for something: with the same limits and without it dbt ends with the kernel's refusal."""
    profile = "of_a_developer: { target: t, outputs: { t: { type: duckdb, path: ':memory:' } } }"
    projects.write(tmp_path, {**PROJECT, "profiles.yml": profile})
    code = "from dbt.cli.main import dbtRunner; print(repr(dbtRunner().invoke(['parse', '--profiles-dir', '.']).exception))"
    environ = {**os.environ, "PYTHONPATH": str(LIMITS)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "Function not implemented" in done.stdout + done.stderr


@pytest.mark.skipif(lambda_init.version() < 2, reason="this kernel has no Landlock: the local Lambda can write everywhere here")
def test_a_sandbox_can_write_to_its_own_folder_only(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    script = f"""
for folder in (os.environ["HOME"], {str(outside)!r}):
    try:
        open(folder + "/file", "w").close()
        node("model.tiny.written")
    except PermissionError:
        node("model.tiny.refused")
done()
"""
    assert invoke(world.sandbox(environ=world.scripted(script)))["exit_code"] == 0
    assert set(world.run.nodes()) == {"model.tiny.written", "model.tiny.refused"}
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(("on_timeout", "error"), [("fail", "Dbt.Timeout"), ("fargate", "Dbt.Interrupted")])
def test_a_step_that_outgrows_the_function_says_so_in_time_and_keeps_its_nodes(world: World, on_timeout: str, error: str) -> None:
    world.run.steps[0]["on_timeout"] = on_timeout
    world.plan()
    sandbox = world.sandbox(12, environ=world.scripted(SLOW))
    assert invoke(sandbox)["error"] == error
    outcome = world.run.outcome()
    assert outcome["error"] == error and "1 nodes had finished" in outcome["message"]
    assert ("Fargate" in outcome["message"]) or ('on_timeout = "fargate"' in outcome["message"])
    assert world.run.nodes()["model.tiny.orders"]["status"] == "success"


def test_the_steps_own_time_is_no_matter_of_lambda(world: World) -> None:
    world.run.steps[0].update(on_timeout="fargate", timeout_seconds=1)
    world.plan()
    assert invoke(world.sandbox(environ=world.scripted(SLOW)))["error"] == "Dbt.Timeout"


def test_a_warehouse_that_does_not_answer_in_the_functions_time_is_unavailable(world: World) -> None:
    sandbox = world.sandbox(10, environ=world.scripted("time.sleep(300)"))
    assert invoke(sandbox, 0)["error"] == "Dbt.WarehouseUnavailable"


@pytest.mark.parametrize(
    "event", [{}, [], {"run_key": "RUN#1", "step": "1", "attempt": 1}, {"run_key": "R", "step": 1, "attempt": 1, "x": 1}]
)
def test_an_event_that_is_no_pointer_is_refused(event: object) -> None:
    with pytest.raises(TypedError, match="called by the state machine"):
        lambda_handler._pointer(event)


def test_the_handler_is_nothing_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_RUNTIME_API", raising=False)
    with pytest.raises(TypedError, match="dbt-runner start"):
        lambda_handler.handler({}, None)  # type: ignore[arg-type]


# --- what a worker sees, and what is left for the next one ------------------------------------------------------------


def test_nothing_of_one_run_is_visible_to_the_next(world: World) -> None:
    sandbox = nosy(world, DAEMON)
    for number in (1, 2):
        world.plan(f"r-{number}")
        assert invoke(sandbox)["exit_code"] == 0, world.lines[-5:]
    first, second = looked(world)
    assert SECRET not in json.dumps([first, second])
    control = ("AWS_", "DBT_RUNNER_", "LAMBDA_", "_HANDLER", "_X_AMZN")
    found = {name for look in (first, second) for name in look["environ"] if name.startswith(control)}
    assert found == {"AWS_EC2_METADATA_DISABLED", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"}, "where AWS is, not who asks"
    assert first["environ"]["TEAM"] == "of the function"
    homes = {look["environ"].pop("HOME") for look in (first, second)}
    assert len(homes) == 2 and first["environ"] == second["environ"]
    assert [path for path in second["files"] if not path.startswith("releases")] == []
    assert second["files"] == first["files"]
    assert {path.split("/")[0] for path in left_in(sandbox)} == {"releases"}
    for pid in map(int, (world.folder / "found.pid").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_warm_start_takes_the_release_that_is_unpacked_and_no_other(world: World) -> None:
    sandbox = nosy(world)
    invoke(sandbox)
    file = Path(looked(world)[0]["started"]) / "dbt_project.yml"
    first = file.stat().st_ctime_ns
    world.plan("r-2")
    invoke(sandbox)
    assert (looked(world)[1]["started"], file.stat().st_ctime_ns) == (looked(world)[0]["started"], first)


def warm(world: World, figure: Callable[[str], None], invocations: int) -> None:
    """Many invocations of one sandbox: it takes no more memory, files or descriptors at the end than after the first ones."""
    sandbox = nosy(world)
    settled = 10

    def use() -> tuple[int, int, set[str]]:
        proc = Path(f"/proc/{sandbox.pid}")
        rss = int(next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
        return rss, len(list((proc / "fd").iterdir())), left_in(sandbox)

    started = time.monotonic()
    for number in range(invocations):
        if number == settled:
            pid, (rss, descriptors, files) = sandbox.pid, use()
        world.plan(f"r-{number}")
        assert invoke(sandbox) == {"exit_code": 0, "error": None}, (number, world.lines[-5:])
    after = use()
    seconds = time.monotonic() - started
    figure(f"{invocations} warm invocations in {seconds:.1f} s: {rss} -> {after[0]} KiB, {descriptors} -> {after[1]} descriptors")
    assert sandbox.pid == pid
    assert (after[1], after[2]) == (descriptors, files)
    assert after[0] - rss < 4096
    looks = looked(world)
    for look in looks:
        look["environ"].pop("HOME")
    assert len(looks) == invocations and all(look == looks[0] for look in looks)


def test_warm_invocations_leave_nothing_behind_and_take_no_more(world: World, figure: Callable[[str], None]) -> None:
    warm(world, figure, 16)


@pytest.mark.slow
def test_a_thousand_warm_invocations_take_no_more(world: World, figure: Callable[[str], None]) -> None:
    warm(world, figure, 1000)


# --- secrets, which nobody injects on Lambda -------------------------------------------------------------------------


def client(service: str) -> Any:
    return boto3.client(service)  # type: ignore[call-overload]


def test_secrets_are_read_as_ecs_reads_them(store: Store) -> None:
    secrets, parameters = boto3.client("secretsmanager"), boto3.client("ssm")
    plain = secrets.create_secret(Name="plain", SecretString="p4ss")["ARN"]
    keyed = secrets.create_secret(Name="keyed", SecretString=json.dumps({"user": "ann", "port": 5}))["ARN"]
    parameters.put_parameter(Name="/team/token", Value="t0ken", Type="SecureString")
    references = {
        "PLAIN": plain,
        "USER_NAME": f"{keyed}:user::",
        "PORT": f"{keyed}:port:AWSCURRENT:",
        "TOKEN": "arn:aws:ssm:eu-central-1:123456789012:parameter/team/token",
    }
    assert secret_variables.read(references, client) == {"PLAIN": "p4ss", "USER_NAME": "ann", "PORT": "5", "TOKEN": "t0ken"}


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("arn:aws:secretsmanager:eu-central-1:123456789012:secret:none-abcdef", ACCESS_DENIED),
        ("arn:aws:ssm:eu-central-1:123456789012:parameter/none", ACCESS_DENIED),
        ("arn:aws:secretsmanager:eu-central-1:123456789012:secret:known:port::", INVALID_REQUEST),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_and_never_shown(store: Store, reference: str, kind: object) -> None:
    known = boto3.client("secretsmanager").create_secret(Name="known", SecretString="s3cret")["ARN"]
    with pytest.raises(TypedError, match=r"secrets\.TOKEN") as raised:
        secret_variables.read({"TOKEN": reference.replace("arn:aws:secretsmanager:eu-central-1:123456789012:secret:known", known)}, client)
    assert raised.value.kind is kind and "s3cret" not in str(raised.value)


def test_a_worker_gets_the_secrets_and_a_run_says_when_they_cannot_be_read(world: World) -> None:
    arn = boto3.client("secretsmanager").create_secret(Name="plain", SecretString="p4ss-of-the-team")["ARN"]
    tells = "print('it is', os.environ.get('TOKEN'), flush=True)\n"
    found = {**world.scripted(NOSY + tells + ENDS_WELL), "FOUND": str(world.folder / "found")}
    assert invoke(world.sandbox(environ={**found, "DBT_RUNNER_SECRETS": json.dumps({"TOKEN": arn})}))["exit_code"] == 0
    assert looked(world)[0]["environ"]["TOKEN"] == "p4ss-of-the-team"
    assert "it is *****" in "".join(world.lines) and "p4ss-of-the-team" not in "".join(world.lines)
    missing = world.sandbox(environ={**found, "DBT_RUNNER_SECRETS": json.dumps({"TOKEN": f"{arn}none"})})
    world.plan("r-2")
    assert invoke(missing)["error"] == "Dbt.AccessDenied"
