"""No error of any Task, at any call of it, leaves a run open, untold, or started once too often; and the exploration would see it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from asl import error_names, explore, render
from asl.explore import ANNOUNCE, FINALIZE, RUN, Path
from asl.machine import tasks

States = dict[str, Any]
BASES = {error_names.base(service) for service in error_names.INTEGRATIONS}
TASKS = [(machine, state) for machine in render.DEFINITIONS for state in explore.task_states(machine)]


@pytest.mark.parametrize(("machine", "state"), TASKS)
def test_every_error_of_a_task_leads_to_an_end_that_keeps_the_promises(machine: str, state: str) -> None:
    found = [path for path in explore.paths(machine, state) if path.occurrence == 1]
    violations = [violation for path in found if (violation := explore.walk(path))]
    assert len(found) > len({path.error for path in found}) > 0
    assert {path.error for path in found} < {path.error for path in explore.paths(machine, state, every=True)}
    assert violations == []


@pytest.mark.slow
@pytest.mark.parametrize("machine", render.DEFINITIONS)
def test_every_error_by_its_name(machine: str, figure: Callable[[str], None]) -> None:
    """The same at every call, with all errors that a Task tells apart from no other: none of them is named in one place only."""
    found = [path for state in explore.task_states(machine) for path in explore.paths(machine, state, every=True)]
    violations = [violation for path in found if (violation := explore.walk(path))]
    named = sum(path.error not in BASES for path in found)
    figure(f"{machine}: explored {len(found)} paths, {named} without the errors that only a base class names, {len(violations)} violations")
    assert named < len(found)
    assert violations == []


def another_attempt(states: States) -> States:
    """The choice of JudgeStep that calls for one."""
    (choice,) = (c for c in states["JudgeStep"]["Choices"] if "$result.error in $retryable" in c["Condition"])
    found: States = choice
    return found


def moved_for_good(states: States) -> None:
    (choice,) = (c for c in states["JudgeStep"]["Choices"] if "'LAMBDA' and $step.on_timeout" in c["Condition"])
    del choice["Assign"]["moved"]


def nothing_caught(states: States) -> None:
    states["RunStep"]["Catch"] = []


def unrecorded_stop(states: States) -> None:
    states["StopAtResult"]["Next"] = "ReleaseLock"


def uncounted_attempt(states: States) -> None:
    another_attempt(states)["Assign"]["attempt"] = "{% $attempt %}"


def everything_retried(states: States) -> None:
    another_attempt(states)["Condition"] = "{% $result.error != null and $attempt < $config.retry.max_attempts %}"


def kept_lock(states: States) -> None:
    states["RecordFailure"]["Next"] = "IsRecorded"


def lost_result(states: States) -> None:
    states["ReadOutcome"]["Catch"] = []


def announced_open(states: States) -> None:
    states["IsRecorded"]["Choices"][0]["Next"] = "Announce"


def untold(states: States) -> None:
    states["ReleaseLock"]["Catch"][1]["Next"] = "Done"


def unclosed(states: States) -> None:
    choices = states["JudgeStep"]["Choices"]
    choices[:] = [choice for choice in choices if choice["Next"] != "CloseClaim"]


def unawaited(states: States) -> None:
    states["HasStopped"]["Choices"][0]["Condition"] = "{% $polls > 0 %}"


def taken_at_once(states: States) -> None:
    (choice,) = (choice for choice in states["Overlap"]["Choices"] if choice["Next"] == "CloseClaim")
    choice["Next"] = "TakeOverLock"


def freed_at_once(states: States) -> None:
    states["IsClaimed"]["Choices"][0]["Condition"] = "{% $claim.place != 0 %}"


def unnamed(states: States) -> None:
    """No base class stands in any list, as if AWS had a name for every error."""
    for _, _, state in tasks({"StartAt": "", "States": states}):
        for entry in (*state.get("Retry", []), *state.get("Catch", [])):
            entry["ErrorEquals"] = [error for error in entry["ErrorEquals"] if error not in BASES] or [explore.UNKNOWN]


def refused_for_good(states: States) -> None:
    """Only what the documentation's examples name is tried again."""
    known = ["Lambda.ResourceNotReadyException", "Lambda.ServiceException", "Lambda.TooManyRequestsException"]
    states["InvokeFunction"]["Retry"] = [{**states["InvokeFunction"]["Retry"][0], "ErrorEquals": known}]


def believed_at_once(states: States) -> None:
    del states["DescribeHolder"]["Retry"][1]


def uncaught(states: States) -> None:
    for name in ("FindRecord", "CloseRecord", "Announce", "ReadRun"):
        if name in states:
            states[name]["Catch"] = [catcher for catcher in states[name]["Catch"] if "States.ALL" not in catcher["ErrorEquals"]]


