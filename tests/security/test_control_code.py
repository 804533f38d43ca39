"""A worker plants code and settings where the process with the control credentials could look for them. None is ever opened.

The folder that a run can write to is full of lures when that process starts: on Lambda after a worker has killed it, and in a task of
ECS from the beginning, which is more than a worker can do. A lure that is imported leaves a mark, and then hands on the module whose
name it took, so that one start shows all of them. inotify tells of a file that is only read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from botocore.loaders import Loader

from dbt_runner.local.image_process import HOME, TASK_ENTRY_POINT, WORKING_DIRECTORY, on_this_machine
from runner.attempts import RUN_KEY
from runner.sandboxes import invoke
from security.opened import opened
from security.unprivileged import command
from security.worlds import AuditStore, Hostile, audit_store, hostile

__all__ = ["audit_store"]

_MODULE = """
import importlib, os, sys, types
open(os.path.join(os.environ.get("MARKS", MARKS), __name__ + ".py"), "w").close()
here, path = os.path.dirname(os.path.abspath(__file__)), sys.path[:]
sys.path[:] = [entry for entry in path if os.path.abspath(entry or ".") != here]
del sys.modules[__name__]
try:
    sys.modules[__name__] = importlib.import_module(__name__)
except ImportError:
    sys.modules[__name__] = types.ModuleType(__name__)
finally:
    sys.path[:] = path
"""
_SITE = f".local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
# What awslambdaric, the handler, the command line and their libraries import by name, and what Python itself looks for.
_MODULES = (
    *(
        "_strptime",
        "argparse",
        "asyncio",
        "calendar",
        "concurrent",
        "copyreg",
        "decimal",
        "email",
        "gzip",
        "http",
        "html",
        "inspect",
        "json",
    ),
    *("logging", "platform", "queue", "random", "resource", "secrets", "selectors", "shutil", "socket", "ssl", "subprocess", "tarfile"),
    *("tempfile", "threading", "typing", "urllib", "uuid", "xml", "zipfile", "awslambdaric", "boto3", "botocore", "certifi", "click"),
    *("dateutil", "dbt_runner", "jmespath", "jsonschema", "openlineage", "requests", "rich", "s3transfer", "simplejson", "six"),
    *("snapshot_restore_py", "sitecustomize", "urllib3", "usercustomize", "yaml"),
)
_CREDENTIALS = f"[default]\ncredential_process = {sys.executable} -c \"open('MARKS/credential_process', 'w')\"\n"
_SETTINGS: Mapping[str, str] = {
    ".aws/config": _CREDENTIALS,
    ".aws/credentials": _CREDENTIALS,
    # What botocore has itself, so that a process that reads them goes on to the others.
    ".aws/models/dynamodb/2012-08-10/service-2.json": json.dumps(Loader().load_service_model("dynamodb", "service-2")),
    ".aws/models/endpoints.json": json.dumps(Loader().load_data("endpoints")),
    ".aws/models/_retry.json": json.dumps(Loader().load_data("_retry")),
    ".aws/sso/cache/token.json": "{}",
    ".boto": "[Credentials]\naws_access_key_id = x\naws_secret_access_key = y\n",
    ".netrc": "machine 127.0.0.1 login x password y\n",
    "_netrc": "machine 127.0.0.1 login x password y\n",
    "openlineage.yml": "transport: {type: console}\n",
    ".openlineage/openlineage.yml": "transport: {type: console}\n",
    ".env": "AWS_ENDPOINT_URL=http://127.0.0.1:1\n",
    ".pythonrc.py": "raise SystemExit\n",
    ".config/pip/pip.conf": "[global]\n",
    "pip.conf": "[global]\n",
    "pyvenv.cfg": "home = /nowhere\n",
    "setup.cfg": "[metadata]\n",
    "pyproject.toml": "[project]\n",
    "openssl.cnf": "openssl_conf = x\n",
    "cacert.pem": "",
    f"{_SITE}/lure.pth": "import os; open(os.path.join(MARKS, 'lure.pth'), 'w')\n",
    "lure.pth": "import os; open(os.path.join(MARKS, 'lure.pth'), 'w')\n",
}
_IN_HOME = {f"{_SITE}/{name}.py" for name in ("usercustomize", "sitecustomize")}
_LURES = (*(f"{name}.py" for name in _MODULES), *sorted(_IN_HOME), *_SETTINGS)

# What the same lures do to the process as it was started before: by -m in the folder, which was its home as well. Not all are looked for
# there: a virtual environment has no user's packages.
_OPENED_ON_LAMBDA = ("botocore.py", "concurrent.py", "dbt_runner.py", "decimal.py", "email.py", "json.py", "logging.py", "ssl.py")
_OPENED_IN_TASK = (
    *("click.py", "boto3.py", "asyncio.py", "yaml.py", "tempfile.py", "dbt_runner.py", ".aws/config", ".aws/credentials"),
    *(".aws/models/endpoints.json", "openlineage.yml"),
)
# The check within the process is taken out as well.
_UNGUARDED = "from dbt_runner import isolation\nisolation.require = lambda environment: None\n"


def lures(folder: Path, marks: Path, but: str = "") -> str:
    """Code of a worker that plants all of them but one."""
    module = _MODULE.replace(", MARKS)", f", {str(marks)!r})")
    files = {name: module if name.endswith(".py") and name != ".pythonrc.py" else "" for name in _LURES if name != but}
    files |= {name: text.replace("MARKS", str(marks) if "credential" in text else repr(str(marks))) for name, text in _SETTINGS.items()}
    return f"""
