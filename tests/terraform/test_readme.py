"""The README's Terraform is planned as it stands, but for the module's address."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from terraform.inventory import resources
from terraform.tool import ROOT, Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

BLOCKS = [textwrap.dedent(block) for block in re.findall(r"```hcl\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)]


def test_the_readme_shows_a_deployment() -> None:
    assert len(BLOCKS) == 1


@pytest.mark.parametrize("block", BLOCKS, ids=lambda _: "block")
def test_the_readmes_deployment_can_be_planned(block: str, online: Terraform, checkout: Path) -> None:
    folder = checkout / "examples" / "readme"
    folder.mkdir()
    local, replaced = re.subn(r'source = "git::[^"]*"', 'source = "../.."', block)
    assert replaced == 1
    (folder / "main.tf").write_text(local)
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    planned = resources(online.plan(folder))
    assert 'module.dbt.module.state_machine["prod"].aws_scheduler_schedule.job["hourly"]' in planned
