"""Drivers tell what they make of their credentials before anything can write it: by the real drivers, with answers of a stand-in.

What a whole run writes is searched in tests/warehouses.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import boto3
import botocore.endpoint
import botocore.exceptions
import pytest
import requests
from botocore import handlers, parsers
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from google.auth import external_account, impersonated_credentials
from google.auth.transport.requests import Request
from snowflake.connector import network
from snowflake.connector.auth import Auth
from snowflake.connector.network import SnowflakeRestful

from dbt_runner.events import Secret
from dbt_runner.warehouses import driver_secrets
from dbt_runner.warehouses.driver_secrets import BOTOCORE, DRIVERS, GOOGLE_AUTH, SNOWFLAKE_CONNECTOR
from dbt_runner.wire import decode, encode
from runner.projects import TESTS

SECRET = "pass/word&of=an hour"


class Heard:
    """What the drivers of this process told, and what was said about them."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.warnings: list[str] = []

    def listen(self, warehouse: str) -> None:
        driver_secrets.listen(warehouse, self.secrets.append, self.warnings.append)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The drivers are as they were again after the test."""
    monkeypatch.setattr(handlers, "BUILTIN_HANDLERS", [*handlers.BUILTIN_HANDLERS])
    monkeypatch.setattr(Request, "__call__", Request.__call__)
    monkeypatch.setattr(SnowflakeRestful, "update_tokens", SnowflakeRestful.update_tokens)
    return Heard()


# --- AWS -----------------------------------------------------------------------------------------------------------------


def answering(service: str, body: str, status: int = 200) -> Any:
    """A client of a session made now, whose requests are all answered with this."""
    session: Any = boto3.Session()
    client = session.client(service, region_name="eu-central-1", aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x")

    def send(**_: Any) -> AWSResponse:
        return AWSResponse("https://aws", status, HTTPHeaders(), SimpleNamespace(stream=lambda: iter([body.encode()])))

    client.meta.events.register("before-send", send)
    return client


def cluster(client: Any) -> Any:
    return client.get_cluster_credentials_with_iam(ClusterIdentifier="analytics", DbName="dev")


PASSWORD = "<DbUser>IAM:dbt_prod</DbUser><DbPassword>pass/word&amp;of=an hour</DbPassword>"
XML = f"<R><GetClusterCredentialsWithIAMResult>{PASSWORD}</GetClusterCredentialsWithIAMResult></R>"
AWS_ANSWERS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("redshift", XML, cluster),
    (
        "redshift",
        XML.replace("WithIAM", ""),
        lambda client: client.get_cluster_credentials(ClusterIdentifier="analytics", DbUser="dbt"),
    ),
    (
        "redshift-serverless",
        json.dumps({"dbUser": "IAM:dbt_prod", "dbPassword": SECRET}),
        lambda client: client.get_credentials(workgroupName="analytics"),
    ),
    (
        "sts",
        f"<R><AssumeRoleResult><Credentials><SecretAccessKey>{SECRET.replace('&', '&amp;')}</SecretAccessKey>"
        f"<SessionToken>{SECRET.replace('&', '&amp;')}</SessionToken></Credentials></AssumeRoleResult></R>",
        lambda client: client.assume_role(RoleArn="arn:aws:iam::123456789012:role/other", RoleSessionName="dbt-athena"),
    ),
    (
        "sts",
        XML.replace("GetClusterCredentialsWithIAM", "GetWebIdentityToken").replace("DbPassword", "WebIdentityToken"),
        lambda client: client.get_web_identity_token(Audience=["a"], SigningAlgorithm="ES384"),
    ),
]


@pytest.mark.parametrize(("service", "body", "call"), AWS_ANSWERS, ids=["cluster by IAM", "cluster", "workgroup", "role", "token"])
def test_a_secret_of_aws_is_told_before_botocores_own_log_has_it(
    heard: Heard, caplog: pytest.LogCaptureFixture, service: str, body: str, call: Callable[[Any], Any]
) -> None:
    heard.listen("redshift")
    seen: list[bool] = []

    class Log(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if " hour" in record.getMessage():
                seen.append(SECRET in heard.secrets)

    with caplog.at_level(logging.DEBUG, "botocore"):
        log = Log()
        logging.getLogger("botocore").addHandler(log)
        call(answering(service, body))
        logging.getLogger("botocore").removeHandler(log)
    assert seen and all(seen)
    # The user is in every message that says what it may not do.
    assert (set(heard.secrets), heard.warnings) == ({SECRET}, [])


def test_other_answers_of_aws_and_refusals_tell_nothing(heard: Heard) -> None:
    heard.listen("snowflake")
    refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        cluster(answering("redshift", refusal, 403))
    answering("sts", "<R><GetCallerIdentityResult><Arn>arn</Arn></GetCallerIdentityResult></R>").get_caller_identity()
    assert (heard.secrets, heard.warnings) == ([], [])


# --- Google --------------------------------------------------------------------------------------------------------------


def google(body: bytes) -> requests.Session:
    """A session whose requests are all answered with this."""
    answer = requests.Response()
    answer.status_code, answer._content = 200, body
    session = requests.Session()
    session.request = lambda *_args, **_kwargs: answer  # type: ignore[method-assign]  # nothing is to be sent
    return session


@pytest.mark.parametrize("field", ["access_token", "accessToken"])
def test_a_token_of_google_is_told_when_it_arrives(heard: Heard, field: str) -> None:
    heard.listen("bigquery")
    answer = Request(google(json.dumps({field: SECRET, "expires_in": 3600, "token_type": "Bearer"}).encode()))("https://google")
    assert json.loads(answer.data)[field] == SECRET
    assert (heard.secrets, heard.warnings) == ([SECRET], [])


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"expires_in": 1}', b'{"access_token": null}', b"\xff"])
def test_an_answer_of_google_without_a_token_tells_nothing(heard: Heard, body: bytes) -> None:
    heard.listen("bigquery")
    assert Request(google(body))("https://google").data == body
    assert (heard.secrets, heard.warnings) == ([], [])


# --- Snowflake -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def connection() -> SnowflakeRestful:
    return SnowflakeRestful()


def test_the_tokens_of_a_session_are_told_at_the_login_and_at_each_renewal(heard: Heard, connection: SnowflakeRestful) -> None:
    heard.listen("snowflake")
    connection.update_tokens("session-1", "master-1", master_validity_in_seconds=14400, id_token="id", mfa_token=None)
    connection.update_tokens("session-2", "master-2")
    assert (connection.token, connection.master_token) == ("session-2", "master-2")
    assert heard.secrets == ["session-1", "master-1", "id", "session-2", "master-2"]
    assert heard.warnings == []


# --- drivers that are made in another way --------------------------------------------------------------------------------


def test_a_driver_without_the_seam_is_a_warning_and_changes_nothing(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SnowflakeRestful, "update_tokens")
    heard.listen("snowflake")
    [warning] = heard.warnings
    assert "snowflake-connector-python" in warning and "missing from the mask: AttributeError" in warning
    assert not hasattr(SnowflakeRestful, "update_tokens")


def test_an_answer_in_another_shape_is_one_warning_and_the_login_goes_on(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    heard.listen("redshift")
    monkeypatch.delattr(parsers.QueryParser, "_do_parse")
    monkeypatch.setattr(parsers.QueryParser, "parse", lambda *_: {"DbPassword": SECRET, "ResponseMetadata": {}})
    client = answering("redshift", XML)
    assert [cluster(client)["DbPassword"] for _ in range(2)] == [SECRET, SECRET]
    [warning] = heard.warnings
    assert "botocore" in warning and SECRET not in warning


def test_a_worker_that_is_ending_keeps_no_driver_from_its_work(connection: SnowflakeRestful, heard: Heard) -> None:
    def closed(_: str) -> None:
        raise ValueError("I/O operation on closed file")

    driver_secrets.listen("snowflake", closed, closed)
    connection.update_tokens("session", "master")
    assert connection.token == "session"


def test_a_version_that_nobody_has_read_is_listened_to_with_a_warning(
    heard: Heard, connection: SnowflakeRestful, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "99.0.0")
    heard.listen("snowflake")
    assert len(heard.warnings) == len(DRIVERS["snowflake"])
    assert all("99.0.0" in warning for warning in heard.warnings)
    connection.update_tokens("session", "master")
    assert heard.secrets == ["session", "master"]


def test_an_image_without_the_driver_is_no_concern(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    for warehouse in (*DRIVERS, "duckdb", ""):
        heard.listen(warehouse)
    assert heard.warnings == []


def test_the_drivers_are_made_as_is_expected() -> None:
    """Canary. If this fails, read the new version's source before you extend `known`, and see each build in tests/warehouses fail once."""
    for driver in (BOTOCORE, GOOGLE_AUTH, SNOWFLAKE_CONNECTOR):
        assert driver.known.has_installed, driver.known.distribution
        (first, before), page = driver.known.bounds, (TESTS.parent / "docs/upgrade.md").read_text()
        assert f"| {driver.known.distribution} | >= {first}, < {before} |" in page
    # Where the event comes, no line of the log had the answer.
    endpoint: Any = botocore.endpoint.Endpoint
    source = inspect.getsource(endpoint._do_get_response)
    assert source.index("before-parse") < source.index("parser.parse(")
    # All tokens come by the transport, which hashes them in its own log.
    assert "request(" in inspect.getsource(impersonated_credentials._make_iam_token_request)
    assert "exchange_token(" in inspect.getsource(external_account.Credentials._perform_refresh_token)
    # Nothing else sets them, and no raw answer is logged before.
    assert inspect.getsource(network).count("self._master_token = ") == 1
    assert "self._rest.update_tokens(" in inspect.getsource(Auth.authenticate)


# --- the message ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_no_part_of_what_is_said_about_its_message() -> None:
    message = Secret(SECRET)
    assert decode(encode(message)) == message
    assert SECRET not in repr(message)
    with pytest.raises(ValueError, match="bytes") as refused:
        decode(json.dumps({"type": "Secret", "value": SECRET, "more": 1}))
    assert SECRET not in str(refused.value)
