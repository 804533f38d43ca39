"""IAM enforced while it runs: what must be allowed is, what must be refused is, and no statement is there that nothing needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from second_aws import commands, mutants, refusals
from second_aws.campaign import Results

pytestmark = [pytest.mark.slow, pytest.mark.terraform, pytest.mark.xdist_group("second-aws")]

TABLE, BUCKET = "dbt-audit", "dbt-audit-123456789012-us-east-1"
MATRIX = [*map(str, refusals.attempts(TABLE, BUCKET)), *(assumption.what for assumption in refusals.assumptions())]
COMMANDS = [(command, role) for command, may in commands.documented().items() for role in may]

# What no request here can need: AWS asks for it where the emulator has nothing to ask for.
UNSEEN: dict[mutants.Statement, str] = {}


def test_it_listens_on_the_loopback_interface_only(results: Results) -> None:
    assert results.listening == {"127.0.0.1"}


def test_no_call_of_a_run_is_refused(results: Results) -> None:
    """Every call of states, task, execution, scheduler and events, under the policies as they were applied."""
    asked = {mutants.word(decision.role) for decision in results.of_scenarios}
    assert asked >= {"states", "task", "execution", "scheduler", "events"}
    assert [str(d) for d in results.of_scenarios if d.allowed == d.refuse] == []


@pytest.mark.parametrize(("command", "role"), COMMANDS)
def test_a_role_may_call_what_the_page_says(results: Results, command: str, role: str) -> None:
    called = [c for c in results.called if (c.command, c.role) == (command, role)]
    assert called, f"tests/second_aws/commands.py does not call {command}"
    for one in called:
        denied = [str(decision.asked) for decision in one.decisions if not decision.allowed]
        if commands.documented()[command][role]:
            assert one.worked and one.decisions, f"exit code {one.code}: {one.said}\nrefused: {denied}"
        else:
            assert one.refused, f"exit code {one.code}: {one.said}\nrefused: {denied}"


def test_every_command_that_is_called_is_on_the_page(results: Results) -> None:
    assert {called.command for called in results.called} == set(commands.documented())


@pytest.mark.parametrize("attempt", MATRIX)
def test_a_role_is_held_to_its_environment(results: Results, attempt: str) -> None:
    refuse, refused = results.refused[attempt]
    assert refused == refuse, "it must be refused" if refuse else "it must be allowed, as the control of its fence"


def test_a_second_evaluator_comes_to_the_same_decisions(results: Results) -> None:
    assert mutants.disagreements(results.policies, results.decisions) == []


def test_each_statement_is_needed(results: Results, figure: Callable[[str], None]) -> None:
    """Taking any one out changes a decision: an allowed call would be refused, or a refused one allowed."""
    every, held = mutants.statements(results.policies), mutants.held(results.policies, results.decisions)
    allowed = sum(decision.allowed for decision in results.decisions)
    wrong = sum(refuse != refused for refuse, refused in results.refused.values())
    wrong += sum(decision.allowed == decision.refuse for decision in results.of_scenarios)
    denied = len(results.decisions) - allowed
    figure(f"IAM: {allowed} decisions allowed, {denied} denied as they must, {wrong} wrong; mutants {len(held)} of {len(every)}")
    assert every - held == set(UNSEEN)
