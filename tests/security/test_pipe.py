"""The pipe is an untrusted input: whatever a worker says or leaves, an outcome is written, within its limits, and claims nothing unseen.

Real supervisors, real processes and real files; a script takes the worker's place, because the worker is the attacker here.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import audit, events, intake, outcome, wire
from dbt_runner.errors import ERRORS, INTERRUPTED, TIMEOUT
from dbt_runner.events import CommandResult, LogLine, NodeResult, Secret
from dbt_runner.intake import Intake
from dbt_runner.lines import Lines
from dbt_runner.request import AttemptKey, parse_command
from dbt_runner.store import Item, Store
from dbt_runner.store.attribute_values import marshal
from runner import projects
from runner.attempts import Run, publish
from runner.conftest import audit_store, environment, no_outside_settings, store  # noqa: F401  # fixtures
from runner.projects import Supervised
from security.fuzzing import bounded

PAYLOAD_BYTES = 262_144
BUILD = [parse_command("build", "commands")]
KEY = AttemptKey("prod", "r-1", 1, "build", 1)


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:  # noqa: F811
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    publish(store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    return Run(store, environment)


def attack(run: Run, tmp_path: Path, script: str) -> Item:
    """The outcome of an attempt with this worker; every limit holds of it."""
    run.environment.update(projects.scripted(tmp_path / "scripted", script))
    code = run.attempt()
    item = run.outcome()
    assert item["exit_code"] == code
    assert code == 0 if "error" not in item else ERRORS[item["error"]].exit_code == code
    document = json.dumps({"Item": marshal(item)}, allow_nan=False, ensure_ascii=False).encode()
    assert len(document) < PAYLOAD_BYTES
    return item


# --- what a worker says ----------------------------------------------------------------------------------------------------

NODE: Mapping[str, Any] = {"command": 0, "unique_id": "model.a", "resource_type": "model", "name": "a", "status": "success"}


def _node(**changed: object) -> str:
    return json.dumps({"type": "NodeResult", **NODE, **changed})


FAILURE: Mapping[str, Any] = {"type": "E", "bases": ["E"], "message": "", "codes": {}, "causes": []}

REFUSED: Mapping[str, str] = {
    "NaN seconds": _node(seconds=float("nan")),
    "infinite seconds": _node(seconds=float("inf")),
    "seconds that overflow to infinity": _node().replace('"success"', '"success", "seconds": 1e999'),
    "negative seconds": _node(seconds=-1),
    "seconds beyond DynamoDB's range": _node(seconds=1e300),
    "seconds as a truth value": _node(seconds=True),
    "a dict as a status": _node(status={"a": 1}),
    "a list as a status": _node(status=["success"]),
    "no status": _node(status=None),
    "no name of a node": _node(unique_id=""),
    "a name that is no text": _node(unique_id=7),
    "a name of 200,000 characters": _node(unique_id="x" * 200_000),
    "a name that has no room in the table": _node(unique_id="\U0001f9e8" * 90_000),
    "rows of 5,000 digits": _node().replace('"success"', f'"success", "rows": {"9" * 5000}'),
    "rows of 39 digits": _node(rows=10**38),
    "rows below zero": _node(rows=-1),
    "rows with a fraction": _node(rows=1.5),
    "an index below zero": _node(command=-1),
    "an index as a truth value": _node(command=False),
    "an index as text": _node(command="0"),
    "an index beyond all": _node(command=10**9),
    "one field too many": _node(more=1),
    "a failure that is a list": _node(failure=[1]),
    "a failure without a type": _node(failure={"bases": [], "message": ""}),
    "a failure with a field too many": _node(failure={**FAILURE, "more": 1}),
    "1,000 causes": _node(failure={**FAILURE, "causes": [FAILURE] * 1000}),
    "causes of causes": _node(failure={**FAILURE, "causes": [{**FAILURE, "causes": [FAILURE]}]}),
    "1,000 codes": _node(failure={**FAILURE, "codes": {str(number): "x" for number in range(1000)}}),
    "codes that are no text": _node(failure={**FAILURE, "codes": {"errno": 1}}),
    "100,000 bases": _node(failure={**FAILURE, "bases": ["E"] * 100_000}),
    "100,000 lists in each other": "[" * 100_000,
    "100,000 objects in each other": _node(failure="X").replace('"X"', '{"causes":' * 100_000),
    "no object": "[]",
    "no type": "{}",
    "a type that is none": '{"type": "StepReport"}',
    "a type that cannot be looked up": '{"type": {}}',
    "an attribute of a class as a type": '{"type": "__class__"}',
    "success as a number": '{"type": "CommandResult", "index": 0, "success": 1, "seconds": 1}',
    "success as text": '{"type": "CommandResult", "index": 0, "success": "true", "seconds": 1}',
    "a secret that is a list": '{"type": "Secret", "value": ["x"]}',
    "1,000 reasons": json.dumps({"type": "Parsed", "index": 0, "reasons": ["x"] * 1000}),
    "reasons that are a text": '{"type": "Parsed", "index": 0, "reasons": "text"}',
    "an end with a result": '{"type": "Finished", "success": true}',
    "UTF-16": json.dumps({"type": "Finished"}).encode("utf-16").decode("latin-1"),
}


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED.keys())
def test_a_line_that_is_not_of_the_schema_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"a line of|not a message") as refused:
        wire.decode(line.encode())
    assert len(str(refused.value)) < 100 and refused.value.__cause__ is None


def lenient(line: bytes) -> Any:
    """The decoder without a schema, as the pipe had it first."""
    fields = json.loads(line)
    kinds = {kind.__name__: kind for kind in (NodeResult, CommandResult, LogLine, Secret, events.CommandStarted, events.Finished)}
    return kinds[fields.pop("type")](**fields)


HOSTILE: Mapping[str, tuple[str, str | None]] = {
    # name: (script, the error of the outcome)
    "binary garbage": ("start()\nos.write(spec['events_fd'], os.urandom(3_000_000))\nwrite('\\n')\ndone()\n", None),
    "invalid messages between valid ones": (
        f"start()\nfor line in {list(REFUSED.values())!r}: write(line + '\\n')\nnode('a')\ndone()\n",
        None,
    ),
    "a status for each node": ("for n in range(300): node(f'm{n}', f'status {n}')\ndone()\n", None),
    "statuses that are no words": ("for n in range(50): node(f'm{n}', '\\n\\x1b]8;;' * n)\ndone()\n", None),
    "lone surrogates everywhere": (
        "start()\ntell('NodeResult', command=0, unique_id='m\\ud800', resource_type='\\udfff', name='\\ud83d', status='error', "
        "message='\\ud83d', relation='\\udc80', thread='\\ud83d')\ntell('LogLine', level='\\ud83d', message='\\ud83d', node='\\ud83d')\n"
        "done(False)\n",
        "Dbt.ModelError",
    ),
    "a result of a command that never started": (
        "tell('CommandResult', index=0, success=True, seconds=1.0)\ntell('Finished')\n",
        "Dbt.RunnerError",
    ),
    "an end without results": ("start()\nnode('a')\ntell('Finished')\n", "Dbt.RunnerError"),
    "nothing but an end": ("tell('Finished')\n", "Dbt.RunnerError"),
    "success and exit code 3": ("node('a')\ndone()\nos._exit(3)\n", "Dbt.RunnerError"),
    "success and a signal": ("node('a')\ndone()\nos.kill(os.getpid(), signal.SIGSEGV)\n", "Dbt.RunnerError"),
    "success and a failed node": ("node('a', 'error')\ndone()\n", "Dbt.RunnerError"),
    "success after failure": (
        "node('a', 'error')\ntell('CommandResult', index=0, success=False, seconds=1.0)\n"
        "tell('CommandResult', index=0, success=True, seconds=1.0)\ntell('Finished')\n",
        "Dbt.ModelError",
    ),
    "the same command twice": ("done()\ntell('CommandStarted', index=0)\ndone()\nfor _ in range(100): done()\n", None),
    "a command that the step does not have": (
        "tell('CommandStarted', index=1)\ntell('CommandResult', index=1, success=True, seconds=1.0)\ntell('Finished')\n",
        "Dbt.RunnerError",
    ),
    "results of other commands": (
        "start()\nfor n in range(99): tell('NodeResult', **{**NODE, 'command': n, 'status': 'error'})\ndone()\n",
        "Dbt.RunnerError",
    ),
    "messages after the end": ("node('a')\ndone()\nnode('b', 'error')\ntell('CommandResult', index=0, success=False, seconds=1)\n", None),
    "names of 100,000 characters that fail": (
        "start()\nfor n in range(12): node(str(n) * 99_000, 'error')\ndone(False)\n",
        "Dbt.ModelError",
    ),
    "texts of 200,000 characters": (
        "start()\nlong = {**NODE, 'status': 'error', 'message': '\\u2713' * 200_000}\n"
        "for n in range(5): tell('NodeResult', **{**long, 'unique_id': str(n)})\ndone(False)\n",
        "Dbt.ModelError",
    ),
    "a log line of two megabytes": (
        "start()\ntell('LogLine', level='info', message='x' * 1_900_000)\nprint('y' * 3_000_000)\ndone()\n",
        None,
    ),
    "3,000 secrets": ("start()\nfor n in range(3000): tell('Secret', value=f'{n:08d}{n:08d}')\ndone()\n", None),
    "a secret of one common word": (
        "start()\nfor word in ('reported', 'success', 'Dbt.RunnerError'): tell('Secret', value=word)\ndone()\n",
        None,
    ),
    "parses without end": ("start()\nfor n in range(100): tell('Parsed', index=0, reasons=['x' * 500] * 50)\ndone()\n", None),
    "half a line and a kill": ('start()\nwrite(\'{"type": "Finished"\')\nos.kill(os.getpid(), signal.SIGKILL)\n', None),
    "a closed pipe": ("start()\nos.close(spec['events_fd'])\nos.close(spec['replies_fd'])\n", "Dbt.RunnerError"),
}
PRELUDE = f"NODE = {dict(NODE)!r}\n"


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_the_worker_says_there_is_an_outcome(run: Run, tmp_path: Path, name: str) -> None:
    script, error = HOSTILE[name]
    item = attack(run, tmp_path, PRELUDE + script)
    if "kill" in name:
        assert item["error"] in ("Dbt.Interrupted", "Dbt.OutOfMemory")
    else:
        assert item.get("error") == error
    assert len(item["counts"]) <= audit._MAX_STATUSES + 1 and "" not in item["counts"]
    assert all(node["unique_id"] for node in run.nodes().values())


@pytest.mark.control("pipe")
@pytest.mark.parametrize(
    "fields",
    [
        "{**NODE, 'seconds': float('nan')}",
        "{**NODE, 'status': {'a': 1}}",
        "{**NODE, 'unique_id': 'm\\ud800', 'status': 'error', 'message': '\\ud83d'}",
        "{**NODE, 'rows': 10**40}",
    ],
    ids=["NaN", "dict", "surrogate", "digits"],
)
def test_without_the_schema_a_node_costs_the_outcome(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str) -> None:
    monkeypatch.setattr(intake, "decode", lenient)
    monkeypatch.setattr(audit, "fit", lambda text: text)
    script = f"{PRELUDE}start()\ntell('NodeResult', **{fields})\ndone(False)\n"
    with pytest.raises(AssertionError):
        assert "could not" not in str(attack(run, tmp_path, script)["error"])
        assert attack(run, tmp_path, script)["counts"] in ({"success": 1}, {"error": 1}) and run.nodes()


@pytest.mark.control("pipe")
def test_without_order_a_result_of_a_command_that_never_started_is_a_success(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Intake, "_is_in_order", lambda self, message: True)
    item = attack(run, tmp_path, HOSTILE["a result of a command that never started"][0])
    assert "error" not in item


@pytest.mark.control("pipe")
def test_without_a_second_look_success_and_exit_code_3_is_a_success(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "_contradicted", lambda report, commands, nodes: None)
    assert "error" not in attack(run, tmp_path, HOSTILE["success and exit code 3"][0])


def test_what_was_left_out_is_said(run: Run, tmp_path: Path) -> None:
    item = attack(run, tmp_path, "node('a')\nwrite('x' * 3_000_000 + '\\n')\nwrite('{}\\n')\nprint('y' * 300_000)\ndone()\nnode('b')\n")
    assert item["left_out"] == [
        "1 lines of output without their end",
        "1 messages after the end",
        "1 messages that are not of the protocol",
        "1 messages that are too long",
    ]
    assert "error" not in item and item["counts"] == {"success": 1}


def test_of_an_honest_worker_nothing_is_left_out(run: Run, tmp_path: Path) -> None:
    item = attack(run, tmp_path, "node('a')\nprint('hello')\nlog('hello')\ndone()\n")
    assert "error" not in item and "left_out" not in item


# --- a line without an end -------------------------------------------------------------------------------------------------

ENDLESS = "start()\nlog('begins')\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: os.write({}, b'x' * 65536)\n"


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("where", ["spec['events_fd']", "1", "2"])
@pytest.mark.parametrize("why", ["SIGTERM", "deadline"])
def test_an_endless_line_keeps_neither_sigterm_nor_the_deadline_waiting(tmp_path: Path, where: str, why: str) -> None:
    timeout = 1.0 if why == "deadline" else projects.DEADLINE_SECONDS
    with Supervised(tmp_path, script=ENDLESS.format(where), timeout_seconds=timeout, grace_seconds=0.2) as supervised:
        if why == "SIGTERM":
            supervised.wait_for_log("begins")
            supervised.signal(signal.SIGTERM)
        ended = supervised.end()
    assert ended.report.killed
    assert outcome.classify(ended.report, BUILD, "duckdb").error is (TIMEOUT if why == "deadline" else INTERRUPTED)


@pytest.mark.attack("pipe")
@pytest.mark.parametrize("whole", [True, False])
def test_a_line_of_30_megabytes_takes_no_more_memory_than_its_limit(whole: bool) -> None:
    lines = Lines(1000, whole=whole)
    held = 0
    for _ in range(500):
        assert lines.feed(b"x" * 65_536) == []
        held = max(held, sum(map(len, lines._parts)))
    assert held <= 1000
    assert lines.feed(b"y\nnext\n") == ([b"next"] if whole else [b"x" * 1000, b"next"])
    assert lines.cut == 1


@bounded(200)
@given(st.lists(st.binary(max_size=40)), st.integers(1, 30))
def test_lines_are_those_of_the_whole_stream(chunks: list[bytes], most: int) -> None:
    lines = Lines(most, whole=False)
    found = [line for chunk in filter(None, chunks) for line in lines.feed(chunk)] + lines.feed(b"")
    expected = b"".join(chunks).split(b"\n")
    assert found == [line[:most] for line in (expected if expected[-1] else expected[:-1])]
