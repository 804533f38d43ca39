"""One attempt from its first read to its outcome, on the embedded store: whatever happens, the outcome is there and it is true.

Where dbt does not matter, a script takes the worker's place (see projects.scripted).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.stub import Stubber

from dbt_runner import artifacts, attempt, audit, identity, pages, release, stage
from dbt_runner import bundle as bundles
from dbt_runner.attempt import Attempt, from_container
from dbt_runner.errors import RUNNER_ERROR, TypedError
from dbt_runner.node_writer import NodeWriter
from dbt_runner.store import Item, Store, release_key
from runner import projects
from runner.attempts import PREFIX, RUN_KEY, Run, publish
from runner.releases import refused
from runner.sts import CREDENTIALS, Sts, sts

__all__ = ["sts"]

PROJECT: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/orders.sql": """
{{ config(materialized='table') }}
{% if not flags.FULL_REFRESH %}{{ exceptions.raise_compiler_error('no full refresh') }}{% endif %}
select {{ var('answer') }} as answer, '{{ var("text") }}' as text, '{{ target.name }}' as target
""",
    "models/answers.sql": "select answer, text from {{ ref('orders') }}",
    "models/models.yml": "models: [{ name: orders, columns: [{ name: answer, data_tests: [not_null] }] }]",
}


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    return Run(store, environment)


@pytest.fixture
def released(store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path / "project", PROJECT)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "Supervisor", lambda *_, **__: pytest.fail("a worker was started"))


def scripted(run: Run, tmp_path: Path, script: str) -> None:
    run.environment.update(projects.scripted(tmp_path / "scripted", script))


def archived(run: Run, table: str) -> dict[str, Any]:
    """The first row of an attempt in the long-term audit."""
    key = f"audit/{table}/env=prod/date=2026-11-23/r-1.build.1.jsonl"
    body = boto3.client("s3").get_object(Bucket=run.store.bucket, Key=key)["Body"].read()
    row: dict[str, Any] = json.loads(body.splitlines()[0])
    return row


def log_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- real dbt --------------------------------------------------------------------------------------------------------


def test_a_step_that_succeeds_leaves_its_outcome_nodes_and_artifacts(
    run: Run, released: None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run.plan.update(vars={"answer": 42, "text": "a b; $(id) \\ \u00fc"}, full_refresh=True)
    run.steps[0]["commands"] = ["build --select orders", "build --exclude orders -f"]
    assert run.attempt() == 0
    outcome = run.outcome()
    assert (outcome["exit_code"], outcome["counts"], outcome["failures"]) == (0, {"success": 2, "pass": 1}, [])
    assert {"error", "message", "why"}.isdisjoint(outcome)
    assert [(c["command"], c["success"], c["selected"]) for c in outcome["commands"]] == [
        ("build --select orders", True, 2),
        ("build --exclude orders -f", True, 1),
    ]
    assert outcome["started_at"] < outcome["ended_at"]
    assert outcome["seconds"] > 0 and outcome["peak_memory_mib"] > 50
    assert {"dbt-runner", "dbt-core", "dbt-duckdb"} == set(outcome["versions"])
    assert outcome["compute"] == "fargate"
    meta = release.find(run.store, "1.4.2")
    assert outcome["release"] == {
        "version": "1.4.2",
        "digest": meta.digest,
        "manifest_digest": meta.manifest_digest,
        "dbt_version": "1.11.16",
    }
    assert {(node["name"], node["status"], node["command"]) for node in run.nodes().values()} == {
        ("orders", "success", 0),
        ("not_null_orders_answer", "pass", 0),
        ("answers", "success", 1),
    }
    stored = {a["key"].removeprefix(f"{PREFIX}build/1/"): a for a in outcome["artifacts"]}
    assert {"run_results.json", "command-0/run_results.json", "manifest.json", "dbt.log"} <= set(stored)
    for artifact in stored.values():
        body = boto3.client("s3").get_object(Bucket=run.store.bucket, Key=artifact["key"])["Body"].read()
        assert (hashlib.sha256(body).hexdigest(), len(body)) == (artifact["sha256"], artifact["bytes"])
    row = archived(run, "attempts")
    assert (row["run_id"], row["release"], row["release_digest"]) == ("r-1", "1.4.2", meta.digest)
    assert row["artifacts"] == outcome["artifacts"] and row["node_rows"] == outcome["node_rows"]
    lines = log_lines(capsys)
    assert all((line["environment"], line["step"], line["attempt"]) == ("prod", "build", 1) for line in lines)
    import duckdb

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        assert warehouse.sql("select * from orders").fetchall() == [(42, "a b; $(id) \\ \u00fc", "prod")]


@pytest.mark.usefixtures("warm_worker")
def test_a_step_that_fails_says_which_node_and_keeps_its_artifacts(run: Run, store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path / "project", projects.BAD)
    run.steps[0]["commands"] = ["run"]
    assert run.attempt(number=3) == 10
    outcome = run.outcome("STEP#01#build#3")
    assert outcome["error"] == "Dbt.ModelError"
    assert "model.tiny.broken" in outcome["message"] and "no_such_column" in outcome["failures"][0]["message"]
    (failure,) = outcome["failures"]
    assert (failure["owner"], failure["blocked"]) == ("the tiny team", 1)
    assert run.nodes()["model.tiny.after_broken"]["status"] == "skipped"
    assert run.nodes()["model.tiny.good"]["attempt"] == 3
    assert f"{PREFIX}build/3/run_results.json" in [a["key"] for a in outcome["artifacts"]]


@pytest.mark.usefixtures("warm_worker")
def test_a_release_that_does_not_compile_is_its_authors_error(run: Run, store: Store, tmp_path: Path) -> None:
    publish(store, tmp_path / "project", {**PROJECT, "models/orders.sql": "select * from {{ ref('nothing') }}"})
    assert run.attempt() == 12
    assert "nothing" in run.outcome()["message"]
    assert run.nodes() == {}


def test_the_health_check_asks_the_warehouse(run: Run, released: None) -> None:
    assert run.attempt(position=0) == 0
    outcome = run.outcome("STEP#00#health_check#1")
    assert (outcome["step"], outcome["exit_code"], outcome["counts"]) == ("health_check", 0, {})


def test_the_health_check_says_that_the_warehouse_is_not_there(run: Run, released: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    settings = {"host": "127.0.0.1", "port": port, "user": "dbt", "dbname": "a", "retries": "0"}
    run.config["warehouse"] = {"type": "postgres", "settings": settings, "identity": {}}
    assert run.attempt(position=0) == 20
    outcome = run.outcome("STEP#00#health_check#1")
    assert outcome["error"] == "Dbt.WarehouseUnavailable"
    assert "FailedToConnectError" in outcome["why"] and port in outcome["message"]


def test_a_warehouse_that_accepts_and_never_answers_ends_the_health_check_in_its_time(
    run: Run, released: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = {"host": "127.0.0.1", "port": str(server.getsockname()[1]), "user": "dbt", "dbname": "a", "connect_timeout": "600"}
        run.config["warehouse"] = {"type": "postgres", "settings": settings, "identity": {}}
        run.config["health_check"]["timeout_seconds"] = 4
        assert run.attempt(position=0) == 20
    assert "did not answer" in run.outcome("STEP#00#health_check#1")["message"]
    stopping = next(line for line in log_lines(capsys) if "grace_seconds" in line)
    assert stopping["grace_seconds"] <= 5, "libpq hears no interrupt while it connects"


@pytest.mark.slow
def test_a_step_and_a_health_check_run_on_postgresql(run: Run, released: None) -> None:
    run.plan.update(vars={"answer": 42, "text": "x"}, full_refresh=True)
    with projects.postgres() as warehouse:
        run.config["warehouse"] = {"type": "postgres", "settings": dict(warehouse.settings), "identity": {}}
        assert run.attempt(position=0) == 0
        assert run.attempt() == 0, run.outcome()
        assert projects.query(warehouse, "select answer, target from public.orders") == [(42, "prod")]
    assert run.nodes()["model.tiny.orders"]["rows"] == 1
    assert "dbt-postgres" in run.outcome()["versions"]


# --- refused before anything runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1])
def test_an_invalid_command_of_a_later_step_starts_no_dbt(run: Run, released: None, nothing_starts: None, position: int) -> None:
    run.steps.append({"name": "later", "commands": ["build", "clean"], "on_failure": "fail", "timeout_seconds": 60})
    assert run.attempt(position=position) == 30
    outcome = run.outcome("STEP#00#health_check#1" if position == 0 else "STEP#01#build#1")
    assert outcome["error"] == "Dbt.InvalidRequest"
    assert outcome["message"].startswith("steps[1].commands[1]: ")


@pytest.mark.parametrize("lock", [None, {"owner": "arn:of:another", "run_id": "r-2"}])
def test_without_the_lock_nothing_is_executed(run: Run, released: None, nothing_starts: None, lock: Item | None) -> None:
    run.lock = lock
    assert run.attempt() == 33
    assert run.outcome()["error"] == "Dbt.LockLost"


@pytest.mark.parametrize("position", [0, 1])
def test_a_release_that_is_not_there_is_named(run: Run, nothing_starts: None, position: int) -> None:
    assert run.attempt(position=position) == 31
    assert "1.4.2" in run.outcome("STEP#00#health_check#1" if position == 0 else "STEP#01#build#1")["message"]


def test_a_release_that_was_changed_is_not_run(run: Run, released: None, nothing_starts: None) -> None:
    boto3.client("s3").put_object(Bucket=run.store.bucket, Key=release_key("1.4.2", "bundle.tar.gz"), Body=b"something else")
    assert run.attempt() == 32
    assert run.outcome()["error"] == "Dbt.ReleaseCorrupt"


def hostile(*members: tarfile.TarInfo) -> bytes:
    """A bundle of an honest project and these members."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        project = tarfile.TarInfo("dbt_project.yml")
        project.size = len(projects.PROJECT)
        archive.addfile(project, io.BytesIO(projects.PROJECT.encode()))
        for one in members:
            archive.addfile(one, io.BytesIO(bytes(one.size)))
    return raw.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("bundle", "says"),
    [
        (lambda tmp: hostile(member("../../../../../../escaped.sql")), "outside of the project"),
        (lambda tmp: hostile(member(f"{tmp}/escaped.sql")), "outside of the project"),
        (lambda tmp: hostile(member("models/out", tarfile.SYMTYPE, str(tmp))), "neither a plain file"),
        (lambda tmp: hostile(member("models/out", tarfile.LNKTYPE, "/etc/passwd")), "neither a plain file"),
        (lambda tmp: hostile(member("models/null", tarfile.CHRTYPE)), "neither a plain file"),
        (lambda tmp: hostile(member("bomb", size=3 << 20)), "more than 2,097,152 bytes"),
        (lambda tmp: hostile(*(member(str(number)) for number in range(20))), "more than 20 members"),
        (lambda tmp: hostile(member("a.sql"))[:-20], "cannot be read"),
    ],
    ids=["dots", "absolute", "link out", "hard link", "device", "size bomb", "count bomb", "truncated"],
)
def test_a_hostile_bundle_is_refused_even_if_it_was_published(
    run: Run, nothing_starts: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Callable[[Path], bytes], says: str
) -> None:
    """Its digest is right: a publisher with a client of their own put it there."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    monkeypatch.setattr(bundles.unpack, "__kwdefaults__", {"max_members": 20, "max_bytes": 2 << 20})
    publish(run.store, tmp_path / "project", PROJECT, bundle(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert run.attempt() == 32
    outcome = run.outcome()
    assert (outcome["error"], outcome["artifacts"]) == ("Dbt.ReleaseCorrupt", [])
    assert says in outcome["message"]
    assert sorted(tmp_path.rglob("*")) == before


def test_settings_that_the_adapter_does_not_know_are_refused(run: Run, released: None, nothing_starts: None) -> None:
    run.config["warehouse"]["settings"]["paht"] = "x"
    assert run.attempt() == 30
    assert "settings.paht" in run.outcome()["message"]


def test_a_run_that_does_not_exist_is_an_exit_code_and_a_line_of_the_log(
    store: Store, nothing_starts: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Attempt(store, lambda: pytest.fail("no STS"), {}).run("prod", RUN_KEY, 1, 1) == 1
    [line] = log_lines(capsys)
    assert line["level"] == "error" and "has no run" in line["message"]
    assert (line["environment"], line["run_key"]) == ("prod", RUN_KEY)


def test_a_warehouse_role_that_aws_refuses_runs_nothing(run: Run, released: None, nothing_starts: None) -> None:
    rds = {"host": "db.example.org", "user": "dbt", "dbname": "a"}
    run.config["warehouse"] = {"type": "postgres", "settings": rds, "identity": {"method": "rds_iam"}}
    client = boto3.client("sts")
    with Stubber(client) as stubber:
        stubber.add_client_error("assume_role", "AccessDenied", "not you", http_status_code=403)
        run.sts = lambda: client
        assert run.attempt() == 21
    assert run.outcome()["error"] == "Dbt.AccessDenied"


@pytest.mark.parametrize(
    ("answer", "error", "fault"),
    [
        (EndpointConnectionError(endpoint_url="https://sts.eu-central-1.amazonaws.com"), "Dbt.WarehouseUnavailable", "network"),
        (ReadTimeoutError(endpoint_url="https://sts.eu-central-1.amazonaws.com"), "Dbt.WarehouseUnavailable", "network"),
        (ClientError({"ResponseMetadata": {"HTTPStatusCode": 503}}, "AssumeRole"), "Dbt.WarehouseUnavailable", "identity"),  # type: ignore[typeddict-item]
        (ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole"), "Dbt.AccessDenied", "identity"),
    ],
)
def test_a_check_without_a_way_to_sts_blames_the_network(
    run: Run, released: None, nothing_starts: None, answer: Exception, error: str, fault: str
) -> None:
    rds = {"host": "db.example.org", "user": "dbt", "dbname": "a"}
    run.config["warehouse"] = {"type": "postgres", "settings": rds, "identity": {"method": "rds_iam"}}
    run.sts = lambda: Mock(assume_role=Mock(side_effect=answer))
    run.attempt(0)
    outcome = run.outcome("STEP#00#health_check#1")
    assert (outcome["error"], outcome["fault"]) == (error, fault)


# --- the worker's surroundings, and signals ------------------------------------------------------------------------------


def test_the_worker_gets_a_token_and_nothing_of_the_control_role(run: Run, released: None, tmp_path: Path) -> None:
    rds = {"host": "db.example.org", "user": "dbt", "dbname": "a"}
    run.config["warehouse"] = {"type": "postgres", "settings": rds, "identity": {"method": "rds_iam"}}
    run.sts = lambda: boto3.client("sts")
    script = """
