"""A custom authorization server of Okta: it takes one application, by a proof that this one's key signed, each proof once.

https://developer.okta.com/docs/guides/implement-oauth-for-okta-serviceapp/main/, https://developer.okta.com/docs/reference/api/oidc/
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from werkzeug.wrappers import Request, Response

from warehouses.aws import LEEWAY, SIGNING_KEY, Aws
from warehouses.sigv4 import Refused

CLIENT = "0oaDbtProd"
_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Okta:
    """What the tests can turn, and what they can look at.

    Attributes:
        url: where it is served.
        client: the application that has the key.
        kid: by which name the key was registered.
        scopes: that the access policy of the server gives to it.
        grants: the scope that a token gets instead of the one that was asked for, where the server exchanges it.
        lifetime: of an access token.
        status: answers with this one, if not 200.
        issued: how many tokens it gave.
    """

    def __init__(self, cloud: Aws) -> None:
        self._cloud = cloud
        self.url = ""
        self.reset()

    def reset(self) -> None:
        self.client = CLIENT
        self.kid = SIGNING_KEY.rpartition("/")[2]
        self.scopes = {"session:role:TRANSFORMER"}
        self.grants: str | None = None
        self.lifetime = timedelta(hours=1)
        self.status = 200
        self.issued = 0
        self._used: set[str] = set()

    @property
    def issuer(self) -> str:
        return f"{self.url}/oauth2/aus1"

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        """The key of the server's own tokens."""
        return rsa.generate_private_key(65537, 2048)

    def claims(self, token: str, audience: str, ahead: timedelta) -> dict[str, Any]:
        """The claims of an access token, as Snowflake sees them. Raises jwt.InvalidTokenError.

        Args:
            ahead: how far the asker's clock is ahead.
        """
        options: Any = {"verify_iat": False}
        leeway = (LEEWAY - ahead).total_seconds()
        found: dict[str, Any] = jwt.decode(
            token, self.key.public_key(), ["RS256"], audience=audience, issuer=self.issuer, leeway=leeway, options=options
        )
        return found

    def handle(self, request: Request) -> Response:
        if self.status != 200:
            return _json({"errorCode": "E0000047", "errorSummary": "API call exceeded rate limit"}, self.status)
        try:
            if (request.method, request.path) != ("POST", "/oauth2/aus1/v1/token"):
                raise Refused("invalid_request", "there is nothing here")
            return _json(self._token(request.form.to_dict()))
        except Refused as exc:
            return _json({"error": exc.code, "error_description": exc.message}, 401 if exc.code == "invalid_client" else 400)

    def _token(self, form: dict[str, str]) -> dict[str, Any]:
        if (form["grant_type"], form["client_assertion_type"]) != ("client_credentials", _BEARER):
            raise Refused("unsupported_grant_type", "The authorization grant type is not supported by the authorization server.")
        proof = form["client_assertion"]
        if jwt.get_unverified_header(proof).get("kid") != self.kid:
            raise Refused("invalid_client", "The client_assertion signature could not be verified.")
        try:
            claims = jwt.decode(
                proof,
                self._cloud.signing_key.public_key(),
                ["RS256"],
                audience=f"{self.issuer}/v1/token",
                issuer=self.client,
                options={"require": ["exp", "iat", "jti", "sub"]},
            )
        except jwt.InvalidTokenError as exc:
            raise Refused("invalid_client", f"The client_assertion is not valid: {exc}") from exc
        if claims["sub"] != self.client or claims["exp"] - claims["iat"] > 3600 or claims["jti"] in self._used:
            raise Refused("invalid_client", "The client_assertion is for another client, too long, or used before.")
        self._used.add(claims["jti"])
        if form["scope"] not in self.scopes:
            raise Refused("invalid_scope", "One or more scopes are not configured for the authorization server resource.")
        self.issued += 1
        now, scope = datetime.now(UTC), self.grants or form["scope"]
        token = {
            "iss": self.issuer,
            "aud": "https://org-acct.snowflakecomputing.com",
            "sub": self.client,
            "scp": [scope],
            "jti": secrets.token_hex(16),
            "iat": now,
            "exp": now + self.lifetime,
        }
        seconds, encoded = int(self.lifetime.total_seconds()), jwt.encode(token, self.key, "RS256")
        self._cloud.secrets.append(encoded)
        return {"token_type": "Bearer", "expires_in": seconds, "access_token": encoded, "scope": scope}


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document), status=status, content_type="application/json")
