"""The broker's sessions and its endpoint: whoever holds the run's bearer logs in as the warehouse role, for this run, and nobody else.

The asked side is real: botocore's and google-auth's own credential providers. AWS is moto, or botocore's Stubber where the request counts.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import ContainerProvider
from moto import mock_aws

from dbt_runner.broker import Broker, server, tokens
from dbt_runner.broker.session import Credentials, Expiring, Kept, session_name
from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, TypedError
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest
from runner import projects
from runner.sts import CREDENTIALS, ROLE, Sts, sts

__all__ = ["sts"]

START = datetime(2026, 11, 23, 1, tzinfo=UTC)
SNOWFLAKE = {"account": "o-a", "role": "R", "warehouse": "W", "database": "D", "schema": "S"}


def asked(run_id: str = "r-1", warehouse: Warehouse | None = None) -> AttemptRequest:
    return projects.asked(warehouse or Warehouse("snowflake", SNOWFLAKE, {}), run_id=run_id)


def broker(request: AttemptRequest, client: Any, work: Path, log: io.StringIO | None = None, **seams: Any) -> Broker:
    return Broker(request, lambda: client, work, JsonLog({}, log or io.StringIO()), **seams)


@pytest.fixture
def moto(no_outside_settings: None) -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("sts")


def get(url: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.netloc, timeout=10)
    try:
        connection.request(method, at.path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, json.loads(raw) if answer.headers["Content-Type"] == "application/json" else {}
    finally:
        connection.close()


def as_the_sdk(variables: Mapping[str, str]) -> Any:
    """The credentials that an SDK of AWS finds by these variables."""
    return ContainerProvider(environ=dict(variables)).load()


# --- the session's name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", ["r-1", "x", "é", "a" * 64, "a" * 65, "a" * 80, "hourly_2026-11-23T01.00(1)!'ü€", "日本語の実行" * 10])
def test_a_session_name_is_one_that_aws_accepts(run_id: str) -> None:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html: 2 to 64 of [\\w+=,.@-]."""
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", session_name(run_id))


def test_a_session_name_that_fits_is_the_run_id_and_long_ones_stay_apart() -> None:
    assert session_name("hourly-2026.11_23") == "hourly-2026.11_23"
    assert session_name("a" * 64) == "a" * 64
    assert session_name("a" * 79 + "b") != session_name("a" * 80)
    assert session_name("a" * 80).startswith("a" * 55)
    # Execution names know characters that sessions do not: what becomes of them must not be another run's name.
    assert len({session_name(run_id) for run_id in ("r-1", "r-1-", "r-1!", "r-1'", "r", "r-", "r!", "r-\u00fc")}) == 8


# --- becoming the warehouse role -----------------------------------------------------------------------------------------


def test_the_role_is_assumed_for_this_run_and_nothing_else(sts: Sts, tmp_path: Path) -> None:
    """Redshift's tags go along: the database reads them at login."""
    settings = {"host": "h", "dbname": "d", "region": "eu-central-1", "serverless_work_group": "w"}
    identity = {"workgroup_id": "x", "db_user": "transformer", "db_roles": "writers"}
    sts.allows(
        RoleArn=ROLE,
        RoleSessionName=session_name("r-1!"),
        SourceIdentity=session_name("r-1!"),
        Tags=[
            {"Key": "RedshiftDbRoles", "Value": "writers"},
            {"Key": "RedshiftDbUser", "Value": "transformer"},
            {"Key": "environment", "Value": "prod"},
            {"Key": "run", "Value": session_name("r-1!")},
        ],
        TransitiveTagKeys=["RedshiftDbRoles", "RedshiftDbUser", "environment", "run"],
        DurationSeconds=3600,
    )
    with broker(asked("r-1!", Warehouse("redshift", settings, identity)), sts.client, tmp_path):
        pass
    sts.stubber.assert_no_pending_responses()


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
def test_a_refusal_is_told_apart_from_an_outage_before_dbt_starts(sts: Sts, tmp_path: Path, code: str, status: int, kind: Any) -> None:
    sts.refuses(code, status)
    with pytest.raises(TypedError) as raised, broker(asked(), sts.client, tmp_path):
        pytest.fail("it went on")
    assert raised.value.kind is kind
    assert ROLE in raised.value.why
    assert list(tmp_path.iterdir()) == []