token = open(os.environ["PGPASSFILE"]).read()
node("token" if token.startswith("db.example.org:5432:*:dbt:") and "X-Amz-Signature" in token else "none")
for name in os.environ:
    if name.startswith(("AWS_", "ECS_", "DBT_RUNNER_")) and name != "AWS_EC2_METADATA_DISABLED":
        node(name)
node("home" if os.path.samefile(os.environ["HOME"], os.path.join(os.getcwd(), "..")) else os.environ["HOME"])
done()
"""
    scripted(run, tmp_path, script)
    assert run.attempt() == 0
    assert set(run.nodes()) == {"token", "home"}


# What an SDK of AWS does first; the words of boto3 for what it does when there is nothing.
LOGS_IN = """
import urllib.error, urllib.request
address = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
bearer = {"Authorization": os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]}
try:
    with urllib.request.urlopen(urllib.request.Request(address, headers=bearer)) as answer:
        node(json.load(answer)["AccessKeyId"])
    done()
except urllib.error.HTTPError as exc:
    exception = {"type": "NoCredentialsError", "bases": ["BotoCoreError"], "message": "no credentials", "codes": {}, "causes": []}
    say("CommandResult", index=0, success=False, seconds=1.0, selected=None, exception=exception)
    say("Finished")
"""
SNOWFLAKE: Mapping[str, Any] = {
    "type": "snowflake",
    "settings": {"account": "o-a", "role": "R", "warehouse": "W", "database": "D", "schema": "S"},
    "identity": {"method": "aws_token"},
}


def test_the_worker_logs_in_as_the_warehouse_role(run: Run, released: None, tmp_path: Path, sts: Sts) -> None:
    run.config["warehouse"] = SNOWFLAKE
    run.sts = lambda: sts.allows().client
    variable = 'node(os.environ["SNOWFLAKE_ENABLE_AWS_WIF_OUTBOUND_TOKEN"] + " " + os.environ["AWS_REGION"])'
    scripted(run, tmp_path, variable + LOGS_IN)
    assert run.attempt() == 0
    assert set(run.nodes()) == {CREDENTIALS["AccessKeyId"], "true eu-central-1"}


@pytest.mark.parametrize(("position", "step"), [(0, "STEP#00#health_check#1"), (1, "STEP#01#build#1")])
def test_an_outage_of_aws_in_the_middle_of_a_run_is_no_refusal(
    run: Run, released: None, tmp_path: Path, sts: Sts, position: int, step: str
) -> None:
    """The driver says that there are no credentials, which would be Dbt.AccessDenied and never tried again."""
    run.config["warehouse"] = SNOWFLAKE
    run.sts = lambda: sts.allows(lasting=timedelta(seconds=-1)).refuses("ServiceUnavailable", 503).client
    scripted(run, tmp_path, LOGS_IN)
    assert run.attempt(position) == 20
    outcome = run.outcome(step)
    assert outcome["error"] == "Dbt.WarehouseUnavailable"
    assert "ServiceUnavailable" in outcome["message"] and "no credentials" in outcome["message"] and "AssumeRole" in outcome["why"]


def test_nothing_is_left_on_the_disk(run: Run, released: None, tmp_path: Path) -> None:
    scripted(run, tmp_path, "node(os.path.realpath('..'))\ndone()\n")
    assert run.attempt() == 0
    [work] = run.nodes()
    assert Path(work).name.startswith("dbt-runner-") and not Path(work).exists()


def ask_to_stop(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)  # The interpreter runs the handler between two instructions, at the latest here.


def test_a_signal_while_the_release_is_fetched_ends_the_attempt_at_once(
    run: Run, released: None, nothing_starts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def slow(*_: Any) -> None:
        ask_to_stop()
        pytest.fail("it went on")

    monkeypatch.setattr(release, "fetch", slow)
    assert run.attempt() == 40
    outcome = run.outcome()
    assert (outcome["error"], outcome["why"]) == ("Dbt.Interrupted", "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("place", ["upload", "cleaning up", "recording"])
def test_a_signal_after_dbt_ended_well_changes_nothing(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    asked: list[str] = []

    def then(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *arguments: Any, **keywords: Any) -> Any:
            # The release's own temporary folder is removed while it may still be interrupted.
            if not isinstance(first, str) or not Path(first).name.startswith("dbt-release-"):
                asked.append(place)
                ask_to_stop()
                ask_to_stop()
            return original(first, *arguments, **keywords)

        return call

    if place == "upload":
        monkeypatch.setattr(artifacts, "upload", then(artifacts.upload))
    elif place == "cleaning up":
        monkeypatch.setattr(shutil, "rmtree", then(shutil.rmtree))
    else:
        monkeypatch.setattr(audit, "outcome_item", then(audit.outcome_item))
    scripted(run, tmp_path, "node('a')\ndone()\n")
    assert run.attempt() == 0
    assert asked
    assert run.outcome()["exit_code"] == 0


def test_a_second_signal_does_not_cost_the_outcome(run: Run, released: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree = shutil.rmtree
    tidied: list[str] = []

    def fetch(*_: Any) -> None:
        try:
            ask_to_stop()
        finally:
            ask_to_stop()
            tidied.append("fetch")

    def again(*arguments: Any, **keywords: Any) -> None:
        # Reads before the release have folders of their own.
        if tidied:
            ask_to_stop()
            tidied.append("work")
        rmtree(*arguments, **keywords)

    monkeypatch.setattr(release, "fetch", fetch)
    monkeypatch.setattr(shutil, "rmtree", again)
    assert run.attempt() == 40
    assert tidied == ["fetch", "work"]
    assert run.outcome()["error"] == "Dbt.Interrupted"


@pytest.mark.parametrize("lost", [False, True], ids=["the table answers", "the attempt is another container's by now"])
def test_a_page_that_could_not_be_published_is_said_by_the_outcome(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    def broken(*_: object) -> list[str]:
        if lost:
            run.store.put({**run.outcome(), "holder": "another"})
        raise KeyError("model.shop.a")

    monkeypatch.setattr(pages, "publish_report", broken)
    scripted(run, tmp_path, "node('a')\ndone()\n")
    assert run.attempt() == 0
    assert run.outcome().get("unpublished") == (None if lost else ["report"])
    assert "error" not in run.outcome() and run.outcome()["exit_code"] == 0


def test_a_killed_worker_is_recorded_with_its_nodes(run: Run, released: None, tmp_path: Path) -> None:
    scripted(run, tmp_path, "node('a')\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert run.attempt() == 40
    assert run.outcome()["error"] == "Dbt.Interrupted"
    assert run.outcome()["counts"] == {"success": 1}
    assert list(run.nodes()) == ["a"]


def test_a_step_that_runs_out_of_its_time_is_recorded(run: Run, released: None, tmp_path: Path) -> None:
    run.steps[0]["timeout_seconds"] = 1
    scripted(run, tmp_path, "node('a')\ntime.sleep(600)\n")
    assert run.attempt() == 42
    assert run.outcome()["error"] == "Dbt.Timeout"


# --- when the books cannot be kept ---------------------------------------------------------------------------------------


def test_an_upload_that_fails_is_an_error_of_ours_that_keeps_the_nodes(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ConnectionError("S3 does not answer")

    monkeypatch.setattr(artifacts, "upload", fails)
    scripted(run, tmp_path, "node('a')\ndone()\n")
    assert run.attempt() == 1
    outcome = run.outcome()
    assert (outcome["error"], outcome["counts"]) == ("Dbt.RunnerError", {"success": 1})
    assert "S3 does not answer" in outcome["message"]


@pytest.mark.parametrize("days", [0, 400])
@pytest.mark.parametrize("archived", [True, False])
def test_only_what_the_long_term_audit_has_expires(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, archived: bool
) -> None:
    run.config["audit"] = {"items_retention_days": days}
    upload_new = Store.upload_new

    def away(store: Store, body: bytes, key: str) -> None:
        if key.startswith("audit/"):
            raise ConnectionError("S3 does not answer")
        upload_new(store, body, key)

    if not archived:
        monkeypatch.setattr(Store, "upload_new", away)
    scripted(run, tmp_path, "node('a', 'success')\nnode('b', 'error')\ndone(False)\n")
    assert run.attempt() == 10
    items = [run.outcome(), *run.nodes().values()]
    expiry = {item.get("expires_at") for item in items}
    if days and archived:
        assert len(items) == 3 and len(expiry) == 1
        assert 0 <= time.time() + 400 * 86400 - int(expiry.pop() or 0) < 600
    else:
        assert expiry == {None}


def test_a_report_that_cannot_be_made_changes_nothing(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted(run, tmp_path, "node('a', 'success')\ndone(True)\n")
    assert run.attempt() == 0
    assert log_lines(capsys)[-1]["message"] == "published"
    monkeypatch.setattr("dbt_runner.report.render", lambda *_, **__: 1 / 0)
    assert run.attempt(number=2) == 0
    assert run.outcome("STEP#01#build#2")["exit_code"] == 0
    assert "ZeroDivisionError" in log_lines(capsys)[-1]["error"]


@pytest.mark.parametrize(
    ("success", "problem", "exit_code"),
    [
        # All nodes are in the store: another attempt executes none of them, and writes the outcome.
        ("True", EndpointConnectionError(endpoint_url="https://dynamodb"), 40),
        ("False", EndpointConnectionError(endpoint_url="https://dynamodb"), 10),
        ("True", ValueError("this is a bug"), 1),
    ],
)
def test_an_outcome_that_cannot_be_written_is_still_an_exit_code(
    run: Run,
    released: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    success: str,
    problem: Exception,
    exit_code: int,
) -> None:
    put = Store.put

    def no_outcomes(store: Store, item: Mapping[str, Any], **keywords: Any) -> None:
        if item["sk"].startswith("STEP#"):
            raise problem
        put(store, item, **keywords)

    monkeypatch.setattr(Store, "put", no_outcomes)
    scripted(run, tmp_path, f"node('a', 'success' if {success} else 'error')\ndone({success})\n")
    assert run.attempt() == exit_code
    [told] = [line for line in log_lines(capsys) if line["message"] == "the outcome could not be written"]
    assert told["outcome"]["counts"] == {"success" if success == "True" else "error": 1}, "the log knows what the table does not"
    # The long-term audit has what the table could not take.
    assert archived(run, "attempts")["exit_code"] == (0 if success == "True" else 10)
    assert archived(run, "nodes")["unique_id"] == "a"


# --- the container's entry point -----------------------------------------------------------------------------------------


def container(store: Store, **changes: str | None) -> dict[str, str]:
    variables: dict[str, str | None] = {
        "DBT_RUNNER_TABLE": store.table,
        "DBT_RUNNER_BUCKET": store.bucket,
        "DBT_RUNNER_ENVIRONMENT": "prod",
        "DBT_RUNNER_RUN_KEY": RUN_KEY,
        "DBT_RUNNER_STEP": "1",
        "DBT_RUNNER_ATTEMPT": "1",
        **changes,
    }
    return {name: value for name, value in variables.items() if value is not None}


@pytest.fixture(autouse=True)
def hidden(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes that the container's process hides; it is for good, so the tests' process does not."""
    calls: list[str] = []
    monkeypatch.setattr(identity, "hide", lambda: calls.append("hide"))
    return calls


