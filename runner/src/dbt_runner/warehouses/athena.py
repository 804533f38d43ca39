"""Athena as the warehouse role. https://docs.getdbt.com/docs/core/connect-data-platform/athena-setup"""

from __future__ import annotations

from dbt_runner.errors import WAREHOUSE_UNAVAILABLE
from dbt_runner.warehouses import aws
from dbt_runner.warehouses.adapter import Adapter, Credential
from dbt_runner.warehouses.faults import Faults
from dbt_runner.warehouses.inquiry import Inquiry

# What the adapter itself takes for Glue's own catalog; others are Athena's to look into.
_GLUE = "awsdatacatalog"


def _ask(inquiry: Inquiry) -> None:
    """Whether Glue, or Lake Formation behind it, shows the database and its tables. A missing one dbt creates."""
    if inquiry.database.lower() != _GLUE:
        return
    client = inquiry.adapter.connections.get_thread_connection().handle
    glue = client.session.client("glue", region_name=client.region_name)
    try:
        glue.get_database(Name=inquiry.schema)
    except glue.exceptions.EntityNotFoundException:
        return
    glue.get_tables(DatabaseName=inquiry.schema, MaxResults=1)


ADAPTER = Adapter(
    type="athena",
    settings={
        "region_name": str,
        "work_group": str,
        "database": str,
        "schema": str,
        "s3_staging_dir": str,
        "s3_data_dir": str,
        "s3_data_naming": str,
        "s3_tmp_table_dir": str,
        "threads": int,
        "poll_interval": float,
        "num_retries": int,
        "num_boto3_retries": int,
        "num_iceberg_retries": int,
    },
    required=("region_name", "work_group", "schema", "s3_staging_dir", "s3_data_dir"),
    # Of the IAM statements: Glue databases besides `schema` (custom schemas of dbt have others), and what is only read.
    identity=frozenset({"databases", "read_databases", "read_locations"}),
    # dbt-athena would otherwise ask for the workgroup's settings, which need not be readable.
    fixed={"database": _GLUE, "skip_workgroup_check": True},
    credential=lambda _: Credential.AWS,
    ask=_ask,
    faults=Faults(
        codes={
            # Athena's own word for a failed query. https://docs.aws.amazon.com/athena/latest/APIReference/API_AthenaError.html
            "retryable": {"true": WAREHOUSE_UNAVAILABLE},
            **aws.CODES,
        },
        types={
            **aws.TYPES,
            # dbt_common's, which the adapter makes of anything that keeps it from making a client; the cause tells.
            "ConnectionError": None,
        },
    ),
)
