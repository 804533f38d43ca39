"""The supervisor with real processes and real signals: whatever becomes of the worker, the report says it and keeps its nodes.

Where dbt does not matter, a script takes the worker's place (see projects.Supervised); it speaks the same protocol by its own code.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dbt_runner import events, outcome
from dbt_runner.errors import INTERRUPTED, RUNNER_ERROR, TIMEOUT, ErrorKind
from dbt_runner.events import NodeResult
from dbt_runner.request import parse_command
from dbt_runner.wire import decode, encode
from processes import is_running
from runner import projects
from runner.projects import Ended, Supervised, wait_until

Supervise = Callable[..., Supervised]

BUILD = [parse_command("build", "commands")]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts supervisors with the dbt commands or the script that it is given, and ends what is left of them."""
    with contextlib.ExitStack() as stack:
        yield lambda *commands, **options: stack.enter_context(Supervised(tmp_path, commands, **options))


def error(ended: Ended) -> ErrorKind | None:
    return outcome.classify(ended.report, BUILD, "duckdb").error


# --- real dbt --------------------------------------------------------------------------------------------------------


def test_sigterm_cancels_the_running_query_and_keeps_what_had_finished(tmp_path: Path, supervise: Supervise) -> None:
    projects.write(tmp_path / "project", projects.SLEEPY)
    running = "select pid from pg_stat_activity where state = 'active' and query like '%pg_sleep%' and pid <> pg_backend_pid()"
    with projects.postgres() as warehouse:
        supervised = supervise("build", warehouse=warehouse)
        supervised.wait_for_node("model.tiny.quick")
        wait_until(lambda: bool(projects.query(warehouse, running)))
        supervised.signal(signal.SIGTERM)
        ended = supervised.end()
        wait_until(lambda: not projects.query(warehouse, running))
    assert ended.report.interrupted and not ended.report.killed
    assert ended.report.finished, "dbt ended by itself"
    assert ended.statuses["model.tiny.quick"] == "success"
    assert ended.statuses.get("model.tiny.slow") != "success"
    assert error(ended) is INTERRUPTED


def test_sigterm_ends_a_step_on_duckdb_even_where_its_query_goes_on(tmp_path: Path, supervise: Supervise) -> None:
    """DuckDB forgets an interrupt that comes just before the query begins; then the grace period ends it."""
    projects.write(tmp_path / "project", projects.SLOW)
    supervised = supervise("build", grace_seconds=3.0)
    supervised.wait_for_node("model.tiny.quick")
    supervised.signal(signal.SIGTERM)
    ended = supervised.end()
    assert ended.report.interrupted
    assert ended.statuses["model.tiny.quick"] == "success"
    assert ended.statuses.get("model.tiny.slow") != "success"
    assert error(ended) is INTERRUPTED


def test_a_killed_worker_is_an_interruption_without_evidence_of_memory_and_its_nodes_are_kept(tmp_path: Path, supervise: Supervise) -> None:
    projects.write(tmp_path / "project", projects.SLOW)
    supervised = supervise("build")
    supervised.wait_for_node("model.tiny.quick")
    os.kill(supervised.worker_pid, signal.SIGKILL)
    ended = supervised.end()
    assert ended.report.returncode == -signal.SIGKILL
    assert ended.statuses == {"model.tiny.quick": "success"}
    assert 0 < ended.report.peak_memory_mib < (ended.report.memory_limit_mib or 0)
    assert error(ended) is INTERRUPTED


def test_a_worker_does_not_outlive_a_supervisor_that_was_killed(tmp_path: Path, supervise: Supervise) -> None:
    projects.write(tmp_path / "project", projects.SLOW)
    supervised = supervise("build")
    supervised.wait_for_node("model.tiny.quick")
    worker = supervised.worker_pid
    assert is_running(worker)
    supervised.signal(signal.SIGKILL)
    wait_until(lambda: not is_running(worker))


