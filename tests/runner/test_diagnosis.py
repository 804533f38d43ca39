"""Where the fault of a health check lies, by how far the probe came and by what ended it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from dbt_common.exceptions import DbtDatabaseError

from dbt_runner.diagnosis import CONNECT, NEEDS, QUERY, fault_of, fault_without_answer, unmet
from dbt_runner.errors import ACCESS_DENIED, COMPILATION_ERROR, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.events import Failure
from dbt_runner.warehouses import ADAPTERS
from dbt_runner.warehouses.inquiry import Inquiry, NeedNotMet


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
        (QUERY, ACCESS_DENIED, failed("DbtRuntimeError", cause=failed("ClientError", aws="ExpiredTokenException")), "identity"),
        (QUERY, ACCESS_DENIED, failed("DbtDatabaseError", cause=failed("Unauthorized", reason="authError", http="401")), "identity"),
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
        (NEEDS, ACCESS_DENIED, unmet("no", "permission"), "permission"),
        (NEEDS, ACCESS_DENIED, unmet("no", "warehouse"), "warehouse"),
    ],
)
def test_a_fault_is_where_it_is(stage: int, kind: ErrorKind, failure: Failure, fault: str) -> None:
    assert fault_of(stage, kind, failure) == fault


def test_silence_is_the_networks_until_somebody_answered() -> None:
    assert [fault_without_answer(stage) for stage in (CONNECT, QUERY, NEEDS)] == ["network", "warehouse", "warehouse"]


# --- what is asked beyond `select 1` -------------------------------------------------------------------------------------

PLACES = SimpleNamespace(database="my {db}", schema="it's", warehouse="W'H")


class Answers(Inquiry):
    """A warehouse of few words: one answer for each question that has the text in it."""

    def __init__(self, answers: dict[str, Any], schema: str = PLACES.schema) -> None:
        super().__init__(None, SimpleNamespace(**{**vars(PLACES), "schema": schema}))
        self._answers = answers
        self.asked: list[str] = []

    def answer(self, sql: str) -> Any:
        self.asked.append(sql)
        (answer,) = [answer for text, answer in self._answers.items() if text in sql]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("type_", ["postgres", "redshift"])
def test_a_user_who_may_not_build_in_the_schema_lacks_a_permission(type_: str) -> None:
    ADAPTERS[type_].ask(yes := Answers({"has_schema_privilege": True}))
    assert "nspname = 'it''s'" in yes.asked[0]
    for no in (False, None):
        with pytest.raises(NeedNotMet, match="may not build in schema it's: it needs USAGE and CREATE") as refused:
            ADAPTERS[type_].ask(Answers({"has_schema_privilege": no}))
        assert refused.value.fault == "permission"


YES = json.dumps({"authorized": True})
USABLE = {"current_warehouse": True, "current_database": True}


def lacking(*nodes: tuple[str, str, str], by: str = "allOf") -> str:
    return json.dumps({by: [dict(zip(("privilege", "objectType", "objectName"), node, strict=True)) for node in nodes]})


TABLE, VIEW, SCHEMA = ("CREATE TABLE", "SCHEMA", "A.P"), ("CREATE VIEW", "SCHEMA", "A.P"), ("CREATE SCHEMA", "DATABASE", "A")
UNKNOWN = DbtDatabaseError("Unsupported feature 'EXPLAIN_PRIVILEGES'.")


@pytest.mark.parametrize(
    ("answers", "fault", "words"),
    [
        ({"current_warehouse": False}, "warehouse", "no warehouse W'H: it does not exist"),
        ({"current_warehouse": True, "current_database": None}, "warehouse", "no database my {db}: it does not exist"),
        (
            {**USABLE, "current_schema": True, "create table": lacking(TABLE), "create view": lacking(VIEW)},
            "permission",
            "may not build in schema it's: it lacks CREATE TABLE on SCHEMA A.P",
        ),
        (
            {**USABLE, "current_schema": False, "create schema": lacking(("<ANY>", "DATABASE", "A"), SCHEMA)},
            "permission",
            "no schema it's that the role can use, and it may not create one: it lacks USAGE on DATABASE A and CREATE SCHEMA on",
        ),
        (
            {**USABLE, "current_schema": False, "create schema": lacking(SCHEMA, ("OWNERSHIP", "DATABASE", "A"), by="oneOf")},
            "permission",
            "it lacks CREATE SCHEMA on DATABASE A or OWNERSHIP on DATABASE A",
        ),
        ({**USABLE, "current_schema": False, "create schema": json.dumps({"authorized": False})}, "permission", "it lacks a privilege"),
    ],
)
def test_snowflake_says_what_the_role_lacks(answers: dict[str, Any], fault: str, words: str) -> None:
    with pytest.raises(NeedNotMet) as refused:
        ADAPTERS["snowflake"].ask(Answers(answers))
    assert refused.value.fault == fault
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ({"current_schema": True, "create table": YES}, "create table if not exists dbt_runner_check"),
        ({"current_schema": True, "create table": lacking(TABLE), "create view": YES}, "create view if not exists dbt_runner_check"),
        ({"current_schema": False, "create schema": YES}, """create schema if not exists "it''s\""""),
        # What Snowflake does not say is no fault: an account without the function, statements that it cannot explain, another shape.
        ({"current_schema": True, "create table": UNKNOWN}, "create table"),
        ({"current_schema": False, "create schema": UNKNOWN}, "create schema"),
        ({"current_schema": True, "create table": None}, "create table"),
        ({"current_schema": True, "create table": "soon"}, "create table"),
    ],
)
def test_snowflake_has_no_objection(answers: dict[str, Any], asked: str) -> None:
    ADAPTERS["snowflake"].ask(inquiry := Answers({**USABLE, **answers}))
    assert asked in inquiry.asked[-1]


def test_a_name_is_quoted_only_where_snowflake_would_not_take_it() -> None:
    ADAPTERS["snowflake"].ask(inquiry := Answers({**USABLE, "current_schema": False, "create schema": YES}, schema="Analytics_1"))
    assert "create schema if not exists Analytics_1'" in inquiry.asked[-1]


def test_an_outage_while_snowflake_explains_is_an_outage() -> None:
    with pytest.raises(ConnectionResetError):
        ADAPTERS["snowflake"].ask(Answers({**USABLE, "current_schema": True, "create table": ConnectionResetError()}))
