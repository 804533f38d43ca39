"""Logins of dbt-snowflake ask the broker for their token: by its real credentials class, against the real loopback server."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from dbt.adapters.snowflake import connections
from dbt.adapters.snowflake.connections import SnowflakeConnectionManager, SnowflakeCredentials

from dbt_runner.broker.server import LoopbackServer
from dbt_runner.errors import ACCESS_DENIED, TypedError
from dbt_runner.warehouses.snowflake_login import (
    KNOWN,
    TOKEN_AUTHORIZATION,
    TOKEN_FIELD,
    TOKEN_URL,
    TokenNotServed,
    UnknownSnowflakeAdapter,
    ask_at_each_login,
)


@pytest.fixture
def original(monkeypatch: pytest.MonkeyPatch) -> Any:
    """dbt-snowflake's own method, which is its again after the test."""
    found = SnowflakeCredentials.auth_args
    monkeypatch.setattr(SnowflakeCredentials, "auth_args", found)
    return found


@pytest.fixture
def tokens() -> list[str | TypedError]:
    """What the broker serves next."""
    return ["token-1", "token-2"]


@pytest.fixture
def served(tokens: list[str | TypedError]) -> Iterator[dict[str, str]]:
    def answer() -> dict[str, str]:
        token = tokens.pop(0)
        if isinstance(token, TypedError):
            raise token
        return {TOKEN_FIELD: token}

    with LoopbackServer({"/token": answer}) as server:
        yield {TOKEN_URL: server.url("/token"), TOKEN_AUTHORIZATION: server.bearer}


def credentials() -> Any:
    return SnowflakeCredentials(account="o-a", role="R", warehouse="W", database="D", schema="S", authenticator="oauth")


def test_each_login_has_the_token_of_its_moment(original: Any, served: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # No proxy stands between two processes of one container.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    ask_at_each_login(served)
    assert [credentials().auth_args()["token"] for _ in range(2)] == ["token-1", "token-2"]


@pytest.mark.parametrize("bearer", ["", "another-runs"])
def test_a_login_without_the_runs_bearer_gets_nothing(original: Any, served: dict[str, str], bearer: str) -> None:
    ask_at_each_login({**served, TOKEN_AUTHORIZATION: bearer})
    with pytest.raises(TokenNotServed, match="not this run's"):
        credentials().auth_args()


def test_a_refusal_says_what_the_broker_heard(original: Any, served: dict[str, str], tokens: list[str | TypedError]) -> None:
    tokens[:] = [TypedError(ACCESS_DENIED, "Okta refuses it: invalid_client")]
    ask_at_each_login(served)
    with pytest.raises(TokenNotServed, match="Okta refuses it: invalid_client"):
        credentials().auth_args()


def test_a_broker_that_is_gone_is_told_as_such(original: Any) -> None:
    with LoopbackServer({}) as server:
        closed = {TOKEN_URL: server.url("/token"), TOKEN_AUTHORIZATION: "x"}
    ask_at_each_login(closed)
    with pytest.raises(TokenNotServed, match="does not answer"):
        credentials().auth_args()


def test_whoever_has_another_login_keeps_the_adapters_own(original: Any) -> None:
    ask_at_each_login({})
    assert SnowflakeCredentials.auth_args is original


@pytest.mark.parametrize("version", ["1.9.4", "1.13.0", "2.0.0"])
def test_an_unknown_adapter_does_not_log_in_with_a_stale_token(
    original: Any, served: dict[str, str], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    ask_at_each_login(served)
    with pytest.raises(UnknownSnowflakeAdapter, match=version):
        credentials().auth_args()


def test_the_adapter_is_made_as_the_patch_expects_and_still_needs_it() -> None:
    """Canary. If this fails, read dbt/adapters/snowflake/connections.py of the new version before you extend KNOWN."""
    assert KNOWN.has_installed
    assert "**creds.auth_args()" in inspect.getsource(SnowflakeConnectionManager.open), "asked anew at each login"
    # With an address of its own for tokens, or one for a token's file, the broker could serve it without a patch.
    assert connections._TOKEN_REQUEST_URL == "https://{}.snowflakecomputing.com/oauth/token-request"
    names = {field.name for field in dataclasses.fields(SnowflakeCredentials)}
    assert {name for name in names if "token" in name} == {"token"}
