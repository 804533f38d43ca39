"""The commands of docs/security.md, each called under the deployer and the operator, as its table says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner.local.clients import client_environ, without_aws_settings
from flow.support import FAULTS
from second_aws import identity
from second_aws.decisions import Decision, read
from second_aws.engine import Engine
from second_aws.scenarios import BROKEN, RELEASE
from terraform.tool import ROOT

ROLES = ("deployer", "operator")
_TABLE = re.compile(r"^\| command \| deployer \| operator \| permissions \|\n\|[-|]+\n((?:\|.*\n)+)", re.MULTILINE)
_ACCESS_DENIED, _NO_RELEASE = 21, 31


def documented() -> dict[str, Mapping[str, bool]]:
    """Which role may call which command, as the page says."""
    found = _TABLE.search((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert found is not None, "docs/security.md has no table of commands and roles"
    rows: dict[str, Mapping[str, bool]] = {}
    for line in found[1].splitlines():
        commands, *may = [cell.strip() for cell in line.strip("|").split(" | ")][:3]
        assert set(may) <= {"yes", "no"}, line
        for command in re.findall(r"`([^`]+)`", commands) or [commands]:
            rows[command] = {role: answer == "yes" for role, answer in zip(ROLES, may, strict=True)}
    return rows


@dataclass(frozen=True)
class Called:
    """A command that a role has called, and what IAM decided meanwhile."""

    command: str
    role: str
    code: int
    said: str
    decisions: tuple[Decision, ...]

    @property
    def refused(self) -> bool:
        return self.code == _ACCESS_DENIED and any(not decision.allowed for decision in self.decisions)

    @property
    def worked(self) -> bool:
        return self.code in (0, _NO_RELEASE) and all(decision.allowed for decision in self.decisions)


def calls(engine: Engine, run: str, failed: str, promoted: str) -> Sequence[tuple[str, tuple[str, ...]]]:
    """Each command of the table with its arguments, in an order in which each finds what it needs.

    Args:
        run: a run of the environment that succeeded.
        failed: one that can be resumed.
        promoted: a release that is not the current one.
    """
    step = ("--step", "s: run --select fast")
    # A release that is not there ends the run before anything is started.
    begin = ("start", *step, "--release", "no-such", "--json")
    publish = ("--project", str(FAULTS), "--adapter", "duckdb")
    return [
        ("all", ("list", "--limit", "1")),
        ("start", (*begin, "--wait")),
        ("resume", ("resume", failed, "--no-wait", "--json")),
        ("stopping a run", ()),
        ("status", ("status", run)),
        ("show", ("show", run)),
        ("list", ("list", "--since", "2026-01-01")),
        ("history", ("history", "--node", "fast")),
        ("cost", ("cost",)),
        ("logs", ("logs", run)),
        ("report", ("report", run, "--output", "-")),
        ("report", ("report", run, "--new", "--output", "-")),
        ("report", ("report", failed, "--output", "-")),
        ("release list", ("release", "list")),
        ("release list", ("release", "list", "--promotions")),
        ("release show", ("release", "show", "-V", RELEASE)),
        ("release diff", ("release", "diff", RELEASE, BROKEN)),
        ("release verify", ("release", "verify", "-V", RELEASE)),
        ("verify --version", ("verify", "-V", RELEASE)),
        ("verify --run", ("verify", "--run", run)),
        ("verify --promotions", ("verify", "--promotions")),
        ("verify --run --archive", ("verify", "--run", run, "--archive")),
        ("release publish", ("release", "publish", *publish, "-V", f"by-{engine.home.name}")),
        ("release promote", ("release", "promote", "-V", promoted)),
        ("release rollback", ("release", "rollback")),
        ("release prune", ("release", "prune", "--dry-run")),
        ("check", ("check",)),
        ("ci", ("ci", "--project", str(FAULTS), "--schema-suffix", "pr_1", "--command", "run --select fast")),
    ]


def call_all(engine: Engine, role: str, environment: str, run: str, failed: str, promoted: str) -> Iterator[Called]:
    """Calls every command under a role of an environment; the arguments are those of `calls`."""
    session = getattr(identity, role)(engine, environment)
    name = identity.role_name(environment, role)
    environ = {
        **without_aws_settings(os.environ),
        **client_environ(engine.endpoint),
        **session.environ,
        "DBT_RUNNER_TABLE": engine.table,
        "DBT_RUNNER_BUCKET": engine.bucket,
        "DBT_RUNNER_ENVIRONMENT": environment,
        "SECOND_AWS_DECISIONS": str(engine.decisions),
    }
    caller = [sys.executable, str(Path(__file__).with_name("caller.py"))]
    with subprocess.Popen(caller, env=environ, cwd=engine.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        started = ""
        for command, arguments in calls(engine, run, failed, promoted):
            if command == "stopping a run":
                yield _stop(engine, session, role, name, started)
                continue
            process.stdin.write(json.dumps(arguments) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            if command == "resume" and answer["code"] == 0:
                started = json.loads(answer["out"])["execution"]
            made = [d for d in read(engine.decisions, *answer["decisions"]) if d.role == name]
            yield Called(command, role, int(answer["code"]), answer["err"] or answer["out"][-500:], tuple(made))
        process.stdin.close()


def _stop(engine: Engine, session: identity.Session, role: str, name: str, execution: str) -> Called:
    """StopExecution as AWS's own tools call it, under the role; and by root, if it may not."""
    before = engine.decisions.stat().st_size
    code, said = 0, ""
    try:
        session.client("stepfunctions").stop_execution(executionArn=execution)
    except Exception as exc:
        code, said = _ACCESS_DENIED, str(exc)
        engine.client("stepfunctions").stop_execution(executionArn=execution)
    made = [d for d in read(engine.decisions, before, engine.decisions.stat().st_size) if d.role == name]
    return Called("stopping a run", role, code, said, tuple(made))
