"""One copy of the checkout, one emulated AWS and one plan of each configuration for the whole session."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tftest

from terraform.tool import Terraform, copy_checkout, environment

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that Terraform reads."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """URL of an emulated AWS: data sources are read and state machines validated at plan."""
    with subprocess.Popen([sys.executable, str(HERE / "emulator.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, f"the emulator ended with {process.wait()} before it listened"
        yield f"http://127.0.0.1:{port}"
        process.stdin.close()


@pytest.fixture(scope="session")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """Terraform for what asks no AWS."""
    return Terraform(environment(tmp_path_factory.mktemp("terraform")))


@pytest.fixture(scope="session")
def online(tmp_path_factory: pytest.TempPathFactory, emulator: str, offline: Terraform, checkout: Path) -> Terraform:
    """Terraform whose provider talks to the emulator, in eu-central-1.

    The provider is installed once, which holds its version against versions.tf. Told where it lies, Terraform does not read all of its
    700 MB again for each command: https://developer.hashicorp.com/terraform/cli/config/config-file#development-overrides-for-provider-developers
    """
    folder = tmp_path_factory.mktemp("provider")
    shutil.copyfile(checkout / "versions.tf", folder / "versions.tf")
    offline.check(folder, "init", "-input=false", "-no-color")
    [provider] = folder.glob(".terraform/providers/registry.terraform.io/hashicorp/aws/*/*")
    overrides = folder / "overrides.tfrc"
    overrides.write_text(f'provider_installation {{\n  dev_overrides {{ "hashicorp/aws" = {json.dumps(str(provider))} }}\n}}\n')
    extra = {
        "AWS_ENDPOINT_URL": emulator,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return Terraform({**environment(folder, extra), "TF_CLI_CONFIG_FILE": str(overrides)})


@pytest.fixture(scope="session")
def minimal(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    return online.plan(checkout / "examples" / "minimal", HERE / "inputs" / "minimal.tfvars.json")


@pytest.fixture(scope="session")
def local(online: Terraform, checkout: Path, emulator: str, tmp_path_factory: pytest.TempPathFactory) -> tftest.TerraformPlanOutput:
    variables = tmp_path_factory.mktemp("local") / "local.tfvars.json"
    variables.write_text(json.dumps({"endpoint": emulator, "warehouse_path": "/data/warehouse.duckdb"}))
    return online.plan(checkout / "examples" / "local", variables)


@pytest.fixture(scope="session")
def two_environments(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    """The root module with everything that can be set, and with two environments of which one's name begins with the other's."""
    return online.plan(checkout, HERE / "inputs" / "two_environments.tfvars.json")


@pytest.fixture(scope="session")
def state_machine(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    """The module alone, given what a whole plan knows only after apply, so that CONFIG can be read."""
    return online.plan(checkout / "modules" / "state_machine", HERE / "inputs" / "state_machine.tfvars.json")