import pathlib
for name, text in {files!r}.items():
    path = pathlib.Path({str(folder)!r}, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
"""


def restarted(world: Hostile, before: bool = False) -> set[str]:
    """The lures that were opened or imported by a sandbox's process that follows one whose worker planted them and killed it."""
    sandbox = world.unprivileged()
    if before:
        variables = {**sandbox.function.environ, "HOME": str(sandbox.folder), "PYTHONPATH": f"{world.folder}:{world.worker['PYTHONPATH']}"}
        (world.folder / "unguarded.py").write_text(f"{_UNGUARDED}from dbt_runner.lambda_handler import handler\n")
        sandbox.function = replace(
            sandbox.function,
            environ=variables,
            command=(sys.executable, "-m", "awslambdaric", "unguarded.handler"),
            working_directory=str(sandbox.folder),
        )
    # It would be the program itself.
    but = "awslambdaric.py" if before else ""
    world.tell(f"{lures(sandbox.folder, world.marks, but)}\nos.kill(os.getppid(), {int(signal.SIGKILL)})\nos._exit(0)\n")
    assert invoke(sandbox)["errorType"] == "Runtime.ExitError", "the worker has not killed it"
    with opened() as watched:
        watched.watch((name, sandbox.folder / name) for name in _LURES if name != but)
        world.tell("done()\n")
        answer = invoke(sandbox)
        found = watched.names()
    if not before:
        assert answer == {"exit_code": 0, "error": None}, world.lines[-10:]
    marks = {path.name for path in world.marks.iterdir()}
    for path in world.marks.iterdir():
        path.unlink()
    return found | marks


def in_a_task(world: Hostile, folder: Path, argv: list[str], home: str, cwd: str) -> set[str]:
    """The lures that a task's process opens, in whose temporary folder they lie from the start."""
    exec(lures(folder, world.marks), {})
    world.tell("node('model.tiny.orders')\ndone()\n")
    environ = {
        **world.environ,
        **world.worker,
        "PATH": os.environ["PATH"],
        "HOME": home,
        "TMPDIR": str(folder),
        "OPENLINEAGE_URL": "http://127.0.0.1:1",
        "DBT_RUNNER_RUN_KEY": RUN_KEY,
        "DBT_RUNNER_STEP": "1",
        "DBT_RUNNER_ATTEMPT": "1",
    }
    with opened() as watched:
        watched.watch((name, folder / name) for name in _LURES)
        done = subprocess.run(command(argv), env=environ, cwd=cwd, capture_output=True, text=True, check=False)
        found = watched.names()
    if home == HOME:
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return found | {path.name for path in world.marks.iterdir()}


@pytest.fixture(scope="module")
def on_lambda(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with hostile(audit_store, tmp_path_factory.mktemp("lambda")) as world:
        return restarted(world)


@pytest.fixture(scope="module")
def on_lambda_before(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with hostile(audit_store, tmp_path_factory.mktemp("before")) as world:
        return restarted(world, before=True)


@pytest.fixture(scope="module")
def in_task(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with hostile(audit_store, tmp_path_factory.mktemp("task")) as world:
        argv = on_this_machine([*TASK_ENTRY_POINT, "step"])
        return in_a_task(world, tmp_path_factory.mktemp("tmp"), argv, HOME, WORKING_DIRECTORY)


@pytest.fixture(scope="module")
def in_task_before(audit_store: AuditStore, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    with hostile(audit_store, tmp_path_factory.mktemp("before")) as world:
        (world.folder / "unguarded.py").write_text(f"{_UNGUARDED}from dbt_runner.cli import main\nmain()\n")
        folder = tmp_path_factory.mktemp("tmp")
        # As `python -m` in that folder: the script's own is not the first that is looked in.
        code = f"import sys; sys.path.insert(0, {str(folder)!r}); exec(open({str(world.folder / 'unguarded.py')!r}).read())"
        return in_a_task(world, folder, [sys.executable, "-c", code, "step"], str(folder), str(folder))


@pytest.mark.attack("control code")
@pytest.mark.parametrize("lure", _LURES)
def test_nothing_that_a_run_left_is_opened_by_a_function_that_starts_again(lure: str, on_lambda: set[str]) -> None:
    assert lure not in on_lambda


@pytest.mark.attack("control code")
@pytest.mark.parametrize("lure", _LURES)
def test_nothing_in_its_temporary_folder_is_opened_by_a_task(lure: str, in_task: set[str]) -> None:
    assert lure not in in_task


@pytest.mark.control("control code")
@pytest.mark.parametrize("lure", _OPENED_ON_LAMBDA)
def test_control_a_function_that_starts_in_the_folder_opens_it(lure: str, on_lambda_before: set[str]) -> None:
    assert lure in on_lambda_before, on_lambda_before


@pytest.mark.control("control code")
@pytest.mark.parametrize("lure", _OPENED_IN_TASK)
def test_control_a_task_that_starts_in_the_folder_opens_it(lure: str, in_task_before: set[str]) -> None:
    assert lure in in_task_before, in_task_before
