"""The team's secret variables, where nobody injects them: on Lambda the runner does itself what the ECS agent does for a task.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html says how a reference is written:
the ARN of a secret, then `:<JSON key>:<version stage>:<version id>`, each of which may be empty; or the ARN of an SSM parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, TypedError


def read(references: Mapping[str, str], clients: Callable[[str], Any]) -> dict[str, str]:
    """The values of secret variables, by name.

    Args:
        references: the variables' names and what they refer to.
        clients: makes a boto3 client of a service.

    Raises:
        TypedError: Dbt.AccessDenied when a secret cannot be read, Dbt.InvalidRequest when it has no such key. No value is in a message.
    """
    values = {}
    for name, reference in references.items():
        try:
            values[name] = _parameter(reference, clients) if ":ssm:" in reference else _secret(reference, clients)
        except (BotoCoreError, ClientError) as exc:
            raise TypedError(ACCESS_DENIED, f"secrets.{name} cannot be read: {exc}", type(exc).__name__) from exc
        except (KeyError, ValueError, TypeError) as exc:
            # The text of the exception could hold a piece of the secret.
            raise TypedError(INVALID_REQUEST, f"secrets.{name}: {reference} is no text, or no JSON with such a key") from exc
    return values


def _parameter(reference: str, clients: Callable[[str], Any]) -> str:
    value: str = clients("ssm").get_parameter(Name=reference, WithDecryption=True)["Parameter"]["Value"]
    return value


def _secret(reference: str, clients: Callable[[str], Any]) -> str:
    fields = reference.split(":")
    key, stage, version = [*fields[7:], "", "", ""][:3]
    arguments = {"SecretId": ":".join(fields[:7]), "VersionStage": stage, "VersionId": version}
    text: str = clients("secretsmanager").get_secret_value(**{k: v for k, v in arguments.items() if v})["SecretString"]
    if not key:
        return text
    value = json.loads(text)[key]
    return value if isinstance(value, str) else json.dumps(value)
