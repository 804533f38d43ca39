"""Who the worker is: nothing of the control role, and a warehouse token that is its run's own and stays fresh."""

from __future__ import annotations

import io
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from botocore.config import Config
from botocore.stub import Stubber

from dbt_runner import identity
from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, TypedError
from dbt_runner.identity import PasswordFile, session_name, worker_environment
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest
from runner import projects
from runner.projects import wait_until

REGION: Final = "eu-central-1"
HOST, PORT = "db.example.org", "6543"
ROLE = "arn:aws:iam::123456789012:role/analytics-prod-warehouse"
CREDENTIALS = {
    "AccessKeyId": "ASIAEXAMPLEEXAMPLE00",
    "SecretAccessKey": "secret",
    "SessionToken": "session",
    "Expiration": "2026-11-23T02:00:00Z",
}


def asked(run_id: str = "r-1", *, host: str = HOST, port: str = PORT, method: str = "rds_iam", type_: str = "postgres") -> AttemptRequest:
    settings = {"host": host, "port": port, "user": "dbt:user\\x", "dbname": "a"}
    return projects.asked(Warehouse(type_, settings, {"method": method} if method else {}), run_id=run_id)


class Tokens:
    """Takes the place of boto3's RDS client: every token is another one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = []

    def __call__(self, service: str, region: str, credentials: Mapping[str, Any]) -> Any:
        tokens = self

        class Client:
            def generate_db_auth_token(self, **arguments: Any) -> str:
                tokens.asked.append((service, region, credentials, arguments))
                return f"to:ken\\{len(tokens.asked)}?X-Amz-Security-Token=a%2Fb&c=" + "d" * 2000

        return Client()


class Sts:
    """Answers AssumeRole as Stubber checks and orders it."""

    def __init__(self) -> None:
        self.client = boto3.client("sts", region_name=REGION, aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x")
        self.stubber = Stubber(self.client)
        self.stubber.activate()

    def allows(self, times: int = 1, **expected: Any) -> Sts:
        answer = {"Credentials": CREDENTIALS, "AssumedRoleUser": {"AssumedRoleId": "AROAEXAMPLEEXAMPLE00:r", "Arn": ROLE}}
        for _ in range(times):
            self.stubber.add_response("assume_role", answer, expected or None)
        return self

    def refuses(self, code: str = "AccessDenied", status: int = 403) -> Sts:
        self.stubber.add_client_error("assume_role", code, "not you", http_status_code=status)
        return self


@pytest.fixture
def sts(no_outside_settings: None) -> Sts:
    return Sts()


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def password_file(tmp_path: Path, sts: Sts, log: io.StringIO) -> Callable[..., PasswordFile]:
    def make(request: AttemptRequest | None = None, clients: Any = None, renew_every_seconds: float = 3600.0) -> PasswordFile:
        return PasswordFile(
            request or asked(),
            sts.client,
            tmp_path / "pgpass",
            JsonLog({}, log),
            renew_every_seconds=renew_every_seconds,
            clients=clients or Tokens(),
        )

    return make


# --- the worker's environment --------------------------------------------------------------------------------------------


def test_the_worker_sees_nothing_of_the_control_role(tmp_path: Path) -> None:
    control = {
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "x",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_SESSION_TOKEN": "x",
        "AWS_PROFILE": "x",
        "AWS_REGION": "x",
        "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
        "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x",
        "ECS_AGENT_URI": "x",
        "DBT_RUNNER_TABLE": "x",
        "DBT_RUNNER_RUN_KEY": "x",
    }
    own = {**control, "PATH": "/bin", "DBT_ENV_SECRET_TOKEN": "y", "TEAM_SETTING": "z", "HOME": "/root"}
    found = worker_environment(own, tmp_path)
    assert not [name for name in found if name.startswith(("AWS_", "ECS_", "DBT_RUNNER_"))]
    assert {name: found[name] for name in ("PATH", "DBT_ENV_SECRET_TOKEN", "TEAM_SETTING")} == {
        "PATH": "/bin",
        "DBT_ENV_SECRET_TOKEN": "y",
        "TEAM_SETTING": "z",
    }
    assert found["HOME"] == str(tmp_path), "no ~/.aws and no ~/.dbt of the image, and a folder that can be written"
    assert own["HOME"] == "/root"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
def test_a_process_that_hides_cannot_be_looked_into_by_its_user() -> None:
    """As root nothing can be hidden, so the kernel's own word for it has to do: PR_GET_DUMPABLE is 0, and 1 in a program it starts."""
    ask = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)"
    code = f"import subprocess, sys; from dbt_runner.identity import hide; hide(); {ask}; subprocess.run([sys.executable, '-c', {ask!r}])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split() == ["0", "1"]


