"""Service quotas by arithmetic: history events and payloads of the largest run that the contract allows.

The events are counted on executions of the definitions themselves, so a state that is added to a loop is counted, too.
https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from sfnx.testing import Execution

from asl import ended, endings, render
from asl.fakes import EXECUTION, NOW, OTHER_EXECUTION, RUN_ID, RUN_KEY, SUCCEEDS, Attempt, fails, make_cloud, stopped
from dbt_runner import artifacts
from dbt_runner.audit import Evidence, outcome_item
from dbt_runner.claim import Claim
from dbt_runner.errors import MODEL_ERROR
from dbt_runner.events import CommandResult, NodeResult, Parsed, StepReport
from dbt_runner.outcome import classify
from dbt_runner.release import ReleaseMeta
from dbt_runner.request import AttemptKey, parse_command
from dbt_runner.store import StoredObject
from dbt_runner.store.attribute_values import marshal

EVENTS = 25_000
PAYLOAD_BYTES = 262_144
# request.schema.json and the validations of the root module.
MOST_STEPS, MOST_ATTEMPTS, MOST_COMMANDS = 50, 10, 20
DEFAULT_ATTEMPTS = 3
MOST_QUEUEING_SECONDS = 36_000

RUN, FINALIZE, ANNOUNCE = render.DEFINITIONS


def states(machine: str) -> dict[str, Any]:
    """The states of a definition, with those inside of its Maps."""
    found = dict(render.load(machine)["States"])
    for state in list(found.values()):
        found.update(state.get("ItemProcessor", {}).get("States", {}))
    return found


def tries(machine: str, state: str) -> int:
    """How often a Task is called at most in one visit, should every one of its Retries be used up."""
    definition = states(machine)[state]
    return 1 + sum(int(retrier.get("MaxAttempts", 3)) for retrier in definition.get("Retry", []))


def events(execution: Execution, machine: str = RUN, *, outage: bool = False) -> int:
    """The history events of an execution.

    A state is entered and exited; a call is scheduled, started and answered, and a job of `.sync` submitted as well; the execution
    starts and ends. https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html

    Args:
        outage: counts every call as often as its Retries allow.
    """
    known = states(machine)
    calls: Counter[str] = Counter()
    for name in execution.states:
        if known[name]["Type"] == "Task":
            calls[name] += tries(machine, name) if outage else 0
    if not outage:
        calls.update(call.state for call in execution.calls)
    of_calls = sum(number * (4 if known[name]["Resource"].endswith(".sync") else 3) for name, number in calls.items())
    return 2 + 2 * len(execution.states) + of_calls


@cache
def run(steps: int, attempts: int, *, outage: bool = False) -> int:
    """The events of a run each of whose steps goes on after its last attempt, which was interrupted like all before."""
    with mock_aws():
        cloud = make_cloud()
        cloud.configure(retry={"max_attempts": attempts, "interval_seconds": 1, "backoff_rate": 1})
        for place in range(steps + 1):
            cloud.attempts[str(place)] = [*[fails("Dbt.Interrupted", 40)] * (attempts - 1), SUCCEEDS]
        asked = [{"name": f"step-{place}", "commands": ["build"], "on_failure": "continue"} for place in range(steps)]
        execution = cloud.run({"steps": asked})
        assert execution.error is None and len(cloud.started) == (steps + 1) * attempts
        return events(execution, outage=outage)


def largest(steps: int, attempts: int, *, outage: bool = False) -> int:
    """The same for any size: the executions are linear in the number of attempts, and those in the number of steps."""
    one, two = run(1, 1, outage=outage), run(1, 2, outage=outage)
    attempt = (two - one) // 2
    step = run(2, 1, outage=outage) - one
    assert run(2, 3, outage=outage) == one + step + 6 * attempt, "not linear"
    return one + (steps - 1) * step + (steps + 1) * (attempts - 1) * attempt


@cache
def waiting(rounds: int) -> tuple[int, int]:
    """The events of a run that waits so often for the lock, and for how many seconds."""
    with mock_aws():
        cloud = make_cloud()
        cloud.configure(overlap="queue")
        cloud.hold_lock()
        cloud.statuses[OTHER_EXECUTION] = "RUNNING"
        cloud.on_wait = lambda: cloud.delete("LOCK") if len(cloud.waits) == rounds else None
        execution = cloud.run({"steps": [{"name": "build", "commands": ["build"]}]})
        assert execution.error is None and len(cloud.waits) == rounds
        return events(execution), sum(cloud.waits)


def longest_wait(left: int) -> float:
    """For how many seconds a run may wait with so many events: the first rounds are short, the others all alike."""
    first, second = waiting(20), waiting(21)
    a_round, seconds = second[0] - first[0], second[1] - first[1]
    return first[1] + (left - first[0]) // a_round * seconds


def test_the_largest_run_fits_into_the_history() -> None:
    assert largest(MOST_STEPS, MOST_ATTEMPTS) < EVENTS


def test_a_run_of_the_default_retries_fits_even_if_every_call_of_aws_uses_up_its_own() -> None:
    assert largest(20, DEFAULT_ATTEMPTS, outage=True) < EVENTS


def test_waiting_for_the_lock_leaves_room_for_the_largest_run() -> None:
    wait = longest_wait(EVENTS - largest(MOST_STEPS, MOST_ATTEMPTS))
    assert wait > MOST_QUEUEING_SECONDS
    assert f"e.timeout_seconds <= {MOST_QUEUEING_SECONDS}" in (Path(__file__).parents[2] / "variables.tf").read_text(), (
        "longer ones are refused"
    )


def test_finalize_uses_next_to_nothing() -> None:
    with mock_aws():
        cloud = make_cloud()
        cloud.hold_lock(EXECUTION, RUN_ID)
        assert events(cloud.finalize(endings.event(status="ABORTED")), FINALIZE, outage=True) < EVENTS / 50


def test_announce_uses_next_to_nothing_whatever_it_has_to_tell() -> None:
    """Every node of the ten that an outcome names has an owner of its own, and texts that are as long as they come."""
    found = marshal(worst_outcome(5000, "\U0001f9e8" * 5000))
    for number, failure in enumerate(found["failures"]["L"]):
        failure["M"].update(owner={"S": f"{number}{'o' * 100}"}, blocked={"N": "5000"})
    with mock_aws():
        cloud = make_cloud()
        ended.leave(cloud, {**ended.FAILED, "cause": found["message"]["S"]}, *found["failures"]["L"])
        execution = cloud.announce(RUN_KEY)
        assert execution.error is None and len(cloud.notifications) == 1 + len(found["failures"]["L"]) == 11
        assert events(execution, ANNOUNCE, outage=True) < EVENTS / 50
        # What EventBridge and SNS take in one call, the former with all of its entries, is what a payload may hold, too.
        assert max(size(call.arguments) for call in execution.calls) < PAYLOAD_BYTES


# --- payloads ---------------------------------------------------------------------------------------------------------------


def size(value: object) -> int:
    """Bytes of a payload: Step Functions counts UTF-8."""
    return len(json.dumps(value, ensure_ascii=False).encode())


def worst_outcome(nodes: int, text: str) -> dict[str, Any]:
    """The outcome item of an attempt of which everything failed that can, with texts that are as long as they come."""
    commands = [parse_command(f"build --select {'x' * 8177}", "commands")] * MOST_COMMANDS
    report = StepReport(finished=True, parsed=Parsed(0, [text] * 50))
    for number in range(nodes):
        unique_id = f"model.{'p' * 60}.{'m' * 100}{number}"
        report.nodes[unique_id] = NodeResult(MOST_COMMANDS - 1, unique_id, "model", "m", ("error", "skipped")[number % 2], text)
    report.commands = [CommandResult(index, index < MOST_COMMANDS - 1, 1e9 / 7, nodes) for index in range(MOST_COMMANDS)]
    ended = classify(report, commands, "duckdb")
    assert ended.error is MODEL_ERROR
    key = AttemptKey("e" * 40, "r" * 80, 50, "s" * 40, 10)
    files = [f"command-{index}/run_results.json" for index in range(MOST_COMMANDS)] + list(artifacts.NAMES)
    evidence = Evidence(
        started_at=NOW,
        ended_at=NOW,
        seconds=1e9 / 7,
        commands=[command.text for command in commands],
        results=report.commands,
        artifacts=[StoredObject(f"runs/{'e' * 40}/2026/11/23/{'r' * 80}/{'s' * 40}/10/{name}", "0" * 64, 10**9) for name in files],
        versions=dict.fromkeys(("dbt-runner", "dbt-core", "dbt-snowflake"), "1.11.16rc1.post1"),
        compute="fargate",
        parse={"cache": "renewed", "reason": "; ".join(report.parsed.reasons if report.parsed else ())},
        release=ReleaseMeta("1" * 100, "0" * 64, "0" * 64, 10**9, "0" * 40, "1.11.16", text, NOW, "p" * 60, "snowflake"),
        image=f"sha256:{'0' * 64}",
    )
    return outcome_item(key, Claim(50_010, "0" * 32), ended, evidence)


@pytest.mark.parametrize("text", ["x" * 100_000, "\U0001f9e8" * 100_000, '"\n' * 100_000], ids=["letters", "four bytes each", "escaped"])
def test_an_outcome_fits_into_the_answer_that_the_state_machine_reads(text: str) -> None:
    """The answer of getItem is a task's result. What is larger raises States.DataLimitExceeded, which no Catch of States.ALL sees."""
    small, large = worst_outcome(40, text), worst_outcome(5000, text)
    assert size({"Item": marshal(large)}) < PAYLOAD_BYTES
    assert len(large["failures"]) == 10 and size(large) - size(small) < 100, "the number of nodes does not matter"


