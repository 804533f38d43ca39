"""The local stack: the embedded AWS with the module applied to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import dbt_runner
from dbt_runner.local.clients import REGION, without_aws_settings
from dbt_runner.local.ecs_agent import EcsAgent
from dbt_runner.local.emulator import Emulator
from dbt_runner.local.errors import StackError
from dbt_runner.local.terraform import Change, Terraform, copy_module

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far `LocalStack.up` or `destroy` has come."""

    phase: Literal["start", "init", "apply", "destroy", "ready"]
    done: int = 0
    total: int = 0
    """Resources that are done, and all of them; 0 in phases that have none."""
    resource: str = ""
    """Terraform's address of the last one."""


class LocalStack:
    """The embedded AWS with the module applied to it, for as long as the `with` block lasts.

    `home` gets everything that the stack writes: the working copy of the module with Terraform's state, one log per
    task and per sandbox of a function, and the DuckDB file `warehouse.duckdb`. It is created when it is missing and can be used again.
    `module_dir` is the root of the module; without it, the checkout from which this package is installed. `variables`
    are those of examples/local. `on_progress` and `on_warning` are called from the thread that calls `up`, `on_line`
    with the ARN and each output line of an ECS task from a thread of the task. `stop_timeout_cap` (seconds) and
    `entry_point` are those of `EcsAgent`.

    There is one stack per process at a time. `up` raises MotoError, TerraformError or StackError.
    """

    def __init__(
        self,
        home: Path,
        *,
        module_dir: Path | None = None,
        variables: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        on_warning: Callable[[str], None] = _log.warning,
        on_line: Callable[[str, str], None] | None = None,
        stop_timeout_cap: float = 120.0,
        entry_point: Sequence[str] | None = None,
    ) -> None:
        self.home = home.absolute()
        self._module_dir = module_dir
        self._variables = dict(variables or {})
        self._on_progress = on_progress or (lambda progress: None)
        self._on_warning = on_warning
        self._emulator = Emulator(
            self.logs, on_line=on_line, stop_timeout_cap=stop_timeout_cap, entry_point=entry_point, writable=[self.home]
        )
        self._terraform: Terraform | None = None
        self._outputs: dict[str, Any] | None = None

    @property
    def logs(self) -> Path:
        """One file per ECS task, named after the task's id, and one per sandbox of a Lambda function."""
        return self.home / "logs"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file of the default environment."""
        return self.home / "warehouse.duckdb"

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The outputs of examples/local. Raises StackError while the stack is not up."""
        if self._outputs is None:
            raise StackError("the local stack is not up")
        return self._outputs

    @property
    def endpoint(self) -> str:
        """The URL of the embedded AWS. Raises StackError while it does not run."""
        return self._emulator.endpoint

    @property
    def agent(self) -> EcsAgent:
        """What runs the ECS tasks. Raises StackError while the embedded AWS does not run."""
        return self._emulator.agent

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables with which our commands, the AWS CLI and Terraform reach the stack from another process."""
        return {**self._emulator.environ, **self.outputs.get("cli", {})}

    def process_environ(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """A whole environment for such a process: `base` (this process's own) without AWS settings, and `environ`."""
        return {**without_aws_settings(os.environ if base is None else base), **self.environ}

    def client(self, service: str) -> Any:
        """A boto3 client of the stack; the same one each time."""
        return self._emulator.client(service)

    def up(self) -> None:
        """Start the embedded AWS and apply the module. Leaves nothing running when it fails or is interrupted."""
        if self._outputs is not None:
            return
        module_dir = self._module_dir or find_module()
        if not (module_dir / "examples" / "local").is_dir():
            raise StackError(f"{module_dir} has no examples/local, which is what the local stack applies")
        try:
            self._on_progress(Progress("start"))
            self.home.mkdir(parents=True, exist_ok=True)
            work = self.home / "terraform"
            copy_module(module_dir, work)
            # First what can be missing: Terraform is looked for before the server is started.
            environ = without_aws_settings(os.environ)
            self._terraform = Terraform(work / "examples" / "local", environ=environ, warn=self._on_warning)
            self._emulator.start()
            self._terraform.set_environ(self._emulator.environ)
            self._on_progress(Progress("init"))
            self._terraform.init()
            outputs = self._terraform.apply(
                {"endpoint": self.endpoint, "warehouse_path": str(self.warehouse), "region": REGION, **self._variables},
                lambda done, total, resource: self._on_progress(Progress("apply", done, total, resource)),
            )
        except BaseException:
            self.down()
            raise
        self._outputs = outputs
        self._on_progress(Progress("ready"))

    def give_up(self) -> None:
        """End an `up` that another thread waits for: Terraform is stopped, and `up` raises TerraformError. Does nothing before that."""
        terraform = self._terraform
        if terraform is not None:
            terraform.stop()

    def plan_again(self) -> list[Change]:
        """What another `terraform apply` would change: nothing, if the provider and the emulator agree."""
        return self._applied().plan()

    def destroy(self) -> None:
        """`terraform destroy`; the embedded AWS stays up, empty. `down` alone drops everything as well, and at once."""
        self._applied().destroy(lambda done, total, resource: self._on_progress(Progress("destroy", done, total, resource)))

    def down(self) -> None:
        """Abort what runs, end every task, stop the server and drop its memory. Does nothing when the stack is down."""
        terraform, self._terraform, self._outputs = self._terraform, None, None
        try:
            if terraform is not None:
                terraform.stop()
        finally:
            self._emulator.stop()

    def _applied(self) -> Terraform:
        if self._terraform is None or self._outputs is None:
            raise StackError("the local stack is not up")
        return self._terraform

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()


def find_module() -> Path:
    """The root of the Terraform module in the checkout from which this package is installed (`pip install -e runner`).

    Raises StackError when it is not installed from a checkout.
    """
    package = Path(dbt_runner.__file__).resolve()
    for directory in package.parents:
        if (directory / "main.tf").is_file() and (directory / "asl").is_dir() and (directory / "modules").is_dir():
            return directory
    raise StackError(
        f"the Terraform module is not above {package.parent}: install the package from a checkout "
        "(pip install -e 'runner[local]'), or say where the module is"
    )