def test_aws_that_cannot_be_reached_is_an_outage(tmp_path: Path, no_outside_settings: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    client = boto3.client(
        "sts",
        endpoint_url=endpoint,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="x",
        config=Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(TypedError) as raised, broker(asked(), client, tmp_path):
        pytest.fail("it went on")
    assert raised.value.kind is WAREHOUSE_UNAVAILABLE


def test_a_warehouse_without_a_credential_needs_no_sts(tmp_path: Path) -> None:
    request = asked(warehouse=Warehouse("duckdb", {"path": "x"}, {}))
    with Broker(request, lambda: pytest.fail("no STS"), tmp_path, JsonLog({}, io.StringIO())) as served:
        assert served.variables == {}


# --- keeping what expires ------------------------------------------------------------------------------------------------


class Clock:
    """What `Kept` keeps here is good for an hour from the moment at which it is asked for; `fails` makes that fail."""

    def __init__(self) -> None:
        self.now = START
        self.issued = 0
        self.fails: TypedError | None = None
        self.covered: list[TypedError] = []
        self.kept = Kept(self._issue, self.covered.append, lambda: self.now)

    def _issue(self) -> Expiring:
        self.issued += 1
        if self.fails:
            raise self.fails
        return Expiring(self.now + timedelta(hours=1))

    def at(self, minutes: float) -> datetime:
        """When what is given out at this minute was issued."""
        self.now = START + timedelta(minutes=minutes)
        return self.kept.get().expires_at - timedelta(hours=1)


def test_a_session_is_renewed_while_a_third_of_it_is_left() -> None:
    clock = Clock()
    assert [clock.at(0), clock.at(39.9)] == [START, START]
    assert clock.at(40) == START + timedelta(minutes=40)
    assert clock.issued == 2


def test_a_day_of_a_run_that_asks_every_minute_costs_as_many_calls_as_it_must() -> None:
    clock = Clock()
    for minute in range(24 * 60):
        assert clock.at(minute) > clock.now - timedelta(minutes=40)
    assert clock.issued == 24 * 60 / 40


def test_an_old_session_covers_a_failure_and_aws_is_not_stormed() -> None:
    clock = Clock()
    clock.at(0)
    clock.fails = TypedError(WAREHOUSE_UNAVAILABLE, "AWS is away")
    for tenth in range(400, 600):
        assert clock.at(tenth / 10) == START
    assert len(clock.covered) == clock.issued - 1 < 20
    with pytest.raises(TypedError, match="AWS is away"):
        clock.at(60)
    clock.fails = None
    assert clock.at(61) == START + timedelta(minutes=61)


def test_whoever_asks_while_aws_hangs_gets_the_old_session_at_once() -> None:
    """Drivers wait for two seconds, an AWS that hangs for longer."""
    now, asked_for, hangs, first = [START], threading.Event(), threading.Event(), Expiring(START + timedelta(hours=1))

    def renew() -> Expiring:
        if now[0] == START:
            return first
        asked_for.set()
        assert hangs.wait(10)
        return Expiring(now[0] + timedelta(hours=1))

    kept = Kept(renew, lambda _: None, lambda: now[0])
    assert kept.get() is first
    now[0] += timedelta(minutes=50)
    with ThreadPoolExecutor(2) as pool:
        renewing = pool.submit(kept.get)
        try:
            assert asked_for.wait(10)
            meanwhile = pool.submit(kept.get)
            assert meanwhile.result(10) is first
        finally:
            hangs.set()
        assert renewing.result(10).expires_at == now[0] + timedelta(hours=1)
    assert kept.get() is renewing.result()


def test_clients_on_the_way_to_the_warehouse_give_up_soon(no_outside_settings: None) -> None:
    client = tokens.boto3_client("kms", "eu-central-1", Credentials(START, "ASIA", "s", "t"))
    config = client.meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (5, 20, 3)


def test_many_who_ask_at_once_share_one_call(moto: Any, tmp_path: Path) -> None:
    calls: list[str] = []
    moto.meta.events.register("before-call.sts.AssumeRole", lambda **_: calls.append("AssumeRole"))
    with broker(asked(), moto, tmp_path) as served, ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: as_the_sdk(served.variables).access_key, range(20)))
    assert (len(calls), len(set(found))) == (1, 1)


# --- the endpoint --------------------------------------------------------------------------------------------------------


def test_the_sdk_of_the_worker_becomes_the_warehouse_role_in_this_runs_name(moto: Any, tmp_path: Path) -> None:
    with broker(asked("hourly-7"), moto, tmp_path) as served:
        assert served.variables["AWS_REGION"] == served.variables["AWS_DEFAULT_REGION"] == "eu-central-1"
        found = as_the_sdk(served.variables)
        keys = {"aws_access_key_id": found.access_key, "aws_secret_access_key": found.secret_key, "aws_session_token": found.token}
        caller = boto3.client("sts", **keys).get_caller_identity()
    assert caller["Arn"].endswith(":assumed-role/analytics-prod-warehouse/hourly-7")


