"""What the broker makes for warehouses that know nothing of AWS's credentials: a password file for libpq, a token for Google.

libpq and google-auth are the real ones; what they would talk to is here.
"""

from __future__ import annotations

import io
import json
import socket
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from google.auth import identity_pool
from google.auth.transport.requests import Request

from dbt_runner.broker import Broker, tokens
from dbt_runner.broker.session import Credentials
from dbt_runner.config import Warehouse
from dbt_runner.errors import WAREHOUSE_UNAVAILABLE, TypedError
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest
from runner import projects
from runner.projects import wait_until
from runner.sts import CREDENTIALS, REGION, Sts, sts

__all__ = ["sts"]

HOST, PORT, USER = "db.example.org", "6543", "dbt:user\\x"
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws"
ACCOUNT = "dbt@p.iam.gserviceaccount.com"


def on_rds(host: str = HOST, port: str = PORT) -> AttemptRequest:
    return projects.asked(Warehouse("postgres", {"host": host, "port": port, "user": USER, "dbname": "a"}, {"method": "rds_iam"}))


def on_bigquery() -> AttemptRequest:
    identity = {"audience": AUDIENCE, "service_account": ACCOUNT}
    return projects.asked(Warehouse("bigquery", {"project": "p", "dataset": "d"}, identity))


class Rds:
    """Takes the place of boto3's RDS client: every token is another one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, dict[str, Any]]] = []

    def __call__(self, service: str, region: str, credentials: Credentials) -> Any:
        rds = self

        class Client:
            def generate_db_auth_token(self, **arguments: Any) -> str:
                rds.asked.append((service, region, credentials.access_key_id, arguments))
                return f"to:ken\\{len(rds.asked)}?X-Amz-Security-Token=a%2Fb&c=" + "d" * 2000

        return Client()


class Google:
    """Takes the place of boto3's STS client under the warehouse role: numbered tokens that last so long, by the real client's checks."""

    def __init__(self, *lasting: timedelta) -> None:
        self.client = boto3.client("sts", region_name=REGION, aws_access_key_id="ASIA", aws_secret_access_key="x")
        self.stubber = Stubber(self.client)
        self.used: list[str] = []
        expected = {
            "Audience": [AUDIENCE],
            "SigningAlgorithm": "RS256",
            "DurationSeconds": 300,
            "Tags": [{"Key": "environment", "Value": "prod"}, {"Key": "run", "Value": "r-1"}],
        }
        for number, duration in enumerate(lasting, 1):
            answer = {"WebIdentityToken": f"header.token-{number}.signature", "Expiration": datetime.now(UTC) + duration}
            self.stubber.add_response("get_web_identity_token", answer, expected)
        self.stubber.activate()

    def __call__(self, service: str, region: str, credentials: Credentials) -> Any:
        assert (service, region) == ("sts", REGION)
        self.used.append(credentials.access_key_id)
        return self.client


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def broker(tmp_path: Path, sts: Sts, log: io.StringIO) -> Callable[..., Broker]:
    def make(request: AttemptRequest | None = None, clients: Any = None, every: float = 3600.0, **seams: Any) -> Broker:
        return Broker(
            request or on_rds(), lambda: sts.client, tmp_path, JsonLog({}, log), clients=clients, renew_file_after_seconds=every, **seams
        )

    return make


# --- the password file ---------------------------------------------------------------------------------------------------


def test_the_token_is_the_warehouse_roles_for_one_user_of_one_database(broker: Callable[..., Broker], sts: Sts, tmp_path: Path) -> None:
    sts.allows()
    rds = Rds()
    with broker(clients=rds) as served:
        assert served.variables == {"PGPASSFILE": str(tmp_path / "pgpass")}, "and no credentials of AWS beside it"
    arguments = {"DBHostname": HOST, "Port": 6543, "DBUsername": USER}
    assert rds.asked == [("rds", REGION, CREDENTIALS["AccessKeyId"], arguments)]


def test_the_token_is_one_that_rds_would_take(broker: Callable[..., Broker], sts: Sts, tmp_path: Path) -> None:
    """boto3's own client signs it."""
    sts.allows()
    known: list[str] = []
    with broker(on_secret=known.extend):
        line = (tmp_path / "pgpass").read_text()
    assert "Action=connect" in line and f"X-Amz-Credential={CREDENTIALS['AccessKeyId']}" in line
    assert known[:2] == [CREDENTIALS["SecretAccessKey"], CREDENTIALS["SessionToken"]]
    assert known[2].startswith("Action=connect") and line.endswith(known[2] + "\n"), "as it is in the file, whatever libpq has escaped"


