"""PostgreSQL by RDS's tokens: a real server behind a gate that takes TLS and a token of the warehouse role, as RDS does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import attempt
from dbt_runner.broker import Broker
from dbt_runner.config import Warehouse as Connection
from runner import projects
from runner.conftest import ACCOUNT
from warehouses.aws import ROLE, Aws
from warehouses.conftest import WarehouseRun
from warehouses.gate import gate
from warehouses.sigv4 import Refused, signed_query

pytestmark = pytest.mark.xdist_group("warehouse-postgres")

Warehouse = Callable[..., dict[str, Any]]


class Rds:
    """Judges a login as RDS does: the password has to be a request to connect as this user, signed by a role that may do so.

    Attributes:
        role: which role may be the user dbt.
        tokens: the passwords that were accepted, in order.
        accepted: told every one of them before its login is answered.
        over: passwords that are not good any more.
    """

    def __init__(self, cloud: Aws, database: Connection) -> None:
        self._cloud = cloud
        self._database = database
        self.port = 0
        self.reset()

    def reset(self) -> None:
        self.role = ROLE
        self.tokens: list[str] = []
        self.accepted: Callable[[str], None] = lambda _: None
        self.over: set[str] = set()

    def relations(self, schema: str) -> set[str]:
        """What dbt built there."""
        sql = f"select string_agg(relname, ',') from pg_class where relnamespace = '{schema}'::regnamespace and relkind in ('r', 'v')"
        return set(projects.query(self._database, sql)[0][0].split(","))

    def judge(self, user: str, database: str, password: str) -> None:
        signed = signed_query(f"https://{password}")
        try:
            session = self._cloud.caller(signed, self._cloud.ahead)
            asked = dict(part.partition("=")[::2] for part in signed.url.partition("?")[2].split("&"))
            if (session.role, signed.service, asked["Action"], asked["DBUser"]) != (self.role, "rds-db", "connect", user):
                raise Refused("AccessDenied", "")
            if signed.headers["host"] != f"localhost:{self.port}" or password in self.over:
                raise Refused("AccessDenied", "")
        except Refused as exc:
            # RDS tells nobody more than that.
            raise Refused("28000", f'PAM authentication failed for user "{user}"') from exc
        self.tokens.append(password)
        self.accepted(password)


@pytest.fixture(scope="module")
def server(served: Aws, localhost: Path) -> Iterator[Rds]:
    with projects.postgres() as warehouse:
        rds = Rds(served, warehouse)
        projects.query(warehouse, "create role dbt login; create schema analytics authorization dbt; commit; select 1")
        projects.query(warehouse, "create schema closed; commit; select 1")
        projects.query(warehouse, "create schema of_the_project authorization dbt; commit; select 1")
        with gate(f"{warehouse.settings['host']}/.s.PGSQL.5432", localhost, rds.judge) as rds.port:
            yield rds


@pytest.fixture
def rds(server: Rds, cloud: Aws) -> Rds:
    server.reset()
    return server


@pytest.fixture
def warehouse(rds: Rds, localhost: Path) -> Warehouse:
    def make(**settings: Any) -> dict[str, Any]:
        base = {"host": "localhost", "port": str(rds.port), "user": "dbt", "dbname": "postgres", "schema": "analytics"}
        base["connect_timeout"] = "60"
        tls = {"sslmode": "verify-full", "sslrootcert": str(localhost)}
        return {
            "type": "postgres",
            "settings": {**base, **tls, **settings},
            "identity": {"method": "rds_iam", "resource_id": "db-ABC"},
        }

    return make


Runs = Callable[..., WarehouseRun]


def test_a_build_passes_as_the_warehouse_role_and_outlives_its_password(
    runs: Runs, warehouse: Warehouse, rds: Rds, cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers: list[Broker] = []

    def brokered(*args: Any, **seams: Any) -> Broker:
        brokers.append(Broker(*args, **seams, renew_file_after_seconds=0.01))
        return brokers[0]

    def first_one_ends(token: str) -> None:
        if not rds.over:
            rds.over.add(token)
            signature = token.rpartition("=")[2]
            file = Path(brokers[0].variables["PGPASSFILE"])
            projects.wait_until(lambda: signature not in file.read_text())

    monkeypatch.setattr(attempt, "Broker", brokered)
    rds.accepted = first_one_ends
    run = runs(warehouse(threads="1"))
    assert run.build().get("error") is None
    assert run.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    # Each node logs in by itself, and all of them by one session of the role, in this run's name.
    assert len(rds.tokens) > len(run.built()) and len(set(rds.tokens)) > 1
    (session,) = cloud.assumed
    assert (session.source_identity, session.tags) == ("r-1", {"environment": "prod", "run": "r-1"})


@pytest.mark.slow
def test_a_run_of_many_hours_passes_and_assumes_the_role_once_an_hour(
    runs: Runs, warehouse: Warehouse, rds: Rds, cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two logins an hour passes, by the broker's clock: the session and its password are over, as role chaining has it."""
    hour = timedelta(hours=1)
    brokers: list[Broker] = []
    passed = [timedelta(0)]

    def brokered(*args: Any, **seams: Any) -> Broker:
        # The password file is renewed all the time, and each time asks for the session.
        brokers.append(Broker(*args, **seams, renew_file_after_seconds=0.01, clock=lambda: datetime.now(UTC) + passed[0]))
        return brokers[0]

    def an_hour_passes(_: str) -> None:
        over = list(cloud.sessions)[-1]
        cloud.lifetime += hour
        passed[0] += hour
        file = Path(brokers[0].variables["PGPASSFILE"])
        projects.wait_until(lambda: over not in file.read_text())
        cloud.sessions[over] = replace(cloud.sessions[over], expires_at=datetime.now(UTC))

    monkeypatch.setattr(attempt, "Broker", brokered)
    rds.accepted = an_hour_passes
    run = runs(warehouse(threads="1"))
    assert run.build().get("error") is None
    assert run.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    hours = len(rds.tokens)
    assert hours > len(run.built()) and len(set(rds.tokens)) == hours
    assert len(cloud.assumed) == 1 + hours


