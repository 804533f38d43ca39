"""What warehouses want to see that is not AWS's own: a database token of RDS, a token for Google's workload identity federation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dbt_runner.broker.session import Credentials, Expiring, refusal, session_name
from dbt_runner.request import AttemptKey
from dbt_runner.store import client_config

# Makes a boto3 client from a service, a region and credentials.
Clients = Callable[[str, str, Credentials], Any]

SUBJECT_TOKEN_FIELD = "id_token"
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html: 60 to 3600 seconds. It is exchanged at once.
_SUBJECT_SECONDS = 300
# https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers
GOOGLE_STS = "https://sts.googleapis.com/v1/token"
GOOGLE_IAM = "https://iamcredentials.googleapis.com/v1"


@dataclass(frozen=True)
class SubjectToken(Expiring):
    """A token of AWS's own OIDC issuer, for one audience."""

    token: str = field(repr=False)


def subject_token(audience: str, key: AttemptKey, region: str, credentials: Credentials, clients: Clients) -> SubjectToken:
    """Obtains a token that names the warehouse role and, in its tags, the run.

    Raises:
        TypedError: Dbt.AccessDenied when AWS refuses, Dbt.WarehouseUnavailable when it does not answer or cannot.
    """
    try:
        answer = clients("sts", region, credentials).get_web_identity_token(
            Audience=[audience],
            SigningAlgorithm="RS256",
            DurationSeconds=_SUBJECT_SECONDS,
            # The subject is the role, whose session's name is not in it.
            Tags=[{"Key": "environment", "Value": key.environment}, {"Key": "run", "Value": session_name(key.run_id)}],
        )
    except (BotoCoreError, ClientError) as exc:
        raise refusal(exc, f"GetWebIdentityToken for {audience}") from exc
    return SubjectToken(expires_at=answer["Expiration"].astimezone(UTC), token=answer["WebIdentityToken"])


def external_account(identity: Mapping[str, str], url: str, bearer: str) -> str:
    """The file that GOOGLE_APPLICATION_CREDENTIALS names: google-auth reads a new token from `url` whenever it needs one.

    Args:
        identity: of the warehouse: `audience`, the provider's full resource name, and `service_account`, an e-mail address.

    Source: https://google.aip.dev/auth/4117
    """
    document = {
        "type": "external_account",
        "universe_domain": "googleapis.com",
        "audience": identity["audience"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": GOOGLE_STS,
        "service_account_impersonation_url": f"{GOOGLE_IAM}/projects/-/serviceAccounts/{identity['service_account']}:generateAccessToken",
        "credential_source": {
            "url": url,
            "headers": {"Authorization": bearer},
            "format": {"type": "json", "subject_token_field_name": SUBJECT_TOKEN_FIELD},
        },
    }
    return json.dumps(document, indent=2) + "\n"


def database_token(settings: Mapping[str, str], region: str, credentials: Credentials, clients: Clients) -> str:
    """Signs a token of RDS for settings.host, port and user. No call of AWS is made.

    Raises:
        TypedError: Dbt.AccessDenied when it cannot be signed.
    """
    try:
        token: str = clients("rds", region, credentials).generate_db_auth_token(
            DBHostname=settings["host"], Port=int(settings.get("port", 5432)), DBUsername=settings["user"]
        )
    except (BotoCoreError, ClientError) as exc:
        raise refusal(exc, "signing the RDS token") from exc
    return token


def password_line(settings: Mapping[str, str], token: str) -> str:
    """A libpq password file. https://www.postgresql.org/docs/current/libpq-pgpass.html

    libpq reads it at every new connection, and dbt opens one for every node, so a run may last longer than a token.
    """
    fields = (settings["host"], str(settings.get("port", 5432)), "*", settings["user"], token)
    return ":".join(part.replace("\\", "\\\\").replace(":", "\\:") for part in fields) + "\n"


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step; nobody but its owner can read it, at any moment."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600, exist_ok=False)
    fresh.write_text(text)
    fresh.replace(path)


def boto3_client(service: str, region: str, credentials: Credentials) -> Any:
    """A client under the warehouse role's credentials, which it does not renew."""
    import boto3

    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name=region,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key,
        aws_session_token=credentials.session_token,
        config=client_config(),
    )
