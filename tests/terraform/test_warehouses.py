"""Warehouses in Terraform: wrong settings are refused by name, and each type gets the permissions of its login and no others."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tftest

from dbt_runner.warehouses import ADAPTERS
from terraform.inventory import compare, resources, statements
from terraform.mutants import ADMINISTRATOR, ANYBODY, Statements, mutants
from terraform.prover import witness
from terraform.tool import ROOT, Terraform
from terraform.warehouse_claims import ENVIRONMENTS, becomes_warehouse, warehouse_claims

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

MODULE = ROOT / "modules" / "warehouse"
KINDS = {str: "string", int: "whole number", float: "number", bool: "true or false"}
OKTA = {
    "method": "okta",
    "issuer": "https://acme.okta.com/oauth2/aus1",
    "client_id": "0oaDbtProd",
    "kms_key_arn": "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f",
}
AUDIT = "analytics-audit-123456789012-eu-central-1"
S3 = {"s3_staging_dir": "s3://lake/tmp/", "s3_data_dir": "s3://lake/dbt/prod/"}
WORKGROUP = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
AUDIENCE = "//iam.googleapis.com/projects/1234567/locations/global/workloadIdentityPools/aws/providers/dbt"

GOOD: dict[str, dict[str, Any]] = {
    "duckdb": {"settings": {"path": "/data/x.duckdb"}},
    "postgres": {
        "settings": {"host": "db.example.com", "port": 5432, "user": "dbt", "dbname": "a", "keepalives_idle": 0, "role": None},
        "identity": {"method": "rds_iam", "resource_id": "db-ABC123"},
    },
    "snowflake": {
        "settings": {"account": "org-acct", "role": "R", "warehouse": "WH", "database": "DB", "schema": "S", "reuse_connections": True},
    },
    "redshift": {
        "settings": {"host": "wg.example.com", "dbname": "dev", "region": "eu-central-1", "serverless_work_group": "wg"},
        "identity": {"workgroup_id": WORKGROUP, "db_user": "dbt_prod", "db_roles": "transformer:Läser von Rohdaten"},
    },
    "bigquery": {
        "settings": {"project": "p", "dataset": "d", "maximum_bytes_billed": 1000000000},
        "identity": {"audience": AUDIENCE, "service_account": "dbt-prod@acme-data.iam.gserviceaccount.com"},
    },
    "athena": {
        "settings": {"region_name": "eu-central-1", "work_group": "dbt", "schema": "analytics", "poll_interval": 0.5, **S3},
        "identity": {"databases": "analytics_marts", "read_databases": "raw,crm", "read_locations": "s3://raw/,s3://crm/export/"},
    },
}  # fmt: skip
CLUSTER = {"serverless_work_group": None, "cluster_id": "c1"}
SECRETS = (
    "password", "PASSWORD", "pass", "passwd", "sslpassword", "token", "Token", "access_token", "refresh_token", "oauth_client_secret",
    "private_key", "private_key_path", "private_key_passphrase", "passphrase", "passcode", "keyfile", "keyfile_json", "access_key_id",
    "aws_secret_access_key", "client_secret", "api_key",
)  # fmt: skip


def case(type_: str, settings: Mapping[str, Any] | None = None, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A good warehouse with some things changed."""
    good = copy.deepcopy(GOOD[type_])
    return {
        "type": type_,
        "profile": "generated",
        "settings": {**good["settings"], **(settings or {})},
        "identity": {**good.get("identity", {}), **(identity or {})},
    }