def test_a_worker_whose_supervisor_died_before_it_could_be_bound_to_it_runs_nothing(tmp_path: Path) -> None:
    """Started here, it finds another parent than the one that it was to be bound to; what it was to do is there."""
    given = replace(projects.spec(tmp_path, ["build"]), events_fd=1)
    command = [sys.executable, "-P", "-m", "dbt_runner.worker", str(os.getppid())]
    done = subprocess.run(command, input=given.to_json(), cwd=given.project, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"the supervisor (process {os.getppid()}) is gone: nothing was executed\n"
    assert not Path(given.log_file).exists()


# --- scripted workers ------------------------------------------------------------------------------------------------


def test_a_worker_that_ignores_the_interrupt_is_killed_after_its_grace(supervise: Supervise) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nnode('a')\ntime.sleep(600)\n"
    supervised = supervise(script=script, grace_seconds=0.3)
    supervised.wait_for_node("a")
    supervised.signal(signal.SIGTERM)
    ended = supervised.end()
    assert ended.report.interrupted and ended.report.killed
    assert ended.report.returncode == -signal.SIGKILL
    assert ended.statuses == {"a": "success"}
    result = outcome.classify(ended.report, BUILD, "duckdb")
    assert result.error is INTERRUPTED and "killed after its grace period" in result.why


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_is_interrupted_only_once(tmp_path: Path, supervise: Supervise, number: signal.Signals) -> None:
    script = """
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append("SIGINT"))
signal.signal(signal.SIGTERM, lambda *_: seen.append("SIGTERM"))
node("ready")
while not seen:
    time.sleep(0.01)
node("interrupted")
while not os.path.exists("go_on"):
    time.sleep(0.01)
node(" ".join(seen).replace(" ", "+"))
done(success=False)
"""
    supervised = supervise(script=script)
    supervised.wait_for_node("ready")
    supervised.signal(number)
    supervised.wait_for_node("interrupted")
    supervised.signal(number)
    supervised.signal(signal.SIGTERM)
    (tmp_path / "project" / "go_on").touch()
    assert supervised.end().told == ["ready", "interrupted", "SIGINT"]


def test_a_worker_that_runs_out_of_its_time_is_stopped(supervise: Supervise) -> None:
    script = "node('a')\ntime.sleep(600)\n"
    ended = supervise(script=script, timeout_seconds=1.0, grace_seconds=5.0).end()
    assert ended.report.timed_out and not ended.report.interrupted
    assert ended.report.returncode != 0
    assert error(ended) is TIMEOUT


def test_a_success_wins_over_a_late_sigterm(supervise: Supervise) -> None:
    script = "signal.signal(signal.SIGINT, lambda *_: sys.exit(0))\nnode('a')\ndone()\nlog('done')\ntime.sleep(600)\n"
    supervised = supervise(script=script)
    supervised.wait_for_log('"done"')
    supervised.signal(signal.SIGTERM)
    ended = supervised.end()
    assert ended.report.interrupted and ended.report.finished
    assert error(ended) is None


def test_half_a_line_and_what_is_no_message_are_ignored(supervise: Supervise) -> None:
    script = """
write("this is no message\\n")
write('{"type": "Unknown"}\\n[]\\n"NodeResult"\\n{"type": "NodeResult", "no": "such field"}\\n{"type": "CommandResult"}\\n')
node("a")
write(json.dumps({"type": "NodeResult", "command": 0, "unique_id": "b"})[:-7])
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = supervise(script=script).end()
    assert ended.statuses == {"a": "success"}
    assert not ended.report.finished


def test_a_message_that_arrives_in_pieces_is_put_together(supervise: Supervise) -> None:
    script = """
start()
node = {"type": "NodeResult", "command": 0, "unique_id": "a", "resource_type": "model", "name": "a", "status": "warn"}
line = json.dumps({**node, "message": "x" * 300_000 + "y"})
for at in range(0, len(line), 50_000):
    write(line[at : at + 50_000])
write("\\n")
done()
"""
    ended = supervise(script=script).end()
    assert ended.statuses == {"a": "warn"}
    message = ended.report.nodes["a"].message
    assert (len(message), message[0], message[-1]) == (events.MAX_MESSAGE, "x", "y")
    assert error(ended) is None


def test_noise_on_stdout_and_stderr_becomes_lines_of_the_log(supervise: Supervise) -> None:
    script = r"""
print("to stdout")
print('{"type": "Finished"}')
sys.stdout.flush()
os.write(2, b"to stderr \xff\n\n  \n" + b"long " * 50_000 + b"\nwithout a line break")
node("a")
"""
    ended = supervise(script=script).end()
    told = {(line["level"], line["message"]) for line in ended.log}
    assert {("info", "to stdout"), ("warning", "to stderr \ufffd"), ("warning", "without a line break")} <= told
    whole = "".join(line.get("continued", "") for line in ended.log)
    assert json.loads(whole)["message"] == ("long " * 50_000).rstrip(), "a long line is continued on further ones"
    assert "" not in ended.messages
    assert ended.statuses == {"a": "success"}
    assert not ended.report.finished, "what is printed is no message, whatever it looks like"


def test_a_grandchild_that_holds_stdout_open_does_not_hold_up_the_supervisor(supervise: Supervise) -> None:
    script = "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\nnode('a')\ndone()\n"
    supervised = supervise(script=script)
    ended = supervised.end()
    grandchild = next(int(message) for message in ended.messages if message.isdigit())
    try:
        assert is_running(grandchild), "it has to outlive the supervisor, or this shows nothing"
        assert error(ended) is None
        assert ended.statuses == {"a": "success"}
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_worker_that_fails_by_itself_is_an_error_of_the_runner(supervise: Supervise) -> None:
    ended = supervise(script="node('a')\nraise RuntimeError('this is a bug')\n").end()
    assert ended.report.returncode == 1
    assert error(ended) is RUNNER_ERROR
    assert any("this is a bug" in message for message in ended.messages)


def test_the_peak_memory_is_the_workers(supervise: Supervise) -> None:
    small = supervise(script="done()\n").end()
    large = supervise(script="ballast = b'x' * (300 << 20)\ndone()\n").end()
    assert 0 < small.report.peak_memory_mib < 200
    assert 300 < large.report.peak_memory_mib < 500


def test_the_supervisor_never_imports_dbt(supervise: Supervise) -> None:
    ended = supervise(script="done()\n").end()
    assert "dbt_runner.supervisor" in ended.modules
    assert not [name for name in ended.modules if name.partition(".")[0] in ("dbt", "dbt_common", "duckdb", "jinja2", "boto3")]


def test_the_containers_entry_point_does_not_import_dbt() -> None:
    code = "import json, sys; import dbt_runner.cli, dbt_runner.attempt, dbt_runner.cli.container; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert "dbt_runner.attempt" in modules
    assert not [name for name in modules if name.partition(".")[0] in ("dbt", "dbt_common", "duckdb")]


def test_a_message_survives_the_pipe() -> None:
    node = NodeResult(0, "model.a", "model", "a", "success", message="two\nlines \u2713", rows=3, seconds=0.25)
    line = encode(node)
    assert "\n" not in line
    assert decode(line) == node


# --- as process 1 ------------------------------------------------------------------------------------------------------

INIT = """
import ctypes, os, pathlib, subprocess, time
from dbt_runner.supervisor import reap_orphans

def fields(path):
    # Other tests' processes end at any moment.
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "?", "0"

def zombies():
    states = map(fields, pathlib.Path("/proc").glob("[0-9]*/stat"))
    return sum(state == "Z" and int(parent) == own for state, parent, *_ in states)

def wait_for(number):
    end = time.monotonic() + 20
    while zombies() != number and time.monotonic() < end:
        time.sleep(0.01)
    assert zombies() == number, zombies()

own = os.getpid()
# Becomes what process 1 is: the one that inherits orphans.
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
worker = subprocess.Popen(["sleep", "60"])
for _ in range(3):
    subprocess.run(["sh", "-c", "(exit 3) & (exit 4) &"], check=True)
wait_for(6)
reap_orphans(worker.pid)
wait_for(0)
assert worker.poll() is None
worker.kill()
wait_for(1)
reap_orphans(worker.pid)
wait_for(1)
assert worker.wait() == -9
reap_orphans(worker.pid)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process that is not the first inherit orphans")
def test_process_1_takes_the_status_of_orphans_and_leaves_the_workers() -> None:
    done = subprocess.run([sys.executable, "-c", INIT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
