"""Drives the terraform binary on a copy of the module, with progress and with errors that can be shown."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner.local.errors import TerraformError
from dbt_runner.local.provider_mirror import terraform_environ

MINIMUM_VERSION = (1, 9)
_INSTALL = "Install Terraform 1.9 or newer (https://developer.hashicorp.com/terraform/install) and put it on PATH."
# moto answers in milliseconds; what takes time is the provider's own waiting, which goes on side by side.
_PARALLELISM = 30
_STOP_SECONDS = 5.0

ApplyProgress = Callable[[int, int, str], None]
"""Called with the number of resources that are done, how many there are in all, and the address of the last one."""


@dataclass(frozen=True)
class Change:
    """A change that a plan would make."""

    address: str
    action: str
    """create, update, delete, replace, ..."""


def find_terraform(environ: Mapping[str, str] | None = None) -> Path:
    """The terraform binary on PATH. Raises TerraformError when it is missing, does not run or is too old."""
    path = shutil.which("terraform", path=(environ or os.environ).get("PATH"))
    if path is None:
        raise TerraformError(f"terraform is not on PATH. {_INSTALL}")
    try:
        output = subprocess.run([path, "version", "-json"], capture_output=True, text=True, check=True, timeout=60).stdout
        version = str(json.loads(output)["terraform_version"])
        numbers = tuple(int(part) for part in version.split("-")[0].split("."))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as exc:
        raise TerraformError(f"{path} does not say its version ({exc}). {_INSTALL}") from exc
    if numbers < MINIMUM_VERSION:
        raise TerraformError(f"{path} is Terraform {version}, which is too old. {_INSTALL}")
    return Path(path)


def copy_module(source: Path, target: Path) -> None:
    """Copy what Terraform needs of the checkout, so that it writes nothing into it. A copy that exists is replaced."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for file in source.glob("*.tf"):
        shutil.copy2(file, target)
    for directory in ("modules", "asl"):
        if (source / directory).is_dir():
            shutil.copytree(source / directory, target / directory, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    example = target / "examples" / "local"
    example.mkdir(parents=True)
    for pattern in ("*.tf", "*.json"):
        for file in (source / "examples" / "local").glob(pattern):
            shutil.copy2(file, example)


class Terraform:
    """One working directory with its state.

    `environ` is the environment to start from; what would change Terraform's behaviour behind our back (TF_VAR_*,
    TF_CLI_ARGS*, TF_WORKSPACE, TF_DATA_DIR, a proxy for 127.0.0.1) is left out of it. `warn` is told in one line of
    settings that are ignored. Every method raises TerraformError when Terraform fails.
    """

    def __init__(self, directory: Path, *, environ: Mapping[str, str], warn: Callable[[str], None], binary: Path | None = None) -> None:
        self._directory = directory
        self._binary = binary or find_terraform(environ)
        kept = {
            name: value
            for name, value in environ.items()
            if not name.startswith(("TF_VAR_", "TF_CLI_ARGS")) and name not in ("TF_WORKSPACE", "TF_DATA_DIR", "TF_INPUT", "TF_LOG")
        }
        self._environ = {
            # Reading the provider's schema makes garbage: collecting it less often saves a quarter of the processor time of an apply, and
            # takes 200 MB more. https://go.dev/doc/gc-guide#GOGC
            "GOGC": "400",
            **terraform_environ(kept, directory, warn=warn),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def set_environ(self, more: Mapping[str, str]) -> None:
        """Add variables to the environment of the commands that follow."""
        self._environ.update(more)

    def init(self) -> None:
        """Install modules and providers."""
        lines: list[str] = []
        code = self._run(["init", "-input=false", "-no-color", "-backend=false"], lines.append)
        if code != 0:
            text = "\n".join(lines)
            raise TerraformError(f"terraform init failed:\n{text[max(text.find('Error:'), 0) :].strip()}")

    def apply(self, variables: Mapping[str, Any], on_progress: ApplyProgress | None = None) -> dict[str, Any]:
        """Make everything, and return the outputs."""
        self._write_variables(variables)
        report = _Report(on_progress)
        self._run_json(["apply", "-auto-approve", *self._options()], report)
        return report.outputs

    def plan(self) -> list[Change]:
        """What another apply would change."""
        report = _Report(None)
        self._run_json(["plan", *self._options()], report)
        return report.changes

    def destroy(self, on_progress: ApplyProgress | None = None) -> None:
        """Remove everything that is in the state."""
        self._run_json(["destroy", "-auto-approve", *self._options()], _Report(on_progress))

    def stop(self) -> None:
        """End the command that runs, from another thread; it raises TerraformError there. No other one is started."""
        with self._lock:
            self._stopped = True
            process = self._process
        if process is not None:
            _end(process)

    @staticmethod
    def _options() -> list[str]:
        return ["-json", "-input=false", f"-parallelism={_PARALLELISM}"]

    def _write_variables(self, variables: Mapping[str, Any]) -> None:
        # Not -var: values are JSON, and the process list shows the arguments of every process.
        (self._directory / "local.auto.tfvars.json").write_text(json.dumps(dict(variables), indent=2), encoding="utf-8")

    def _run_json(self, arguments: list[str], report: _Report) -> None:
        code = self._run(arguments, report.read)
        if code != 0 or report.errors:
            what = "\n\n".join(report.errors) or "\n".join(report.other) or f"exit code {code}"
            raise TerraformError(f"terraform {arguments[0]} failed:\n{what}")

    def _run(self, arguments: list[str], on_line: Callable[[str], None]) -> int:
        with self._started(arguments) as process:
            assert process.stdout is not None
            for line in process.stdout:
                on_line(line.rstrip("\n"))
            code = process.wait()
        if self._stopped:
            raise TerraformError(f"terraform {arguments[0]} was stopped")
        return code

    @contextlib.contextmanager
    def _started(self, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self._stopped:
                raise TerraformError("terraform was stopped")
            process = self._process = subprocess.Popen(
                [str(self._binary), *arguments],
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                # A session of its own: Ctrl-C comes to us alone, and its plugins end with it.
                start_new_session=True,
            )
        try:
            yield process
        except BaseException:
            _end(process)
            raise
        finally:
            with self._lock:
                self._process = None
            if process.stdout is not None:
                process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Report:
    """What the lines of `terraform -json` say.

    https://developer.hashicorp.com/terraform/internals/machine-readable-ui
    """

    def __init__(self, on_progress: ApplyProgress | None) -> None:
        self.errors: list[str] = []
        self.changes: list[Change] = []
        self.outputs: dict[str, Any] = {}
        self.other: list[str] = []
        self._on_progress = on_progress
        self._done = self._total = 0

    def read(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            # Terraform crashed, or a warning about the CLI configuration came before JSON was on.
            self.other.append(line)
            return
        handler = getattr(self, f"_on_{message.get('type')}", None)
        if handler is not None:
            handler(message)

    def _on_diagnostic(self, message: dict[str, Any]) -> None:
        diagnostic = message["diagnostic"]
        if diagnostic.get("severity") != "error":
            return
        where = ""
        if diagnostic.get("range"):
            where = f" ({diagnostic['range']['filename']}, line {diagnostic['range']['start']['line']})"
        address = f"{diagnostic['address']}: " if diagnostic.get("address") else ""
        self.errors.append("\n".join(filter(None, [f"{address}{diagnostic['summary']}{where}", diagnostic.get("detail", "")])))

    def _on_planned_change(self, message: dict[str, Any]) -> None:
        change = message["change"]
        self.changes.append(Change(change["resource"]["addr"], change["action"]))

    def _on_change_summary(self, message: dict[str, Any]) -> None:
        changes = message["changes"]
        if changes["operation"] == "plan":
            self._total = changes["add"] + changes["change"] + changes["remove"]

    def _on_apply_complete(self, message: dict[str, Any]) -> None:
        if message["hook"].get("action") == "read":
            # A data source: it is read while the plan is made, when nobody knows yet how many resources there are.
            return
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._total, self._done), message["hook"]["resource"]["addr"])

    def _on_outputs(self, message: dict[str, Any]) -> None:
        self.outputs = {name: output["value"] for name, output in message["outputs"].items() if "value" in output}
