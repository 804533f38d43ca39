"""The other side of Signature Version 4: who signed a request, checked as AWS does, by the secret that the access key stands for.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_AUTHORIZATION = re.compile(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8}/[^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})")
_HEADER_MINUTES = 15


class Refused(Exception):
    """What a fake has against a request.

    Args:
        code: as the service calls it.
        message: in its words.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Signed:
    """A request that carries a signature.

    Attributes:
        scope: date, region, service and `aws4_request`.
        headers: the headers that are signed.
        token: the session token, part of what is signed.
    """

    access_key: str
    scope: str
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    signed_at: datetime
    lasts: timedelta
    signature: str
    token: str

    @property
    def service(self) -> str:
        return self.scope.split("/")[2]

    def check(self, secret: str, token: str, now: datetime) -> None:
        """Raises: Refused: the signature is another one, or it is not good any more."""
        if not hmac.compare_digest(self.token, token):
            raise Refused("InvalidClientTokenId", "The security token included in the request is invalid")
        if now > self.signed_at + self.lasts:
            raise Refused("SignatureDoesNotMatch", f"Signature expired: {self.signed_at:%Y%m%dT%H%M%SZ}")
        _, region, service, _ = self.scope.split("/")
        request = AWSRequest(self.method, self.url, dict(self.headers), self.body)
        request.context["timestamp"] = f"{self.signed_at:%Y%m%dT%H%M%SZ}"
        auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(self.access_key, secret, token), service, region)
        if not hmac.compare_digest(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request), self.signature):
            raise Refused("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided")


def signed_header(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Signed:
    """A request whose signature stands in its Authorization header. Raises Refused for one without."""
    lower = {name.lower(): value for name, value in headers.items()}
    found = _AUTHORIZATION.fullmatch(lower.get("authorization", ""))
    if found is None:
        raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token")
    access_key, scope, names, signature = found.groups()
    return Signed(
        access_key=access_key,
        scope=scope,
        method=method,
        url=url,
        headers={name: lower[name] for name in names.split(";")},
        body=body,
        signed_at=_time(lower["x-amz-date"]),
        lasts=timedelta(minutes=_HEADER_MINUTES),
        signature=signature,
        token=lower.get("x-amz-security-token", ""),
    )


def signed_query(url: str) -> Signed:
    """A GET whose signature stands in its query, as the database tokens of RDS are. Raises Refused for one without."""
    parts = urlsplit(url)
    query: dict[str, Any] = dict(parse_qsl(parts.query))
    if "X-Amz-Signature" not in query:
        raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token")
    access_key, _, scope = query["X-Amz-Credential"].partition("/")
    signature = query.pop("X-Amz-Signature")
    return Signed(
        access_key=access_key,
        scope=scope,
        method="GET",
        url=urlunsplit(parts._replace(query=urlencode(query))),
        headers={"host": parts.netloc},
        body=b"",
        signed_at=_time(query["X-Amz-Date"]),
        lasts=timedelta(seconds=int(query["X-Amz-Expires"])),
        signature=signature,
        token=query.get("X-Amz-Security-Token", ""),
    )


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
