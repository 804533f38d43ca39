"""PostgreSQL, also on RDS and Aurora. https://docs.getdbt.com/docs/core/connect-data-platform/postgres-setup"""

from __future__ import annotations

from collections.abc import Mapping

from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.warehouses.adapter import Adapter, Credential, require_identity, require_method
from dbt_runner.warehouses.faults import Faults, Text
from dbt_runner.warehouses.inquiry import Inquiry, NeedNotMet, literal

# https://www.postgresql.org/docs/current/errcodes-appendix.html
SQLSTATES: Mapping[str, ErrorKind | None] = {
    "08*": WAREHOUSE_UNAVAILABLE,  # connection exception
    "28*": ACCESS_DENIED,  # invalid authorization specification
    "3D000": ACCESS_DENIED,  # the database does not exist
    "40001": WAREHOUSE_UNAVAILABLE,  # serialization failure: the manual has the application try again
    "40P01": WAREHOUSE_UNAVAILABLE,  # deadlock detected, the same
    "42501": ACCESS_DENIED,  # insufficient privilege
    "53200": WAREHOUSE_UNAVAILABLE,  # the server is out of memory
    "53300": WAREHOUSE_UNAVAILABLE,  # too many connections
    "57P01": WAREHOUSE_UNAVAILABLE,  # admin shutdown
    "57P02": WAREHOUSE_UNAVAILABLE,  # crash shutdown
    "57P03": WAREHOUSE_UNAVAILABLE,  # cannot connect now
    "57P05": WAREHOUSE_UNAVAILABLE,  # idle session timeout
    "58*": WAREHOUSE_UNAVAILABLE,  # system error, of the server's disk or network
}

# psycopg2 gives no SQLSTATE for a connection that was never there (https://github.com/psycopg/psycopg2/issues/682), only libpq's
# text, in which the server's own part begins with FATAL. That part is in the server's language: lc_messages, English on RDS.
# Sources: libpq's fe-connect.c and fe-auth.c, the server's auth.c, postinit.c, miscinit.c and proc.c.
_TEXTS = (
    Text("OperationalError", "the database system is ", WAREHOUSE_UNAVAILABLE),  # starting up, shutting down, in recovery
    Text("OperationalError", "too many clients already", WAREHOUSE_UNAVAILABLE),
    Text("OperationalError", "too many connections for ", WAREHOUSE_UNAVAILABLE),
    Text("OperationalError", "remaining connection slots are reserved", WAREHOUSE_UNAVAILABLE),
    Text("OperationalError", "terminating connection", WAREHOUSE_UNAVAILABLE),
    # Whatever else the server answered: it is there, and it refused this user, password, host or database.
    Text("OperationalError", "FATAL: ", ACCESS_DENIED),
    Text("OperationalError", "no password supplied", ACCESS_DENIED),
    Text("OperationalError", "server does not support SSL", ACCESS_DENIED),
    Text("OperationalError", "certificate verify failed", ACCESS_DENIED),
    Text("OperationalError", "root certificate file", ACCESS_DENIED),
    Text("OperationalError", "server certificate for", ACCESS_DENIED),
)


def _by_iam(warehouse: Warehouse) -> bool:
    return warehouse.identity.get("method") == "rds_iam"


def _check(warehouse: Warehouse) -> None:
    require_method(warehouse, "rds_iam")
    if "resource_id" in warehouse.identity:
        require_identity(warehouse, "method")


def _derived(warehouse: Warehouse) -> Mapping[str, str]:
    # An empty password makes libpq look into PGPASSFILE, at every new connection. RDS refuses a token on one without TLS.
    tls = {"sslmode": "require"} if _by_iam(warehouse) and "sslmode" not in warehouse.settings else {}
    return {"password": "", **tls}


def ask_for_schema(inquiry: Inquiry) -> None:
    """The target schema: to be used and written where it is, to be created where it is not.

    https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-ACCESS, which Redshift has as well:
    https://docs.aws.amazon.com/redshift/latest/dg/r_HAS_SCHEMA_PRIVILEGE.html
    """
    may_build = f"""select coalesce(
        (select has_schema_privilege(nspname, 'usage') and has_schema_privilege(nspname, 'create')
         from pg_namespace where nspname = {literal(inquiry.schema)}),
        has_database_privilege(current_database(), 'create'))"""
    if not inquiry.answer(may_build):
        raise NeedNotMet(
            f"the database user may not build in schema {inquiry.schema}: it needs USAGE and CREATE on it, or CREATE on the database"
        )


ADAPTER = Adapter(
    type="postgres",
    settings={
        "host": str,
        "port": int,
        "user": str,
        "dbname": str,
        "schema": str,
        "threads": int,
        "sslmode": str,
        "sslrootcert": str,
        "connect_timeout": int,
        "retries": int,
        "keepalives_idle": int,
        "role": str,
        "search_path": str,
    },
    required=("host", "user", "dbname"),
    identity=frozenset({"method", "resource_id"}),
    fixed={"port": 5432, "schema": "public", "connect_timeout": 10},
    check=_check,
    derived=_derived,
    credential=lambda warehouse: Credential.PGPASS if _by_iam(warehouse) else Credential.NONE,
    ask=ask_for_schema,
    faults=Faults(
        codes={"sqlstate": SQLSTATES},
        texts=_TEXTS,
        # Without a code: nobody answered, or the connection broke. QueryCanceled, a subclass, has one.
        without_code={"OperationalError": WAREHOUSE_UNAVAILABLE, "InterfaceError": WAREHOUSE_UNAVAILABLE},
    ),
)
