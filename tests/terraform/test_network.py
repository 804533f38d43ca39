"""The private network: no way to the internet, nothing comes in, and every API that a role may call can be reached."""

from __future__ import annotations

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import tftest
import yaml

from terraform.inventory import FOLDER, compare, resources, statements
from terraform.prover import listed
from terraform.tool import ROOT, Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

EXAMPLE = ROOT / "examples" / "private_network"
INPUTS = Path(__file__).parent / "inputs" / "private_network.tfvars.json"
GIVEN: dict[str, Any] = json.loads(INPUTS.read_text())
NEEDED: dict[str, Any] = json.loads((EXAMPLE / "endpoints.json").read_text())

# Where an action goes: most to the endpoint of their prefix's name.
ENDPOINTS = {
    "ecr": {"ecr.api", "ecr.dkr"},
    # Signed by the runner itself; no API is called.
    "rds-db": set[str](),
    # DynamoDB, S3 and Secrets Manager call KMS themselves (kms:ViaService).
    "kms": set[str](),
    # Called by the ECS agent, which is told apart from the runner only by its role.
    "logs": {"logs"},
}

# All of them are found by one plan, except that a variable has one bad value at a time.
BAD: list[dict[str, tuple[Any, str]]] = [
    {
        "image": (f"ghcr.io/acme/dbt-runner@sha256:{'0f' * 32}", "image must be in the ECR of this region"),
        "cidr": ("10.0.0.0/25", "cidr must be a block of /24 or larger"),
        "availability_zones": ([], "must name 1 to 16 zones"),
        "warehouses": (["bigquery"], "BigQuery's APIs are on the internet"),
        "warehouse_targets": ({"x": {"port": 443, "cidr": "0.0.0.0/0"}}, "not the whole internet"),
        "secret_arns": (["arn:aws:iam::123456789012:role/x"], "must be ARNs of Secrets Manager's secrets"),
        "snowflake": (
            {"service_name": "com.amazonaws.vpce.x.y", "hosts": ["a.snowflakecomputing.com"]},
            "snowflake must have the service_name",
        ),
    },
    {"warehouse_targets": ({"x": {"port": 443}}, "either a cidr")},
    {},
]


