"""Credentials of roles, as ECS and Lambda give them to what they run."""

from __future__ import annotations

import time
from typing import Any

from ministack.core.responses import get_region
from ministack.services import imds, sts

_SECONDS = 3600


def root_headers(service: str) -> dict[str, str]:
    """Headers of a call that ministack makes itself, on behalf of a role that was asked for before."""
    scope = f"test/20260101/{get_region()}/{service}/aws4_request"
    return {"host": "127.0.0.1", "authorization": f"AWS4-HMAC-SHA256 Credential={scope}"}


def open_session(role_arn: str, name: str) -> dict[str, Any]:
    """A new session of a role, in the form of the container credentials endpoint."""
    account, role = role_arn.split(":")[4], role_arn.rsplit("/", 1)[1]
    key, secret, token = sts._gen_session_access_key(), sts._gen_secret(), sts._gen_session_token()
    sts.register_session(
        key,
        {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
            "UserId": f"AROA:{name}",
            "SecretAccessKey": secret,
            "SessionToken": token,
            "Expiration": time.time() + _SECONDS,
            "AccountId": account,
            "PrincipalType": "AssumedRole",
            "SourceAccessKeyId": "",
            "SourcePrincipalArn": "",
        },
    )
    return {"AccessKeyId": key, "SecretAccessKey": secret, "Token": token, "Expiration": imds._future(_SECONDS), "RoleArn": role_arn}
