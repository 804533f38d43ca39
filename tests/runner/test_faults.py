"""What the warehouses' errors mean, by the real classes of their drivers: worth another attempt, refused, or the model's own."""

from __future__ import annotations

import errno
import importlib
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.events import Failure, NodeResult
from dbt_runner.evidence import describe
from dbt_runner.warehouses import ADAPTERS, faults
from dbt_runner.wire import decode, encode

UNAVAILABLE, DENIED = WAREHOUSE_UNAVAILABLE, ACCESS_DENIED


def of(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def meaning(type_: str, exc: BaseException) -> ErrorKind | None:
    verdict = ADAPTERS[type_].faults.verdict(describe(exc))
    return verdict.kind if verdict else None


def client_error(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Action")  # type: ignore[typeddict-item]


def with_sqlstate(sqlstate: str) -> BaseException:
    """psycopg2 sets pgcode in C only: a class of the real one's name and bases stands for an exception of the server."""
    real = of("psycopg2.errors").lookup(sqlstate)
    made: BaseException = type(real.__name__, (real,), {"pgcode": sqlstate})("m")
    return made


def postgres(sqlstate: str) -> Callable[[], Any]:
    return lambda: with_sqlstate(sqlstate)


def connecting(text: str) -> Callable[[], Any]:
    return lambda: of("psycopg2.OperationalError")(f'connection to server at "db" (10.0.3.7), port 5432 failed: {text}')


def snowflake(errno_: int, name: str = "DatabaseError", sqlstate: str = "08001") -> Callable[[], Any]:
    return lambda: of(f"snowflake.connector.errors.{name}")("m", errno=errno_, sqlstate=sqlstate)


def redshift(code: str, name: str = "ProgrammingError") -> Callable[[], Any]:
    return lambda: of(f"redshift_connector.{name}")({"S": "ERROR", "C": code, "M": "m"})


def google(name: str, reason: str | None) -> Callable[[], Any]:
    return lambda: of(f"google.api_core.exceptions.{name}")("m", errors=[{"reason": reason}] if reason else [])


def athena(category: int, type_: int, retryable: bool | None) -> Callable[[], Any]:
    error = {"ErrorCategory": category, "ErrorType": type_, "ErrorMessage": "m"}
    return lambda: of("dbt.adapters.athena.exceptions.AthenaQueryFailedError")(
        error if retryable is None else {**error, "Retryable": retryable}
    )


CASES: list[tuple[str, Callable[[], BaseException], ErrorKind | None]] = [
    # DuckDB
    ("duckdb", lambda: of("duckdb.IOException")('IO Error: Could not set lock on file "/x": Conflicting lock is held'), UNAVAILABLE),
    ("duckdb", lambda: of("duckdb.IOException")('IO Error: No files found that match the pattern "x.csv"'), None),
    ("duckdb", lambda: of("duckdb.CatalogException")("Could not set lock on file"), None),
    # PostgreSQL: the server's codes
    *(("postgres", postgres(code), UNAVAILABLE) for code in ("08006", "40001", "40P01", "53300", "57P01", "57P03", "58030")),
    *(("postgres", postgres(code), DENIED) for code in ("28000", "28P01", "3D000", "42501")),
    *(("postgres", postgres(code), None) for code in ("22012", "23505", "42601", "42P01", "53100", "57014", "XX000", "0A000")),
    # libpq's words for a connection that was never there
    ("postgres", connecting("Connection refused"), UNAVAILABLE),
    ("postgres", connecting("timeout expired"), UNAVAILABLE),
    ("postgres", connecting("server closed the connection unexpectedly"), UNAVAILABLE),
    ("postgres", connecting("FATAL:  the database system is starting up"), UNAVAILABLE),
    ("postgres", connecting("FATAL:  sorry, too many clients already"), UNAVAILABLE),
    ("postgres", connecting("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute"), UNAVAILABLE),
    ("postgres", connecting('FATAL:  password authentication failed for user "dbt"'), DENIED),
    ("postgres", connecting('FATAL:  PAM authentication failed for user "dbt"'), DENIED),
    ("postgres", connecting('FATAL:  no pg_hba.conf entry for host "10.0.0.1"'), DENIED),
    ("postgres", connecting('FATAL:  database "x" does not exist'), DENIED),
    ("postgres", connecting("fe_sendauth: no password supplied"), DENIED),
    ("postgres", connecting("SSL error: certificate verify failed"), DENIED),
    ("postgres", lambda: of("psycopg2.InterfaceError")("connection already closed"), UNAVAILABLE),
    # Snowflake
    *(("snowflake", snowflake(code, "OperationalError"), UNAVAILABLE) for code in (250001, 250003, 251011, 290503, 290429, 390114)),
    *(("snowflake", snowflake(code), DENIED) for code in (390100, 390144, 390186, 390189, 390303, 390318, 390422, 394300, 395001)),
    *(("snowflake", snowflake(code, "ProgrammingError"), DENIED) for code in (251017, 251018, 251021, 290403, 290404)),
    ("snowflake", snowflake(3001, "ProgrammingError", "42501"), DENIED),
    ("snowflake", snowflake(606, "ProgrammingError", "57P03"), DENIED),
    ("snowflake", snowflake(1003, "ProgrammingError", "42000"), None),
    ("snowflake", snowflake(2003, "ProgrammingError", "42S02"), None),
    ("snowflake", snowflake(100132, "ProgrammingError", "P0000"), None),
    ("snowflake", snowflake(999999), None),
    ("snowflake", lambda: of("snowflake.connector.errors.ServiceUnavailableError")(msg="m"), UNAVAILABLE),
    ("snowflake", lambda: of("snowflake.connector.errors.TooManyRequests")(msg="m"), UNAVAILABLE),
    ("snowflake", lambda: of("snowflake.connector.errors.ForbiddenError")(msg="m"), DENIED),
    ("snowflake", lambda: client_error("OutboundWebIdentityFederationDisabledException"), DENIED),
    ("snowflake", lambda: client_error("AccessDenied", 403), DENIED),
    ("snowflake", lambda: client_error("Throttling"), UNAVAILABLE),
    # Redshift
    *(("redshift", redshift(code), UNAVAILABLE) for code in ("57P03", "53300", "08006")),
    *(("redshift", redshift(code, "InterfaceError"), DENIED) for code in ("28000", "28P01")),
    ("redshift", redshift("42501"), DENIED),
    *(("redshift", redshift(code), None) for code in ("42601", "22P02", "XX000")),
    ("redshift", lambda: client_error("AccessDeniedException"), DENIED),
    ("redshift", lambda: client_error("ExpiredTokenException", 403), DENIED),
    ("redshift", lambda: client_error("ThrottlingException"), UNAVAILABLE),
    ("redshift", lambda: client_error("SomethingNew", 503), UNAVAILABLE),
    ("redshift", lambda: client_error("ResourceNotFoundException"), None),
    ("redshift", lambda: NoCredentialsError(), DENIED),
    ("redshift", lambda: of("redshift_connector.InterfaceError")("BrokenPipe: server socket closed"), UNAVAILABLE),
    # BigQuery
    ("bigquery", google("BadRequest", "invalidQuery"), None),
    ("bigquery", google("NotFound", "notFound"), None),
    ("bigquery", google("Forbidden", "accessDenied"), DENIED),
    ("bigquery", google("Forbidden", "quotaExceeded"), None),
    ("bigquery", google("Unauthorized", "authError"), DENIED),
    ("bigquery", google("Forbidden", "rateLimitExceeded"), UNAVAILABLE),
    ("bigquery", google("BadRequest", "jobBackendError"), UNAVAILABLE),
    ("bigquery", google("InternalServerError", "backendError"), UNAVAILABLE),
    ("bigquery", google("ServiceUnavailable", None), UNAVAILABLE),
    ("bigquery", google("TooManyRequests", None), UNAVAILABLE),
    ("bigquery", lambda: of("google.auth.exceptions.OAuthError")("m", '{"error": "invalid_grant"}'), DENIED),
    ("bigquery", lambda: of("google.auth.exceptions.OAuthError")("m", '{"error": "temporarily_unavailable"}'), UNAVAILABLE),
    ("bigquery", lambda: of("google.auth.exceptions.RefreshError")("m", '{"error": {"code": 403}}'), DENIED),
    ("bigquery", lambda: of("google.auth.exceptions.RefreshError")("m", '{"error": {"code": 503}}'), UNAVAILABLE),
    ("bigquery", lambda: of("google.auth.exceptions.RefreshError")("m", "<html>"), DENIED),
    ("bigquery", lambda: of("google.auth.exceptions.RefreshError")("m", retryable=True), UNAVAILABLE),
    ("bigquery", lambda: of("google.auth.exceptions.TransportError")("m"), UNAVAILABLE),
    ("bigquery", lambda: of("google.auth.exceptions.DefaultCredentialsError")("m"), DENIED),
    # Athena
    ("athena", lambda: client_error("TooManyRequestsException"), UNAVAILABLE),
    ("athena", lambda: client_error("InternalServerException", 500), UNAVAILABLE),
    ("athena", lambda: client_error("AccessDeniedException"), DENIED),
    ("athena", lambda: client_error("InvalidRequestException"), None),
    ("athena", athena(1, 200, True), UNAVAILABLE),
    ("athena", athena(2, 1006, False), None),
    ("athena", athena(2, 1006, None), None),
    ("athena", lambda: of("dbt_common.exceptions.ConnectionError")("no region"), None),
    # Whoever the driver is: nobody answered, or the certificate is not the one that was expected
    *((type_, lambda: ConnectionResetError(errno.ECONNRESET, "reset"), UNAVAILABLE) for type_ in ADAPTERS),
    *((type_, lambda: OSError(errno.EHOSTUNREACH, "no route"), UNAVAILABLE) for type_ in ADAPTERS),
    *((type_, lambda: socket.gaierror(socket.EAI_AGAIN, "again"), UNAVAILABLE) for type_ in ADAPTERS),
    *((type_, lambda: TimeoutError("timed out"), UNAVAILABLE) for type_ in ADAPTERS),
    *((type_, lambda: EndpointConnectionError(endpoint_url="https://x"), UNAVAILABLE) for type_ in ADAPTERS),
    *((type_, lambda: ssl.SSLCertVerificationError(1, "hostname mismatch"), DENIED) for type_ in ADAPTERS),
    # Unknown is not tried again.
    *((type_, lambda: ValueError("connection refused, FATAL: 503 timeout"), None) for type_ in ADAPTERS),
    *((type_, lambda: FileNotFoundError(errno.ENOENT, "no file"), None) for type_ in ADAPTERS),
]


@pytest.mark.parametrize(("type_", "make", "kind"), CASES, ids=[f"{type_}-{number}" for number, (type_, _, _) in enumerate(CASES)])
def test_a_drivers_exception_means_what_its_code_says(type_: str, make: Callable[[], BaseException], kind: ErrorKind | None) -> None:
    exc = make()
    assert meaning(type_, exc) is kind, describe(exc)
    assert meaning(type_, wrapped(exc)) is kind, "an adapter's wrapper hides nothing"


def wrapped(exc: BaseException) -> BaseException:
    """As dbt's adapters do it: raised while the driver's is handled."""
    try:
        try:
            raise exc
        except BaseException:
            raise of("dbt.adapters.exceptions.FailedToConnectError")(str(exc))  # noqa: B904  # this is how the adapters do it
    except BaseException as outer:
        return outer


def test_the_last_try_counts_not_an_earlier_one() -> None:
    """dbt opens a connection again from inside of the except clause of the try before."""
    try:
        try:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        except OSError:
            raise with_sqlstate("28P01")  # noqa: B904  # this is how dbt does it
    except Exception as exc:
        assert meaning("postgres", wrapped(exc)) is DENIED


def test_a_verdict_names_its_evidence() -> None:
    known = ADAPTERS["postgres"].faults
    by_code = known.verdict(describe(with_sqlstate("42501")))
    assert by_code is not None and by_code.why == "exception InsufficientPrivilege with sqlstate 42501"
    by_text = known.verdict(describe(wrapped(connecting("FATAL:  no such user")())))
    assert by_text is not None and by_text.why == "exception FailedToConnectError, from OperationalError that says 'FATAL:'"


def test_a_chain_that_closes_on_itself_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__context__, two.__context__ = two, one
    assert [link.message for link in describe(one).chain] == ["1", "2"]


def test_evidence_survives_the_pipe() -> None:
    failure = describe(wrapped(client_error("AccessDenied", 403)))
    assert failure.causes and failure.causes[0].codes == {"aws": "AccessDenied", "http": "403"}
    node = NodeResult(0, "model.shop.a", "model", "a", "error", failure=failure)
    assert decode(encode(node)) == node
    assert json.loads(encode(node))["failure"]["causes"][0]["type"] == "ClientError"
    assert Failure.from_fields(None) is None


# Where the names in the tables come from. A class that its library renames would be unknown from then on.
_LIBRARIES = {
    "duckdb": ("duckdb",),
    "postgres": ("psycopg2",),
    "snowflake": ("snowflake.connector.errors", "botocore.exceptions", "dbt_runner.warehouses.snowflake_login"),
    "redshift": ("redshift_connector", "botocore.exceptions"),
    "bigquery": ("google.auth.exceptions", "google.api_core.exceptions"),
    "athena": ("botocore.exceptions", "dbt_common.exceptions"),
}


def named() -> Iterator[tuple[str, str]]:
    for type_, adapter in ADAPTERS.items():
        known = adapter.faults
        yield from ((type_, name) for name in {*known.types, *known.without_code, *(text.type for text in known.texts)})


@pytest.mark.parametrize(("type_", "name"), sorted(named()))
def test_every_class_in_the_tables_exists(type_: str, name: str) -> None:
    assert any(hasattr(importlib.import_module(module), name) for module in _LIBRARIES[type_])


@pytest.mark.parametrize("name", faults._NETWORK)
def test_every_class_of_the_network_exists(name: str) -> None:
    modules = ("builtins", "socket", "ssl", "requests.exceptions", "botocore.exceptions")
    assert any(hasattr(importlib.import_module(module), name) for module in modules)
