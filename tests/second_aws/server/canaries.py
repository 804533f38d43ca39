"""Whether ministack still lacks what is patched here: run it in the second AWS's environment, without the patches.

Prints one line of JSON: for each canary whether its patch is still needed.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.services import ecs, lambda_svc, scheduler, stepfunctions

_REGION, _ACCOUNT = "us-east-1", "123456789012"
_SECONDS = 10


def _run(state: Mapping[str, Any]) -> tuple[str, str | None]:
    """The status and the error of an execution of one state."""
    definition = {"QueryLanguage": "JSONata", "StartAt": "Only", "States": {"Only": {**state, "End": True}}}
    name = f"canary-{time.monotonic_ns()}"
    created = stepfunctions._create_state_machine({"name": name, "roleArn": "arn:aws:iam::1:role/x", "definition": json.dumps(definition)})
    started = stepfunctions._start_execution({"stateMachineArn": json.loads(created[2])["stateMachineArn"], "input": "{}"})
    arn, deadline = json.loads(started[2])["executionArn"], time.monotonic() + _SECONDS
    while (found := stepfunctions._executions[arn])["status"] == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.05)
    return found["status"], found.get("error")


def _task(action: str, parameters: Mapping[str, Any], **more: Any) -> tuple[str, str | None]:
    return _run({"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{action}", "Arguments": parameters, **more})


def _resource(service: str, target: str, document: Mapping[str, Any]) -> str:
    headers = {"x-amz-target": target, "content-type": "application/x-amz-json-1.1"}
    body = json.dumps(document).encode()
    arn: str = iam_actions.extract_resource_arn(service, "POST", "/", headers, body, {}, _REGION, _ACCOUNT)
    return arn


def expression_in_timeout() -> bool:
    return _task("dynamodb:listTables", {}, TimeoutSeconds="{% 2 + 3 %}")[0] != "SUCCEEDED"


def put_object_of_a_state() -> bool:
    status, error = _task("s3:putObject", {"Bucket": "b", "Key": "k", "Body": {"a": 1}})
    return (status, error) not in (("SUCCEEDED", None), ("FAILED", "S3.NoSuchBucketException"))


def names_of_exceptions() -> bool:
    unknown = f"arn:aws:states:{_REGION}:{_ACCOUNT}:execution:m:unknown"
    return _task("sfn:describeExecution", {"ExecutionArn": unknown})[1] != "Sfn.ExecutionDoesNotExistException"


def stop_that_waits_for_the_process() -> bool:
    return ".wait(" not in inspect.getsource(ecs._stop_task)


def credentials_of_the_task_role() -> bool:
    return "taskRoleArn" not in inspect.getsource(ecs._register_metadata)


def qualified_versions() -> bool:
    return "FunctionArn" not in inspect.getsource(lambda_svc._list_versions)


def keys_of_items() -> bool:
    body = json.dumps({"TableName": "t", "Key": {"pk": {"S": "a"}}}).encode()
    return "dynamodb:LeadingKeys" not in iam_actions.dynamodb_service_context(body)


def keys_of_transactions() -> bool:
    item = {"Put": {"TableName": "t", "Item": {"pk": {"S": "a"}}}}
    body = json.dumps({"TransactItems": [item]}).encode()
    checks = iam_actions.dynamodb_transaction_checks("dynamodb:TransactWriteItems", body, _REGION, _ACCOUNT)
    return all(len(check) == 2 and type(check[1]) is str for check in checks)


def alias_of_a_state_machine() -> bool:
    body = json.dumps({"stateMachineArn": f"arn:aws:states:{_REGION}:{_ACCOUNT}:stateMachine:m:live"}).encode()
    return "states:StateMachineQualifier" not in iam_actions.request_tag_context("states", "states:StartExecution", body, {})


def precondition_of_a_write() -> bool:
    found = iam_actions.s3_service_context("s3:PutObject", {}, "/bucket/key", {"if-none-match": "*"})
    return "s3:if-none-match" not in {name.lower() for name in found}


def parameter_by_its_arn() -> bool:
    name = f"arn:aws:ssm:{_REGION}:{_ACCOUNT}:parameter/p"
    return _resource("ssm", "AmazonSSM.GetParameter", {"Name": name}) != name


def database_of_glue() -> bool:
    return not _resource("glue", "AWSGlue.GetDatabase", {"Name": "marts"}).endswith(":database/marts")


def streams_of_a_log_group() -> bool:
    return not _resource("logs", "Logs_20140328.FilterLogEvents", {"logGroupName": "/a"}).endswith(":*")


def source_identity() -> bool:
    return "sourceidentity" not in inspect.getsource(iam_evaluator).lower()


def schedules_of_a_second() -> bool:
    return int(scheduler._SCHEDULE_TICK_INTERVAL) > 1


CANARIES: tuple[Callable[[], bool], ...] = (
    expression_in_timeout,
    put_object_of_a_state,
    names_of_exceptions,
    stop_that_waits_for_the_process,
    credentials_of_the_task_role,
    qualified_versions,
    keys_of_items,
    keys_of_transactions,
    alias_of_a_state_machine,
    precondition_of_a_write,
    parameter_by_its_arn,
    database_of_glue,
    streams_of_a_log_group,
    source_identity,
    schedules_of_a_second,
)


if __name__ == "__main__":
    print(json.dumps({canary.__name__: canary() for canary in CANARIES}))