def test_the_container_hides_and_finds_its_run_by_its_variables(run: Run, nothing_starts: None, hidden: list[str]) -> None:
    run.attempt()
    assert hidden == []
    assert from_container(container(run.store, DBT_RUNNER_ATTEMPT="7")) == 31
    assert run.outcome("STEP#01#build#7")["error"] == "Dbt.ReleaseNotFound"
    assert hidden == ["hide"]


@pytest.mark.parametrize("name", ["TABLE", "BUCKET", "ENVIRONMENT", "RUN_KEY", "STEP", "ATTEMPT"])
def test_a_container_without_a_variable_says_which(store: Store, name: str) -> None:
    message = refused(RUNNER_ERROR, lambda: from_container(container(store, **{f"DBT_RUNNER_{name}": None})))
    assert f"DBT_RUNNER_{name}" in message


def test_a_container_with_a_step_that_is_no_number_says_so(store: Store) -> None:
    with pytest.raises(TypedError, match="hourly"):
        from_container(container(store, DBT_RUNNER_STEP="hourly"))


OWN_PROFILE = "of_a_developer: { outputs: { prod: { type: duckdb, settings: { memory_limit: 1GB } } } }"


@pytest.mark.parametrize(("position", "step"), [(0, "STEP#00#health_check#1"), (1, "STEP#01#build#1")])
def test_the_projects_own_profile_adds_to_the_environments(run: Run, store: Store, tmp_path: Path, position: int, step: str) -> None:
    run.config["warehouse"]["profile"] = "project"
    project = projects.write(tmp_path / "project", {**PROJECT, "profiles.yml": OWN_PROFILE})
    bundles.pack({**stage.files(project), "profiles.yml": project / "profiles.yml"}, tmp_path / "own.tar.gz")
    publish(store, project, {}, (tmp_path / "own.tar.gz").read_bytes())
    scripted(
        run,
        tmp_path,
        """
with open(os.path.join(spec["profiles"], "profiles.yml")) as file:
    output = json.load(file)["dbt_runner"]["outputs"]["prod"]
done(output["settings"] == {"memory_limit": "1GB"} and output["path"].endswith("warehouse.duckdb"))
""",
    )
    assert run.attempt(position) == 0, run.outcome(step)


