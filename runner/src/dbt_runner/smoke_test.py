"""The image's own smoke test: run in a container of the image, it says whether the image can do its work.

    docker run --rm -i --read-only --tmpfs /tmp --entrypoint python3 IMAGE -m dbt_runner.smoke_test < project.tar

Standard input is a dbt project as a tar archive, which is built on DuckDB; `make image-check` sends the sample project. It asks nothing
of AWS and of the network. Each check is one line on standard output; the exit code is 1 when one of them failed.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from dbt_runner import __version__, identity, profile
from dbt_runner.config import Warehouse
from dbt_runner.events import StepReport, WorkerSpec
from dbt_runner.interrupts import Interrupts
from dbt_runner.local.image_process import HOME, TASK_ENTRY_POINT, WORKING_DIRECTORY
from dbt_runner.local.lambda_sandbox import Function, LambdaSandbox
from dbt_runner.logs import JsonLog
from dbt_runner.supervisor import Supervisor

_COMPILERS = ("as", "c++", "cargo", "cc", "clang", "g++", "gcc", "ld", "make", "rustc")
_ADAPTERS = ("athena", "bigquery", "duckdb", "postgres", "redshift", "snowflake")
_TARGET = "smoke"
_SECONDS = 240.0


class CheckFailed(Exception):
    """The image is not what it promises; the message says in what."""


@dataclass(frozen=True)
class Check:
    """One line of the smoke test.

    Attributes:
        run: does it and returns what to report.
    """

    name: str
    run: Callable[[], str]


def user() -> str:
    """Nothing runs as root, nor in root's group."""
    groups = {os.getgid(), os.getegid(), *os.getgroups()}
    if os.geteuid() == 0 or 0 in groups:
        raise CheckFailed(f"user {os.geteuid()} with groups {sorted(groups)} is root or has root's group")
    return f"{os.geteuid()}:{os.getegid()}"


def file_system() -> str:
    """The root file system is read-only, /tmp is not."""
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        file.write(b"x")
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        raise CheckFailed("the root file system is not read-only: run the container with a read-only root")
    return "root is read-only, /tmp is not"


def nothing_to_change() -> str:
    """Where the root file system is not read-only, as on Lambda's own, nothing of the image is this user's to change either."""
    changeable = [path for path in ("/", "/etc", "/opt", "/usr", sys.prefix) if _owned_or_writable(Path(path))]
    changeable += [str(path) for path in Path(sys.prefix).rglob("*") if not path.is_symlink() and _owned_or_writable(path)]
    if changeable:
        raise CheckFailed(f"{len(changeable)} files could be changed, {changeable[0]} for one")
    return sys.prefix


