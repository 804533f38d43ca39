"""IAM's answer to single requests, and what AWS asks IAM for each call of boto3: whether a role can do what its code does.

The prover asks what a role can never do, over all requests; here stands, independent of it, what a role has to be able to do. Conditions
are read as AWS reads them, with keys of several values: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import yaml
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from terraform.claims import ACCOUNT, REGION, role_arn
from terraform.inventory import FOLDER
from terraform.prover import listed

_ARN = f"{REGION}:{ACCOUNT}"
Keys = Mapping[str, tuple[str, ...]]
Statements = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Asked:
    """One request to IAM. `keys` are the condition keys that are present, in lower case."""

    action: str
    resource: str
    keys: Keys = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.action} on {self.resource} with {dict(self.keys)}"


def policy(environment: str, role: str) -> Statements:
    """The statements of a role, by sid, as the inventory of two environments has them."""
    inventory = yaml.safe_load((FOLDER / "two_environments.yaml").read_text())
    for name, entry in inventory.items():
        if ".aws_iam_role_policy." in name and entry["role"] == f"x-analytics-{environment}-{role}":
            statements: Statements = entry["statements"]
            return statements
    raise KeyError(f"{environment} {role}")


def allowed_by(statements: Statements, asked: Asked) -> str | None:
    """The sid of the first statement that allows it; None where none does or one denies."""
    found = [(sid, s["Effect"]) for sid, s in statements.items() if _applies(s, asked)]
    if any(effect == "Deny" for _, effect in found):
        return None
    return next((sid for sid, _ in found), None)


def _applies(statement: Mapping[str, Any], asked: Asked) -> bool:
    if not any(_like(action.lower(), asked.action.lower()) for action in listed(statement["Action"])):
        return False
    if not any(_like(resource, asked.resource) for resource in listed(statement["Resource"])):
        return False
    return conditions_hold(statement, asked)


def conditions_hold(statement: Mapping[str, Any], asked: Asked) -> bool:
    """Whether all conditions of a statement hold for a request."""
    tests = ((operator, key, values) for operator, keys in statement.get("Condition", {}).items() for key, values in keys.items())
    return all(_holds(operator, asked.keys.get(key.lower()), listed(values)) for operator, key, values in tests)


def _holds(operator: str, found: Sequence[str] | None, values: Sequence[str]) -> bool:
    if operator == "Null":
        return (found is None) == (values == ["true"])
    quantifier, _, test = operator.rpartition(":")
    if found is None:
        return quantifier == "ForAllValues" or test.endswith("IfExists")
    compare = _TESTS[test.removesuffix("IfExists")]
    if not quantifier:
        assert len(found) == 1, "a key of several values wants ForAllValues or ForAnyValue"
    among = any if quantifier == "ForAnyValue" else all
    return among(any(compare(value, one) for value in values) for one in found)


def _like(pattern: str, text: str) -> bool:
    return re.fullmatch("".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in pattern), text, re.DOTALL) is not None


_TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, found: value == found,
    "StringLike": _like,
    "ArnEquals": _like,
    "ArnLike": _like,
}


# --- what boto3's calls ask for ------------------------------------------------------------------------------------------


class Calls:
    """What was asked of AWS within `recorded`, as requests to IAM, in order and each once."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}

    def add(self, requests: Iterable[Asked]) -> None:
        self.asked.update({str(request): request for request in requests})

    def refused(self, statements: Statements) -> list[str]:
        """Those that the statements do not allow."""
        return [name for name, asked in self.asked.items() if allowed_by(statements, asked) is None]

    def needed(self, statements: Statements) -> set[str]:
        """The statements without which one of them would be refused."""
        found = set()
        for sid in statements:
            without = {other: s for other, s in statements.items() if other != sid}
            if any(allowed_by(without, asked) is None for asked in self.asked.values()):
                found.add(sid)
        return found


