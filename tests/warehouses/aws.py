"""A small AWS: sessions of roles, tokens of its OIDC issuer, passwords of Redshift, signatures of a key.

Every request is held against its signature. It stands where no emulator does, and decides as the policies of
modules/identity/warehouse.tf do: who becomes which role, with which tags, and what that may ask for.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import boto3
import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.wrappers import Request, Response

from runner.conftest import ACCOUNT, REGION
from warehouses.sigv4 import Refused, Signed, signed_header
from warehouses.web import serving

# Clocks differ; an SDK's request that was under way may end after its session.
LEEWAY = timedelta(seconds=5)

ROLE = f"arn:aws:iam::{ACCOUNT}:role/analytics-prod-warehouse"
SIGNING_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
TASK_ROLE = f"arn:aws:iam::{ACCOUNT}:role/analytics-prod-task"


@dataclass(frozen=True)
class Session:
    """Temporary credentials of a role, or the control role's."""

    role: str
    secret: str
    token: str
    expires_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    source_identity: str = ""

    @property
    def role_name(self) -> str:
        return self.role.rpartition("/")[2]


class Aws:
    """What the tests can turn, and what they can look at.

    Attributes:
        url: where it is served.
        trusted: the warehouse role and the tags of Redshift that its trust policy wants; every other role is somebody else's.
        lifetime: of a session.
        ahead: how far the clocks of the warehouses are ahead, so that what was just issued is too old for them.
        issues_tokens: whether the account has switched its OIDC issuer on.
        calls: the actions that were allowed, in order.
        assumed: the sessions of the warehouse role, in order.
        secrets: that it gave out, or a warehouse did.
        others: answers what is for another service than those above, once it is known who asks.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()
        self._control = Session(TASK_ROLE, secrets.token_hex(16), "", datetime(9999, 1, 1, tzinfo=UTC))
        self._lock = threading.Lock()

    def reset(self) -> None:
        self.trusted: Mapping[str, str] = {}
        self.lifetime = timedelta(hours=1)
        self.ahead = timedelta(0)
        self.issues_tokens = True
        self.calls: list[str] = []
        self.assumed: list[Session] = []
        self.secrets: list[str] = []
        self.sessions: dict[str, Session] = {}
        self.passwords: dict[str, str] = {}
        self.others: Callable[[Request, str, Session], Response] | None = None

    def control_client(self) -> Any:
        """A client of STS with the control role's credentials."""
        return boto3.client(
            "sts", region_name=REGION, endpoint_url=self.url, aws_access_key_id="AKIACONTROL", aws_secret_access_key=self._control.secret
        )

    def caller(self, signed: Signed, ahead: timedelta = timedelta(0)) -> Session:
        """Who signed. Raises Refused for an unknown key, a wrong signature or an expired session.

        Args:
            ahead: how far the asker's clock is ahead.
        """
        now = datetime.now(UTC) + ahead
        session = self._control if signed.access_key == "AKIACONTROL" else self.sessions.get(signed.access_key)
        if session is None:
            raise Refused("InvalidClientTokenId", "The security token included in the request is invalid")
        if now >= session.expires_at + LEEWAY:
            raise Refused("ExpiredToken", "The security token included in the request is expired")
        signed.check(session.secret, session.token, now)
        return session

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        """The key of the OIDC issuer."""
        return rsa.generate_private_key(65537, 2048)

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token of the issuer. Raises Refused for another issuer, another audience or one that is over."""
        try:
            # A leeway moves the clock back, and a negative one ahead; iat would be in the future then.
            leeway = -self.ahead.total_seconds()
            claims: dict[str, Any] = jwt.decode(
                token, self.key.public_key(), ["RS256"], audience=audience, issuer=self.url, leeway=leeway, options={"verify_iat": False}
            )
        except jwt.InvalidTokenError as exc:
            raise Refused("invalid_grant", str(exc)) from exc
        return claims

    # --- requests --------------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        target = request.headers.get("X-Amz-Target", "")
        # Read before the form is, which would keep it to itself.
        body = request.get_data(parse_form_data=False)
        try:
            signed = signed_header(request.method, _url(request), dict(request.headers), body)
            elsewhere = self.others is not None and signed.service not in ("sts", "redshift", "redshift-serverless", "kms")
            session = self.caller(signed, self.ahead if elsewhere else timedelta(0))
            if self.others is not None and elsewhere:
                return self.others(request, signed.service, session)
            given: dict[str, Any] = json.loads(body) if target else dict(parse_qsl(body.decode()))
            action = target.rpartition(".")[2] or given["Action"]
            result = {
                "AssumeRole": self._assume_role,
                # Nobody needs a permission for it.
                "GetCallerIdentity": lambda session, _: {"Arn": session.role, "UserId": "AROA:r", "Account": ACCOUNT},
                "GetWebIdentityToken": self._web_identity_token,
                "Sign": self._signature,
                "GetCredentials": self._workgroup_password,
                "GetClusterCredentialsWithIAM": self._cluster_password,
            }[action](session, given)
        except Refused as exc:
            return _failed(exc, as_json=bool(target))
        with self._lock:
            self.calls.append(action)
        if target:
            return Response(json.dumps(result), content_type="application/x-amz-json-1.1")
        return Response(f"<{action}Response><{action}Result>{_xml(result)}</{action}Result></{action}Response>", content_type="text/xml")

    def _assume_role(self, session: Session, given: Mapping[str, str]) -> dict[str, Any]:
        tags = _tags(given)
        redshift = {name: value for name, value in tags.items() if name.startswith("Redshift")}
        trusted = tags.get("environment") == "prod" and bool(given.get("SourceIdentity")) and redshift == self.trusted
        if session is not self._control or given["RoleArn"] != ROLE or not trusted:
            raise Refused(
                "AccessDenied", f"User: {session.role} is not authorized to perform: sts:AssumeRole on resource: {given['RoleArn']}"
            )
        if int(given["DurationSeconds"]) > 3600:
            raise Refused(
                "ValidationError", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            )
        access_key = f"ASIA{secrets.token_hex(8).upper()}"
        made = Session(
            given["RoleArn"],
            secrets.token_hex(20),
            secrets.token_hex(40),
            datetime.now(UTC) + self.lifetime,
            tags,
            given["SourceIdentity"],
        )
        with self._lock:
            self.sessions[access_key] = made
            self.assumed.append(made)
            self.secrets += [made.secret, made.token]
        credentials = {"AccessKeyId": access_key, "SecretAccessKey": made.secret, "SessionToken": made.token}
        user = {"Arn": made.role, "AssumedRoleId": f"AROA:{given['RoleSessionName']}"}
        return {"Credentials": {**credentials, "Expiration": _iso(made.expires_at)}, "AssumedRoleUser": user}

    def _web_identity_token(self, session: Session, given: Mapping[str, str]) -> dict[str, Any]:
        if not self.issues_tokens:
            raise Refused("OutboundWebIdentityFederationDisabledException", "Outbound web identity federation is not enabled")
        seconds = int(given.get("DurationSeconds", 300))
        expires_at = datetime.now(UTC) + timedelta(seconds=seconds)
        # The condition of the statement GetTokenForWarehouse.
        if session.role != ROLE or seconds > 300:
            raise Refused("AccessDenied", f"User: {session.role} is not authorized to perform: sts:GetWebIdentityToken")
        claims = {
            "iss": self.url,
            "sub": session.role,
            "aud": [given[f"Audience.member.{number}"] for number in _numbers(given, "Audience")],
            "iat": datetime.now(UTC),
            "exp": expires_at,
            "https://sts.amazonaws.com/": {"request_tags": _tags(given)},
        }
        token = jwt.encode(claims, self.key, algorithm="RS256")
        self.secrets.append(token)
        return {"WebIdentityToken": token, "Expiration": _iso(expires_at)}

    @cached_property
    def signing_key(self) -> rsa.RSAPrivateKey:
        """The key of KMS that SIGNING_KEY names."""
        return rsa.generate_private_key(65537, 2048)

    def _signature(self, session: Session, given: Mapping[str, str]) -> dict[str, Any]:
        # The conditions of the statement SignForOkta.
        how = (given["MessageType"], given["SigningAlgorithm"])
        if (session.role, given["KeyId"], how) != (ROLE, SIGNING_KEY, ("RAW", "RSASSA_PKCS1_V1_5_SHA_256")):
            raise Refused(
                "AccessDeniedException", f"User: {session.role} is not authorized to perform: kms:Sign on resource: {given['KeyId']}"
            )
        signature = self.signing_key.sign(base64.b64decode(given["Message"]), padding.PKCS1v15(), hashes.SHA256())
        return {"KeyId": given["KeyId"], "Signature": base64.b64encode(signature).decode(), "SigningAlgorithm": how[1]}

    def _workgroup_password(self, session: Session, given: Mapping[str, Any]) -> dict[str, Any]:
        if (given["workgroupName"], given["dbName"]) != ("analytics", "postgres"):
            raise Refused("AccessDeniedException", f"User: {session.role} is not authorized to perform: redshift-serverless:GetCredentials")
        user, password = self._password(session)
        moment = datetime.now(UTC).timestamp()
        return {"dbUser": user, "dbPassword": password, "expiration": moment, "nextRefreshTime": moment}

    def _cluster_password(self, session: Session, given: Mapping[str, str]) -> dict[str, Any]:
        if (given["ClusterIdentifier"], given["DbName"]) != ("analytics", "postgres"):
            raise Refused("AccessDenied", f"User: {session.role} is not authorized to perform: redshift:GetClusterCredentialsWithIAM")
        user, password = self._password(session)
        return {"DbUser": user, "DbPassword": password, "Expiration": _iso(datetime.now(UTC))}

    def _password(self, session: Session) -> tuple[str, str]:
        user = f"IAM:{session.tags['RedshiftDbUser']}" if "RedshiftDbUser" in session.tags else f"IAMR:{session.role_name}"
        password = secrets.token_hex(16)
        with self._lock:
            self.passwords[password] = user
            self.secrets.append(password)
        return user, password


@contextlib.contextmanager
def aws() -> Iterator[Aws]:
    """A small AWS that is served for as long as the context lasts."""
    made = Aws()
    with serving(made.handle) as made.url:
        yield made


def _url(request: Request) -> str:
    """What was asked for, to the letter: that is what was signed."""
    return f"{request.host_url.rstrip('/')}{request.environ['REQUEST_URI']}"


def _numbers(given: Mapping[str, str], name: str) -> list[int]:
    """The places of a list of the query protocol."""
    return sorted({int(key.split(".")[2]) for key in given if key.startswith(f"{name}.member.")})


def _tags(given: Mapping[str, str]) -> dict[str, str]:
    places = [f"Tags.member.{number}" for number in _numbers(given, "Tags")]
    return {given[f"{place}.Key"]: given[f"{place}.Value"] for place in places}


def _xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_xml(inner)}</{name}>" for name, inner in value.items())
    return escape(str(value))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failed(refused: Refused, *, as_json: bool) -> Response:
    if as_json:
        body = {"__type": refused.code, "message": refused.message}
        return Response(json.dumps(body), status=403, content_type="application/x-amz-json-1.1")
    xml = {"Error": {"Type": "Sender", "Code": refused.code, "Message": refused.message}, "RequestId": "r"}
    return Response(f"<ErrorResponse>{_xml(xml)}</ErrorResponse>", status=403, content_type="text/xml")