@pytest.mark.parametrize("role", ["analytics-staging-warehouse", "analytics-prod-states"])
def test_another_role_is_refused_before_dbt_starts(runs: Runs, warehouse: Warehouse, role: str) -> None:
    run = runs(warehouse())
    run.config["roles"]["warehouse"] = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    outcome = run.check()
    assert (outcome["error"], outcome["exit_code"], outcome["fault"]) == ("Dbt.AccessDenied", 21, "identity")
    assert "is not authorized to perform: sts:AssumeRole on resource" in outcome["message"] and role in outcome["why"]


def _other_role(rds: Rds, cloud: Aws) -> None:
    rds.role = f"arn:aws:iam::{ACCOUNT}:role/analytics-staging-warehouse"


def _too_late(rds: Rds, cloud: Aws) -> None:
    cloud.ahead = timedelta(minutes=16)


def _as_it_is(rds: Rds, cloud: Aws) -> None:
    pass


DENIED = "Dbt.AccessDenied"


@pytest.mark.parametrize(
    ("turn", "settings", "error", "fault", "words"),
    [
        (_other_role, {}, DENIED, "identity", 'PAM authentication failed for user "dbt"'),
        pytest.param(_too_late, {}, DENIED, "identity", 'PAM authentication failed for user "dbt"', marks=pytest.mark.slow),
        pytest.param(_as_it_is, {"sslmode": "disable"}, DENIED, "identity", "no encryption", marks=pytest.mark.slow),
        # Port 1 is nobody's.
        (_as_it_is, {"port": "1"}, "Dbt.WarehouseUnavailable", "network", "Connection refused"),
        pytest.param(_as_it_is, {"dbname": "nowhere"}, DENIED, "warehouse", 'database "nowhere" does not exist', marks=pytest.mark.slow),
        (_as_it_is, {"schema": "closed"}, DENIED, "permission", "the database user may not build in schema closed"),
        pytest.param(_as_it_is, {"schema": "it's new"}, DENIED, "permission", "may not build in schema it's new", marks=pytest.mark.slow),
    ],
)
def test_the_health_check_says_where_the_fault_lies(
    runs: Runs,
    warehouse: Warehouse,
    rds: Rds,
    cloud: Aws,
    turn: Callable[[Rds, Aws], None],
    settings: dict[str, str],
    error: str,
    fault: str,
    words: str,
) -> None:
    turn(rds, cloud)
    outcome = runs(warehouse(**settings)).check()
    assert (outcome["error"], outcome["fault"]) == (error, fault)
    assert words in outcome["message"]


@pytest.mark.slow
def test_a_health_check_passes_where_dbt_can_build(runs: Runs, warehouse: Warehouse) -> None:
    outcome = runs(warehouse()).check()
    assert (outcome["exit_code"], outcome.get("fault")) == (0, None)


OWN_PROFILES = """
of_a_developer:
  target: dev
  outputs:
    dev: { type: postgres, host: 127.0.0.1, port: 1, user: me, dbname: mine, schema: mine }
    prod:
      type: postgres
      host: elsewhere.example.com
      user: somebody
      dbname: another
      schema: "{{ env_var('TARGET_SCHEMA') }}"
      connect_timeout: 60
      sslrootcert: nobody.pem
"""


def test_a_build_passes_with_a_profile_of_the_projects_own(runs: Runs, warehouse: Warehouse, rds: Rds, cloud: Aws) -> None:
    """What it adds counts. The environment's settings and its login win: the database of the profile would let nobody in."""
    connection = warehouse()
    for added in ("schema", "connect_timeout"):
        del connection["settings"][added]
    run = runs({**connection, "profile": "project"}, OWN_PROFILES)
    run.environment["TARGET_SCHEMA"] = "of_the_project"
    assert run.check().get("error") is None
    assert run.build().get("error") is None
    assert run.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    assert rds.relations("of_the_project") == {"orders", "big_orders"}
    assert len(cloud.assumed) == 2, "the check's session and the build's"
