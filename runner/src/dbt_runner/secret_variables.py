"""The team's secret variables: which they are, and what they hold where nobody injects them, as on Lambda.

DBT_RUNNER_SECRETS, a JSON object of names and references, says which variables of the container are secret; on Lambda, where there is no
ECS agent, the runner reads them itself.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/secrets-envvar-secrets-manager.html says how a reference is written:
the ARN of a secret, then `:<JSON key>:<version stage>:<version id>`, each of which may be empty; or the ARN of an SSM parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, RUNNER_ERROR, TypedError

VARIABLE = "DBT_RUNNER_SECRETS"
# dbt's own word for a secret variable. https://docs.getdbt.com/reference/dbt-jinja-functions/env_var#secrets
_DBT_PREFIX = "DBT_ENV_SECRET_"


def references(environment: Mapping[str, str]) -> dict[str, str]:
    """The names of the secret variables that the deployment declares, and what they refer to.

    Raises:
        TypedError: Dbt.RunnerError when DBT_RUNNER_SECRETS is not what the deployment writes.
    """
    try:
        found = json.loads(environment.get(VARIABLE, "{}"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TypedError(RUNNER_ERROR, f"{VARIABLE} must be a JSON object of names and references: run terraform apply again")
    return found


def injected(environment: Mapping[str, str]) -> dict[str, str]:
    """The secret variables that are in a process's environment already: those declared, and dbt's own by their prefix.

    Raises:
        TypedError: as `references` does.
    """
    declared = references(environment)
    return {name: value for name, value in environment.items() if name in declared or name.startswith(_DBT_PREFIX)}


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
