"""Snowflake by workload identity federation: the connector's own login against a door that verifies it, fakesnow behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from runner.conftest import ACCOUNT
from warehouses.aws import Aws
from warehouses.conftest import WarehouseRun
from warehouses.snowflake import Snowflake
from warehouses.web import serving

pytestmark = pytest.mark.xdist_group("warehouse-snowflake")

Runs = Callable[..., WarehouseRun]


@pytest.fixture(scope="module")
def account(served: Aws) -> Iterator[tuple[Snowflake, str]]:
    made = Snowflake(served)
    with serving(made.handle) as url:
        yield made, url


@pytest.fixture
def snowflake(account: tuple[Snowflake, str], cloud: Aws) -> Snowflake:
    account[0].reset()
    return account[0]


@pytest.fixture
def on_snowflake(runs: Runs, account: tuple[Snowflake, str], snowflake: Snowflake) -> Runs:
    def make(method: str = "aws_token", **settings: str) -> WarehouseRun:
        url = urlsplit(account[1])
        place = {"host": str(url.hostname), "port": str(url.port), "protocol": "http"}
        base = {"account": "org-acct", "role": "TRANSFORMER", "warehouse": "WH", "database": "ANALYTICS", "schema": "PUBLIC"}
        run = runs({"type": "snowflake", "settings": {**base, **place, **settings}, "identity": {"method": method}})
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


def test_a_build_passes_with_signed_requests(on_snowflake: Runs, snowflake: Snowflake, cloud: Aws) -> None:
    # With sessions of seconds the connector would exchange them while it signs; those of the broker have 20 minutes left at least.
    run = on_snowflake("aws_attestation")
    assert run.build().get("error") is None
    assert run.built() == BUILT
    assert set(snowflake.logins) == {"attestation"}
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


def _no_grant(snowflake: Snowflake, cloud: Aws) -> None:
    snowflake.roles = set()


@pytest.mark.parametrize(
    ("method", "turn", "fault", "words"),
    [
        ("aws_attestation", _other_role, "identity", "no user has the workload identity"),
        ("aws_token", _other_audience, "identity", "Audience doesn't match"),
        ("aws_token", _no_warehouse, "warehouse", "the role can use no warehouse WH"),
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