def test_only_the_owner_can_read_the_file_and_it_is_gone_at_the_end(broker: Callable[..., Broker], sts: Sts, tmp_path: Path) -> None:
    sts.allows()
    with broker():
        assert stat.S_IMODE((tmp_path / "pgpass").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_libpq_finds_the_token_in_the_file(broker: Callable[..., Broker], sts: Sts, tmp_path: Path) -> None:
    """By the real libpq, against a server that asks for the password in clear text and keeps it."""
    sts.allows()
    with socket.create_server(("127.0.0.1", 0)) as server:
        given: list[str] = []
        listener = threading.Thread(target=_ask_for_password, args=(server, given), daemon=True)
        listener.start()
        port = str(server.getsockname()[1])
        with broker(on_rds("127.0.0.1", port), clients=Rds()):
            _connect_by_libpq(port, tmp_path / "pgpass")
        listener.join(10)
    assert given == ["to:ken\\1?X-Amz-Security-Token=a%2Fb&c=" + "d" * 2000]


def test_the_token_is_renewed_by_replacing_the_file(broker: Callable[..., Broker], sts: Sts, tmp_path: Path, log: io.StringIO) -> None:
    sts.allows()
    path, rds = tmp_path / "pgpass", Rds()
    with broker(clients=rds, every=0.01), path.open() as held:
        first = path.read_text()
        wait_until(lambda: len(rds.asked) >= 3)
        wait_until(lambda: path.read_text() != first)
        old = held.read()
        assert old.endswith("d" * 2000 + "\n") and old != path.read_text(), "whoever had opened it reads what was there, whole"
    assert "renewed" in log.getvalue()


def test_a_renewal_that_fails_keeps_the_old_token_and_is_tried_again(
    broker: Callable[..., Broker], sts: Sts, tmp_path: Path, log: io.StringIO
) -> None:
    sts.allows(2, lasting=timedelta(seconds=-1)).refuses("ServiceUnavailable", 503).allows()
    held = threading.Event()

    class Slow(Rds):
        def __call__(self, service: str, region: str, credentials: Credentials) -> Any:
            assert not self.asked or held.wait(projects.DEADLINE_SECONDS)
            return super().__call__(service, region, credentials)

    rds = Slow()
    with broker(clients=rds, every=0.01) as served:
        wait_until(lambda: "not you" in log.getvalue())
        assert (tmp_path / "pgpass").read_text().endswith("d\n")
        assert served.fault is not None and served.fault.kind is WAREHOUSE_UNAVAILABLE
        held.set()
        wait_until(lambda: len(rds.asked) >= 2 and served.fault is None)


# --- the subject token ---------------------------------------------------------------------------------------------------


def test_google_auth_fetches_a_token_of_this_run_whenever_it_needs_one(broker: Callable[..., Broker], sts: Sts, tmp_path: Path) -> None:
    sts.allows()
    gcp = Google(timedelta(seconds=-1), timedelta(minutes=5))
    with broker(on_bigquery(), gcp) as served:
        path = served.variables["GOOGLE_APPLICATION_CREDENTIALS"]
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" not in served.variables, "no model needs AWS there"
        account = identity_pool.Credentials.from_file(path)  # type: ignore[no-untyped-call]  # google-auth has few types
        assert account.service_account_email == ACCOUNT
        found = [account.retrieve_subject_token(Request()) for _ in range(3)]
    # The first one was made before dbt began, so that a refusal is known by then.
    assert found == ["header.token-2.signature"] * 3
    assert gcp.used == [CREDENTIALS["AccessKeyId"]] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_aws_refuses_is_known_before_dbt_starts(broker: Callable[..., Broker], sts: Sts) -> None:
    sts.allows()
    gcp = Google()
    code = "OutboundWebIdentityFederationDisabledException"
    gcp.stubber.add_client_error("get_web_identity_token", code, "enable it for the account", http_status_code=403)
    with pytest.raises(TypedError, match="enable it for the account") as raised, broker(on_bigquery(), gcp):
        pytest.fail("it went on")
    assert AUDIENCE in raised.value.why


def test_the_file_is_what_google_documents(broker: Callable[..., Broker], sts: Sts) -> None:
    """https://google.aip.dev/auth/4117, and nothing in it is good for anything without the bearer and this run."""
    document = json.loads(tokens.external_account({"audience": AUDIENCE, "service_account": ACCOUNT}, "http://127.0.0.1:1/gcp", "bearer"))
    assert document == {
        "type": "external_account",
        "universe_domain": "googleapis.com",
        "audience": AUDIENCE,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        f"{ACCOUNT}:generateAccessToken",
        "credential_source": {
            "url": "http://127.0.0.1:1/gcp",
            "headers": {"Authorization": "bearer"},
            "format": {"type": "json", "subject_token_field_name": "id_token"},
        },
    }


def _ask_for_password(server: socket.socket, given: list[str]) -> None:
    """One connection of PostgreSQL's protocol, as far as the password: https://www.postgresql.org/docs/current/protocol-flow.html."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        stream.read(int.from_bytes(stream.read(4), "big") - 4)
        connection.sendall(b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big"))
        kind, length = stream.read(1), int.from_bytes(stream.read(4), "big")
        if kind == b"p":
            given.append(stream.read(length - 4).rstrip(b"\0").decode())


def _connect_by_libpq(port: str, path: Path) -> None:
    import psycopg2  # type: ignore[import-untyped]  # of dbt-postgres, which brings no types for it

    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(
            host="127.0.0.1",
            port=port,
            user=USER,
            dbname="a",
            password="",
            passfile=str(path),
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=5,
        )