# What is wrong, and a part of the message that nothing else has.
BAD: list[tuple[dict[str, Any], str]] = [
    ({**case("duckdb"), "type": "oracle"}, ".type must be one of athena, bigquery, duckdb, postgres, redshift,"),
    *((case("postgres", {key: "x"}), f"never hold a secret or the path of one; remove {key}.") for key in SECRETS),
    ({**case("postgres"), "profile": "mine"}, ".profile must be generated"),
    (case("snowflake", identity={"token": "x"}), "never hold a secret or the path of one; remove token."),
    (case("postgres", {"Port": "1"}), ".settings: postgres knows no Port; known are connect_timeout, dbname, host,"),
    (case("snowflake", {"authenticator": "externalbrowser"}), ".settings: snowflake knows no authenticator; known are account,"),
    (case("duckdb", identity={"method": "x"}), ".identity: duckdb knows no method; known are none."),
    (case("snowflake", identity={"audience": "x"}), ".identity: snowflake knows no audience; known are client_id, issuer,"),
    *((case(type_, {name: None}), f".settings: {type_} needs {name}.") for type_, a in ADAPTERS.items() for name in a.required),
    (case("postgres", {"port": "five"}), ".settings: port must be a whole number."),
    (case("postgres", {"port": 5432.5}), ".settings: port must be a whole number."),
    (case("snowflake", {"reuse_connections": "yes"}), ".settings: reuse_connections must be a true or false."),
    (case("athena", {"poll_interval": "soon"}), ".settings: poll_interval must be a number."),
    (case("postgres", {"host": ""}), ".settings: host must be a string."),
    (case("postgres", identity={"method": "password"}), ".identity of postgres must be"),
    (case("postgres", identity={"method": None}), ".identity of postgres must be"),
    (case("postgres", identity={"resource_id": "my-database"}), ".identity of postgres must be"),
    (case("postgres", identity={"resource_id": "db-*"}), ".identity of postgres must be"),
    *((case("postgres", {"user": bad}), ".settings.user must name the database user") for bad in ("*", "a b", "a/b", "${aws:userid}")),
    (case("snowflake", identity={"method": "oauth"}), ".identity.method of snowflake must be aws_attestation"),
    (case("snowflake", identity={"client_id": "0oaDbt"}), ".identity.client_id of snowflake is for method = okta only"),
    *((case("snowflake", identity={**OKTA, "issuer": bad}), ".identity.issuer of snowflake with okta must be a custom authorization server")
      for bad in (None, "http://acme.okta.com/oauth2/aus1", "https://acme.okta.com", "https://acme.okta.com/oauth2/aus1/")),
    *((case("snowflake", identity={**OKTA, "client_id": bad}), ".identity.client_id of snowflake with okta") for bad in (None, "a b")),
    *((case("snowflake", identity={**OKTA, "kms_key_arn": bad}), ".identity.kms_key_arn of snowflake with okta must be the ARN")
      for bad in (None, "*", "arn:aws:kms:eu-central-1:123456789012:alias/dbt", "arn:aws:kms:eu-central-1:123456789012:key/*")),
    (case("snowflake", {"protocol": "http"}), ".settings.protocol must be https"),
    (case("redshift", {"serverless_work_group": None}), "must name either serverless_work_group or cluster_id"),
    (case("redshift", {"cluster_id": "c1"}), "must name either serverless_work_group or cluster_id"),
    (case("redshift", identity={"workgroup_id": "wg"}), ".identity.workgroup_id must be the id of the workgroup"),
    (case("redshift", identity={"workgroup_id": None}), ".identity.workgroup_id must be the id of the workgroup"),
    (case("redshift", {**CLUSTER, "cluster_id": "*"}), ".settings.cluster_id of redshift must be of letters"),
    (case("redshift", {**CLUSTER, "dbname": "a/*"}), ".settings.dbname of redshift must be of letters"),
    *((case("redshift", {"region": bad}), ".settings.region of redshift must be a region") for bad in ("*", "eu-*", "eu-central-1:1")),
    *((case("redshift", identity={"db_user": bad}), ".identity.db_user of redshift must be one name") for bad in ("a:b", "a'b", "u" * 129)),
    *((case("redshift", identity={"db_roles": bad}), ".identity.db_roles of redshift must be names")
      for bad in ("a,b", ":a", "a::b", "a/b", ":".join(["role"] * 52))),
    (case("bigquery", identity={"audience": "https://example.com"}), ".identity.audience of bigquery must be the provider"),
    (case("bigquery", identity={"audience": None}), ".identity.audience of bigquery must be the provider"),
    (case("bigquery", identity={"service_account": "me@example.com"}), ".identity.service_account of bigquery must be"),
    *((case("athena", {"region_name": bad}), ".settings.region_name of athena must be a region") for bad in ("*", "eu-central-?")),
    *((bad, ": no location of athena may be in the audit bucket") for bad in (
        case("athena", {"s3_data_dir": f"s3://{AUDIT}/dbt/"}), case("athena", {"s3_tmp_table_dir": f"s3://{AUDIT}/"}),
        case("athena", identity={"read_locations": f"s3://raw/,s3://{AUDIT}/audit/runs/"}))),
    (case("athena", {"work_group": "*"}), ".settings.work_group of athena must be of letters"),
    (case("athena", {"schema": "a/b"}), ".settings.schema of athena must be of letters"),
    (case("athena", identity={"databases": "a, b"}), ".identity.databases of athena must be names"),
    (case("athena", identity={"read_databases": "*"}), ".identity.read_databases of athena must be names"),
    *((case("athena", {"s3_data_dir": bad}), ".settings.s3_data_dir of athena must be s3://") for bad in ("s3://lake/dbt", "lake/dbt/", "s3://*/")),
    (case("athena", identity={"read_locations": "s3://raw"}), ".identity.read_locations of athena must be s3://"),
]  # fmt: skip