def test_nobody_is_served_without_the_runs_bearer_and_nobody_after_the_run(moto: Any, tmp_path: Path) -> None:
    with broker(asked(), moto, tmp_path) as served, broker(asked("r-2"), moto, tmp_path) as other:
        url, bearer = (served.variables[f"AWS_CONTAINER_{name}"] for name in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN"))
        others = other.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        assert urlsplit(url).hostname == "127.0.0.1"
        assert get(url, {})[0] == 403
        for wrong in ("", others, f"Bearer {bearer}", bearer[:-1], "ü"):
            assert get(url, {"Authorization": wrong})[0] == 403, wrong
        right = {"Authorization": bearer}
        status, body = get(url, right)
        assert (status, set(body)) == (200, {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"})
        assert datetime.fromisoformat(body["Expiration"]) > datetime.now(UTC) + timedelta(minutes=55)
        assert get(url + "/other", right)[0] == get(url.replace("/aws", "/gcp"), right)[0] == 404
        assert get(url, right, "POST", b"x")[0] == 501
        assert get(url, right, "GET", b"x" * 100)[0] == 413
    with pytest.raises(OSError):
        get(url, right)


def test_the_endpoint_says_nothing_anywhere(moto: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = io.StringIO()
    with broker(asked(), moto, tmp_path, log) as served:
        url, bearer = (served.variables[f"AWS_CONTAINER_{name}"] for name in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN"))
        get(url, {"Authorization": bearer})
        get(url, {"Authorization": "wrong"})
        with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as rude:
            rude.sendall(b"\0\1\2 not HTTP\r\n\r\n")
            while rude.recv(4096):
                pass
    assert (log.getvalue(), *capfd.readouterr()) == ("", "", "")


def test_it_serves_no_more_at_once_than_it_should_and_goes_on_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_AT_ONCE", 2)
    with server.LoopbackServer({"/x": lambda: {"a": "b"}}) as endpoint:
        right = {"Authorization": endpoint.bearer}
        at = ("127.0.0.1", urlsplit(endpoint.url("/x")).port or 0)
        with socket.create_connection(at), socket.create_connection(at), socket.create_connection(at) as third:
            assert third.recv(1) == b"", "closed at once"
        projects.wait_until(lambda: _answers(endpoint.url("/x"), right))


def _answers(url: str, headers: Mapping[str, str]) -> bool:
    try:
        return get(url, headers) == (200, {"a": "b"})
    except OSError:
        return False


@pytest.mark.parametrize(
    ("code", "status", "kind", "answered"),
    [("ServiceUnavailable", 503, WAREHOUSE_UNAVAILABLE, 503), ("AccessDenied", 403, ACCESS_DENIED, 403)],
)
def test_the_worker_is_told_and_so_is_the_outcome_when_a_session_cannot_be_renewed(
    sts: Sts, tmp_path: Path, code: str, status: int, kind: Any, answered: int
) -> None:
    """SDKs say "no credentials" to both; it is the broker that knows whether another attempt can help."""
    log = io.StringIO()
    sts.allows(lasting=timedelta(seconds=-1)).refuses(code, status).allows()
    with broker(asked(), sts.client, tmp_path, log) as served:
        assert served.fault is None
        url, bearer = (served.variables[f"AWS_CONTAINER_{name}"] for name in ("CREDENTIALS_FULL_URI", "AUTHORIZATION_TOKEN"))
        found, body = get(url, {"Authorization": bearer})
        assert (found, body["code"]) == (answered, kind.name) and "not you" in body["message"]
        assert served.fault is not None and served.fault.kind is kind and "not you" in log.getvalue()
        assert as_the_sdk(served.variables).access_key == CREDENTIALS["AccessKeyId"]
        assert served.fault is None


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(Credentials(START, access_key_id="ASIA", secret_access_key="s3cret", session_token="t0ken"))
    assert "ASIA" in shown and "s3cret" not in shown and "t0ken" not in shown


def test_every_secret_is_announced_before_it_is_given_out(moto: Any, tmp_path: Path) -> None:
    """Who masks has to know it first."""
    known: list[str] = []
    with broker(asked(), moto, tmp_path, on_secret=known.extend) as served:
        found = as_the_sdk(served.variables)
        assert {found.secret_key, found.token, served.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]} == set(known)