def _owned_or_writable(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.geteuid() or status.st_gid == os.getegid() or bool(status.st_mode & 0o002)


def isolated() -> str:
    """The runner starts where no run can write, without a home, and imports nothing from /tmp."""
    if Path.cwd() != Path(WORKING_DIRECTORY):
        raise CheckFailed(f"the working directory is {Path.cwd()}, not {WORKING_DIRECTORY}")
    for whose, home in {"HOME": os.environ.get("HOME"), "the user's home": pwd.getpwuid(os.geteuid()).pw_dir}.items():
        if home != HOME or Path(home).exists():
            raise CheckFailed(f"{whose} is {home}, not a folder that is not there ({HOME})")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        for name in ("click", "dbt_runner", "sitecustomize"):
            Path(folder, f"{name}.py").write_text("raise SystemExit('imported from /tmp')")
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run([*TASK_ENTRY_POINT, "--version"], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0 or __version__ not in done.stdout:
        raise CheckFailed(f"the entry point ended with {done.returncode}: {done.stdout}{done.stderr}")
    return " ".join(TASK_ENTRY_POINT)


def no_tools() -> str:
    """No compiler to build what was not reviewed, and no installer beside the runner."""
    found = [tool for tool in _COMPILERS if shutil.which(tool)]
    if found or (Path(sys.prefix) / "bin" / "pip").exists():
        raise CheckFailed(f"the image holds {', '.join(found or ['pip'])}")
    return "no compiler, no pip beside the runner"


def compiled() -> str:
    """Each module has its compiled file, which is not held against the source's time (PEP 552)."""
    sources = list(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    missing = [source for source in sources if not _is_unchecked(source)]
    # Some packages ship templates or tests that are no Python of this version.
    if len(missing) > len(sources) // 100:
        raise CheckFailed(f"{len(missing)} of {len(sources)} modules are not compiled as they should, {missing[0]} for one")
    # The standard library's, by those that any start needs.
    for module in ("json", "asyncio", "logging"):
        if not _is_unchecked(Path(importlib.import_module(module).__file__ or "")):
            raise CheckFailed(f"{module} of the standard library is not compiled")
    return f"{len(sources) - len(missing)} modules"


def _is_unchecked(source: Path) -> bool:
    cached = Path(importlib.util.cache_from_source(str(source)))
    return cached.exists() and cached.open("rb").read(8)[4:8] == b"\x01\x00\x00\x00"


def adapters() -> str:
    """Each adapter that is installed can be imported."""
    found = {}
    for adapter in _ADAPTERS:
        try:
            found[adapter] = metadata.version(f"dbt-{adapter}")
        except metadata.PackageNotFoundError:
            continue
        importlib.import_module(f"dbt.adapters.{adapter}")
    if not found:
        raise CheckFailed("no adapter is installed")
    return ", ".join(f"{adapter} {version}" for adapter, version in found.items())


def lambda_entry() -> str:
    """AWS's runtime client with our handler, as Lambda starts it, answers an invocation: here, that the event is none of ours."""
    # Never used: an event that is refused reaches no service.
    environ = {"DBT_RUNNER_TABLE": "t", "DBT_RUNNER_BUCKET": "b", "DBT_RUNNER_ENVIRONMENT": _TARGET, "AWS_DEFAULT_REGION": "eu-central-1"}
    lines: list[str] = []
    sandbox = LambdaSandbox(Function("arn:aws:lambda:eu-central-1:000000000000:function:x", "x", "1", 60.0, 1024, environ), lines.append)
    try:
        answer = sandbox.invoke(b"{}")
    finally:
        sandbox.close()
    error = json.loads(answer.payload)
    if not answer.failed or error.get("errorType") != "TypedError":
        raise CheckFailed(f"the handler answered {answer.payload.decode()}\n" + "\n".join(lines))
    return f"awslambdaric {metadata.version('awslambdaric')}"


class Project:
    """A dbt project on a DuckDB file, run as in a task: by a supervisor with a worker.

    Args:
        archive: the project as a tar archive, dbt_project.yml at its top.
        folder: for everything that is written.
    """

    def __init__(self, archive: bytes, folder: Path) -> None:
        self._archive = archive
        self._project = folder / "project"
        self._work = folder / "work"
        self._warehouse = Warehouse("duckdb", {"path": str(folder / "warehouse.duckdb")}, {})

    def checks(self) -> list[Check]:
        return [Check("select 1 on DuckDB", self._probe), Check("build of the project", self._build)]

    def _probe(self) -> str:
        report = self._run(replace(self._spec(), probe=True))
        return f"in {sum(command.seconds for command in report.commands):.1f} s"

    def _build(self) -> str:
        with tarfile.open(fileobj=io.BytesIO(self._archive)) as tar:
            tar.extractall(self._project, filter="data")
        report = self._run(replace(self._spec(), commands=[["build"]], executing=[True]))
        if not report.nodes:
            raise CheckFailed("nothing was built")
        return f"{len(report.nodes)} nodes, {report.peak_memory_mib} MiB"

    def _run(self, spec: WorkerSpec) -> StepReport:
        output = io.StringIO()
        environment = identity.worker_environment(dict(os.environ), self._work)
        interrupts = Interrupts(None)
        with interrupts:
            report = Supervisor(environment, JsonLog({}, output), interrupts, lambda _: None, _SECONDS).run(spec)
        if report.returncode != 0 or not report.finished or not all(command.success for command in report.commands):
            raise CheckFailed(f"the worker ended with {report.returncode}\n{output.getvalue()}")
        return report

    def _spec(self) -> WorkerSpec:
        profiles, target = self._work / "profiles", self._work / "target"
        for folder in (target, self._project):
            folder.mkdir(parents=True, exist_ok=True)
        profile.of_environment(self._warehouse, _TARGET).write(profiles)
        places = {"--project-dir": self._project, "--profiles-dir": profiles, "--target-path": target, "--log-path": self._work}
        arguments = [word for option, path in places.items() for word in (option, str(path))]
        return WorkerSpec(
            events_fd=-1,
            commands=[],
            executing=[],
            arguments=[*arguments, "--profile", profile.PROFILE, "--target", _TARGET],
            project=str(self._project),
            profiles=str(profiles),
            profile=profile.PROFILE,
            target=_TARGET,
            artifacts=str(target),
            log_file=str(target / "dbt.log"),
        )


def main() -> int:
    """Runs every check and returns the exit code."""
    checks = [
        Check("version", lambda: f"dbt-runner {__version__}, dbt-core {metadata.version('dbt-core')}, Python {sys.version.split()[0]}"),
        Check("not root", user),
        Check("read-only root", file_system),
        Check("nothing to change", nothing_to_change),
        Check("isolated", isolated),
        Check("no tools", no_tools),
        Check("compiled", compiled),
        Check("adapters", adapters),
        Check("Lambda", lambda_entry),
    ]
    archive = sys.stdin.buffer.read()
    with tempfile.TemporaryDirectory() as folder:
        try:
            metadata.version("dbt-duckdb")
            checks += Project(archive, Path(folder)).checks()
        except metadata.PackageNotFoundError:
            print("NOT CHECKED: no query and no build, because this image has no DuckDB", flush=True)
        results = [_passes(check) for check in checks]
    return 0 if all(results) else 1


def _passes(check: Check) -> bool:
    try:
        print(f"ok    {check.name}: {check.run()}", flush=True)
    except Exception as exc:
        said = str(exc) if isinstance(exc, CheckFailed) else traceback.format_exc()
        print(f"FAIL  {check.name}: {said}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
