"""Terraform is found, is given its provider, and says clearly what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dbt_runner.local.errors import TerraformError
from dbt_runner.local.provider_mirror import implied_mirrors, terraform_environ
from dbt_runner.local.terraform import Change, Terraform, copy_module, find_terraform
from local.support import wait_for

# Terraform's own provider, so that nothing needs to be installed.
MODULE = """
variable "greeting" { type = string }
resource "terraform_data" "first" { input = var.greeting }
resource "terraform_data" "second" { input = terraform_data.first.output }
output "said" { value = terraform_data.second.output }
"""


def ignore(warning: str) -> None:
    """A `warn` for tests that are about something else."""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own, so that the settings of whoever runs the tests have no part in them."""
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_DATA_DIRS": str(tmp_path / "share")}


@pytest.fixture
def make(tmp_path: Path, environ: dict[str, str]) -> Callable[[str], Terraform]:
    def terraform(module: str) -> Terraform:
        directory = tmp_path / "module"
        directory.mkdir(exist_ok=True)
        (directory / "main.tf").write_text(module)
        return Terraform(directory, environ=environ, warn=ignore)

    return terraform


def mirror(directory: Path) -> Path:
    (directory / "registry.terraform.io" / "hashicorp" / "aws").mkdir(parents=True)
    return directory


def fake_terraform(directory: Path, script: str) -> dict[str, str]:
    directory.mkdir()
    (directory / "terraform").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "terraform").chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def test_a_missing_terraform_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(TerraformError, match=r"terraform is not on PATH\. Install Terraform 1\.9 or newer"):
        find_terraform({"PATH": str(tmp_path)})


def test_an_old_terraform_is_refused(tmp_path: Path) -> None:
    environ = fake_terraform(tmp_path / "bin", """echo '{"terraform_version": "1.8.5"}'""")
    with pytest.raises(TerraformError, match=r"is Terraform 1\.8\.5, which is too old\. Install"):
        find_terraform(environ)


def test_a_terraform_that_does_not_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TerraformError, match="does not say its version"):
        find_terraform(fake_terraform(tmp_path / "bin", "exit 1"))


def test_a_newer_terraform_is_accepted(tmp_path: Path) -> None:
    environ = fake_terraform(tmp_path / "bin", """echo '{"terraform_version": "1.15.0-rc1"}'""")
    assert find_terraform(environ) == tmp_path / "bin" / "terraform"


def test_the_mirror_that_is_asked_for_comes_first(tmp_path: Path, environ: dict[str, str]) -> None:
    asked_for = mirror(tmp_path / "asked")
    config = tmp_path / "own.tfrc"
    config.touch()
    environ |= {"TF_PROVIDER_MIRROR": str(asked_for), "TF_CLI_CONFIG_FILE": str(config)}
    result = terraform_environ(environ, tmp_path, warn=ignore, searched=[])
    assert str(asked_for) in Path(result["TF_CLI_CONFIG_FILE"]).read_text()


def test_a_mirror_without_the_provider_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["TF_PROVIDER_MIRROR"] = str(tmp_path)
    with pytest.raises(TerraformError, match=r"holds no registry\.terraform\.io/hashicorp/aws.*terraform providers mirror"):
        terraform_environ(environ, tmp_path, warn=ignore, searched=[])


@pytest.mark.parametrize("how", ["variable", "default"])
def test_the_users_cli_configuration_is_respected(tmp_path: Path, environ: dict[str, str], how: str) -> None:
    mirror(tmp_path / "opt" / "plugins")
    config = Path(environ["HOME"], ".terraformrc") if how == "default" else tmp_path / "own.tfrc"
    config.touch()
    if how == "variable":
        environ["TF_CLI_CONFIG_FILE"] = str(config)
    result = terraform_environ(environ, tmp_path, warn=ignore, searched=[tmp_path / "opt"])
    assert result.get("TF_CLI_CONFIG_FILE") == (str(config) if how == "variable" else None)


