"""Who calls the second AWS: CI and people by tokens of their provider, and the roles that services give to what they run."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import boto3
from botocore import UNSIGNED
from botocore.config import Config

from dbt_runner.local.clients import ACCOUNT, REGION
from second_aws.engine import Engine

GITHUB = "https://token.actions.githubusercontent.com"
OKTA = "https://acme.okta.com/oauth2/aus1"
GITHUB_AUDIENCE, OKTA_AUDIENCE = "sts.amazonaws.com", "0oaOperators"


def role_name(environment: str, role: str) -> str:
    return f"x-dbt-{environment}-{role}"


def role_arn(environment: str, role: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/data/{role_name(environment, role)}"


@dataclass(frozen=True)
class Session:
    """Credentials of a role."""

    endpoint: str
    key: str
    secret: str
    token: str

    @property
    def environ(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_SESSION_TOKEN": self.token}

    def client(self, service: str) -> Any:
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, proxies={})
        credentials = {"aws_access_key_id": self.key, "aws_secret_access_key": self.secret, "aws_session_token": self.token}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, config=config, **credentials)  # type: ignore[call-overload]


def token(issuer: str, claims: Mapping[str, object]) -> str:
    """A token as an identity provider issues one. Signatures are the provider's and AWS's matter; ministack looks at none."""
    now = int(time.time())
    parts = [{"alg": "RS256", "kid": "test", "typ": "JWT"}, {"iss": issuer, "iat": now, "exp": now + 600, **claims}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, base64.urlsafe_b64encode(b"signature").decode()])


def exchange(engine: Engine, arn: str, web_token: str) -> Session:
    """AssumeRoleWithWebIdentity. Raises ClientError where the trust refuses it."""
    sts = boto3.client("sts", endpoint_url=engine.endpoint, region_name=REGION, config=Config(signature_version=UNSIGNED, proxies={}))
    answer = sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="test", WebIdentityToken=web_token)
    return _session(engine, cast(Mapping[str, str], answer["Credentials"]))


def deployer(engine: Engine, environment: str = "prod") -> Session:
    claims = {"sub": f"repo:acme/analytics:environment:{environment}", "aud": GITHUB_AUDIENCE}
    return exchange(engine, role_arn(environment, "deployer"), token(GITHUB, claims))


def operator(engine: Engine, environment: str = "prod") -> Session:
    return exchange(engine, role_arn(environment, "operator"), token(OKTA, {"sub": f"00uAda-{environment}", "aud": OKTA_AUDIENCE}))


def service_role(engine: Engine, environment: str, role: str) -> Session:
    """A session as ECS, Lambda or Step Functions have one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{engine.endpoint}/v2/credentials/role_{role_name(environment, role)}", timeout=10) as answer:
        given = json.load(answer)
    return Session(engine.endpoint, given["AccessKeyId"], given["SecretAccessKey"], given["Token"])


def assume_warehouse(session: Session, engine: Engine, arn: str, tags: Mapping[str, str], identity: str | None) -> Session:
    """As the runner's broker does. Raises ClientError where it is refused."""
    more: dict[str, Any] = {"SourceIdentity": identity} if identity else {}
    if tags:
        more["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    answer = session.client("sts").assume_role(RoleArn=arn, RoleSessionName="test", **more)
    return _session(engine, cast(Mapping[str, str], answer["Credentials"]))


def _session(engine: Engine, given: Mapping[str, str]) -> Session:
    return Session(engine.endpoint, given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