@pytest.fixture(scope="module")
def plan(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    return online.plan(checkout / "examples" / "private_network", INPUTS)


@pytest.fixture(scope="module")
def network(plan: tftest.TerraformPlanOutput) -> dict[str, dict[str, Any]]:
    """The planned values of the network's own resources, without the deployment in it."""
    return {address: r["values"] for address, r in resources(plan).items() if not address.startswith("module.")}


def test_plan_is_as_its_inventory_says(plan: tftest.TerraformPlanOutput, network: dict[str, Any]) -> None:
    compare("private_network", plan, only=network)


def test_nothing_leads_to_the_internet(plan: tftest.TerraformPlanOutput) -> None:
    planned = resources(plan).values()
    assert {r["type"] for r in planned} & {
        "aws_internet_gateway",
        "aws_nat_gateway",
        "aws_egress_only_internet_gateway",
        "aws_eip",
        "aws_route",
    } == set()
    assert not [r["address"] for r in planned if r["type"] == "aws_subnet" and r["values"].get("map_public_ip_on_launch")]
    assert not [r["address"] for r in planned if r["type"] == "aws_route_table" and r["values"].get("route")]


def test_nothing_comes_in_and_no_rule_is_for_everybody(plan: tftest.TerraformPlanOutput, network: dict[str, Any]) -> None:
    rules = {address: v for address, v in network.items() if re.match(r"aws_vpc_security_group_(in|e)gress_rule\.", address)}
    assert len(rules) >= 8
    assert [a for a, v in rules.items() if v["ip_protocol"] == "-1" or v["from_port"] != v["to_port"]] == []
    assert [a for a, v in rules.items() if (v.get("cidr_ipv4") or "").endswith("/0") or v.get("cidr_ipv6")] == []
    groups = {r["address"]: r.get("expressions", {}) for r in plan["configuration"]["root_module"]["resources"]}
    into = {r: groups[r]["security_group_id"]["references"][0] for r in groups if r.startswith("aws_vpc_security_group_ingress_rule.")}
    assert into and not [r for r, group in into.items() if group.startswith("aws_security_group.runner")]
    # Rules within the groups would be no part of the above.
    assert not [a for a, v in network.items() if a.startswith("aws_security_group.") and (v.get("ingress") or v.get("egress"))]


def called() -> dict[str, set[str]]:
    """The services of the actions that the roles of a task may call, by type of warehouse and for all ("")."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for inventory in ("minimal", "multi_warehouse"):
        for address, picked in yaml.safe_load((FOLDER / f"{inventory}.yaml").read_text()).items():
            role = re.search(r'identity\["(\w+)"\]\.aws_iam_role_policy\.(task|execution|warehouse)', address)
            # Whoever goes to Okta has a way out.
            if not role or role[1] == "snowflake_okta":
                continue
            warehouse = role[1].split("_")[0] if role[2] == "warehouse" and inventory == "multi_warehouse" else ""
            for statement in picked["statements"].values():
                for action in listed(statement["Action"]):
                    found[warehouse].add(action.split(":")[0])
    return found


def endpoints(services: set[str]) -> set[str]:
    return set[str]().union(*(ENDPOINTS.get(service, {service}) for service in services))


def test_every_api_that_a_role_may_call_can_be_reached() -> None:
    of_all = set(NEEDED["gateway"]) | set(NEEDED["interface"])
    services = called()
    assert {"dynamodb", "s3", "sts", "ecr", "logs"} <= services[""]
    assert {"athena", "redshift", "snowflake"} <= services.keys()
    for warehouse, found in services.items():
        reachable = of_all | set(NEEDED["warehouses"].get(warehouse, []))
        assert endpoints(found) - reachable == set(), warehouse or "every environment"


def test_an_endpoint_is_there_only_where_it_is_needed(plan: tftest.TerraformPlanOutput, network: dict[str, Any]) -> None:
    expected = {*NEEDED["interface"], *NEEDED["secrets"]["secretsmanager"]}
    expected |= {service for warehouse in GIVEN["warehouses"] for service in NEEDED["warehouses"][warehouse]}
    assert plan["output_changes"]["endpoints"]["after"] == sorted(expected)
    created = {a for a in network if a.startswith("aws_vpc_endpoint.interface")}
    assert created == {f'aws_vpc_endpoint.interface["{service}"]' for service in expected}
    assert {v["private_dns_enabled"] for a, v in network.items() if a in created} == {True}
    called_for = called()
    for warehouse, services in NEEDED["warehouses"].items():
        assert set(services) <= endpoints(called_for[warehouse]), warehouse


def test_the_page_lists_what_the_example_creates() -> None:
    page = (ROOT / "docs" / "network.md").read_text()
    rows = dict(re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|", page.split("\n## Endpoints", 1)[1], re.MULTILINE))
    found = {what: set(re.findall(r"`([a-z0-9.-]+)`", cell)) for what, cell in rows.items()}
    assert found["every deployment"] == {*NEEDED["interface"], *NEEDED["gateway"]}
    assert found["`secrets`"] == {*NEEDED["secrets"]}
    assert {name: found[title] for name, title in (
        ("athena", "Athena"), ("bigquery", "BigQuery"), ("postgres", "PostgreSQL"), ("redshift", "Redshift"), ("snowflake", "Snowflake"),
    )} == {name: set(services) for name, services in NEEDED["warehouses"].items()}  # fmt: skip


def test_a_policy_of_an_endpoint_lets_only_this_account_or_these_things_through(network: dict[str, Any]) -> None:
    for address, values in network.items():
        if not address.startswith("aws_vpc_endpoint.") or "snowflake" in address:
            continue
        for sid, statement in statements(values["policy"]).items():
            fenced = statement.get("Condition") == {"StringEquals": {"aws:PrincipalAccount": "123456789012"}}
            assert fenced or sid in ("WarehouseBuckets", "ImageLayers"), f"{address} {sid}"
            assert fenced or "*" not in listed(statement["Resource"]), f"{address} {sid}"


def test_bad_input_is_refused_with_advice(offline: Terraform, tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "variables.tf", tmp_path)
    for case in BAD:
        (tmp_path / "case.tfvars.json").write_text(json.dumps({**GIVEN, **{name: value for name, (value, _) in case.items()}}))
        done = offline.run(tmp_path, "plan", "-input=false", "-json", "-var-file=case.tfvars.json")
        said = [json.loads(line) for line in done.stdout.splitlines()]
        errors = [
            e["diagnostic"].get("detail", "") for e in said if e.get("type") == "diagnostic" and e["diagnostic"]["severity"] == "error"
        ]
        assert len(errors) == len(case), errors
        assert [message for _, message in case.values() if not any(message in error for error in errors)] == []
    assert len(BAD[0]) == (EXAMPLE / "variables.tf").read_text().count("validation {")
