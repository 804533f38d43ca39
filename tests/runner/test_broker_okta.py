"""The broker and Okta: what is signed, by whom, and what the answers mean. The whole way to Snowflake: tests/warehouses."""

from __future__ import annotations

import functools
import io
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from werkzeug.wrappers import Request, Response

from dbt_runner.broker import Broker, okta
from dbt_runner.broker.session import Credentials
from dbt_runner.config import Warehouse
from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind, TypedError
from dbt_runner.logs import JsonLog
from runner import projects
from runner.sts import CREDENTIALS, Sts, sts
from warehouses.web import serving

__all__ = ["sts"]

KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/0a1b2c3d"
SETTINGS = {"account": "o-a", "role": "TRANSFORMER", "warehouse": "W", "database": "D", "schema": "S"}
SESSION = Credentials(datetime(9999, 1, 1, tzinfo=UTC), "ASIA", "x", "y")
GOOD = {"access_token": "the-access-token", "expires_in": 3600, "token_type": "Bearer"}


@functools.cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class Kms:
    """Takes the place of boto3's client of KMS."""

    def __init__(self) -> None:
        self.key = _key()
        self.made_for: list[tuple[str, str, str]] = []
        self.asked: list[Mapping[str, Any]] = []

    def __call__(self, service: str, region: str, credentials: Credentials) -> Any:
        self.made_for.append((service, region, credentials.access_key_id))
        return self

    def sign(self, **given: Any) -> dict[str, bytes]:
        self.asked.append({name: value for name, value in given.items() if name != "Message"})
        return {"Signature": self.key.sign(given["Message"], padding.PKCS1v15(), hashes.SHA256())}


@dataclass
class Server:
    """Answers every request with the next of the answers, the last one again and again."""

    answers: list[tuple[int, bytes]] = field(default_factory=lambda: [(200, json.dumps(GOOD).encode())])
    forms: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def handle(self, request: Request) -> Response:
        self.forms.append({name: values[0] for name, values in parse_qs(request.get_data(as_text=True)).items()} | {"path": request.path})
        status, body = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return Response(body, status=status, content_type="application/json")


@pytest.fixture
def server(no_outside_settings: None) -> Iterator[Server]:
    made = Server()
    with serving(made.handle) as made.url:
        yield made


@pytest.fixture
def kms() -> Kms:
    return Kms()


def identity(url: str) -> dict[str, str]:
    return {"method": "okta", "issuer": f"{url}/oauth2/aus1", "client_id": "0oaDbt", "kms_key_arn": KEY_ARN}


def ask(server: Server, kms: Kms) -> okta.AccessToken:
    return okta.access_token(identity(server.url), "TRANSFORMER", "eu-central-1", SESSION, kms)


def test_the_proof_says_who_asks_for_this_server_once_and_not_for_long(server: Server, kms: Kms) -> None:
    before = datetime.now(UTC)
    tokens = [ask(server, kms) for _ in range(2)]
    assert kms.made_for == [("kms", "us-east-1", "ASIA")] * 2, "by the warehouse role, where the key is"
    assert kms.asked == [{"KeyId": KEY_ARN, "MessageType": "RAW", "SigningAlgorithm": "RSASSA_PKCS1_V1_5_SHA_256"}] * 2
    proofs = []
    for form in server.forms:
        proof = form.pop("client_assertion")
        assert form == {
            "path": "/oauth2/aus1/v1/token",
            "grant_type": "client_credentials",
            "scope": "session:role:TRANSFORMER",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }
        assert jwt.get_unverified_header(proof) == {"alg": "RS256", "typ": "JWT", "kid": "0a1b2c3d"}
        audience = f"{server.url}/oauth2/aus1/v1/token"
        proofs.append(jwt.decode(proof, kms.key.public_key(), ["RS256"], audience=audience, issuer="0oaDbt", subject="0oaDbt"))
    assert {proof["exp"] - proof["iat"] for proof in proofs} == {300}
    assert len({proof["jti"] for proof in proofs}) == 2
    assert {token.token for token in tokens} == {"the-access-token"}
    assert all(timedelta(minutes=59) < token.expires_at - before < timedelta(minutes=61) for token in tokens)
    assert "the-access-token" not in repr(tokens)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b'{"error": "invalid_client", "error_description": "not you"}', ACCESS_DENIED, "invalid_client not you"),
        (400, b'{"error": "invalid_dpop_proof"}', ACCESS_DENIED, "invalid_dpop_proof"),
        (403, b"<html>", ACCESS_DENIED, "without a reason"),
        (429, b'{"errorSummary": "too many"}', WAREHOUSE_UNAVAILABLE, "too many"),
        (503, b"", WAREHOUSE_UNAVAILABLE, "without a reason"),
        (200, b"[]", ACCESS_DENIED, "without access_token"),
        (200, b'{"access_token": "", "expires_in": 3600}', ACCESS_DENIED, "without access_token"),
        (200, b'{"access_token": "x", "expires_in": "soon"}', ACCESS_DENIED, "without access_token"),
        (200, b'{"access_token": "x", "expires_in": 0}', ACCESS_DENIED, "without access_token"),
    ],
)
def test_what_the_server_answers_is_told_apart(server: Server, kms: Kms, status: int, body: bytes, kind: ErrorKind, words: str) -> None:
    server.answers = [(status, body)]
    with pytest.raises(TypedError, match=words) as raised:
        ask(server, kms)
    assert raised.value.kind is kind
    # Neither the proof nor what was answered in its place is repeated.
    assert "eyJ" not in f"{raised.value.message} {raised.value.why}"


def test_a_server_that_cannot_be_reached_is_an_outage(kms: Kms, no_outside_settings: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(TypedError, match="cannot be reached") as raised:
        ask(Server(url=url), kms)
    assert raised.value.kind is WAREHOUSE_UNAVAILABLE


def test_the_worker_gets_an_address_and_nothing_of_aws_and_every_value_is_masked(
    server: Server, kms: Kms, sts: Sts, tmp_path: Path
) -> None:
    sts.allows()
    known: list[str] = []
    request = projects.asked(Warehouse("snowflake", SETTINGS, identity(server.url)))
    with Broker(request, lambda: sts.client, tmp_path, JsonLog({}, io.StringIO()), clients=kms, on_secret=known.extend) as served:
        names = {"AWS_REGION", "AWS_DEFAULT_REGION", "DBT_RUNNER_TOKEN_URL", "DBT_RUNNER_TOKEN_AUTHORIZATION"}
        assert served.variables.keys() == names
        bearer = served.variables["DBT_RUNNER_TOKEN_AUTHORIZATION"]
    assert known == [CREDENTIALS["SecretAccessKey"], CREDENTIALS["SessionToken"], bearer, "the-access-token"]
    assert list(tmp_path.iterdir()) == []