# --- the session's name ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", ["r-1", "x", "é", "a" * 64, "a" * 65, "a" * 80, "hourly_2026-11-23T01.00(1)!'ü€", "日本語の実行" * 10])
def test_a_session_name_is_one_that_aws_accepts(run_id: str) -> None:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html: 2 to 64 of [\\w+=,.@-]."""
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", session_name(run_id))


def test_a_session_name_that_fits_is_the_run_id_and_long_ones_stay_apart() -> None:
    assert session_name("hourly-2026.11_23") == "hourly-2026.11_23"
    assert session_name("a" * 64) == "a" * 64
    assert session_name("a" * 79 + "b") != session_name("a" * 80)
    assert session_name("a" * 80).startswith("a" * 55)


# --- the password file -----------------------------------------------------------------------------------------------------


def test_the_role_is_assumed_for_this_run_and_nothing_else(password_file: Callable[..., PasswordFile], sts: Sts) -> None:
    sts.allows(
        RoleArn=ROLE,
        RoleSessionName="r-1-",
        SourceIdentity="r-1-",
        Tags=[{"Key": "environment", "Value": "prod"}, {"Key": "run", "Value": "r-1-"}],
        TransitiveTagKeys=["environment", "run"],
        DurationSeconds=3600,
    )
    tokens = Tokens()
    with password_file(asked("r-1!"), tokens):
        pass
    sts.stubber.assert_no_pending_responses()
    [(service, region, credentials, arguments)] = tokens.asked
    assert (service, region, arguments) == ("rds", REGION, {"DBHostname": HOST, "Port": 6543, "DBUsername": "dbt:user\\x"})
    assert credentials["AccessKeyId"] == CREDENTIALS["AccessKeyId"], "the token is the warehouse role's, not the control role's"


def test_the_token_is_one_that_rds_would_take(password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path) -> None:
    """boto3's own client signs it, by the credentials of the warehouse role."""
    sts.allows()
    with password_file(clients=identity._boto3_client):
        line = (tmp_path / "pgpass").read_text()
    assert "Action=connect" in line and f"X-Amz-Credential={CREDENTIALS['AccessKeyId']}" in line


def test_only_the_owner_can_read_the_file_and_it_is_gone_at_the_end(
    password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path
) -> None:
    sts.allows()
    with password_file():
        assert stat.S_IMODE((tmp_path / "pgpass").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_libpq_finds_the_token_in_the_file(password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path) -> None:
    """By the real libpq, against a server that asks for the password in clear text and keeps it."""
    sts.allows()
    with socket.create_server(("127.0.0.1", 0)) as server:
        given: list[str] = []
        listener = threading.Thread(target=_ask_for_password, args=(server, given), daemon=True)
        listener.start()
        port = str(server.getsockname()[1])
        request = asked(host="127.0.0.1", port=port)
        with password_file(request):
            _connect_by_libpq(port, request.config.warehouse.settings["user"], tmp_path / "pgpass")
        listener.join(10)
    assert given == ["to:ken\\1?X-Amz-Security-Token=a%2Fb&c=" + "d" * 2000]


def test_the_token_is_renewed_by_replacing_the_file(
    password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path, log: io.StringIO
) -> None:
    sts.allows(times=50)
    path, tokens = tmp_path / "pgpass", Tokens()
    with password_file(clients=tokens, renew_every_seconds=0.01), path.open() as held:
        first = path.read_text()
        wait_until(lambda: len(tokens.asked) >= 3)
        wait_until(lambda: path.read_text() != first)
        old = held.read()
        assert old.endswith("d" * 2000 + "\n") and old != path.read_text(), "whoever had opened it reads what was there, whole"
    assert "renewed" in log.getvalue()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, ACCESS_DENIED),
        ("ValidationError", 400, ACCESS_DENIED),
        ("ExpiredToken", 400, ACCESS_DENIED),
        ("Throttling", 400, WAREHOUSE_UNAVAILABLE),
        ("ServiceUnavailable", 503, WAREHOUSE_UNAVAILABLE),
        ("InternalFailure", 500, WAREHOUSE_UNAVAILABLE),
    ],
)
def test_a_refusal_is_told_apart_from_an_outage(
    password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path, code: str, status: int, kind: Any
) -> None:
    sts.refuses(code, status)
    with pytest.raises(TypedError) as raised, password_file():
        pass
    assert raised.value.kind is kind
    assert ROLE in raised.value.why
    assert list(tmp_path.iterdir()) == []


def test_aws_that_cannot_be_reached_is_an_outage(tmp_path: Path, no_outside_settings: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    client = boto3.client(
        "sts",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(TypedError) as raised:
        PasswordFile(asked(), client, tmp_path / "pgpass", JsonLog({}, io.StringIO())).write()
    assert raised.value.kind is WAREHOUSE_UNAVAILABLE


def test_a_renewal_that_fails_keeps_the_old_token_and_is_tried_again(
    password_file: Callable[..., PasswordFile], sts: Sts, tmp_path: Path, log: io.StringIO
) -> None:
    sts.allows().refuses().allows(times=50)
    tokens = Tokens()
    with password_file(clients=tokens, renew_every_seconds=0.01):
        wait_until(lambda: "not you" in log.getvalue())
        assert (tmp_path / "pgpass").read_text().endswith("d\n")
        wait_until(lambda: len(tokens.asked) >= 2)


@pytest.mark.parametrize(
    ("type_", "method", "needed"),
    [("postgres", "rds_iam", True), ("postgres", "", False), ("postgres", "trust", False), ("duckdb", "", False)],
)
def test_only_rds_iam_needs_a_password_file(type_: str, method: str, needed: bool) -> None:
    assert identity.needs_password_file(asked(type_=type_, method=method)) is needed


def _ask_for_password(server: socket.socket, given: list[str]) -> None:
    """One connection of PostgreSQL's protocol, as far as the password: https://www.postgresql.org/docs/current/protocol-flow.html."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        stream.read(int.from_bytes(stream.read(4), "big") - 4)
        connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        kind, length = stream.read(1), int.from_bytes(stream.read(4), "big")
        if kind == b"p":
            given.append(stream.read(length - 4).rstrip(b"\0").decode())


def _connect_by_libpq(port: str, user: str, path: Path) -> None:
    import psycopg2  # type: ignore[import-untyped]  # of dbt-postgres, which brings no types for it

    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(
            host="127.0.0.1",
            port=port,
            user=user,
            dbname="a",
            password="",
            passfile=str(path),
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=5,
        )