@pytest.mark.parametrize(
    ("break_it", "path"),
    [
        (unnamed, Path(RUN, "ReadOutcome", "DynamoDB.AmazonDynamoDBException", 1, lasting=False)),
        (unnamed, Path(RUN, "CloseClaim", "DynamoDB.AmazonDynamoDBException", 2, lasting=False)),
        (unnamed, Path(FINALIZE, "FindRecord", "DynamoDb.DynamoDbException", 1, lasting=False)),
        (unnamed, Path(ANNOUNCE, "TellOwner", "SNS.AmazonSNSException", 1, lasting=False)),
        (refused_for_good, Path(RUN, "InvokeFunction", "Lambda.CodeArtifactUserPendingException", 1, lasting=False)),
        (believed_at_once, Path(RUN, "DescribeHolder", "Sfn.ExecutionDoesNotExist", 1, lasting=False)),
        (uncaught, Path(FINALIZE, "FindRecord", "States.Permissions", 1, lasting=False)),
        (uncaught, Path(FINALIZE, "Announce", explore.UNKNOWN, 1, lasting=False)),
        (uncaught, Path(ANNOUNCE, "ReadRun", "States.Permissions", 1, lasting=False)),
        (nothing_caught, Path(RUN, "RunStep", explore.UNKNOWN, 1, lasting=False)),
        (unrecorded_stop, Path(RUN, "RunStep", "States.Timeout", 1, lasting=False)),
        (uncounted_attempt, Path(RUN, "RunStep", "ECS.ServerException", 1, lasting=False)),
        (everything_retried, Path(RUN, "Announce", "Sfn.SfnException", 1, lasting=False)),
        (kept_lock, Path(RUN, "RecordFailure", "States.Timeout", 1, lasting=False)),
        (lost_result, Path(RUN, "ReadOutcome", "States.Permissions", 2, lasting=False)),
        (moved_for_good, Path(RUN, "InvokeFunction", "States.Timeout", 1, lasting=False)),
        (announced_open, Path(RUN, "RecordFailure", "States.Timeout", 1, lasting=True)),
        (untold, Path(FINALIZE, "ReleaseLock", "States.Timeout", 1, lasting=True)),
        (unclosed, Path(RUN, "RunStep", "States.Timeout", 1, lasting=False, lost=True)),
        (unclosed, Path(RUN, "HealthCheck", "AmazonECS.Unknown", 1, lasting=False, lost=True)),
        (unclosed, Path(RUN, "InvokeFunction", "Lambda.AWSLambdaException", 1, lasting=False, lost=True)),
        (unawaited, Path(RUN, "RunStep", "ECS.AccessDeniedException", 1, lasting=False, lost=True)),
        (taken_at_once, Path(RUN, "StopTask", "Ecs.SdkClientException", 1, lasting=False)),
        (freed_at_once, Path(FINALIZE, "Announce", "Sfn.SdkClientException", 1, lasting=False)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_exploration_finds_what_is_wrong(break_it: Callable[[States], None], path: Path) -> None:
    definition = render.load(path.machine)
    break_it(definition["States"])
    assert json.dumps(definition) != json.dumps(render.load(path.machine))
    assert path in list(explore.paths(path.machine, path.state, every=True))
    assert explore.walk(path) is None
    assert explore.walk(path, definition) is not None


# Their errors are answered by another look at the same thing.
LOOKED_AT_AGAIN = frozenset({"StopTask", "DescribeTask"})


@pytest.mark.slow
@pytest.mark.parametrize(("machine", "state"), [task for task in TASKS if task[1] not in LOOKED_AT_AGAIN])
def test_exploration_refuses_each_task_that_knows_no_base_class(machine: str, state: str) -> None:
    """The lists as they were, without the names under which AWS raises what no model has."""
    definition = render.load(machine)
    unnamed(definition["States"])
    service, _ = error_names.integration(explore.task_states(machine)[state]["Resource"])
    path = Path(machine, state, error_names.base(service), 1, lasting=False)
    assert explore.walk(path) is None
    assert explore.walk(path, definition) is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(error_names.meaning("lambda", "Invoke")[error_names.PASSES]))
def test_exploration_refuses_a_refusal_of_lambda_that_is_not_tried_again(name: str) -> None:
    definition = render.load(RUN)
    retry = definition["States"]["InvokeFunction"]["Retry"][0]
    retry["ErrorEquals"] = [error for error in retry["ErrorEquals"] if error != f"Lambda.{name}"]
    path = Path(RUN, "InvokeFunction", f"Lambda.{name}", 1, lasting=False)
    assert explore.walk(path) is None
    assert explore.walk(path, definition) is not None
