"""What people configure with the README and the examples is applied to the embedded AWS, or refused by name within seconds.

Applying all of it takes minutes, most of them the provider's own waits, so that is a slow test. The default run asks for each type of
resource whether the slow one has ever applied it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terraform.test_examples import INPUTS
from terraform.tool import ROOT, Terraform, configurations

HERE = Path(__file__).parent
pytestmark = [pytest.mark.terraform]

# Each type of resource that the module, its examples and the README have; `test_everything_that_is_shown_applies` applied them all.
APPLIED = frozenset(json.loads((HERE / "applied_types.json").read_text()))
# Applied alone, a part of another configuration has no inputs that mean anything; `local` is applied by every test of the flow.
_FILES = {
    "minimal": "minimal.tfvars.json",
    "multi_warehouse": "multi_warehouse.tfvars.json",
    "private_network": "private_network.tfvars.json",
}
_INPUTS: dict[str, dict[str, Any]] = {**INPUTS, "runner_image": {"region": "eu-central-1", "repository": "acme/analytics"}}
EXAMPLES = sorted(Path(folder).name for folder in configurations() if folder.startswith("examples/") and folder != "examples/local")


def declared() -> set[str]:
    texts = [path.read_text() for folder in configurations() for path in (ROOT / folder).glob("*.tf")]
    return {kind for text in texts for kind in re.findall(r'^resource "(\w+)"', text, re.MULTILINE)}


def test_each_type_of_resource_is_one_that_the_embedded_aws_has_taken() -> None:
    assert declared() == APPLIED, "run pytest -m slow tests/terraform/test_applies.py, and correct applied_types.json"


@pytest.fixture
def own(online: Terraform) -> Iterator[Terraform]:
    """Terraform on an emulated AWS of its own, as the provider is without any setting: it tries an outage 25 times."""
    with subprocess.Popen([sys.executable, str(HERE / "emulator.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield Terraform({**online.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{process.stdout.readline().strip()}"})
        process.stdin.close()


def apply(terraform: Terraform, folder: Path, variables: Path | dict[str, Any] | None) -> set[str]:
    """Applies a folder and destroys it; the types of what was applied."""
    if isinstance(variables, dict):
        file = folder / "inputs.tfvars.json"
        file.write_text(json.dumps(variables))
        variables = file
    given = [f"-var-file={variables}"] if variables else []
    terraform.check(folder, "get", "-no-color")
    terraform.check(folder, "apply", "-auto-approve", "-input=false", "-no-color", "-parallelism=30", *given)
    state = json.loads(terraform.check(folder, "show", "-json"))
    return set(_types(state["values"]["root_module"]))


def _types(module: dict[str, Any]) -> Iterator[str]:
    yield from (resource["type"] for resource in module.get("resources", ()) if resource["mode"] == "managed")
    for child in module.get("child_modules", ()):
        yield from _types(child)


def readme(checkout: Path) -> Path:
    [block] = [textwrap.dedent(block) for block in re.findall(r"```hcl\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)]
    folder = checkout / "examples" / "readme_applied"
    folder.mkdir()
    (folder / "main.tf").write_text(re.sub(r'source = "git::[^"]*"', 'source = "../.."', block))
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README", "everything", *EXAMPLES])
def test_everything_that_is_shown_applies(name: str, own: Terraform, checkout: Path) -> None:
    if name == "README":
        found = apply(own, readme(checkout), None)
    elif name == "everything":
        found = apply(own, checkout, HERE / "inputs" / "two_environments.tfvars.json")
    else:
        file = _FILES.get(name)
        inputs = json.loads((HERE / "inputs" / file).read_text()) if file else _INPUTS[name]
        # A security group of a warehouse is one that is there, which an empty account has not.
        for target in inputs.get("warehouse_targets", {}).values():
            if target.pop("security_group_id", None):
                target["cidr"] = "10.30.1.0/24"
        found = apply(own, checkout / "examples" / name, inputs)
    assert found and found <= APPLIED


@pytest.mark.slow
def test_what_the_embedded_aws_lacks_is_named_within_seconds(own: Terraform, checkout: Path) -> None:
    folder = checkout / "examples" / "lacking"
    folder.mkdir()
    group = "arn:aws:logs:eu-central-1:123456789012:log-group:x"
    lacking = f'log_group_arn_list = ["{group}"]\nenabled = true\n'
    (folder / "main.tf").write_text(f'resource "aws_cloudwatch_log_anomaly_detector" "this" {{\n{lacking}}}\n')
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    began = time.monotonic()
    done = own.run(folder, "apply", "-auto-approve", "-input=false", "-no-color")
    assert done.returncode == 1 and "the embedded AWS lacks logs:CreateLogAnomalyDetector" in " ".join(
        done.stderr.replace("│", " ").split()
    )
    assert time.monotonic() - began < 120, "a provider that tries again takes many minutes"
