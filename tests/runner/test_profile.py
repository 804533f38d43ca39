"""profiles.yml: generated from the environment's settings, accepted by dbt's adapters, without a secret."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import profile
from dbt_runner.config import Warehouse
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST
from dbt_runner.warehouses import ADAPTERS, Credential, adapter_of
from runner.releases import refused
from runner.releases import write as write_files

DUCKDB = Warehouse("duckdb", {"path": "w.duckdb"}, {})
POSTGRES = Warehouse("postgres", {"host": "db.example.org", "user": "dbt", "dbname": "analytics"}, {"method": "rds_iam"})
SNOWFLAKE = Warehouse("snowflake", {"account": "org-acct", "role": "R", "warehouse": "WH", "database": "DB", "schema": "PUBLIC"}, {})
REDSHIFT = Warehouse(
    "redshift",
    {"host": "wg.example.org", "dbname": "dev", "region": "eu-central-1", "serverless_work_group": "wg"},
    {"workgroup_id": "0f" * 16, "db_user": "dbt_prod", "db_roles": "transformer"},
)
BIGQUERY = Warehouse(
    "bigquery", {"project": "p", "dataset": "d"}, {"audience": "//iam.example.org/x", "service_account": "dbt@p.example.org"}
)
ATHENA = Warehouse(
    "athena",
    {"region_name": "eu-central-1", "work_group": "dbt", "schema": "s", "s3_staging_dir": "s3://b/tmp/", "s3_data_dir": "s3://b/data/"},
    {},
)
LEAST: Mapping[str, Warehouse] = {w.type: w for w in (DUCKDB, POSTGRES, SNOWFLAKE, REDSHIFT, BIGQUERY, ATHENA)}
# Settings that exclude one of the required ones.
EXCLUSIVE = {"redshift": {"cluster_id"}}
CREDENTIALS = {
    "duckdb": "dbt.adapters.duckdb.credentials.DuckDBCredentials",
    "postgres": "dbt.adapters.postgres.connections.PostgresCredentials",
    "snowflake": "dbt.adapters.snowflake.connections.SnowflakeCredentials",
    "redshift": "dbt.adapters.redshift.connections.RedshiftCredentials",
    "bigquery": "dbt.adapters.bigquery.credentials.BigQueryCredentials",
    "athena": "dbt.adapters.athena.connections.AthenaCredentials",
}


def every_setting(type_: str) -> dict[str, str]:
    """A value for each setting that the runner knows, as Terraform's map of strings holds it."""
    values: Mapping[Any, str] = {int: "7", float: "7.5", bool: "true"}
    texts = {"sslmode": "require", "priority": "batch"}
    known = {name: kind for name, kind in ADAPTERS[type_].settings.items() if name not in EXCLUSIVE.get(type_, ())}
    return {name: values.get(kind, texts.get(name, name)) for name, kind in known.items()}


def with_settings(warehouse: Warehouse, **settings: Any) -> Warehouse:
    return Warehouse(warehouse.type, {**warehouse.settings, **settings}, warehouse.identity)


def test_every_adapter_is_tested() -> None:
    assert set(LEAST) == set(ADAPTERS) == set(CREDENTIALS)


@pytest.mark.parametrize("type_", ADAPTERS)
def test_dbt_accepts_what_is_required_and_all_that_is_known(type_: str) -> None:
    module, _, name = CREDENTIALS[type_].rpartition(".")
    cls: Any = getattr(importlib.import_module(module), name)
    least = LEAST[type_]
    for settings in (least.settings, every_setting(type_)):
        output = profile.output(Warehouse(type_, settings, least.identity))
        threads = output.pop("threads")
        assert isinstance(threads, int)
        assert output.pop("type") == type_
        # dbt-duckdb derives the database from the path when it is absent, others have it under another name.
        data = cls.translate_aliases(output) if hasattr(cls, "translate_aliases") else output
        cls.validate({"database": "analytics", **data})
        known = set(cls.__dataclass_fields__) | set(cls._ALIASES)
        assert set(data) <= known


