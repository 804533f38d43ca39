"""The warehouses that the runner knows, a module for each: settings, dbt's profile, credentials, errors."""

from __future__ import annotations

from collections.abc import Mapping

from dbt_runner.config import Warehouse
from dbt_runner.warehouses import athena, bigquery, duckdb, postgres, redshift, snowflake
from dbt_runner.warehouses.adapter import Adapter, Credential, invalid
from dbt_runner.warehouses.faults import Verdict

__all__ = ["ADAPTERS", "Adapter", "Credential", "Verdict", "adapter_of"]

ADAPTERS: Mapping[str, Adapter] = {
    module.ADAPTER.type: module.ADAPTER for module in (duckdb, postgres, snowflake, redshift, bigquery, athena)
}


def adapter_of(warehouse: Warehouse) -> Adapter:
    """The adapter of a warehouse.

    Raises:
        TypedError: Dbt.InvalidRequest when there is none of this type.
    """
    if warehouse.type not in ADAPTERS:
        raise invalid("type", f"{warehouse.type} is not supported; supported are {', '.join(ADAPTERS)}")
    return ADAPTERS[warehouse.type]
