"""Redshift, serverless and provisioned: the connector gets passwords as the warehouse role, a PostgreSQL behind a gate takes each once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runner import projects
from runner.conftest import REGION
from warehouses.aws import Aws
from warehouses.conftest import WarehouseRun
from warehouses.gate import gate
from warehouses.sigv4 import Refused

pytestmark = pytest.mark.xdist_group("warehouse-redshift")

SERVERLESS = {"settings": {"serverless_work_group": "analytics"}, "identity": {"workgroup_id": "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"}}
PROVISIONED = {"settings": {"cluster_id": "analytics"}}
USERS = ("IAMR:analytics-prod-warehouse", "IAM:dbt_prod")
Runs = Callable[..., WarehouseRun]


class Redshift:
    """Judges a login as Redshift does: the password has to be one that its API gave out for this user, and it ends with its first use.

    Attributes:
        users: who logged in, in order.
    """

    def __init__(self, cloud: Aws) -> None:
        self._cloud = cloud
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.users: list[str] = []

    def judge(self, user: str, database: str, password: str) -> None:
        if (self._cloud.passwords.pop(password, None), self._cloud.ahead) != (user, timedelta(0)):
            # With what it was asked, as no server should.
            raise Refused("28000", f'password authentication failed for user "{user}" (asked with {password})')
        self.users.append(user)


@pytest.fixture(scope="module")
def server(served: Aws, localhost: Path) -> Iterator[Redshift]:
    redshift = Redshift(served)
    with projects.postgres() as warehouse:
        for user in USERS:
            projects.query(warehouse, f'create role "{user}" login; grant create on database postgres to "{user}"; commit; select 1')
        with gate(f"{warehouse.settings['host']}/.s.PGSQL.5432", localhost, redshift.judge, "8.0.2") as redshift.port:
            yield redshift


@pytest.fixture
def redshift(server: Redshift, cloud: Aws) -> Redshift:
    server.reset()
    return server


@pytest.fixture
def on_redshift(runs: Runs, redshift: Redshift, localhost: Path) -> Runs:
    def make(kind: dict[str, Any], schema: str, **identity: str) -> WarehouseRun:
        settings = {"host": "localhost", "port": str(redshift.port), "dbname": "postgres", "region": REGION, "schema": schema}
        run = runs(
            {
                "type": "redshift",
                "settings": {**settings, **kind["settings"]},
                "identity": {**kind.get("identity", {}), **identity},
            }
        )
        run.environment["SSL_CERT_FILE"] = str(localhost)
        return run

    return make


TAGS = {"RedshiftDbUser": "dbt_prod", "RedshiftDbRoles": "transformer"}


@pytest.mark.parametrize(
    ("kind", "identity", "tags", "user", "action"),
    [
        (SERVERLESS, {"db_user": "dbt_prod", "db_roles": "transformer"}, TAGS, "IAM:dbt_prod", "GetCredentials"),
        pytest.param(PROVISIONED, {}, {}, "IAMR:analytics-prod-warehouse", "GetClusterCredentialsWithIAM", marks=pytest.mark.slow),
    ],
    ids=["serverless", "provisioned"],
)
def test_a_build_passes_with_passwords_that_end(
    on_redshift: Runs, redshift: Redshift, cloud: Aws, kind: Any, identity: dict[str, str], tags: dict[str, str], user: str, action: str
) -> None:
    cloud.trusted = tags
    run = on_redshift(kind, action.lower(), **identity)
    assert run.build().get("error") is None
    assert run.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    assert set(redshift.users) == {user}
    assert cloud.calls.count(action) == len(redshift.users) >= 3
    # The driver told its passwords, and this is where they were.
    assert len(re.findall(r"dbPassword\W+\*{5}", run.said, re.IGNORECASE)) == cloud.calls.count(action)
    assert {tuple(session.tags.items()) for session in cloud.assumed} == {
        tuple(sorted({"environment": "prod", "run": "r-1", **tags}.items()))
    }


def test_another_database_user_than_the_trusted_one_is_refused_before_dbt_starts(on_redshift: Runs, cloud: Aws) -> None:
    cloud.trusted = {"RedshiftDbUser": "dbt_prod"}
    outcome = on_redshift(SERVERLESS, "public", db_user="admin").check()
    assert outcome["error"] == "Dbt.AccessDenied"
    assert "is not authorized to perform: sts:AssumeRole" in outcome["message"]


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ({**SERVERLESS, "settings": {"serverless_work_group": "other"}}, "redshift-serverless:GetCredentials"),
        pytest.param({"settings": {"cluster_id": "other"}}, "redshift:GetClusterCredentialsWithIAM", marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_password_that_aws_does_not_give_is_access_denied(on_redshift: Runs, redshift: Redshift, kind: Any, action: str) -> None:
    outcome = on_redshift(kind, "public").check()
    assert (outcome["error"], redshift.users) == ("Dbt.AccessDenied", [])
    assert f"is not authorized to perform: {action}" in outcome["message"]


@pytest.mark.slow
def test_a_password_that_is_over_is_access_denied(on_redshift: Runs, redshift: Redshift, cloud: Aws) -> None:
    cloud.ahead = timedelta(minutes=16)
    outcome = on_redshift(SERVERLESS, "public").check()
    assert (outcome["error"], redshift.users) == ("Dbt.AccessDenied", [])
    assert "password authentication failed" in outcome["message"]
