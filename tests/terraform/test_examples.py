"""The examples of CI and people are planned, both by one plan: who may become what in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from terraform.inventory import resources, statements
from terraform.tool import Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

COMMON = {
    "region": "eu-central-1",
    "image": f"registry.example.com/dbt-runner@sha256:{'0f' * 32}",
    "subnet_ids": ["subnet-0a"],
    "security_group_ids": ["sg-0a"],
    "database": {"host": "db.example.com", "name": "analytics", "resource_id": "db-ABC123"},
}
INPUTS: dict[str, dict[str, Any]] = {
    "github_actions": {**COMMON, "repository": "acme/analytics"},
    "okta": {
        **COMMON,
        "okta": {
            "domain": "acme.okta.com",
            "authorization_server": "aus1",
            "audience": "api://dbt",
            "people": ["00uAda", "00uBob"],
            "people_client": "0oaPeople",
            "ci_client": "0oaCi",
        },
    },
}


@pytest.fixture(scope="module")
def trusted(online: Terraform, checkout: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The conditions under which each example's roles are given, by example and <environment>-<role>."""
    folder = checkout / "examples" / "of_identity"
    folder.mkdir()
    modules = {name: {"source": f"../{name}", **inputs} for name, inputs in INPUTS.items()}
    (folder / "main.tf.json").write_text(json.dumps({"module": modules}))
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in INPUTS}
    for address, r in resources(online.plan(folder)).items():
        if r["type"] == "aws_iam_role" and ".module.oidc_federation." in address:
            (statement,) = statements(r["values"]["assume_role_policy"]).values()
            found[address.split(".")[1]][r["values"]["name"].removeprefix("analytics-")] = statement["Condition"]
    return found


def test_github_deploys_staging_from_main_and_prod_from_its_environment(trusted: dict[str, dict[str, dict[str, Any]]]) -> None:
    issuer = "token.actions.githubusercontent.com"
    subjects = {"staging-deployer": "repo:acme/analytics:ref:refs/heads/main", "prod-deployer": "repo:acme/analytics:environment:prod"}
    assert trusted["github_actions"] == {
        role: {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject}} for role, subject in subjects.items()
    }


def test_okta_tells_people_and_ci_apart_by_their_audience(trusted: dict[str, dict[str, dict[str, Any]]]) -> None:
    issuer = "acme.okta.com/oauth2/aus1"
    assert trusted["okta"] == {
        "prod-operator": {"StringEquals": {f"{issuer}:aud": "0oaPeople", f"{issuer}:sub": ["00uAda", "00uBob"]}},
        "prod-deployer": {"StringEquals": {f"{issuer}:aud": "api://dbt", f"{issuer}:sub": "0oaCi"}},
    }
