"""The error names that a state can meet: those of the States Language, the project's own, and those of each service.

A service's names are not kept by hand: they are the error shapes of its API model, named as Step Functions names them. What the model
lacks has no name of its own: it arrives under the base class of the SDK's exceptions. Kept by hand is only what an error means, and a test
asks that of each error of the models, so that a new version of the SDK shows what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
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
_FROM_THE_SDK = "SdkClientException"
"""Raised by the SDK before the service answers, or where its answer is lost."""


@dataclass(frozen=True)
class Integration:
    """How Step Functions calls a service.

    Attributes:
        model: the service in botocore.
        prefix: of its errors.
        base: the name of an error that the service did not model, throttling of most services among them.
        added: names that the service integration itself adds.
        passing: of `added`, those that pass.
    """

    model: str
    prefix: str
    base: str
    added: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()


# Sources: Step Functions developer guide, "Error names" and "Integrating services"; the exceptions' classes in the SDK for Java, version 1
# for the optimized integrations and version 2 for those of the SDK.
INTEGRATIONS = {
    "dynamodb": Integration("dynamodb", "DynamoDB", "AmazonDynamoDBException"),
    "aws-sdk:dynamodb": Integration("dynamodb", "DynamoDb", "DynamoDbException"),
    "ecs": Integration("ecs", "ECS", "AmazonECSException", ("AmazonECS.Unknown",), ("AmazonECS.Unknown",)),
    "aws-sdk:ecs": Integration("ecs", "Ecs", "EcsException"),
    # What the sandbox itself fails with has names of its own, or had none in older runtimes.
    "lambda": Integration(
        "lambda",
        "Lambda",
        "AWSLambdaException",
        ("Lambda.ClientExecutionTimeoutException", "Lambda.Unknown", "Runtime.ExitError", "Sandbox.Timedout"),
        ("Lambda.ClientExecutionTimeoutException",),
    ),
    "aws-sdk:s3": Integration("s3", "S3", "S3Exception"),
    "sns": Integration("sns", "SNS", "AmazonSNSException"),
    "aws-sdk:sfn": Integration("stepfunctions", "Sfn", "SfnException"),
    "aws-sdk:cloudwatch": Integration("cloudwatch", "CloudWatch", "CloudWatchException"),
    "events": Integration(
        "events", "EventBridge", "AmazonEventBridgeException", ("EventBridge.FailedEntry",), ("EventBridge.FailedEntry",)
    ),
}

# By operation, each of its modelled errors once. What PASSES is tried again until it does. What MAY_PASS is a wrong configuration, or one
# that AWS does not know everywhere yet: it is tried again twice. What STAYS is no matter of time, or decides the path by its name. All of
# Invoke's and RunTask's are raised before anything ran.
PASSES, MAY_PASS, STAYS = "passes", "may pass", "stays"
_WRITE = {
    PASSES: "InternalServerError ProvisionedThroughputExceededException ReplicatedWriteConflictException RequestLimitExceeded "
    "ThrottlingException TransactionConflictException",
    STAYS: "ConditionalCheckFailedException ItemCollectionSizeLimitExceededException ResourceNotFoundException",
}
_READ = {
    PASSES: "InternalServerError ProvisionedThroughputExceededException RequestLimitExceeded ThrottlingException",
    STAYS: "ResourceNotFoundException",
}
_TASKS = {PASSES: "ServerException", STAYS: "AccessDeniedException ClientException ClusterNotFoundException InvalidParameterException"}
_MEANING: dict[tuple[str, str], dict[str, str]] = {
    **{("dynamodb", operation): _WRITE for operation in ("DeleteItem", "PutItem", "UpdateItem")},
    **{("dynamodb", operation): _READ for operation in ("BatchGetItem", "GetItem", "Query")},
    ("ecs", "DescribeTasks"): _TASKS,
    ("ecs", "StopTask"): _TASKS,
    ("ecs", "RunTask"): {
        PASSES: "ServerException",
        # The account's limits and a want of capacity come as either of the first two.
        MAY_PASS: "ClientException InvalidParameterException BlockedException ConflictException",
        STAYS: "AccessDeniedException ClusterNotFoundException PlatformTaskDefinitionIncompatibilityException PlatformUnknownException "
        "UnsupportedFeatureException",
    },
    ("lambda", "Invoke"): {
        PASSES: "CodeArtifactUserPendingException EC2ThrottledException EC2UnexpectedException ENILimitReachedException "
        "ENINotReadyException ResourceConflictException ResourceNotReadyException ServiceException SubnetIPAddressLimitReachedException "
        "TooManyRequestsException",
        MAY_PASS: "EC2AccessDeniedException KMSAccessDeniedException KMSDisabledException KMSInvalidStateException KMSNotFoundException "
        "ResourceNotFoundException ServiceQuotaExceededException",
        # File systems, SnapStart and durable functions are not used.
        STAYS: "CodeArtifactUserDeletedException CodeArtifactUserFailedException DurableExecutionAlreadyStartedException EFSIOException "
        "EFSMountConnectivityException EFSMountFailureException EFSMountTimeoutException InvalidParameterValueException "
        "InvalidRequestContentException InvalidRuntimeException InvalidSecurityGroupIDException InvalidSubnetIDException "
        "InvalidZipFileException ModeNotSupportedException NoPublishedVersionException RecursiveInvocationException "
        "RequestTooLargeException RuntimeAliasDeletedException RuntimeVersionDeletedException S3FilesMountConnectivityException "
        "S3FilesMountFailureException S3FilesMountTimeoutException SerializedRequestEntityTooLargeException SnapStartException "
        "SnapStartNotReadyException SnapStartRegenerationFailureException SnapStartTimeoutException UnsupportedMediaTypeException",
    },
    ("s3", "PutObject"): {STAYS: "EncryptionTypeMismatch InvalidRequest InvalidWriteOffset TooManyParts"},
    ("sns", "Publish"): {
        PASSES: "InternalErrorException KMSThrottlingException",
        STAYS: "AuthorizationErrorException EndpointDisabledException InvalidParameterException InvalidParameterValueException "
        "InvalidSecurityException KMSAccessDeniedException KMSDisabledException KMSInvalidStateException KMSNotFoundException "
        "KMSOptInRequired NotFoundException PlatformApplicationDisabledException ValidationException",
    },
    ("stepfunctions", "StartExecution"): {
        PASSES: "ExecutionLimitExceeded KmsThrottlingException",
        STAYS: "ExecutionAlreadyExists InvalidArn InvalidExecutionInput InvalidName KmsAccessDeniedException KmsInvalidStateException "
        "StateMachineDeleting StateMachineDoesNotExist ValidationException",
    },
    ("stepfunctions", "DescribeExecution"): {
        PASSES: "KmsThrottlingException",
        # Eventually consistent: it is asked again, and then no proof by itself.
        MAY_PASS: "ExecutionDoesNotExist",
        STAYS: "InvalidArn KmsAccessDeniedException KmsInvalidStateException",
    },
    ("cloudwatch", "PutMetricData"): {
        PASSES: "InternalServiceFault",
        STAYS: "InvalidParameterCombinationException InvalidParameterValueException MissingRequiredParameterException",
    },
    ("events", "PutEvents"): {PASSES: "InternalException"},
}
# What an operation does not name and its service does, under the same name.
_OF_EVERY_OPERATION = {"sns": ("ThrottledException",), "events": ("ThrottlingException",)}
# What they start may be at work when their time is over: that is no error of the call.
_STARTERS = frozenset({("ecs", "RunTask"), ("lambda", "Invoke")})


def integration(resource: str) -> tuple[str, str]:
    """The service and the action of a Task's Resource: `aws-sdk:dynamodb` and `query` of `arn:aws:states:::aws-sdk:dynamodb:query`.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, _, action = resource.partition(":states:::")[2].rpartition(":")
    if service not in INTEGRATIONS:
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
    return _named(service, [str(shape.name) for shape in _model(service).error_shapes])