@contextlib.contextmanager
def recorded(*ignored: str) -> Iterator[Calls]:
    """Records the calls of every client of boto3, also those that fail, and lets them through.

    Args:
        ignored: services whose calls are somebody else's.
    """
    calls, call = Calls(), BaseClient._make_api_call  # type: ignore[attr-defined]

    def watched(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        if service not in ignored:
            calls.add(requests(service, operation, parameters))
        try:
            return call(client, operation, parameters)
        except ClientError as exc:
            if service == "s3" and exc.response["Error"]["Code"] in ("NoSuchKey", "404"):
                # Whether it says 404 or 403 goes by the right to list, with the key as the prefix.
                calls.add([_list_bucket(parameters["Bucket"], parameters["Key"])])
            raise

    with patch.object(BaseClient, "_make_api_call", watched):
        yield calls


def requests(service: str, operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    """What AWS asks IAM for a call.

    Raises:
        KeyError: nothing is known of this service or operation.
    """
    yield from _SERVICES[service](operation, parameters)


def _dynamodb(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html"""
    if operation == "TransactWriteItems":
        for kind, part in (entry for write in parameters["TransactItems"] for entry in write.items()):
            yield from _dynamodb({"ConditionCheck": "ConditionCheckItem"}.get(kind, f"{kind}Item"), part)
        return
    batches = parameters.get("RequestItems") or {parameters["TableName"]: None}
    for table, batch in batches.items():
        if operation == "BatchGetItem":
            items = [dict.fromkeys(key, None) | key for key in batch["Keys"]]
        elif operation == "BatchWriteItem":
            items = [request["PutRequest"]["Item"] for request in batch]
        elif operation == "Query":
            placeholder = re.match(r"#?pk = (:\w+)", parameters["KeyConditionExpression"])
            assert placeholder, parameters["KeyConditionExpression"]
            items = [{"pk": parameters["ExpressionAttributeValues"][placeholder[1]]}]
        else:
            items = [parameters.get("Item") or parameters["Key"]]
        keys = {"dynamodb:leadingkeys": tuple(dict.fromkeys(item["pk"]["S"] for item in items))}
        if operation not in ("GetItem", "Query", "BatchGetItem"):
            names = {name for item in items for name in item} | _named(parameters)
            keys["dynamodb:attributes"] = tuple(sorted(names))
        yield Asked(f"dynamodb:{operation}", f"arn:aws:dynamodb:{_ARN}:table/{table}", keys)
        yield _with_key("kms:Decrypt", "dynamodb", "aws:dynamodb:tableName", table)


def _named(parameters: Mapping[str, Any]) -> set[str]:
    """The attributes that expressions name."""
    text = " ".join(parameters.get(name, "") for name in ("ConditionExpression", "UpdateExpression", "ProjectionExpression"))
    functions = {"set", "remove", "add", "and", "or", "not", "between", "in", "attribute_exists", "attribute_not_exists", "begins_with"}
    words = {word for word in re.findall(r"(?<![:\w])#?[A-Za-z_]\w*", text) if word.lower() not in functions | {"size", "if_not_exists"}}
    return {parameters.get("ExpressionAttributeNames", {}).get(word, word) for word in words}


def _s3(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html"""
    bucket = parameters["Bucket"]
    at = f"arn:aws:s3:::{bucket}"
    if operation == "ListObjectsV2":
        yield _list_bucket(bucket, parameters["Prefix"])
    elif operation == "PutObject":
        keys = {"s3:if-none-match": (parameters["IfNoneMatch"],)} if "IfNoneMatch" in parameters else {}
        yield Asked("s3:PutObject", f"{at}/{parameters['Key']}", keys)
        yield _with_key("kms:GenerateDataKey", "s3", "aws:s3:arn", at)
        if "IfMatch" in parameters:
            yield Asked("s3:GetObject", f"{at}/{parameters['Key']}")
    else:
        assert operation in ("GetObject", "HeadObject"), operation
        yield Asked("s3:GetObject", f"{at}/{parameters['Key']}")
        yield _with_key("kms:Decrypt", "s3", "aws:s3:arn", at)


def _list_bucket(bucket: str, prefix: str) -> Asked:
    return Asked("s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": (prefix,)})


def _with_key(action: str, service: str, context: str, value: str) -> Asked:
    keys = {"kms:viaservice": (f"{service}.{REGION}.amazonaws.com",), f"kms:encryptioncontext:{context}".lower(): (value,)}
    return Asked(action, f"arn:aws:kms:{_ARN}:key/11111111-2222-3333-4444-555555555555", keys)


def _states(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    """Of an alias AWS asks by its machine's ARN: https://docs.aws.amazon.com/step-functions/latest/dg/auth-version-alias.html"""
    resource = parameters.get("stateMachineArn") or parameters["executionArn"]
    if operation == "StartExecution":
        # moto starts no alias; recorded_runs.LiveAlias holds callers to it and takes it off.
        yield Asked("states:StartExecution", resource, {"states:statemachinequalifier": ("live",)})
    else:
        yield Asked(f"states:{operation}", resource)


def _sts(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    if operation == "GetCallerIdentity":
        # Nobody needs a permission for it.
        return
    assert operation == "AssumeRole", operation
    yield Asked("sts:AssumeRole", parameters["RoleArn"])
    if parameters.get("Tags"):
        yield Asked("sts:TagSession", parameters["RoleArn"])
    if "SourceIdentity" in parameters:
        yield Asked("sts:SetSourceIdentity", parameters["RoleArn"])


def _logs(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    yield Asked(f"logs:{operation}", f"arn:aws:logs:{_ARN}:log-group:{parameters['logGroupName']}:*")


def _secretsmanager(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    yield Asked(f"secretsmanager:{operation}", parameters["SecretId"])
    yield _with_key("kms:Decrypt", "secretsmanager", "SecretARN", parameters["SecretId"])


def _ssm(operation: str, parameters: Mapping[str, Any]) -> Iterator[Asked]:
    yield Asked(f"ssm:{operation}", parameters["Name"])
    yield _with_key("kms:Decrypt", "ssm", "PARAMETER_ARN", parameters["Name"])


# --- what a state's call asks for ----------------------------------------------------------------------------------------


def of_state(integration: str, parameters: Mapping[str, Any], environment: str) -> Iterator[Asked]:
    """What AWS asks IAM for a call of a state, such as `ecs:runTask.sync` or `aws-sdk:dynamodb:putItem`.

    https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html

    Raises:
        KeyError: nothing is known of this integration.
    """
    service, action = integration.removeprefix("aws-sdk:").split(":")
    operation = action[0].upper() + action[1:]
    if service in ("dynamodb", "s3"):
        yield from requests(service, operation, parameters)
    else:
        yield from _INTEGRATIONS[f"{service}:{action}"](parameters, environment)


def _run_task(parameters: Mapping[str, Any], environment: str) -> Iterator[Asked]:
    cluster = parameters["Cluster"]
    task = f"{cluster.replace(':cluster/', ':task/')}/0123456789abcdef"
    yield Asked("ecs:RunTask", parameters["TaskDefinition"], {"ecs:cluster": (cluster,)})
    if parameters.get("Tags"):
        yield Asked("ecs:TagResource", task, {"ecs:createaction": ("RunTask",)})
    for role in ("execution", "task"):
        yield Asked("iam:PassRole", role_arn(environment, role), {"iam:passedtoservice": ("ecs-tasks.amazonaws.com",)})
    for action in ("DescribeTasks", "StopTask"):
        yield Asked(f"ecs:{action}", task, {"ecs:cluster": (cluster,)})
    for action in ("DescribeRule", "PutRule", "PutTargets"):
        yield Asked(f"events:{action}", f"arn:aws:events:{_ARN}:rule/StepFunctionsGetEventsForECSTaskRule")


def _publish(parameters: Mapping[str, Any], _: str) -> Iterator[Asked]:
    yield Asked("sns:Publish", parameters["TopicArn"])
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        yield _with_key(action, "sns", "aws:sns:topicArn", parameters["TopicArn"])


def _tasks(action: str) -> Callable[[Mapping[str, Any], str], Iterator[Asked]]:
    def asked(parameters: Mapping[str, Any], _: str) -> Iterator[Asked]:
        for task in parameters.get("Tasks") or [parameters["Task"]]:
            # A call may name the cluster; the key holds its ARN.
            cluster = f"arn:aws:ecs:{_ARN}:cluster/{parameters['Cluster'].rpartition('/')[2]}"
            yield Asked(f"ecs:{action}", task, {"ecs:cluster": (cluster,)})

    return asked


_INTEGRATIONS: Mapping[str, Callable[[Mapping[str, Any], str], Iterator[Asked]]] = {
    "cloudwatch:putMetricData": lambda p, _: iter([Asked("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": (p["Namespace"],)})]),
    "ecs:describeTasks": _tasks("DescribeTasks"),
    "ecs:runTask.sync": _run_task,
    "ecs:stopTask": _tasks("StopTask"),
    "events:putEvents": lambda p, _: (
        Asked(
            "events:PutEvents",
            f"arn:aws:events:{_ARN}:event-bus/{entry.get('EventBusName', 'default')}",
            {"events:source": (entry["Source"],)},
        )
        for entry in p["Entries"]
    ),
    "lambda:invoke": lambda p, _: iter([Asked("lambda:InvokeFunction", p["FunctionName"])]),
    "sfn:describeExecution": lambda p, _: iter([Asked("states:DescribeExecution", p["ExecutionArn"])]),
    "sfn:startExecution": lambda p, _: iter([Asked("states:StartExecution", p["StateMachineArn"])]),
    "sns:publish": _publish,
}
_SERVICES: Mapping[str, Callable[[str, Mapping[str, Any]], Iterator[Asked]]] = {
    "dynamodb": _dynamodb,
    "logs": _logs,
    "s3": _s3,
    "secretsmanager": _secretsmanager,
    "ssm": _ssm,
    "stepfunctions": _states,
    "sts": _sts,
}
