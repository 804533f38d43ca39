"""Snowflake by workload identity federation: the connector's own login against a door that verifies it, fakesnow behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from dbt_runner import attempt
from dbt_runner.broker import Broker
from runner.conftest import ACCOUNT
from warehouses.aws import SIGNING_KEY, Aws
from warehouses.conftest import WarehouseRun
from warehouses.okta import CLIENT, Okta
from warehouses.snowflake import Snowflake
from warehouses.web import serving

pytestmark = pytest.mark.xdist_group("warehouse-snowflake")

Runs = Callable[..., WarehouseRun]


@pytest.fixture(scope="module")
def authorization_server(served: Aws) -> Iterator[Okta]:
    made = Okta(served)
    with serving(made.handle) as made.url:
        yield made


@pytest.fixture
def okta(authorization_server: Okta, cloud: Aws) -> Okta:
    authorization_server.reset()
    return authorization_server


@pytest.fixture(scope="module")
def account(served: Aws, authorization_server: Okta) -> Iterator[tuple[Snowflake, str]]:
    made = Snowflake(served, authorization_server)
    with serving(made.handle) as url:
        yield made, url


@pytest.fixture
def snowflake(account: tuple[Snowflake, str], cloud: Aws) -> Snowflake:
    account[0].reset()
    return account[0]


@pytest.fixture
def on_snowflake(runs: Runs, account: tuple[Snowflake, str], snowflake: Snowflake, okta: Okta) -> Runs:
    def make(method: str = "aws_token", **settings: str) -> WarehouseRun:
        url = urlsplit(account[1])
        place = {"host": str(url.hostname), "port": str(url.port), "protocol": "http"}
        base = {"account": "org-acct", "role": "TRANSFORMER", "warehouse": "WH", "database": "ANALYTICS", "schema": "PUBLIC"}
        application = {"issuer": okta.issuer, "client_id": CLIENT, "kms_key_arn": SIGNING_KEY} if method == "okta" else {}
        run = runs({"type": "snowflake", "settings": {**base, **place, **settings}, "identity": {"method": method, **application}})
        # The connector gives credentials to Snowflake's own hosts only.
        run.environment["SNOWFLAKE_WIF_ALLOWED_HOST_SUFFIXES"] = str(url.hostname)
        if method == "aws_attestation":
            # It is signed for AWS itself, and sent by Snowflake.
            del run.environment["AWS_ENDPOINT_URL_STS"]
        return run

    return make


BUILT = {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}


def test_a_build_passes_with_tokens_and_outlives_its_sessions(on_snowflake: Runs, snowflake: Snowflake, cloud: Aws) -> None:
    cloud.lifetime = timedelta(seconds=1)
    run = on_snowflake("aws_token")
    outcome = run.build()
    assert outcome.get("error") is None
    assert run.built() == BUILT
    assert set(snowflake.logins) == {"token"}
    assert cloud.calls.count("GetWebIdentityToken") == len(snowflake.logins)
    # A session is used for two thirds of its life before there is another one, all in the run's name.
    assert 1 < len(cloud.assumed) <= 2 + float(outcome["seconds"]) * 1.5
    assert {session.source_identity for session in cloud.assumed} == {"r-1"}


@pytest.mark.slow
def test_a_build_passes_with_signed_requests(on_snowflake: Runs, snowflake: Snowflake, cloud: Aws) -> None:
    # With sessions of seconds the connector would exchange them while it signs; those of the broker have 20 minutes left at least.
    run = on_snowflake("aws_attestation")
    snowflake.lapses = True
    assert run.build().get("error") is None
    assert run.built() == BUILT
    assert set(snowflake.logins) == {"attestation"}
    # The driver told it, also the one by which a session went on, and this is where it was.
    assert 'Snowflake Token=\\"*****\\"' in run.said
    assert snowflake.renewals == 1
    # It signs by itself: Snowflake asks AWS who that was.
    assert cloud.calls == ["AssumeRole"]
    assert [session.source_identity for session in cloud.assumed] == ["r-1"]


def _other_role(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.arn = f"arn:aws:iam::{ACCOUNT}:role/analytics-staging-warehouse"


def _other_audience(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.audience = "other.example.com"


def _too_late(snowflake: Snowflake, cloud: Aws) -> None:
    cloud.ahead = timedelta(minutes=16)


def _no_issuer(snowflake: Snowflake, cloud: Aws) -> None:
    cloud.issues_tokens = False


def _no_warehouse(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.warehouses = set()


def _no_database(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.databases = set()


def _read_only(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.privileges = set()


def _no_schema(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.schemas = set()
    snowflake.privileges = {"CREATE TABLE", "CREATE VIEW"}


def _no_grant(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.roles = set()


@pytest.mark.parametrize(
    ("method", "turn", "fault", "words"),
    [
        pytest.param("aws_attestation", _other_role, "identity", "no user has the workload identity", marks=pytest.mark.slow),
        pytest.param("aws_token", _other_audience, "identity", "Audience doesn't match", marks=pytest.mark.slow),
        ("aws_token", _read_only, "permission", "may not build in schema PUBLIC: it lacks CREATE TABLE on SCHEMA ANALYTICS.PUBLIC"),
        pytest.param("aws_token", _no_schema, "permission", "it lacks CREATE SCHEMA on DATABASE ANALYTICS", marks=pytest.mark.slow),
        pytest.param("aws_token", _no_warehouse, "warehouse", "the role can use no warehouse WH", marks=pytest.mark.slow),
        pytest.param("aws_token", _no_database, "warehouse", "the role can use no database ANALYTICS", marks=pytest.mark.slow),
        ("aws_token", _too_late, "identity", "Signature has expired"),
        pytest.param(
            "aws_token", _no_grant, "identity", "Role 'TRANSFORMER' specified in the connect string is not granted", marks=pytest.mark.slow
        ),
        pytest.param("aws_token", _other_role, "identity", "no user has the workload identity", marks=pytest.mark.slow),
        pytest.param("aws_attestation", _other_audience, "identity", "not for this account", marks=pytest.mark.slow),
        pytest.param("aws_attestation", _too_late, "identity", "Signature expired", marks=pytest.mark.slow),
        pytest.param("aws_token", _no_issuer, "identity", "Outbound web identity federation is not enabled", marks=pytest.mark.slow),
    ],
)
def test_whoever_is_not_the_user_is_access_denied(
    on_snowflake: Runs, snowflake: Snowflake, cloud: Aws, method: str, turn: Callable[[Snowflake, Aws], None], fault: str, words: str
) -> None:
    turn(snowflake, cloud)
    outcome = on_snowflake(method).check()
    assert (outcome["error"], outcome["fault"], bool(snowflake.logins)) == ("Dbt.AccessDenied", fault, fault != "identity")
    assert words in outcome["message"]


@pytest.mark.slow
@pytest.mark.parametrize("explains", [True, False])
def test_a_schema_that_dbt_can_make_or_of_which_nothing_is_known_is_no_fault(
    on_snowflake: Runs, snowflake: Snowflake, explains: bool
) -> None:
    snowflake.schemas, snowflake.explains = set(), explains
    assert on_snowflake("aws_token").check().get("error") is None


# --- External OAuth with Okta --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_build_passes_with_tokens_of_okta_and_outlives_them(
    on_snowflake: Runs, snowflake: Snowflake, okta: Okta, cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each login an hour passes, by the broker's clock, and the token of that login is over."""
    passed = [timedelta(0)]

    def an_hour_passes(token: str) -> None:
        snowflake.over.add(token)
        passed[0] += timedelta(hours=1)

    monkeypatch.setattr(attempt, "Broker", lambda *args, **seams: Broker(*args, **seams, clock=lambda: datetime.now(UTC) + passed[0]))
    snowflake.accepted = an_hour_passes
    # dbt keeps the connection of a thread otherwise.
    run = on_snowflake("okta", threads="1", reuse_connections="false")
    assert run.build().get("error") is None
    assert run.built() == BUILT
    assert set(snowflake.logins) == {"oauth"} and len(snowflake.logins) > 1
    # One token a login and one at the start, a signature for each, all by sessions in this run's name.
    assert len(snowflake.over) == len(snowflake.logins) <= okta.issued <= len(snowflake.logins) + 1
    assert cloud.calls.count("Sign") == okta.issued and set(cloud.calls) == {"AssumeRole", "Sign"}
    assert {session.source_identity for session in cloud.assumed} == {"r-1"}


