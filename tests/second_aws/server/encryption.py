"""What DynamoDB, S3 and SNS ask of a customer managed key as their caller, where the stack has one.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/encryption.usagenotes.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html#encryption-context
https://docs.aws.amazon.com/sns/latest/dg/sns-key-management.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import kms

_OBJECT_ACTIONS = {"s3:GetObject": "kms:Decrypt", "s3:PutObject": "kms:GenerateDataKey"}
# The audit bucket is encrypted by the key; others are somebody else's.
_AUDIT = "-audit-"
_SECRETS = {
    "secretsmanager:GetSecretValue": ("secretsmanager", "SecretARN"),
    "ssm:GetParameter": ("ssm", "PARAMETER_ARN"),
    "ssm:GetParameters": ("ssm", "PARAMETER_ARN"),
}

Request = tuple[str, str, Mapping[str, Any]]


def requests(action: str, resource: str) -> Iterator[Request]:
    """The requests (action, key's ARN, condition keys) that a call makes of the key; none where nothing is encrypted by one."""
    key = next((key["Arn"] for key in kms._keys._data.values() if key.get("Arn")), None)
    if key is None or os.environ.get("SECOND_AWS_KEY") != "customer":
        return
    for wanted, service, context in _asked(action, resource):
        names = {f"kms:EncryptionContext:{name}": value for name, value in context.items()}
        yield wanted, key, {"kms:ViaService": f"{service}.{get_region()}.amazonaws.com", **names}


def _asked(action: str, resource: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    if action.startswith("dynamodb:"):
        table = {"aws:dynamodb:tableName": resource.split("table/")[-1].split("/")[0], "aws:dynamodb:subscriberId": get_account_id()}
        yield "kms:Decrypt", "dynamodb", table
        yield "kms:DescribeKey", "dynamodb", {}
    elif action in _OBJECT_ACTIONS and _AUDIT in resource:
        # With a bucket key the context is the bucket, without it is the object.
        for arn in (resource.split("/")[0], resource):
            yield _OBJECT_ACTIONS[action], "s3", {"aws:s3:arn": arn}
    elif action == "sns:Publish":
        for wanted in ("kms:GenerateDataKey", "kms:Decrypt"):
            yield wanted, "sns", {"aws:sns:topicArn": resource}
    elif action in _SECRETS:
        service, name = _SECRETS[action]
        yield "kms:Decrypt", service, {name: resource}
