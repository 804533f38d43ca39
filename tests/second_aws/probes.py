"""Single behaviours of AWS, asked of an implementation directly: each probe says in a word what it saw."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from flow.support import wait_for
from second_aws.engine import Engine
from second_aws.identity import role_arn


def _execute(engine: Engine, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Runs a state machine of one state to its end."""
    client = engine.client("stepfunctions")
    execution = client.start_execution(stateMachineArn=_machine(engine, state), input="{}")["executionArn"]

    def ended() -> Mapping[str, Any] | None:
        found: Mapping[str, Any] = client.describe_execution(executionArn=execution)
        return found if found["status"] != "RUNNING" else None

    return wait_for("end of a probe", ended, 60)


def _machine(engine: Engine, state: Mapping[str, Any]) -> str:
    definition = {"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": state}}
    created = engine.client("stepfunctions").create_state_machine(
        name=f"probe-{uuid.uuid4().hex}", roleArn=role_arn("prod", "states"), definition=json.dumps(definition)
    )
    return str(created["stateMachineArn"])


def start_again_while_it_runs(engine: Engine) -> str:
    """StartExecution with the name and input of an execution that runs."""
    return _start_twice(engine, end=False)


def start_again_after_its_end(engine: Engine) -> str:
    """StartExecution with the name and input of an execution that has ended."""
    return _start_twice(engine, end=True)


def _start_twice(engine: Engine, *, end: bool) -> str:
    client = engine.client("stepfunctions")
    machine = _machine(engine, {"Type": "Wait", "Seconds": 600, "End": True})
    first = client.start_execution(stateMachineArn=machine, name="one", input="{}")["executionArn"]
    if end:
        client.stop_execution(executionArn=first)
    try:
        again = client.start_execution(stateMachineArn=machine, name="one", input="{}")["executionArn"]
    except ClientError as exc:
        return str(exc.response["Error"]["Code"])
    finally:
        if not end:
            client.stop_execution(executionArn=first)
    return "the same execution" if again == first else "another execution"


def result_of_300_000_characters(engine: Engine) -> str:
    ended = _execute(engine, {"Type": "Pass", "Output": "{% $pad('', 300000, 'x') %}", "End": True})
    return str(ended.get("error") or ended["status"])


def write_over_an_object_that_must_be_new(engine: Engine) -> str:
    return _put(engine, IfNoneMatch="*")


def write_over_an_object_that_has_changed(engine: Engine) -> str:
    return _put(engine, IfMatch='"0123456789abcdef0123456789abcdef"')


def _put(engine: Engine, **condition: str) -> str:
    s3, key = engine.client("s3"), f"probes/{uuid.uuid4().hex}"
    s3.put_object(Bucket=engine.bucket, Key=key, Body=b"first")
    try:
        s3.put_object(Bucket=engine.bucket, Key=key, Body=b"second", **condition)
    except ClientError as exc:
        return str(exc.response["ResponseMetadata"]["HTTPStatusCode"])
    return "written"


PROBES: tuple[Callable[[Engine], str], ...] = (
    start_again_while_it_runs,
    start_again_after_its_end,
    result_of_300_000_characters,
    write_over_an_object_that_must_be_new,
    write_over_an_object_that_has_changed,
)


def ask(engine: Engine) -> dict[str, str]:
    """What an implementation does, by the name of the probe."""
    return {probe.__name__: probe(engine) for probe in PROBES}
