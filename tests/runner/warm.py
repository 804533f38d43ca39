"""Processes of dbt that start in a fraction of a second: forks of this one, which has imported dbt already.

They are processes as real as the others, with their own pipes, environment, working directory and signals. Left out are the
interpreter's start, dbt's import, and the parse of the macros that come with dbt, for which dbt has a cache of its own for tests. They
take most of the processor time of a small project's run.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dbt_runner import supervisor

_STANDARD = 3
_MACROS = ("global_project", "duckdb")
# What dbt.parser.macros looks for, which is a part of the cache's key.
_BLOCKS = {"macro", "materialization", "test", "data_test"}
# Classes whose JSON schema dbt makes when it first reads one of them, 0.1 s each.
_SCHEMAS = {
    "dbt.artifacts.resources": ("ModelConfig", "SnapshotConfig", "SourceConfig", "TestConfig"),
    "dbt.contracts.graph.nodes": ("GenericTestNode", "HookNode", "ModelNode", "SeedNode", "SingularTestNode", "SnapshotNode"),
    "dbt.contracts.graph.unparsed": ("UnparsedExposure", "UnparsedGroup", "UnparsedModelUpdate", "UnparsedNodeUpdate", "UnparsedUnitTest"),
    "dbt.contracts.project": ("PackageConfig", "Project", "ProjectFlags"),
}


class _Warm(subprocess.Popen[bytes]):
    """Takes the arguments of Popen, and runs the worker where Popen would execute a program."""

    def __init__(self, argv: list[str], *, env: Mapping[str, str], pass_fds: tuple[int, ...], **options: Any) -> None:
        def run() -> None:
            from dbt_runner import worker

            sys.argv = ["worker", argv[-1]]
            become(env, pass_fds, worker.main)

        super().__init__(argv, env=env, pass_fds=pass_fds, preexec_fn=run, **options)


def invoke(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """dbt's own command line in a fork of this process.

    Args:
        folder: the working directory.
        environment: all of its variables.

    Returns:
        The exit code, and what dbt prints.
    """

    def run() -> None:
        from dbt.cli.main import dbtRunner

        # As dbt.cli.main.cli has it: 1 for a failure of nodes, 2 for an exception.
        answer = dbtRunner().invoke(list(arguments))
        if answer.exception is not None:
            print(answer.exception)
        sys.exit(0 if answer.success else 1 if answer.exception is None else 2)

    warm_up()
    started = functools.partial(become, environment, (), run)
    done = subprocess.run(["dbt"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=started, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def supervised(argv: Sequence[str], *, env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a supervisor for `Supervised`, warm, and so will it start its worker."""

    def run() -> None:
        from runner import projects

        vars(supervisor)["subprocess"] = _Subprocess()
        projects.supervise(argv[-1])

    warm_up()
    return subprocess.Popen(argv, env=env, preexec_fn=functools.partial(become, env, (), run), **options)


class _Subprocess:
    """The module subprocess with another Popen, for the supervisor alone."""

    Popen = _Warm

    def __getattr__(self, name: str) -> Any:
        return getattr(subprocess, name)


@pytest.fixture(scope="module")
def warm_worker() -> Iterator[None]:
    """Attempts in this process start their workers warm, as long as the tests of one module run."""
    warm_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "subprocess", _Subprocess())
        yield


@functools.cache
def warm_up() -> None:
    """Has this process import dbt and remember the macros that come with it, once."""
    for name in ("dbt_runner.worker", "dbt_runner.dbt_hooks", "dbt.cli.main", "dbt.adapters.duckdb", "agate", "sqlparse"):
        importlib.import_module(name)
    import dbt.include
    import dbt_common.tests
    from dbt.clients.jinja_static import statically_extract_macro_calls
    from dbt_common.clients import jinja

    folders = [Path(parent) / name / "macros" for parent in dbt.include.__path__ for name in _MACROS]
    dbt_common.tests.enable_test_caching()
    for path in (path for folder in folders for path in folder.rglob("*.sql")):
        for block in jinja.extract_toplevel_blocks(path.read_text(), allowed_blocks=_BLOCKS, collect_raw_data=False):
            jinja.parse(block.full_block)
            statically_extract_macro_calls(block.full_block, {})
    for module, names in _SCHEMAS.items():
        for name in names:
            getattr(importlib.import_module(module), name).json_schema()
    # This process has other tests, too.
    dbt_common.tests._TEST_CACHING_ENABLED = False


def become(environment: Mapping[str, str], keep: tuple[int, ...], work: Callable[[], None]) -> NoReturn:
    """Makes a forked process a fresh one, as far as a program can tell, runs `work` in it and ends it.

    Args:
        environment: all of its variables.
        keep: open files other than the standard ones; all others are closed, the one among them by which Popen waits for the program.
    """
    code = 1
    try:
        import dbt_common.tests

        atexit._clear()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        before = _STANDARD - 1
        for fd in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
            os.closerange(before + 1, fd)
            before = fd
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in enumerate("rww"))
        os.environ.clear()
        os.environ.update(environment)
        dbt_common.tests.enable_test_caching()
        work()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