@pytest.mark.parametrize("position", [0, 1])
def test_a_release_without_the_profile_that_the_environment_wants_is_the_releases_fault(run: Run, released: None, position: int) -> None:
    run.config["warehouse"]["profile"] = "project"
    assert run.attempt(position) == 12


def test_details_that_dynamodb_refuses_change_no_verdict(
    run: Run, released: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the outcome what decides over the run is written, and of a node what names it and how it ended."""
    original = NodeWriter._item
    large = {"relation": "x" * 500_000}
    monkeypatch.setattr(NodeWriter, "_item", lambda self, node: original(self, node) | (large if node.name == "a" else {}))
    monkeypatch.setattr(attempt, "_versions", lambda _: {"dbt-core": "1" * 500_000})
    scripted(run, tmp_path, "node('a'); node('b'); node('c'); done()")
    assert run.attempt() == 0
    outcome = run.outcome()
    assert (outcome["exit_code"], outcome["counts"], outcome["versions"]) == (0, {"success": 3}, {})
    assert "DynamoDB refuses" in outcome["left_out"][0]
    assert {node["name"]: ("relation" in node, node["status"]) for node in run.nodes().values()} == dict.fromkeys("abc", (False, "success"))
    assert "DynamoDB refused the details" in run.nodes()["a"]["message"]
    assert archived(run, "attempts")["exit_code"] == 0
