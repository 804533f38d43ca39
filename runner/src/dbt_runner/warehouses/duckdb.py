"""DuckDB: a file beside the runner, for the local stack and tests. https://docs.getdbt.com/docs/core/connect-data-platform/duckdb-setup"""

from __future__ import annotations

from dbt_runner.errors import WAREHOUSE_UNAVAILABLE
from dbt_runner.warehouses.adapter import Adapter, Credential
from dbt_runner.warehouses.faults import Faults, Text

ADAPTER = Adapter(
    type="duckdb",
    settings={"path": str, "schema": str, "database": str, "threads": int},
    required=("path",),
    fixed={"schema": "main"},
    credential=lambda _: Credential.NONE,
    # DuckDB's exceptions have no codes, and an IOException is also a file that a model reads and that is not there. Of another
    # process that holds the database, only the text tells: src/storage/single_file_block_manager.cpp, src/common/local_file_system.cpp.
    faults=Faults(texts=(Text("IOException", "Could not set lock on file", WAREHOUSE_UNAVAILABLE),)),
)
