"""Redshift, serverless and provisioned, by IAM. https://docs.getdbt.com/docs/core/connect-data-platform/redshift-setup

redshift_connector fetches a short-lived password by itself, from the credentials that the supervisor serves: GetCredentials of the
workgroup, or GetClusterCredentialsWithIAM of the cluster. The database user is the warehouse role's (IAMR:<role>), or the one that
the tag RedshiftDbUser names.
"""

from __future__ import annotations

from collections.abc import Mapping

from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE
from dbt_runner.warehouses import aws, postgres
from dbt_runner.warehouses.adapter import Adapter, Credential, invalid, require_identity
from dbt_runner.warehouses.faults import Faults, Text

# https://docs.aws.amazon.com/redshift/latest/mgmt/redshift-iam-access-control-native-idp.html, and the tags of the session
# https://docs.aws.amazon.com/redshift/latest/mgmt/redshift-serverless-iam.html
_TAGS: Mapping[str, str] = {"db_user": "RedshiftDbUser", "db_roles": "RedshiftDbRoles"}


def _check(warehouse: Warehouse) -> None:
    settings = warehouse.settings
    if ("serverless_work_group" in settings) is ("cluster_id" in settings):
        raise invalid("settings", "needs either serverless_work_group or cluster_id, the name of one or the other")
    if "serverless_work_group" in settings:
        require_identity(warehouse, "workgroup_id")


ADAPTER = Adapter(
    type="redshift",
    settings={
        "host": str,
        "port": int,
        "dbname": str,
        "schema": str,
        "region": str,
        "serverless_work_group": str,
        "cluster_id": str,
        "threads": int,
        "sslmode": str,
        "connect_timeout": int,
        "retries": int,
        "role": str,
        "ra3_node": bool,
        "datasharing": bool,
        "autocommit": bool,
        "query_group": str,
        "tcp_keepalive_idle": int,
    },
    required=("host", "dbname", "region"),
    identity=frozenset({"workgroup_id", *_TAGS}),
    fixed={"port": 5439, "schema": "public", "sslmode": "verify-full", "connect_timeout": 30},
    check=_check,
    derived=lambda warehouse: {"method": "iam_role", "is_serverless": "serverless_work_group" in warehouse.settings},
    credential=lambda _: Credential.AWS,
    session_tags=lambda warehouse: {tag: warehouse.identity[key] for key, tag in _TAGS.items() if warehouse.identity.get(key)},
    ask=postgres.ask_for_schema,
    faults=Faults(
        codes={"sqlstate": postgres.SQLSTATES, **aws.CODES},
        types=aws.TYPES,
        # redshift_connector/core.py has one class without a code for the network, for TLS and for wrong settings. What the socket
        # said is the cause of most; these have none.
        texts=(
            Text("InterfaceError", "BrokenPipe", WAREHOUSE_UNAVAILABLE),
            Text("InterfaceError", "connection is closed", WAREHOUSE_UNAVAILABLE),
            Text("InterfaceError", "Server refuses SSL", ACCESS_DENIED),
        ),
    ),
)