def largest_job() -> dict[str, Any]:
    """A job of as many steps as there may be, as long as modules/state_machine/config.tf lets one be."""
    filled = {"on_failure": "continue", "timeout_seconds": 3600, "compute": "fargate", "on_timeout": "fail"}

    def job(characters: int) -> dict[str, Any]:
        commands = [f"build --select {'x' * characters}"]
        return {"vars": "{}", "steps": [{"name": f"{place:040}", "commands": commands, **filled} for place in range(MOST_STEPS)]}

    def size_of(job: Mapping[str, Any]) -> int:
        request = {"job": "largest", "steps": job["steps"], "job_vars": job["vars"]}
        return size({"steps": job["steps"], "request": {"S": json.dumps(request, ensure_ascii=False)}})

    left = PAYLOAD_BYTES // 2 - size_of(job(0))
    found = job(left // (2 * MOST_STEPS))
    assert 0 <= PAYLOAD_BYTES // 2 - size_of(found) < 2 * MOST_STEPS
    return found


def test_the_payloads_of_the_largest_run_do_not_grow_with_its_nodes() -> None:
    outcome = {name: value for name, value in marshal(worst_outcome(5000, "\U0001f9e8" * 5000)).items() if name not in ("pk", "sk")}
    with mock_aws():
        cloud = make_cloud()
        for place in range(1, MOST_STEPS + 1):
            cloud.attempts[str(place)] = Attempt(outcome, "States.TaskFailed", stopped(10))
        cloud.configure(jobs={"largest": largest_job()})
        execution = cloud.run({"job": "largest", "reason": "r" * 500, "trigger": "t" * 100})
        assert execution.error is None
        assert len(execution.output["steps"]) == MOST_STEPS + 1
        # What leaves it holds all that it carries: the record and the results of all steps.
        assert max(size(call.arguments) for call in execution.calls) < PAYLOAD_BYTES
        assert size(execution.output) < PAYLOAD_BYTES