def test_numbers_are_numbers_and_truths_are_truths() -> None:
    output = profile.output(with_settings(POSTGRES, port="6543", threads="8"))
    assert (output["port"], output["threads"]) == (6543, 8)
    assert profile.output(POSTGRES)["port"] == 5432
    output = profile.output(with_settings(SNOWFLAKE, reuse_connections="false", client_session_keep_alive="true"))
    assert (output["reuse_connections"], output["client_session_keep_alive"]) == (False, True)
    assert profile.output(with_settings(ATHENA, poll_interval="0.5"))["poll_interval"] == 0.5


@pytest.mark.parametrize("type_", ADAPTERS)
def test_what_is_required_is_asked_for_by_its_name(type_: str) -> None:
    least = LEAST[type_]
    for name in ADAPTERS[type_].required:
        settings = {key: value for key, value in least.settings.items() if key != name}
        message = refused(INVALID_REQUEST, lambda settings=settings: profile.output(Warehouse(type_, settings, least.identity)))  # type: ignore[misc]
        assert f"warehouse.settings.{name}: is required" in message


@pytest.mark.parametrize(
    ("warehouse", "field"),
    [
        (Warehouse("oracle", {}, {}), "type"),
        (Warehouse("", {}, {}), "type"),
        (with_settings(DUCKDB, host="x"), "settings.host"),
        (with_settings(DUCKDB, path=None), "settings.path"),
        (with_settings(POSTGRES, port="five"), "settings.port"),
        (with_settings(POSTGRES, port="5432.0"), "settings.port"),
        (with_settings(POSTGRES, port=""), "settings.port"),
        (with_settings(POSTGRES, port=None), "settings.port"),
        (with_settings(POSTGRES, port=5432.5), "settings.port"),
        (with_settings(POSTGRES, threads=True), "settings.threads"),
        (with_settings(POSTGRES, host=["db"]), "settings.host"),
        (with_settings(POSTGRES, password="secret"), "settings.password"),
        (with_settings(POSTGRES, Port="5432"), "settings.Port"),
        (Warehouse("postgres", POSTGRES.settings, {"method": "password"}), "identity.method"),
        (Warehouse("postgres", POSTGRES.settings, {"resource_id": "db-X"}), "identity.method"),
        (with_settings(SNOWFLAKE, reuse_connections="yes"), "settings.reuse_connections"),
        (with_settings(SNOWFLAKE, authenticator="externalbrowser"), "settings.authenticator"),
        (Warehouse("snowflake", SNOWFLAKE.settings, {"method": "oauth"}), "identity.method"),
        (Warehouse("snowflake", SNOWFLAKE.settings, {"audience": "x"}), "identity.audience"),
        (with_settings(REDSHIFT, cluster_id="c"), "settings"),
        (with_settings(REDSHIFT, access_key_id="secret"), "settings.access_key_id"),
        (Warehouse("redshift", REDSHIFT.settings, {}), "identity.workgroup_id"),
        (Warehouse("bigquery", BIGQUERY.settings, {"audience": "x"}), "identity.service_account"),
        (Warehouse("bigquery", BIGQUERY.settings, {"service_account": "x"}), "identity.audience"),
        (with_settings(BIGQUERY, keyfile="secret"), "settings.keyfile"),
        (with_settings(ATHENA, aws_profile_name="x"), "settings.aws_profile_name"),
        (with_settings(ATHENA, poll_interval="soon"), "settings.poll_interval"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(warehouse: Warehouse, field: str, tmp_path: Path) -> None:
    message = refused(INVALID_REQUEST, lambda: profile.of_environment(warehouse, "prod").write(tmp_path / "profiles"))
    assert f"warehouse.{field}: " in message
    assert "secret" not in message
    assert not (tmp_path / "profiles" / "profiles.yml").exists()


def test_the_file_is_yaml_with_one_target_called_like_the_environment(tmp_path: Path) -> None:
    import yaml

    warehouse = with_settings(POSTGRES, search_path="a, b: \"c\" #'d'")
    profile.of_environment(warehouse, "prod").write(tmp_path / "new" / "profiles")
    document = yaml.safe_load((tmp_path / "new" / "profiles" / "profiles.yml").read_text())
    assert document == {profile.PROFILE: {"target": "prod", "outputs": {"prod": profile.output(warehouse)}}}


def test_there_is_no_secret_in_it() -> None:
    """An empty password makes libpq look into the password file."""
    assert profile.output(POSTGRES)["password"] == ""
    suspicious = ("pass", "token", "secret", "private", "keyfile", "access_key")
    for type_, least in LEAST.items():
        names = {*profile.output(Warehouse(type_, every_setting(type_), least.identity)), *ADAPTERS[type_].identity}
        assert [name for name in names if any(part in name for part in suspicious)] == (["password"] if type_ == "postgres" else [])


# --- how the worker logs in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("warehouse", "credential", "parts"),
    [
        (DUCKDB, Credential.NONE, {}),
        (POSTGRES, Credential.PGPASS, {"sslmode": "require"}),
        (with_settings(POSTGRES, sslmode="verify-full"), Credential.PGPASS, {"sslmode": "verify-full"}),
        (Warehouse("postgres", POSTGRES.settings, {}), Credential.NONE, {"sslmode": None}),
        (SNOWFLAKE, Credential.AWS, {"authenticator": "workload_identity", "workload_identity_provider": "AWS"}),
        (REDSHIFT, Credential.AWS, {"method": "iam_role", "is_serverless": True, "serverless_work_group": "wg", "sslmode": "verify-full"}),
        (BIGQUERY, Credential.GCP_SUBJECT_TOKEN, {"method": "oauth", "impersonate_service_account": None}),
        (ATHENA, Credential.AWS, {"database": "awsdatacatalog", "aws_profile_name": None}),
    ],
)
def test_each_logs_in_as_the_warehouse_role(warehouse: Warehouse, credential: Credential, parts: Mapping[str, Any]) -> None:
    assert adapter_of(warehouse).credential(warehouse) is credential
    output = profile.output(warehouse)
    assert {name: output.get(name) for name in parts} == parts


def test_a_provisioned_cluster_is_no_workgroup() -> None:
    settings = {key: value for key, value in REDSHIFT.settings.items() if key != "serverless_work_group"}
    output = profile.output(Warehouse("redshift", {**settings, "cluster_id": "c1"}, {}))
    assert (output["cluster_id"], output["is_serverless"], output.get("serverless_work_group")) == ("c1", False, None)


def test_snowflake_gets_a_signed_request_or_a_token() -> None:
    by_token = Warehouse("snowflake", SNOWFLAKE.settings, {"method": "aws_token"})
    assert adapter_of(SNOWFLAKE).environment(SNOWFLAKE) == {}
    assert adapter_of(by_token).environment(by_token) == {"SNOWFLAKE_ENABLE_AWS_WIF_OUTBOUND_TOKEN": "true"}


OKTA = {"method": "okta", "issuer": "https://acme.okta.com/oauth2/aus1", "client_id": "0oaDbt", "kms_key_arn": "arn:aws:kms:r:1:key/k"}


def test_snowflake_gets_a_token_of_okta_and_no_credentials_of_aws() -> None:
    by_okta = Warehouse("snowflake", SNOWFLAKE.settings, OKTA)
    assert adapter_of(by_okta).credential(by_okta) is Credential.ACCESS_TOKEN
    output = profile.output(by_okta)
    assert output["authenticator"] == "oauth"
    assert not {"token", "oauth_client_id", "workload_identity_provider"} & output.keys()


@pytest.mark.parametrize(
    ("identity", "field"),
    [({**OKTA, "issuer": ""}, "issuer"), ({**OKTA, "kms_key_arn": ""}, "kms_key_arn"), ({**OKTA, "method": "aws_token"}, "issuer")],
)
def test_an_application_of_okta_is_whole_or_not_there(identity: dict[str, str], field: str) -> None:
    message = refused(INVALID_REQUEST, lambda: profile.output(Warehouse("snowflake", SNOWFLAKE.settings, identity)))
    assert f"warehouse.identity.{field}: is " in message


def test_redshift_is_told_the_database_user_and_its_roles_by_tags_of_the_session() -> None:
    assert adapter_of(REDSHIFT).session_tags(REDSHIFT) == {"RedshiftDbUser": "dbt_prod", "RedshiftDbRoles": "transformer"}
    assert [type_ for type_, least in LEAST.items() if ADAPTERS[type_].session_tags(least)] == ["redshift"]


# --- the project's own --------------------------------------------------------------------------------------------------

OWN = Warehouse(SNOWFLAKE.type, {**SNOWFLAKE.settings, "threads": "8"}, {}, profile="project")
PROJECT = {"dbt_project.yml": "name: shop\nprofile: shop\n"}
PROFILES = """
shop:
  target: dev
  outputs:
    dev: { type: snowflake, account: dev, authenticator: externalbrowser }
    prod:
      type: snowflake
      account: "{{ env_var('ACCOUNT') }}"
      authenticator: externalbrowser
      threads: 2
      query_tag: "{{ env_var('TAG', 'none') }}"
      something_new: true
"""


def written(warehouse: Warehouse, folder: Path, project: Path | None) -> Mapping[str, Any]:
    profile.of_environment(warehouse, "prod").write(folder / "profiles", project)
    output: Mapping[str, Any] = json.loads((folder / "profiles" / "profiles.yml").read_text())["dbt_runner"]["outputs"]["prod"]
    return output


def test_a_projects_own_profile_adds_and_the_environment_and_the_identity_win(tmp_path: Path) -> None:
    project = write_files(tmp_path / "project", {**PROJECT, "profiles.yml": PROFILES})
    output = written(OWN, tmp_path, project)
    assert (output["query_tag"], output["something_new"]) == ("{{ env_var('TAG', 'none') }}", True)
    assert (output["account"], output["threads"]) == ("org-acct", 8)
    assert output["authenticator"] == "workload_identity"


def test_a_projects_own_profile_counts_only_where_the_environment_says_so(tmp_path: Path) -> None:
    project = write_files(tmp_path / "project", {**PROJECT, "profiles.yml": PROFILES})
    assert written(SNOWFLAKE, tmp_path, project) == profile.output(SNOWFLAKE)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (PROJECT, "publish it with --with-profiles"),
        ({**PROJECT, "profiles.yml": PROFILES.replace("    prod:", "    other:")}, "has no output prod; it has dev, other"),
        ({**PROJECT, "profiles.yml": PROFILES.replace("type: snowflake\n", "type: duckdb\n")}, "is of type duckdb"),
        ({**PROJECT, "profiles.yml": PROFILES.replace("query_tag", "password")}, "output prod holds password; remove it"),
        ({**PROJECT, "profiles.yml": PROFILES.replace("account: dev", "token: s3cret")}, "output dev holds token"),
        ({**PROJECT, "profiles.yml": "shop: [s3cret"}, "profiles.yml cannot be read"),
        ({**PROJECT, "profiles.yml": "shop: s3cret"}, "has no profile shop with outputs"),
        ({"dbt_project.yml": "name: shop", "profiles.yml": PROFILES}, "has no profile None"),
    ],
)
def test_a_profile_that_cannot_be_taken_is_refused_without_its_secrets(tmp_path: Path, files: dict[str, str], words: str) -> None:
    project = write_files(tmp_path / "project", files)
    message = refused(COMPILATION_ERROR, lambda: profile.of_environment(OWN, "prod").write(tmp_path / "profiles", project))
    assert words in message
    assert "s3cret" not in message


def test_a_projects_own_schema_gets_the_ending_of_a_run_of_its_own(tmp_path: Path) -> None:
    own = "shop:\n  outputs:\n    ci: { type: duckdb, schema: \"{{ env_var('SCHEMA') }}\" }\n    prod: { type: duckdb, schema: marts }\n"
    project = write_files(tmp_path / "project", {**PROJECT, "profiles.yml": own})
    warehouse = Warehouse("duckdb", {"path": "warehouse.duckdb"}, {}, profile="project")
    target = profile.Target(profile.CI_TARGET, warehouse, own="ci", schema_suffix="pr_7")
    assert target.output(project)["schema"] == "{{ env_var('SCHEMA') }}_pr_7"
    # What the other release was built with, which is called like the environment that built it.
    assert profile.of_environment(warehouse, "prod").output(project)["schema"] == "marts"


@pytest.mark.parametrize("type_", sorted(LEAST))
def test_every_warehouse_has_a_schema_that_can_get_an_ending(type_: str) -> None:
    key = ADAPTERS[type_].schema_setting
    target = profile.of_environment(LEAST[type_], "prod")
    assert replace(target, schema_suffix="pr_7").output() == {**target.output(), key: f"{target.output()[key]}_pr_7"}
