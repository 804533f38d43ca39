"""The one place that reaches into dbt-snowflake: with External OAuth each login asks the supervisor for the access token of that moment.

To dbt-snowflake a token is a word of the profile, which is stale at the first login after it ends. It can exchange a refresh token,
but only for a client with a secret, and at Snowflake's own address. So this mends the method that makes the driver's arguments.
tests/runner/test_snowflake_login.py fails when a new adapter is no longer made that way, or when it needs this no more.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from dbt_runner.known_versions import KnownVersions

# Names of the two variables by which the broker tells where the token is.
TOKEN_URL, TOKEN_AUTHORIZATION = "DBT_RUNNER_TOKEN_URL", "DBT_RUNNER_TOKEN_AUTHORIZATION"
# The field of the broker's answer.
TOKEN_FIELD = "access_token"
KNOWN = KnownVersions("dbt-snowflake", (1, 10), (1, 13))
_TIMEOUT_SECONDS = 60.0


class TokenNotServed(Exception):
    """The supervisor has no token for this login; what kept it is in the outcome."""


class UnknownSnowflakeAdapter(Exception):
    """This version of dbt-snowflake may be made in another way, and would log in with a token that is over."""


def ask_at_each_login(environment: Mapping[str, str]) -> None:
    """Has logins of this process ask for their token, from now on. Changes nothing where the broker serves none.

    A dbt-snowflake that is none of the KNOWN versions cannot log in at all then: each login raises UnknownSnowflakeAdapter.

    Args:
        environment: this process's variables.
    """
    if TOKEN_URL not in environment:
        return
    try:
        from dbt.adapters.snowflake.connections import SnowflakeCredentials
    except ImportError:
        # The image has no such adapter, which dbt says better.
        return
    version, known = KNOWN.installed, KNOWN.has_installed
    original = SnowflakeCredentials.auth_args

    def auth_args(credentials: Any) -> dict[str, Any]:
        if not known:
            raise UnknownSnowflakeAdapter(f"dbt-snowflake {version} is none of the versions that can log in by External OAuth here")
        return {**original(credentials), "token": _token(environment[TOKEN_URL], environment[TOKEN_AUTHORIZATION])}

    SnowflakeCredentials.auth_args = auth_args


def _token(url: str, bearer: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": bearer})
    # The address is the supervisor's: no matter for a proxy.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return str(json.loads(answer.read())[TOKEN_FIELD])
    except urllib.error.HTTPError as exc:
        with exc:
            raise TokenNotServed(json.loads(exc.read()).get("message", "")) from exc
    except OSError as exc:
        raise TokenNotServed("the supervisor does not answer") from exc