def _other_client(okta: Okta) -> None:
    okta.client = "0oaDbtStaging"


def _other_key(okta: Okta) -> None:
    okta.kid = "1b2c3d4e"


def _no_scope(okta: Okta) -> None:
    okta.scopes = {"session:role:LOADER"}


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (_other_client, "Okta refuses it: invalid_client The client_assertion is not valid"),
        (_other_key, "Okta refuses it: invalid_client The client_assertion signature could not be verified"),
        (_no_scope, "Okta refuses it: invalid_scope"),
    ],
)
def test_whom_okta_refuses_is_access_denied_before_dbt_starts(
    on_snowflake: Runs, snowflake: Snowflake, okta: Okta, turn: Callable[[Okta], None], words: str
) -> None:
    turn(okta)
    outcome = on_snowflake("okta").check()
    assert (outcome["error"], outcome["fault"], snowflake.logins) == ("Dbt.AccessDenied", "identity", [])
    assert words in outcome["message"]


def test_a_role_that_may_not_sign_is_access_denied_before_dbt_starts(on_snowflake: Runs, okta: Okta) -> None:
    run = on_snowflake("okta")
    run.config["warehouse"]["identity"]["kms_key_arn"] = SIGNING_KEY.replace("0a1b", "ffff")
    outcome = run.check()
    assert (outcome["error"], outcome["fault"], okta.issued) == ("Dbt.AccessDenied", "identity", 0)
    assert "is not authorized to perform: kms:Sign" in outcome["message"]


