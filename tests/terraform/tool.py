"""The terraform binary as the tests run it: on a copy of the checkout, without the user's settings, with the provider that is at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tftest

from dbt_runner.local.provider_mirror import terraform_environ

ROOT = Path(__file__).parents[2]
# What says where the provider comes from. Everything else of Terraform's or AWS's settings stays outside.
_KEPT = {"TF_CLI_CONFIG_FILE", "TF_PLUGIN_CACHE_DIR", "TF_PROVIDER_MIRROR"}


@dataclass(frozen=True)
class Terraform:
    """Runs terraform in a folder.

    Attributes:
        env: the whole environment of the process.
    """

    env: Mapping[str, str]

    def run(self, folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs `terraform <arguments>` in a folder and returns what it said, whatever its exit code."""
        command = ["terraform", *arguments]
        return subprocess.run(command, cwd=folder, env=dict(self.env), input=stdin, capture_output=True, text=True, check=False)

    def check(self, folder: Path, *arguments: str, stdin: str = "") -> str:
        """Like `run`, and returns the standard output.

        Raises:
            AssertionError: with terraform's own words, when it fails.
        """
        done = self.run(folder, *arguments, stdin=stdin)
        assert done.returncode == 0, f"terraform {' '.join(arguments)} in {folder.name}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def validate(self, folder: Path) -> None:
        """Validates a configuration and every module that it calls. Raises AssertionError like `check`."""
        self.check(folder, "init", "-backend=false", "-input=false", "-no-color")
        self.check(folder, "validate", "-no-color")

    def plan(self, folder: Path, variables: Path | None = None) -> tftest.TerraformPlanOutput:
        """Plans a folder from nothing, with the provider that the environment names. The folder must be a copy.

        Raises:
            AssertionError: like `check`.
        """
        self.check(folder, "get", "-no-color")
        self.check(folder, "plan", "-input=false", "-no-color", "-out=test.tfplan", *([f"-var-file={variables}"] if variables else []))
        return tftest.TerraformPlanOutput(json.loads(self.check(folder, "show", "-json", "test.tfplan")))


def environment(scratch: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for terraform: ours plus `extra`, less whatever would lead to a real AWS account.

    Args:
        scratch: a folder that may get a CLI configuration.
    """
    env = {key: value for key, value in os.environ.items() if key in _KEPT or not key.startswith(("AWS_", "TF_"))}
    # Memory is there, and each command lives for seconds: less often looked for garbage takes a quarter less of processor time.
    env |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "GOGC": "400", "GOMAXPROCS": "1", **(extra or {})}
    return terraform_environ(env, scratch, warn=lambda text: warnings.warn(text, stacklevel=2))


def configurations() -> list[str]:
    """The folders that hold Terraform code, relative to the checkout: the root, its modules, the examples."""
    folders = [ROOT, *ROOT.glob("modules/*"), *ROOT.glob("examples/*")]
    return sorted(str(folder.relative_to(ROOT)) for folder in folders if any(folder.glob("*.tf")))


def copy_checkout(target: Path) -> Path:
    """Copies everything that Terraform reads, and returns the target."""
    for folder in configurations():
        for source in [*(ROOT / folder).glob("*.tf"), *(ROOT / folder).glob("*.json")]:
            copy = target / folder / source.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for folder in ("asl", "modules/audit_store/athena"):
        shutil.copytree(ROOT / folder, target / folder)
    return target
