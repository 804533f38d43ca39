"""Where the fault of a health check lies, by how far the probe came and by what ended it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dbt_runner.config import Warehouse
from dbt_runner.diagnosis import CONNECT, FAULTS, NEEDS, QUERY, fault_of, fault_without_answer, unmet
from dbt_runner.errors import ACCESS_DENIED, COMPILATION_ERROR, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.events import Failure, Need
from dbt_runner.probe import filled_in
from dbt_runner.warehouses import ADAPTERS


def failed(name: str, message: str = "", cause: Failure | None = None, **codes: str) -> Failure:
    return Failure(name, (name,), message, codes, (cause,) if cause else ())


@pytest.mark.parametrize(
    ("stage", "kind", "failure", "fault"),
    [
        (CONNECT, ACCESS_DENIED, failed("FailedToConnectError", cause=failed("OperationalError", "FATAL:  password ...")), "identity"),
        (CONNECT, ACCESS_DENIED, failed("FailedToConnectError", cause=failed("DatabaseError", errno="394400")), "identity"),
        # No connection is opened before the first query.
        (QUERY, ACCESS_DENIED, failed("DbtDatabaseError", cause=failed("RefreshError", oauth="invalid_grant")), "identity"),
        (QUERY, ACCESS_DENIED, failed("DbtDatabaseError", cause=failed("NoCredentialsError")), "identity"),
        (QUERY, ACCESS_DENIED, failed("DbtDatabaseError", cause=failed("Forbidden", reason="accessDenied", http="403")), "permission"),
        (QUERY, ACCESS_DENIED, failed("DbtRuntimeError", cause=failed("ClientError", aws="AccessDeniedException")), "permission"),
        (CONNECT, WAREHOUSE_UNAVAILABLE, failed("FailedToConnectError", cause=failed("OperationalError", "Connection refused")), "network"),
        (QUERY, WAREHOUSE_UNAVAILABLE, failed("ClientError", cause=failed("ConnectionRefusedError", os="ECONNREFUSED")), "network"),
        (CONNECT, WAREHOUSE_UNAVAILABLE, failed("FailedToConnectError", "FATAL:  the database system is starting up"), "warehouse"),
        (CONNECT, WAREHOUSE_UNAVAILABLE, failed("FailedToConnectError", cause=failed("OperationalError", errno="290503")), "warehouse"),
        (QUERY, WAREHOUSE_UNAVAILABLE, failed("DbtDatabaseError", cause=failed("OperationalError", sqlstate="57P01")), "warehouse"),
        (CONNECT, ACCESS_DENIED, failed("FailedToConnectError", 'FATAL:  database "x" does not exist'), "warehouse"),
        (QUERY, ACCESS_DENIED, failed("DbtDatabaseError", cause=failed("ProgrammingError", errno="000606")), "warehouse"),
        (QUERY, COMPILATION_ERROR, failed("DbtRuntimeError"), "warehouse"),
        (NEEDS, ACCESS_DENIED, unmet(Need("select false", "permission", "no")), "permission"),
        (NEEDS, ACCESS_DENIED, unmet(Need("select false", "warehouse", "no")), "warehouse"),
    ],
)
def test_a_fault_is_where_it_is(stage: int, kind: ErrorKind, failure: Failure, fault: str) -> None:
    assert fault_of(stage, kind, failure) == fault


def test_silence_is_the_networks_until_somebody_answered() -> None:
    assert [fault_without_answer(stage) for stage in (CONNECT, QUERY, NEEDS)] == ["network", "warehouse", "warehouse"]


ASKING = ("postgres", "redshift", "snowflake")


@pytest.mark.parametrize("type_", ADAPTERS)
def test_needs_name_a_fault_and_quote_the_places_of_the_connection(type_: str) -> None:
    places = SimpleNamespace(database="my {db}", schema="it's", warehouse="W'H")
    needs = [filled_in(need, places) for need in ADAPTERS[type_].needs(Warehouse(type_, {}, {}))]
    assert bool(needs) == (type_ in ASKING)
    assert {need.fault for need in needs} <= set(FAULTS)
    told = " ".join(need.problem for need in needs)
    assert all(place in told for place in (("my {db}", "W'H") if type_ == "snowflake" else ("it's",) if needs else ()))
    assert all("'it''s'" in need.sql for need in needs if "it's" in need.problem)
