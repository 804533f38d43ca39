"""What the health check asks an open connection for, beyond `select 1`, in the worker and through dbt's own adapter."""

from __future__ import annotations

from typing import Any

from dbt_runner.diagnosis import PERMISSION, WAREHOUSE


class NeedNotMet(Exception):
    """The warehouse's answer was no.

    Attributes:
        fault: where the fault lies, see dbt_runner.diagnosis.
    """

    fault = PERMISSION


class NotUsable(NeedNotMet):
    """... to whether something is there at all."""

    fault = WAREHOUSE


class Inquiry:
    """An open connection of dbt's, and the places that it is for; of a profile of the project's own, those that it names.

    Attributes:
        adapter: dbt.adapters.base.impl.BaseAdapter.
        credentials: dbt.adapters.contracts.connection.Credentials.
    """

    def __init__(self, adapter: Any, credentials: Any) -> None:
        self.adapter = adapter
        self.credentials = credentials

    @property
    def database(self) -> str:
        """The database, BigQuery's project, or Athena's catalog."""
        return str(self.credentials.database)

    @property
    def schema(self) -> str:
        """The target schema: BigQuery's dataset, Athena's database."""
        return str(self.credentials.schema)

    def answer(self, sql: str) -> Any:
        """The one value that a query answers with, None without a row.

        Raises:
            Exception: the adapter's or the driver's own.
        """
        _, table = self.adapter.execute(sql, fetch=True)
        return table.rows[0][0] if table.rows else None


def literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
