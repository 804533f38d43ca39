"""A token of Okta for Snowflake's External OAuth, obtained without a stored secret: the proof of who asks is signed by a key of KMS.

The grant is client_credentials, the client authenticates by private_key_jwt (RFC 7523, 2.2). The private key never leaves KMS, and the
signature is the warehouse role's, so that CloudTrail names the run with it. A token of AWS's own issuer would be no valid proof: its
issuer and subject are not the client.
https://developer.okta.com/docs/guides/implement-oauth-for-okta-serviceapp/main/
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from dbt_runner.broker.session import Credentials, Expiring, refusal
from dbt_runner.broker.tokens import Clients
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, TypedError

_ASSERTION_SECONDS = 300
_TIMEOUT_SECONDS: Final = 30.0
_LONGEST_ANSWER = 100_000
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class AccessToken(Expiring):
    """What Snowflake takes at a login."""

    token: str = field(repr=False)


def access_token(identity: Mapping[str, str], role: str, region: str, credentials: Credentials, clients: Clients) -> AccessToken:
    """Obtains an access token for one role of Snowflake.

    Args:
        identity: of the warehouse: `issuer`, the URL of a custom authorization server; `client_id` of the application; `kms_key_arn`, the
            ARN of the key whose public half Okta knows under the key's id.
        role: of Snowflake.
        region: of the environment; the key's own wins over it.
        credentials: the warehouse role's, which may sign with the key.
        clients: makes a client of KMS.

    Raises:
        TypedError: Dbt.AccessDenied when AWS or Okta refuses, Dbt.WarehouseUnavailable when one of them does not answer or cannot.
    """
    url = f"{identity['issuer']}/v1/token"
    asked_at = datetime.now(UTC)
    form = {
        "grant_type": "client_credentials",
        # https://docs.snowflake.com/en/user-guide/oauth-ext-overview
        "scope": f"session:role:{role}",
        "client_assertion_type": _ASSERTION_TYPE,
        "client_assertion": _assertion(identity, url, region, credentials, clients, asked_at),
    }
    answer = _post(url, form)
    token, seconds = answer.get("access_token"), answer.get("expires_in")
    if not (isinstance(token, str) and token and isinstance(seconds, int) and not isinstance(seconds, bool) and seconds > 0):
        raise TypedError(ACCESS_DENIED, f"no credential for the warehouse: {url} answered without access_token and expires_in")
    return AccessToken(expires_at=asked_at + timedelta(seconds=seconds), token=token)


def _assertion(identity: Mapping[str, str], url: str, region: str, credentials: Credentials, clients: Clients, now: datetime) -> str:
    """A JWT that says who asks, for this server, for five minutes, and to be used once."""
    key = identity["kms_key_arn"]
    header = {"alg": "RS256", "typ": "JWT", "kid": key.rpartition("/")[2]}
    claims = {
        "iss": identity["client_id"],
        "sub": identity["client_id"],
        "aud": url,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + _ASSERTION_SECONDS,
        "jti": secrets.token_urlsafe(24),
    }
    signed = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    try:
        answer = clients("kms", _region_of(key) or region, credentials).sign(
            KeyId=key, Message=signed.encode(), MessageType="RAW", SigningAlgorithm="RSASSA_PKCS1_V1_5_SHA_256"
        )
    except (BotoCoreError, ClientError) as exc:
        raise refusal(exc, f"Sign with {key}") from exc
    return f"{signed}.{_base64url(answer['Signature'])}"


def _post(url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
    import urllib.error
    import urllib.parse
    import urllib.request
    from http.client import HTTPException

    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), {"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            status, raw = answer.status, answer.read(_LONGEST_ANSWER)
    except urllib.error.HTTPError as exc:
        with exc:
            status, raw = exc.code, exc.read(_LONGEST_ANSWER)
    except (OSError, HTTPException) as exc:
        certificate = "SSLCertVerificationError" in repr(getattr(exc, "reason", exc))
        raise TypedError(
            ACCESS_DENIED if certificate else WAREHOUSE_UNAVAILABLE,
            f"no credential for the warehouse: {url} cannot be reached: {getattr(exc, 'reason', exc)}",
            f"the request for a token failed with {type(exc).__name__}",
        ) from exc
    try:
        document = json.loads(raw)
    except ValueError:
        document = None
    answer_ = document if isinstance(document, dict) else {}
    if status == HTTPStatus.OK:
        return answer_
    # https://developer.okta.com/docs/reference/rate-limits/
    outage = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS
    said = " ".join(str(answer_[name]) for name in ("error", "error_description", "errorSummary") if answer_.get(name))
    raise TypedError(
        WAREHOUSE_UNAVAILABLE if outage else ACCESS_DENIED,
        f"no credential for the warehouse: Okta refuses it: {said or 'without a reason'}",
        f"{url} answered with status {status}",
    )


def _region_of(key: str) -> str:
    return key.split(":")[3] if key.count(":") > 4 else ""


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