HARNESS = """
variable "cases" {
  type = map(object({
    local     = bool
    warehouse = object({ type = string, settings = map(string), identity = map(string), profile = string })
  }))
}

module "case" {
  source       = "./warehouse"
  for_each     = var.cases
  environment  = each.key
  warehouse    = each.value.warehouse
  audit_bucket = "AUDIT"
  local        = each.value.local
}
"""
# An example of a page, as it stands there, with the defaults of the root module.
PAGE = """
variable "warehouse" {
  type = object({
    type     = string
    settings = optional(map(string), {})
    identity = optional(map(string), {})
    profile  = optional(string, "generated")
  })
}

module "case" {
  source       = "../warehouse"
  environment  = basename(path.module)
  warehouse    = var.warehouse
  audit_bucket = "AUDIT"
  local        = false
}
"""
PAGES = [
    (page.stem, block)
    for page in sorted((ROOT / "docs" / "warehouses").glob("*.md"))
    for block in re.findall(r"^```hcl\n(warehouse = .*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.fixture(scope="module")
def problems(offline: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What a plan of all cases says, by the case's key: good ones by their type, bad ones by their place."""
    folder = tmp_path_factory.mktemp("warehouse")
    (folder / "main.tf").write_text(HARNESS.replace("AUDIT", AUDIT))
    shutil.copytree(MODULE, folder / "warehouse")
    # Nothing here needs a provider.
    (folder / "warehouse" / "versions.tf").unlink()
    cases = {type_: {"local": True, "warehouse": case(type_)} for type_ in GOOD}
    cases |= {f"bad-{number}": {"local": True, "warehouse": bad} for number, (bad, _) in enumerate(BAD)}
    cases |= {"okta": {"local": False, "warehouse": case("snowflake", identity=OKTA)}}
    cases |= {"cluster": {"local": False, "warehouse": case("redshift", CLUSTER, {"workgroup_id": None})}}
    cases |= {"unnamed": {"local": False, "warehouse": case("postgres", identity={"method": None, "resource_id": None})}}
    cases |= {"deployed-duckdb": {"local": False, "warehouse": case("duckdb")}}
    calls = []
    for number, (page, block) in enumerate(PAGES):
        example = folder / f"page-{number}-{page}"
        example.mkdir()
        (example / "main.tf").write_text(PAGE.replace("AUDIT", AUDIT))
        calls.append(f'module "page_{number}" {{\n  source = "./{example.name}"\n  {block}}}\n')
    (folder / "pages.tf").write_text("".join(calls))
    (folder / "cases.tfvars.json").write_text(json.dumps({"cases": cases}))
    offline.check(folder, "init", "-input=false", "-no-color")
    done = offline.run(folder, "plan", "-input=false", "-json", "-var-file=cases.tfvars.json")
    said: dict[str, str] = {}
    for event in map(json.loads, done.stdout.splitlines()):
        if event.get("type") == "diagnostic":
            # Each line of a message begins with the environment's key.
            for line in event["diagnostic"]["detail"].splitlines():
                key, dot, rest = line.partition(".warehouse")
                if dot:
                    said[key] = f"{said.get(key, '')}{rest}\n"
    return said


def test_good_settings_of_every_type_are_accepted(problems: Mapping[str, str]) -> None:
    assert set(GOOD) == set(ADAPTERS)
    assert {key: said for key, said in problems.items() if not key.startswith("bad-")} == {"deployed-duckdb": problems["deployed-duckdb"]}


def test_the_examples_of_the_pages_are_planned(problems: Mapping[str, str]) -> None:
    """A page's example without a problem is a good one of its type; the fixture fails where one is no Terraform at all."""
    assert {page for page, _ in PAGES} == {"README", *ADAPTERS} - {"duckdb"}
    assert {key: said for key, said in problems.items() if key.startswith("page-")} == {}


def test_duckdb_is_for_the_local_stack_only(problems: Mapping[str, str]) -> None:
    assert "for the local stack (examples/local) only" in problems["deployed-duckdb"]


@pytest.mark.parametrize("number", range(len(BAD)), ids=[f"{bad['type']}: {message[:50]}" for bad, message in BAD])
def test_a_wrong_setting_is_refused_with_advice(problems: Mapping[str, str], number: int) -> None:
    assert BAD[number][1] in problems[f"bad-{number}"]


def test_no_value_is_repeated_in_a_message(problems: Mapping[str, str]) -> None:
    """It may be a secret that was put in the wrong place."""
    assert not [said for said in problems.values() if "five" in said or "my-database" in said]


def test_every_message_is_tripped_by_a_case(problems: Mapping[str, str]) -> None:
    written = re.findall(r'^\s+"([:.][^"\\$]*)', (MODULE / "main.tf").read_text(), re.MULTILINE)
    assert len(written) > 15
    said = "".join(problems.values())
    assert [start for start in written if start not in said] == []


def test_terraform_knows_the_settings_that_the_runner_knows() -> None:
    known = json.loads((MODULE / "warehouses.json").read_text())
    assert known == {
        type_: {
            "settings": {name: KINDS[kind] for name, kind in adapter.settings.items()},
            "required": list(adapter.required),
            "identity": sorted(adapter.identity),
        }
        for type_, adapter in ADAPTERS.items()
    }


@pytest.mark.parametrize("type_", [type_ for type_ in ADAPTERS if type_ != "duckdb"])
def test_the_page_of_a_type_shows_every_setting_and_no_other(type_: str) -> None:
    page = (ROOT / "docs" / "warehouses" / f"{type_}.md").read_text()
    shown = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    known = {*ADAPTERS[type_].settings, *ADAPTERS[type_].identity}
    assert known - shown == set()
    # A method's value and a statement are shown in the same form.
    assert {name for name in shown - known if name.islower() and not name.startswith("aws_") and name not in ("https", "okta")} == set()


# Permissions


@pytest.fixture(scope="session")
def multi_warehouse(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    return online.plan(checkout / "examples" / "multi_warehouse", Path(__file__).parent / "inputs" / "multi_warehouse.tfvars.json")


def test_each_warehouse_role_may_do_what_its_inventory_says(multi_warehouse: tftest.TerraformPlanOutput) -> None:
    found = {address: r for address, r in resources(multi_warehouse).items() if re.search(r"aws_iam_role(_policy)?\.warehouse\b", address)}
    compare("multi_warehouse", multi_warehouse, only=set(found))


def test_nothing_is_granted_for_an_image_that_is_not_in_ecr(multi_warehouse: tftest.TerraformPlanOutput) -> None:
    executions = [r["values"]["policy"] for a, r in resources(multi_warehouse).items() if a.endswith("aws_iam_role_policy.execution")]
    assert len(executions) > 1
    assert {sid for policy in executions for sid in statements(policy)} == {"WriteLogs"}


def test_the_permissions_are_those_of_the_login(multi_warehouse: tftest.TerraformPlanOutput) -> None:
    pattern = re.compile(r'identity\["([a-z_]+)"\]\.aws_iam_role_policy\.warehouse\[0\]$')
    found = {m[1]: statements(r["values"]["policy"]) for a, r in resources(multi_warehouse).items() if (m := pattern.search(a))}
    actions = {
        env: {a for s in by_sid.values() for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
        for env, by_sid in found.items()
    }
    athena = actions.pop("athena")
    assert actions == {
        "postgres": {"rds-db:connect"},
        "snowflake_token": {"sts:GetWebIdentityToken"},
        "snowflake_okta": {"kms:Sign"},
        "redshift_serverless": {"redshift-serverless:GetCredentials"},
        "redshift_cluster": {"redshift:GetClusterCredentialsWithIAM"},
        "bigquery": {"sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken"},
    }, "a signed request (environment snowflake) needs no permission at all"
    assert {action.split(":")[0] for action in athena} == {"athena", "glue", "s3"}
    everywhere = {(env, sid) for env, by_sid in found.items() for sid, s in by_sid.items() if s["Resource"] == "*"}
    assert everywhere == {("snowflake_token", "GetTokenForWarehouse"), ("bigquery", "GetTokenForWarehouse"), ("bigquery", "NameRunInToken")}


@pytest.fixture(scope="module")
def allowed(multi_warehouse: tftest.TerraformPlanOutput) -> dict[str, Statements]:
    """The statements of each environment's warehouse role."""
    found: dict[str, Statements] = dict.fromkeys(ENVIRONMENTS, ())
    for address, r in resources(multi_warehouse).items():
        if m := re.search(r'identity\["([a-z_]+)"\]\.aws_iam_role_policy\.warehouse\[0\]$', address):
            found[m[1]] = json.loads(r["values"]["policy"])["Statement"]
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_warehouse_role_can_never_do_more_than_log_in(allowed: Mapping[str, Statements], environment: str) -> None:
    for claim in warehouse_claims(environment):
        assert witness(allowed[environment], claim.question) is None, claim.never
        # The control: whoever may do everything breaks the claim.
        assert witness([ADMINISTRATOR], claim.question) is not None, claim.never


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_fence_of_a_warehouse_role_is_needed(allowed: Mapping[str, Statements], environment: str) -> None:
    claims = list(warehouse_claims(environment))
    missed = [m.name for m in mutants(allowed[environment]) if not any(witness([m.statement], claim.question) for claim in claims)]
    assert missed == []


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_only_the_runner_becomes_the_warehouse_role_and_only_as_the_configured_user(
    multi_warehouse: tftest.TerraformPlanOutput, environment: str
) -> None:
    address = f'module.dbt.module.identity["{environment}"].aws_iam_role.warehouse'
    trust = json.loads(resources(multi_warehouse)[address]["values"]["assume_role_policy"])["Statement"]
    question = becomes_warehouse(environment)
    assert witness(trust, question) is None
    assert witness([ANYBODY], question) is not None
    assert [mutant.name for mutant in mutants(trust) if not witness([mutant.statement], question)] == []
