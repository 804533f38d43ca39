"""The profiles.yml that dbt gets: generated from the environment's configuration, never taken from the project.

dbt is always called with `--profile dbt_runner --target <environment>`, so the name of the project's own profile does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.errors import INVALID_REQUEST, TypedError

PROFILE = "dbt_runner"

# What an environment's `settings` may hold, by adapter, and how Terraform's strings become what dbt expects.
# https://docs.getdbt.com/docs/core/connect-data-platform/duckdb-setup
# https://docs.getdbt.com/docs/core/connect-data-platform/postgres-setup
_SETTINGS: Mapping[str, Mapping[str, type]] = {
    "duckdb": {"path": str, "schema": str, "database": str, "threads": int},
    "postgres": {
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
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "duckdb": {"schema": "main", "threads": 4},
    # An empty password makes libpq look into PGPASSFILE at every new connection.
    "postgres": {"port": 5432, "threads": 4, "schema": "public", "password": "", "connect_timeout": 10},
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {"duckdb": ("path",), "postgres": ("host", "user", "dbname")}


def output(warehouse: Warehouse) -> dict[str, Any]:
    """One output of a profile: dbt's connection settings for this warehouse.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the setting.
    """
    if warehouse.type not in _SETTINGS:
        raise _invalid("type", f"{warehouse.type} is not supported; supported are {', '.join(_SETTINGS)}")
    known = _SETTINGS[warehouse.type]
    result: dict[str, Any] = {"type": warehouse.type, **_DEFAULTS[warehouse.type]}
    for key, value in warehouse.settings.items():
        if key not in known:
            raise _invalid(f"settings.{key}", f"unknown for {warehouse.type}; known are {', '.join(known)}")
        wanted = "a string" if known[key] is str else "a whole number"
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise _invalid(f"settings.{key}", f"must be {wanted}, not {value!r}")
        try:
            result[key] = known[key](value)
        except ValueError as exc:
            raise _invalid(f"settings.{key}", f"must be {wanted}, not {value!r}") from exc
    if warehouse.identity.get("method") == "rds_iam":
        # RDS refuses a token on a connection without TLS.
        result.setdefault("sslmode", "require")
    for key in _REQUIRED[warehouse.type]:
        if key not in result:
            raise _invalid(f"settings.{key}", "is required")
    return result


def write(warehouse: Warehouse, environment: str, directory: Path) -> None:
    """Writes `directory`/profiles.yml with one profile and one target, called like the environment."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {PROFILE: {"target": environment, "outputs": {environment: output(warehouse)}}}
    # JSON is YAML.
    (directory / "profiles.yml").write_text(json.dumps(document, indent=2))


def _invalid(field: str, problem: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"environment's warehouse.{field}: {problem}")
