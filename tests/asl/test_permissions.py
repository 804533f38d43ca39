"""What the states role has to be able to do: every call of the states in runs that end in any way, asked of the role's statements.

The other half, what the role can never do, is proven in tests/terraform/test_isolation.py.
"""

from __future__ import annotations

import pytest
from sfnx import testing

from asl.ended import FAILED, leave
from asl.endings import event
from asl.fakes import ENVIRONMENT, RUN_KEY, Attempt, Cloud
from terraform.simulation import Calls, of_state, policy

OTHER = "arn:aws:states:eu-central-1:123456789012:execution:analytics-prod:other"
# What Step Functions itself does for a machine, and SNS's and DynamoDB's look at the key.
OF_SERVICES = {"DescribeKey", "LogDelivery", "Tracing"}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of the states from now on."""
    made, answer = Calls(), Cloud._answer

    def watched(cloud: Cloud, call: testing.Call) -> object:
        assert isinstance(call.arguments, dict)
        made.add(of_state(call.resource.partition(":states:::")[2], call.arguments, ENVIRONMENT))
        return answer(cloud, call)

    monkeypatch.setattr(Cloud, "_answer", watched)
    return made


def test_the_states_role_can_do_what_states_do(cloud: Cloud, calls: Calls) -> None:
    statements = policy(ENVIRONMENT, "states")
    # A lock whose owner has ended; a step on Lambda; a task that outlives its state and is stopped.
    cloud.hold_lock(owner=OTHER)
    cloud.statuses[OTHER] = "FAILED"
    cloud.attempts = {"2": Attempt(None, "States.Timeout")}
    steps = [{"name": "first", "commands": ["seed"], "compute": "lambda"}, {"name": "build", "commands": ["build"]}]
    assert cloud.run({"steps": steps}).error == "Dbt.Timeout"
    cloud.finalize(event(status="ABORTED"))
    leave(cloud, FAILED)
    cloud.announce(RUN_KEY)
    assert calls.refused(statements) == []
    assert {*statements} - calls.needed(statements) == OF_SERVICES