def test_a_cli_configuration_that_is_missing_is_ignored_with_one_line(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["TF_CLI_CONFIG_FILE"] = str(tmp_path / "missing.tfrc")
    warnings: list[str] = []
    result = terraform_environ(environ, tmp_path, warn=warnings.append, searched=[])
    assert "TF_CLI_CONFIG_FILE" not in result
    assert warnings == [f"TF_CLI_CONFIG_FILE is {tmp_path}/missing.tfrc, which does not exist: ignored"]


def test_where_terraform_looks_by_itself_nothing_is_configured(tmp_path: Path, environ: dict[str, str]) -> None:
    mirror(tmp_path / "opt" / "plugins")
    for implied in implied_mirrors(environ):
        mirror(implied)
        assert "TF_CLI_CONFIG_FILE" not in terraform_environ(environ, tmp_path, warn=ignore, searched=[tmp_path / "opt"])
        shutil.rmtree(implied)
    assert "TF_CLI_CONFIG_FILE" in terraform_environ(environ, tmp_path, warn=ignore, searched=[tmp_path / "opt"])


def test_a_mirror_is_found_one_level_below_the_searched_directories(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "opt" / "other").mkdir(parents=True)
    mirror(tmp_path / "local" / "deeper" / "plugins")
    found = mirror(tmp_path / "local" / "plugins")
    searched = [tmp_path / "missing", tmp_path / "opt", tmp_path / "local"]
    result = terraform_environ(environ, tmp_path, warn=ignore, searched=searched)
    text = Path(result["TF_CLI_CONFIG_FILE"]).read_text()
    assert f'path    = "{found}"' in text
    assert 'exclude = ["registry.terraform.io/hashicorp/aws"]' in text


def test_without_a_mirror_what_is_downloaded_is_kept(tmp_path: Path, environ: dict[str, str]) -> None:
    result = terraform_environ(environ, tmp_path, warn=ignore, searched=[])
    assert result["TF_PLUGIN_CACHE_DIR"] == f"{environ['HOME']}/.cache/dbt-runner/terraform-plugins"
    assert Path(result["TF_PLUGIN_CACHE_DIR"]).is_dir()


def test_terraform_understands_the_configuration_that_is_written(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "main.tf").write_text('terraform {\n  required_providers {\n    aws = { source = "hashicorp/aws" }\n  }\n}')
    # A mirror whose provider has no version: Terraform must look there, and nowhere else.
    environ["TF_PROVIDER_MIRROR"] = str(mirror(tmp_path / 'a "quoted" mirror'))
    terraform = Terraform(tmp_path / "module", environ=environ, warn=ignore)
    with pytest.raises(TerraformError, match=r"(?s)terraform init failed:.*hashicorp/aws"):
        terraform.init()


@pytest.mark.terraform
def test_apply_reports_progress_and_outputs_and_a_second_plan_is_empty(make: Callable[[str], Terraform], tmp_path: Path) -> None:
    state = tmp_path / "other.tfstate"
    state.write_text('{"version": 4, "terraform_version": "1.9.0", "serial": 1, "lineage": "x", "outputs": {}, "resources": []}')
    # A data source is read, not made: it counts for nothing.
    read = f'data "terraform_remote_state" "other" {{\n  backend = "local"\n  config  = {{ path = "{state}" }}\n}}\n'
    terraform = make(MODULE + read)
    progress: list[tuple[int, int, str]] = []
    terraform.init()
    outputs = terraform.apply({"greeting": 'a "quoted" $word'}, lambda *step: progress.append(step))
    assert outputs == {"said": 'a "quoted" $word'}
    assert progress == [(1, 2, "terraform_data.first"), (2, 2, "terraform_data.second")]
    assert terraform.plan() == []


@pytest.mark.terraform
def test_a_plan_names_what_would_change(make: Callable[[str], Terraform]) -> None:
    terraform = make(MODULE)
    terraform.init()
    terraform.apply({"greeting": "a"})
    make(MODULE + 'resource "terraform_data" "third" {}\n')
    assert terraform.plan() == [Change("terraform_data.third", "create")]
    terraform.destroy()
    assert {change.action for change in terraform.plan()} == {"create"}


@pytest.mark.terraform
def test_an_error_has_terraforms_own_summary_and_detail(make: Callable[[str], Terraform]) -> None:
    terraform = make("""
variable "name" {
  type = string
  validation {
    condition     = length(var.name) < 5
    error_message = "name must be short: it is part of every resource's name."
  }
}
resource "terraform_data" "this" {
  lifecycle {
    precondition {
      condition     = var.name != "bad"
      error_message = "bad is a bad name."
    }
  }
}
""")
    terraform.init()
    with pytest.raises(TerraformError, match=r"(?s)Invalid value for variable.*name must be short: it is part of every"):
        terraform.apply({"name": "too long"})
    with pytest.raises(TerraformError, match=r"(?s)Resource precondition failed \(main\.tf, line 12\).*bad is a bad name"):
        terraform.apply({"name": "bad"})


@pytest.mark.terraform
def test_a_module_that_is_no_terraform_is_an_error_of_init(make: Callable[[str], Terraform]) -> None:
    with pytest.raises(TerraformError, match=r"(?s)terraform init failed:.*main\.tf"):
        make('resource "broken {').init()


@pytest.mark.terraform
def test_variables_of_the_users_environment_have_no_effect(make: Callable[[str], Terraform], environ: dict[str, str]) -> None:
    environ |= {"TF_VAR_greeting": "wrong", "TF_CLI_ARGS_apply": "-nonsense", "TF_WORKSPACE": "other", "TF_DATA_DIR": "/nowhere"}
    terraform = make(MODULE)
    terraform.init()
    assert terraform.apply({"greeting": "right"}) == {"said": "right"}


@pytest.mark.terraform
def test_stopping_from_another_thread_ends_terraform_and_its_children(make: Callable[[str], Terraform], tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    terraform = make(f"""
resource "terraform_data" "slow" {{
  provisioner "local-exec" {{
    command = "echo $$ > {marker}; exec sleep 300"
  }}
}}
""")
    terraform.init()
    errors: list[BaseException] = []

    def apply() -> None:
        try:
            terraform.apply({})
        except TerraformError as exc:
            errors.append(exc)

    thread = threading.Thread(target=apply)
    thread.start()
    pid = int(wait_for(lambda: marker.read_text().strip() if marker.exists() else None, "the provisioner runs", 30))
    terraform.stop()
    thread.join(30)
    assert [str(error) for error in errors] == ["terraform apply was stopped"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(TerraformError, match="was stopped"):
        terraform.plan()


def test_the_copy_holds_the_module_and_nothing_of_terraforms_own(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in (
        "main.tf",
        "modules/a/main.tf",
        "modules/a/.terraform/x",
        "asl/a.json",
        "examples/local/main.tf",
        "examples/local/terraform.tfstate",
        "examples/other/main.tf",
        "runner/pyproject.toml",
        ".terraform/y",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    target = tmp_path / "target"
    (target / "stale").mkdir(parents=True)
    copy_module(source, target)
    copied = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert copied == ["asl/a.json", "examples/local/main.tf", "main.tf", "modules/a/main.tf"]
    assert not (target / "stale").exists()
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*")} == before


def test_variables_are_not_on_the_command_line(tmp_path: Path, environ: dict[str, str]) -> None:
    seen = tmp_path / "arguments"
    environ |= fake_terraform(tmp_path / "bin", f'echo "$@" >> {seen}; echo \'{{"terraform_version": "1.9.0"}}\'')
    terraform = Terraform(tmp_path, environ=environ, warn=ignore)
    terraform.apply({"key": "confidential"})
    assert "confidential" not in seen.read_text()
    assert json.loads((tmp_path / "local.auto.tfvars.json").read_text()) == {"key": "confidential"}
