"""The long-term audit as Athena sees it, on DuckDB: the module's tables over JSON lines, and its named queries out of Athena's dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import sqlglot

FOLDER = Path(__file__).parents[2] / "modules" / "audit_store" / "athena"
TABLES: dict[str, dict[str, str]] = {name: table["columns"] for name, table in json.loads((FOLDER / "tables.json").read_text()).items()}
QUERIES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.sql"))}


class Athena:
    """Tables over what lies below `root`, the folder that stands for the bucket.

    Args:
        now: what the queries take for the present day, such as 2026-11-30.
    """

    def __init__(self, root: Path, now: str) -> None:
        self._now = now
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        for table, columns in TABLES.items():
            types = {name: _type(kind) for name, kind in columns.items()}
            files = (root / "audit" / table).glob("env=*/date=*/*.jsonl")
            places = [(str(file), *re.findall(r"/env=([^/]+)/date=([^/]+)/", str(file))[0]) for file in sorted(files)]
            read = f"format = 'newline_delimited', hive_partitioning = false, columns = {types}"
            selects = [f"SELECT *, '{env}' AS env, '{date}' AS \"date\" FROM read_json('{path}', {read})" for path, env, date in places]
            empty = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in {**types, "env": "VARCHAR", "date": "VARCHAR"}.items())
            self._connection.execute(f"CREATE TABLE {table} AS {' UNION ALL '.join(selects) or f'SELECT {empty} WHERE false'}")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows that a query of Athena gives."""
        text = sqlglot.transpile(query, read="athena", write="duckdb")[0]
        text = text.replace("CURRENT_DATE", f"CAST('{self._now}' AS DATE)").replace(
            "CURRENT_TIMESTAMP", f"CAST('{self._now}' AS TIMESTAMPTZ)"
        )
        result = self._connection.execute(text)
        names: Sequence[str] = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The rows of one of the module's named queries."""
        return self.rows(QUERIES[name])


def _type(kind: str) -> str:
    """A type of Glue as one of DuckDB."""
    if match := re.fullmatch(r"array<(.*)>", kind):
        return f"{_type(match[1])}[]"
    if match := re.fullmatch(r"map<(\w+),(\w+)>", kind):
        return f"MAP({_type(match[1])}, {_type(match[2])})"
    if match := re.fullmatch(r"struct<(.*)>", kind):
        fields = (field.partition(":") for field in match[1].split(","))
        return f"STRUCT({', '.join(f'{name} {_type(inner)}' for name, _, inner in fields)})"
    return {"string": "VARCHAR", "bigint": "BIGINT", "double": "DOUBLE", "boolean": "BOOLEAN"}[kind]