def test_an_okta_that_has_enough_of_requests_is_tried_again(on_snowflake: Runs, okta: Okta) -> None:
    okta.status = 429
    outcome = on_snowflake("okta").check()
    assert outcome["error"] == "Dbt.WarehouseUnavailable"
    assert "API call exceeded rate limit" in outcome["message"]


def _unknown_login_name(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.login_name = "0oaDbtStaging"


def _other_oauth_audience(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.oauth_audience = "https://other.snowflakecomputing.com"


def _much_too_late(snowflake: Snowflake, cloud: Aws) -> None:
    cloud.ahead = timedelta(hours=2)


@pytest.mark.slow
def test_a_token_of_okta_for_another_role_is_access_denied(on_snowflake: Runs, snowflake: Snowflake, okta: Okta) -> None:
    okta.grants = "session:role:LOADER"
    outcome = on_snowflake("okta").check()
    assert (outcome["error"], outcome["fault"], snowflake.logins) == ("Dbt.AccessDenied", "identity", [])
    assert "('TRANSFORMER') is not listed in the Access Token or was filtered" in outcome["message"]
    assert okta.issued >= 1


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        pytest.param(_other_oauth_audience, "Invalid OAuth access token", marks=pytest.mark.slow),
        pytest.param(_unknown_login_name, "User in the OAuth access token was not found", marks=pytest.mark.slow),
        pytest.param(_much_too_late, "OAuth access token expired", marks=pytest.mark.slow),
    ],
)
def test_whom_snowflake_does_not_take_from_okta_is_access_denied(
    on_snowflake: Runs, snowflake: Snowflake, cloud: Aws, turn: Callable[[Snowflake, Aws], None], words: str
) -> None:
    turn(snowflake, cloud)
    outcome = on_snowflake("okta").check()
    assert (outcome["error"], outcome["fault"], snowflake.logins) == ("Dbt.AccessDenied", "identity", [])
    assert words in outcome["message"]
