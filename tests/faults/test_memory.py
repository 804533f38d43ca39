"""Out of memory by a real limit: who is killed, what the supervisor says of it, and what of a container that is killed as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from dbt_runner import outcome
from dbt_runner.errors import OUT_OF_MEMORY
from dbt_runner.request import parse_command
from faults.memory import limited
from faults.starts import environment, wait_for
from runner.projects import Supervised

LIMIT = 250 << 20
# Ends by itself far above the limit, so that a limit that does not hold fails the test and not the machine.
GROWS = """
kept = []
for _ in range(60):
    kept.append(b"x" * (10 << 20))
"""


def test_the_kernel_kills_the_worker_and_the_supervisor_says_so(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """Both are in the one group that has the limit, as in a container: the kernel takes the larger one."""
    script = f"node('a')\nwhile not os.path.exists('go'):\n    time.sleep(0.01)\nnode('b')\n{GROWS}node('c')\ndone()\n"
    with limited(LIMIT) as limit, Supervised(tmp_path, script=script) as supervised:
        supervised.wait_for_node("a")
        for pid in (supervised.pid, supervised.worker_pid):
            with limit.procs.open("a") as procs:
                procs.write(f"{pid}\n")
        (tmp_path / "project" / "go").touch()
        ended = supervised.end()
    assert ended.told == ["a", "b"]
    result = outcome.classify(ended.report, [parse_command("build", "commands")], "duckdb")
    assert result.error is OUT_OF_MEMORY
    # Pages of files count for the process, and for the group that read them first.
    assert 150 < ended.report.peak_memory_mib < 1.2 * (LIMIT >> 20)
    assert f"peak memory {ended.report.peak_memory_mib} MiB of {LIMIT >> 20} MiB" in result.message and result.counts == {"success": 2}
    if limit.by == "the kernel":
        assert ended.report.oom_kills == 1 and ended.report.memory_limit_mib == LIMIT >> 20
    figure(f"out of memory: {limit.by} killed the worker at {ended.report.peak_memory_mib} MiB; the supervisor wrote it down")


def test_a_container_that_is_killed_as_a_whole_is_known_by_its_stop_reason(tmp_path: Path, figure: Callable[[str], None]) -> None:
    """It leaves no outcome. The state machine takes the exit code that ECS tells, and goes on with the next size."""
    with limited(LIMIT) as limit, environment(tmp_path) as found:
        (tmp_path / "memory").write_text(str(limit.procs))
        (tmp_path / "go").touch()
        found.start(1)
        wait_for(lambda: not found.statuses()["RUNNING"], "the run has ended")
        record = found.record()
        [killed] = [end for end in found.ended if end.exit_code == 137]
    build = json.loads(record["steps"]["S"])[1]
    assert (record["status"]["S"], build["status"], build["attempts"]) == ("SUCCEEDED", "SUCCEEDED", 2)
    assert [place for word, _, place in found.told() if word == "came"] == ["0", "1", "1"]
    assert killed.stop_code == "EssentialContainerExited"
    figure(f"out of memory: {limit.by} killed the container, which left no outcome; the next size did the rest")


def test_without_the_limit_the_same_worker_ends_well(tmp_path: Path) -> None:
    with Supervised(tmp_path, script=f"{GROWS}done()\n") as supervised:
        ended = supervised.end()
    assert ended.report.finished and ended.report.peak_memory_mib > LIMIT >> 20
