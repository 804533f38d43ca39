"""What holds for all tests."""

from __future__ import annotations

import contextlib
import gc
import shlex
import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from dbt_runner import descendants
from dbt_runner.worker import GC_THRESHOLDS

_SLOW = pytest.StashKey[set[str]]()
_LEFT = pytest.StashKey[list[str]]()
_FIGURE = "figure"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SLOW] = set()
    config.stash[_LEFT] = []
    if _runs_tests(config):
        descendants.adopt_orphans()


def _runs_tests(config: pytest.Config) -> bool:
    """Whether this process does so itself: where pytest-xdist is at work, its workers do."""
    return hasattr(config, "workerinput") or not config.getoption("numprocesses", None)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remembers what the default run leaves out. Where pytest-xdist is at work, only its workers know."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.config.stash[_SLOW].add(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    left: list[str] = session.config.stash[_LEFT]
    if _runs_tests(session.config):
        left += _end_what_is_left()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        left_out: set[str] = session.config.stash[_SLOW]
        output["slow"] = sorted(left_out)
        output["left"] = left
    elif left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _end_what_is_left() -> list[str]:
    """Ends the processes that a test started and left: one that works goes on beside all that runs on this machine later."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {shlex.join(process.cmdline())[:300]}")
    if sys.platform == "linux":
        descendants.end()
    return found


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    node.config.stash[_SLOW].update(output.get("slow", []))
    node.config.stash[_LEFT].extend(output.get("left", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures, and what was left out: a test that nobody runs is none."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    if figures := [text for report in reports for name, text in report.user_properties if name == _FIGURE]:
        terminalreporter.section("figures")
        for text in figures:
            terminalreporter.write_line(text)
    if summary := _attacks(terminalreporter):
        terminalreporter.section("security")
        terminalreporter.write_line(summary)
    if left := config.stash[_LEFT]:
        terminalreporter.section("processes that tests left running, which is a failure", red=True)
        for text in left:
            terminalreporter.write_line(text)
    if left_out := config.stash[_SLOW]:
        second = sum("second_aws/" in node for node in left_out)
        parts = [f"{len(left_out) - second} tests (make test-slow)"] + [f"{second} on the second AWS (make test-second-aws)"] * bool(second)
        terminalreporter.write_line(f"NOT RUN, because they are slow: {', '.join(parts)}", yellow=True, bold=True)


def _attacks(terminalreporter: pytest.TerminalReporter) -> str:
    """Counts the tests with the markers `attack` and `control`; empty when none ran."""
    passed, failed = (
        {kind: sum(kind in report.keywords for report in terminalreporter.getreports(outcome)) for kind in ("attack", "control")}
        for outcome in ("passed", "failed")
    )
    attacks, controls = (passed[kind] + failed[kind] for kind in ("attack", "control"))
    if not attacks + controls:
        return ""
    return f"attacks {attacks}, succeeded {failed['attack']}, controls {passed['control']} of {controls}"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes what a test has measured or counted; the summary shows all of it, in whichever process the test ran."""
    return lambda text: record_property(_FIGURE, text)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that share a fixture of their module run in one process: each other one would make the fixture again."""
    info = getattr(item, "_fixtureinfo", None)
    if info is not None and not item.get_closest_marker("xdist_group"):
        shared = sorted(name for name, found in info.name2fixturedefs.items() if found[-1].scope == "module")
        if shared:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}:{','.join(shared)}"))


def pytest_collection_finish() -> None:
    """What the tests import stays: it is not looked through for garbage again and again, 7 % of their processor time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def pytest_unconfigure() -> None:
    """Or libraries that look for leaks when the process ends find what is frozen."""
    gc.unfreeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest group begins first, and what can go to any worker comes last: with --no-loadscope-reorder, all end at one time.

    Stops when pytest-xdist does not keep groups together: the tests would pass, with an apply for each worker.
    """
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=lambda item: (item.get_closest_marker("stack") is None, item.get_closest_marker("xdist_group") is None))
    if not config.getoption("loadgroup", False):
        return
    loose = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
    if loose:
        raise pytest.UsageError(f"this pytest-xdist does not apply xdist_group (to {loose[0]}, ...): use the versions of the lock")
