"""The local stack comes up with a module applied, and goes down without a trace, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

import dbt_runner
from dbt_runner.errors import COMPILATION_ERROR, TypedError
from dbt_runner.local import session
from dbt_runner.local import stack as stack_module
from dbt_runner.local.errors import StackError, TerraformError
from dbt_runner.local.stack import LocalStack, Progress, find_module
from dbt_runner.release import Candidate

# One call of the AWS provider would need the provider; that the real module applies is what the flow tests are about.
TINY = """
variable "endpoint" { type = string }
variable "warehouse_path" { type = string }
variable "region" { type = string }
variable "table" { default = "tiny-audit" }
variable "broken" { default = false }
module "tiny" {
  source = "../.."
  table  = var.table
}
resource "terraform_data" "endpoint" {
  input = var.endpoint
  lifecycle {
    precondition {
      condition     = !var.broken
      error_message = "broken on purpose"
    }
  }
}
output "cli" { value = { DBT_RUNNER_TABLE = module.tiny.table } }
output "endpoint" { value = terraform_data.endpoint.output }
output "warehouse" { value = var.warehouse_path }
"""
ROOT = """
variable "table" { type = string }
resource "terraform_data" "table" { input = var.table }
output "table" { value = terraform_data.table.output }
"""


# What this process has started already belongs to other tests of the same worker.
children_before: list[psutil.Process] = []


@pytest.fixture(autouse=True)
def look_at_children() -> None:
    children_before[:] = psutil.Process().children()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    for directory in ("modules", "asl", "examples/local"):
        (root / directory).mkdir(parents=True)
    (root / "main.tf").write_text(ROOT)
    (root / "examples" / "local" / "main.tf").write_text(TINY)
    return root


@pytest.fixture
def make(tmp_path: Path, module: Path) -> Callable[..., LocalStack]:
    def stack(**more: Any) -> LocalStack:
        return LocalStack(tmp_path / "home", module_dir=module, **{"on_warning": lambda warning: None, **more})

    return stack


@pytest.mark.terraform
def test_it_applies_the_module_and_says_how_far_it_is(make: Callable[..., LocalStack], module: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in module.rglob("*")}
    progress: list[Progress] = []
    with make(on_progress=progress.append, variables={"table": "mine"}) as stack:
        assert stack.outputs == {"cli": {"DBT_RUNNER_TABLE": "mine"}, "endpoint": stack.endpoint, "warehouse": str(stack.warehouse)}
        assert stack.client("sns").list_topics()["Topics"] == []
        assert stack.plan_again() == []
    assert [step.phase for step in progress] == ["start", "init", "apply", "apply", "ready"]
    assert progress[-2] == Progress("apply", 2, 2, progress[-2].resource)
    assert {path: path.stat().st_mtime_ns for path in module.rglob("*")} == before


@pytest.mark.terraform
def test_another_process_reaches_it_and_nothing_else(make: Callable[..., LocalStack]) -> None:
    program = """
import boto3, os
boto3.client("sns").create_topic(Name="made-outside")
print(os.environ["DBT_RUNNER_TABLE"], os.environ.get("AWS_PROFILE"))
"""
    with make() as stack:
        environ = stack.process_environ({**os.environ, "AWS_PROFILE": "production", "HTTP_PROXY": "http://127.0.0.1:1"})
        output = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True).stdout
        assert output.split() == ["tiny-audit", "None"]
        assert [topic["TopicArn"].rpartition(":")[2] for topic in stack.client("sns").list_topics()["Topics"]] == ["made-outside"]


@pytest.mark.terraform
def test_destroy_removes_everything_and_leaves_the_emulator_up(make: Callable[..., LocalStack]) -> None:
    with make() as stack:
        stack.destroy()
        assert {change.action for change in stack.plan_again()} == {"create"}
        stack.client("sns").list_topics()


@pytest.mark.terraform
def test_down_is_final_and_can_be_said_twice_and_up_works_again(make: Callable[..., LocalStack]) -> None:
    stack = make()
    stack.up()
    stack.up()
    stack.client("sns").create_topic(Name="topic")
    stack.down()
    stack.down()
    for use in (lambda: stack.outputs, lambda: stack.endpoint, lambda: stack.environ, stack.plan_again, stack.destroy):
        with pytest.raises(StackError, match="is not"):
            use()
    with stack:
        assert stack.client("sns").list_topics()["Topics"] == []


@pytest.mark.terraform
def test_an_error_of_terraform_leaves_nothing_running(make: Callable[..., LocalStack]) -> None:
    stack = make(variables={"broken": True})
    with pytest.raises(TerraformError, match="broken on purpose"):
        stack.up()
    assert_down(stack)


@pytest.mark.terraform
def test_ctrl_c_while_it_comes_up_leaves_nothing_running(make: Callable[..., LocalStack]) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.phase == "apply":
            raise KeyboardInterrupt

    stack = make(on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        stack.up()
    assert_down(stack)


@pytest.mark.terraform
def test_an_error_inside_the_block_takes_it_down(make: Callable[..., LocalStack]) -> None:
    stack = make()
    with pytest.raises(ZeroDivisionError), stack:
        raise ZeroDivisionError
    assert_down(stack)


@pytest.mark.terraform
def test_giving_up_ends_an_up(make: Callable[..., LocalStack]) -> None:
    stack: LocalStack = make(on_progress=lambda progress: stack.give_up() if progress.phase == "init" else None)
    with pytest.raises(TerraformError, match="was stopped"):
        stack.up()
    assert_down(stack)


def test_terraform_was_stopped_because_the_project_cannot_be_used() -> None:
    candidate: Future[Candidate] = Future()
    candidate.set_exception(TypedError(COMPILATION_ERROR, "it does not parse"))
    with pytest.raises(TypedError, match="it does not parse"), session._in_place_of_terraforms_error(candidate):
        raise TerraformError("terraform apply was stopped")


def assert_down(stack: LocalStack) -> None:
    with pytest.raises(StackError, match="not started"):
        _ = stack.endpoint
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("moto", "event-bus")]
    assert psutil.Process().children() == children_before


def test_without_terraform_no_server_is_started(make: Callable[..., LocalStack], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stack = make()
    with pytest.raises(TerraformError, match="terraform is not on PATH"):
        stack.up()
    assert_down(stack)


def test_a_directory_that_is_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"has no examples/local"):
        LocalStack(tmp_path / "home", module_dir=tmp_path).up()
    assert not (tmp_path / "home").exists()


def test_the_module_is_found_above_an_editable_install(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = module / "runner" / "src" / "dbt_runner" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(dbt_runner, "__file__", str(package))
    assert find_module() == module
    shutil.rmtree(module / "asl")
    with pytest.raises(StackError, match=r"pip install -e 'runner\[local\]'"):
        stack_module.find_module()