@cache
def of_call(resource: str) -> frozenset[str]:
    """The names with which a Task of this Resource can fail: what its action can answer, what stands in no model, and the language's own.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, action = integration(resource)
    operation = _operation(action)
    more = _OF_EVERY_OPERATION.get(INTEGRATIONS[service].model, ())
    return _named(service, [*modelled(service, operation), *more]) | _OF_A_TASK


@cache
def passing(resource: str) -> frozenset[str]:
    """The names of what is over when a Task of this Resource tries again, each in all its spellings.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, action = integration(resource)
    known = INTEGRATIONS[service]
    operation = _operation(action)
    more = _OF_EVERY_OPERATION.get(known.model, ())
    names = spelled(service, *meaning(service, operation)[PASSES], *more, known.base, _FROM_THE_SDK)
    return names | {*known.passing} | ({"States.Timeout"} if (known.model, operation) not in _STARTERS else set())


@cache
def perhaps_passing(resource: str) -> frozenset[str]:
    """The names of what may be over when a Task of this Resource tries again.

    Raises:
        KeyError: no integration that the project uses.
    """
    service, action = integration(resource)
    return spelled(service, *meaning(service, _operation(action))[MAY_PASS])


def modelled(service: str, operation: str) -> frozenset[str]:
    """The errors of an operation as its service's model names them."""
    return frozenset(str(shape.name) for shape in _model(service).operation_model(operation).error_shapes)


def meaning(service: str, operation: str) -> dict[str, list[str]]:
    """What each modelled error of an operation means: PASSES, MAY_PASS and STAYS, as the model names them."""
    known = _MEANING[INTEGRATIONS[service].model, operation]
    return {kind: known.get(kind, "").split() for kind in (PASSES, MAY_PASS, STAYS)}


def spelled(service: str, *shapes: str) -> frozenset[str]:
    """The names that errors of a model may have in Step Functions.

    The documentation says that a name without the suffix Exception gets it. Where an SDK does not do so, the name is the model's
    own; and the SDK for Java, version 2, writes Exception in place of Fault.
    """
    before = INTEGRATIONS[service].prefix
    found = set()
    for shape in shapes:
        found |= {shape} if shape.endswith("Exception") else {shape, f"{shape}Exception"}
        if shape.endswith("Fault"):
            found.add(f"{shape.removesuffix('Fault')}Exception")
    return frozenset(f"{before}.{name}" for name in found)


@cache
def spellings(service: str) -> tuple[frozenset[str], ...]:
    """The names of each error of a service that has more than one."""
    found = (spelled(service, str(shape.name)) for shape in _model(service).error_shapes)
    return tuple(names for names in found if len(names) > 1)


@cache
def operations(service: str) -> frozenset[str]:
    """The operations of the service's API, in Pascal case."""
    return frozenset(_model(service).operation_names)


def prefix(service: str) -> str:
    """What stands before the dot in the names of a service's errors."""
    return INTEGRATIONS[service].prefix


def base(service: str) -> str:
    """The name of what a service's model lacks."""
    known = INTEGRATIONS[service]
    return f"{known.prefix}.{known.base}"


def _named(service: str, shapes: list[str]) -> frozenset[str]:
    known = INTEGRATIONS[service]
    return spelled(service, *shapes, known.base, _FROM_THE_SDK) | {*known.added}


def _operation(action: str) -> str:
    return action[:1].upper() + action[1:].removesuffix(".sync")


def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(INTEGRATIONS[service].model)
