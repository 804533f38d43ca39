"""profiles.yml: generated from the environment's settings, accepted by dbt's adapters, without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbt_runner import profile
from dbt_runner.config import Warehouse
from dbt_runner.errors import INVALID_REQUEST
from runner.releases import refused

POSTGRES = {"host": "db.example.org", "user": "dbt", "dbname": "analytics"}


def credentials_class(type_: str) -> Any:
    if type_ == "duckdb":
        from dbt.adapters.duckdb.credentials import DuckDBCredentials

        return DuckDBCredentials
    from dbt.adapters.postgres.connections import PostgresCredentials

    return PostgresCredentials


def every_setting(type_: str) -> dict[str, str]:
    """A value for each setting that the runner knows, as Terraform's map of strings holds it."""
    return {name: "7" if kind is int else name for name, kind in profile._SETTINGS[type_].items()}


@pytest.mark.parametrize("type_", profile._SETTINGS)
def test_dbt_accepts_what_is_required_and_all_that_is_known(type_: str) -> None:
    required = {name: name for name in profile._REQUIRED[type_]}
    for settings in (required, every_setting(type_)):
        output = profile.output(Warehouse(type_, settings, {}))
        threads = output.pop("threads")
        assert isinstance(threads, int)
        assert output.pop("type") == type_
        cls = credentials_class(type_)
        # dbt-duckdb derives the database from the path when it is absent, dbt-postgres calls it dbname.
        data = cls.translate_aliases(output) if hasattr(cls, "translate_aliases") else output
        cls.validate({"database": "analytics", **data})
        known = set(cls.__dataclass_fields__) | set(cls._ALIASES)
        assert set(data) <= known


def test_numbers_are_numbers() -> None:
    output = profile.output(Warehouse("postgres", {**POSTGRES, "port": "6543", "threads": "8"}, {}))
    assert (output["port"], output["threads"]) == (6543, 8)
    assert profile.output(Warehouse("postgres", POSTGRES, {}))["port"] == 5432


@pytest.mark.parametrize(
    ("type_", "settings", "field"),
    [
        ("oracle", {}, "type"),
        ("", {}, "type"),
        ("duckdb", {}, "settings.path"),
        ("duckdb", {"path": "w.duckdb", "host": "x"}, "settings.host"),
        ("duckdb", {"path": None}, "settings.path"),
        ("postgres", {"user": "dbt", "dbname": "a"}, "settings.host"),
        ("postgres", {"host": "db", "dbname": "a"}, "settings.user"),
        ("postgres", {"host": "db", "user": "dbt"}, "settings.dbname"),
        ("postgres", {**POSTGRES, "port": "five"}, "settings.port"),
        ("postgres", {**POSTGRES, "port": "5432.0"}, "settings.port"),
        ("postgres", {**POSTGRES, "port": ""}, "settings.port"),
        ("postgres", {**POSTGRES, "port": None}, "settings.port"),
        ("postgres", {**POSTGRES, "port": 5432.5}, "settings.port"),
        ("postgres", {**POSTGRES, "threads": True}, "settings.threads"),
        ("postgres", {**POSTGRES, "host": ["db"]}, "settings.host"),
        ("postgres", {**POSTGRES, "password": "secret"}, "settings.password"),
        ("postgres", {**POSTGRES, "Port": "5432"}, "settings.Port"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(type_: str, settings: dict[str, Any], field: str, tmp_path: Path) -> None:
    warehouse = Warehouse(type_, settings, {})
    message = refused(INVALID_REQUEST, lambda: profile.write(warehouse, "prod", tmp_path / "profiles"))
    assert f"warehouse.{field}: " in message
    assert "secret" not in message
    assert not (tmp_path / "profiles" / "profiles.yml").exists()


def test_the_file_is_yaml_with_one_target_called_like_the_environment(tmp_path: Path) -> None:
    import yaml

    warehouse = Warehouse("postgres", {**POSTGRES, "search_path": "a, b: \"c\" #'d'"}, {"method": "rds_iam"})
    profile.write(warehouse, "prod", tmp_path / "new" / "profiles")
    document = yaml.safe_load((tmp_path / "new" / "profiles" / "profiles.yml").read_text())
    assert document == {profile.PROFILE: {"target": "prod", "outputs": {"prod": profile.output(warehouse)}}}


def test_there_is_no_password_in_it(tmp_path: Path) -> None:
    """An empty one makes libpq look into the password file."""
    assert profile.output(Warehouse("postgres", POSTGRES, {"method": "rds_iam"}))["password"] == ""
    assert not [name for settings in profile._SETTINGS.values() for name in settings if "pass" in name or "token" in name or name == "key"]
