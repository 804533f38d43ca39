"""The error names that a state can meet: those of the States Language, the project's own, and those of each service.

A service's names are not kept by hand: they are the error shapes of its API model, named as Step Functions names them. An optimized
integration (`states:::dynamodb:`) and an AWS SDK integration (`states:::aws-sdk:dynamodb:`) of one service differ in the prefix, and in
the name of what the service did not model.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import botocore.session

from dbt_runner.errors import ERRORS

CATCH_ALL = "States.ALL"

# Source: Step Functions developer guide, "Error names". States.Runtime and States.DataLimitExceeded are left out: nothing catches them.
LANGUAGE = frozenset(
    {
        CATCH_ALL,
        "States.BranchFailed",
        "States.ExceedToleratedFailureThreshold",
        "States.HeartbeatTimeout",
        "States.Http.Socket",
        "States.ItemReaderFailed",
        "States.NoChoiceMatched",
        "States.Permissions",
        "States.QueryEvaluationError",
        "States.ResultWriterFailed",
        "States.TaskFailed",
        "States.Timeout",
    }
)
RECORDED_ALREADY = "DynamoDB.ConditionalCheckFailedException"
"""What a recorder meets where the record is closed: its own first try, whose answer was lost, or finalize."""
_OF_A_TASK = frozenset({"States.Permissions", "States.QueryEvaluationError", "States.TaskFailed", "States.Timeout"})
WILDCARDS = frozenset({CATCH_ALL, "States.TaskFailed"})
TYPED = frozenset(ERRORS)

# Of an integration: the service in botocore, the prefix of its errors, the name of an error that the service did not model, and names that
# the service integration itself adds.
_INTEGRATIONS = {
    "dynamodb": ("dynamodb", "DynamoDB", "AmazonDynamoDBException", ()),
    "aws-sdk:dynamodb": ("dynamodb", "DynamoDb", "DynamoDbException", ()),
    "ecs": ("ecs", "ECS", "AmazonECSException", ("AmazonECS.Unknown",)),
    "aws-sdk:ecs": ("ecs", "Ecs", "EcsException", ()),
    # What the sandbox itself fails with has names of its own, or had none in older runtimes.
    "lambda": ("lambda", "Lambda", "AWSLambdaException", ("Lambda.Unknown", "Runtime.ExitError", "Sandbox.Timedout")),
    "aws-sdk:s3": ("s3", "S3", "S3Exception", ("S3.SlowDownException", "S3.InternalErrorException", "S3.ServiceUnavailableException")),
    "sns": ("sns", "SNS", "AmazonSNSException", ()),
    "aws-sdk:sfn": ("stepfunctions", "Sfn", "SfnException", ()),
    "aws-sdk:cloudwatch": ("cloudwatch", "CloudWatch", "CloudWatchException", ()),
    "events": ("events", "EventBridge", "AmazonEventBridgeException", ("EventBridge.FailedEntry",)),
}
# Answered by every service (throttling is part of no model but DynamoDB's), or raised by the SDK before the service answers.
_COMMON = ("ThrottlingException", "SdkClientException")


def integration(resource: str) -> tuple[str, str]:
    """The service and the action of a Task's Resource: `aws-sdk:dynamodb` and `query` of `arn:aws:states:::aws-sdk:dynamodb:query`.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, _, action = resource.partition(":states:::")[2].rpartition(":")
    if service not in _INTEGRATIONS:
        raise KeyError(resource)
    return service, action


@cache
def of_service(service: str) -> frozenset[str]:
    """The names with which a call through this integration can fail.

    Args:
        service: as `integration` gives it.

    Raises:
        KeyError: no integration that the project uses.
    """
    model, prefix, unmodelled, added = _INTEGRATIONS[service]
    shapes = botocore.session.get_session().get_service_model(model).error_shapes
    return frozenset(f"{prefix}.{name}" for name in (*map(_class_name, shapes), unmodelled, *_COMMON)) | frozenset(added)


@cache
def of_call(resource: str) -> frozenset[str]:
    """The names with which a Task of this Resource can fail: what its action can answer, what stands in no model, and the language's own.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, action = integration(resource)
    model, prefix, unmodelled, added = _INTEGRATIONS[service]
    operation = action[:1].upper() + action[1:].removesuffix(".sync")
    shapes = botocore.session.get_session().get_service_model(model).operation_model(operation).error_shapes
    return frozenset(f"{prefix}.{name}" for name in (*map(_class_name, shapes), unmodelled, *_COMMON)) | frozenset(added) | _OF_A_TASK


def _class_name(shape: Any) -> str:
    # The SDKs that Step Functions runs on end every error's class in Exception, where some shapes do not (InternalServerError).
    return str(shape.name) if shape.name.endswith("Exception") else f"{shape.name}Exception"


@cache
def operations(service: str) -> frozenset[str]:
    """The operations of the service's API, in Pascal case."""
    return frozenset(botocore.session.get_session().get_service_model(_INTEGRATIONS[service][0]).operation_names)


def prefix(service: str) -> str:
    """What stands before the dot in the names of a service's errors."""
    return _INTEGRATIONS[service][1]
