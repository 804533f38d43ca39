"""What drivers make of their credentials by themselves, told before anything can write it: passwords, tokens and sessions.

The broker knows what it gives out, and not what a warehouse answers to it. So each driver is listened to at one place, where such an
answer arrives and before the driver's own log does. A driver that is made in another way logs in all the same, and that its secrets may
not be masked is a warning. tests/runner/test_driver_secrets.py fails when one is no longer made as is expected here, and the builds of
tests/warehouses search all that they wrote for what the drivers were given.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dbt_runner.known_versions import KnownVersions

# Gets what finds secrets, and tells those. It never fails.
Teller = Callable[[Callable[[], Iterable[str]]], None]
# What is secret in AWS's answers, by botocore's names: <service>.<operation>.
_AWS_ANSWERS: Mapping[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
    "redshift.GetClusterCredentials": lambda answer: [answer["DbPassword"]],
    "redshift.GetClusterCredentialsWithIAM": lambda answer: [answer["DbPassword"]],
    "redshift-serverless.GetCredentials": lambda answer: [answer["dbPassword"]],
    "sts.GetWebIdentityToken": lambda answer: [answer["WebIdentityToken"]],
    # For another role that a profile of the project's own names.
    "sts.AssumeRole": lambda answer: [answer["Credentials"]["SecretAccessKey"], answer["Credentials"]["SessionToken"]],
}
# RFC 8693, 2.2.1, and https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts
_GOOGLE_FIELDS = ("access_token", "accessToken", "id_token", "token")


@dataclass(frozen=True)
class Driver:
    """A library that obtains secrets.

    Attributes:
        known: its versions that were read.
        listen: has it tell them, from now on, in this process.
    """

    known: KnownVersions
    listen: Callable[[Teller], None]


def listen(warehouse: str, tell: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Has the drivers of a warehouse tell their secrets from now on. It fails for no driver, whatever that looks like.

    Args:
        warehouse: its type.
        tell: called with each secret, on the thread that logs in, before the driver has it.
        warn: called with a sentence when secrets of a driver may be missed.
    """
    for driver in DRIVERS.get(warehouse, ()):
        try:
            version = driver.known.installed
        except metadata.PackageNotFoundError:
            # Without its driver nobody logs in, which dbt says better.
            continue
        missed = f"what {driver.known.distribution} {version} makes of its credentials may be missing from the mask"
        try:
            if not driver.known.has_installed:
                warn(f"{missed}: it is none of the versions that are known")
            driver.listen(_teller(tell, warn, missed))
        except Exception as exc:
            warn(f"{missed}: {type(exc).__name__}")


def _teller(tell: Callable[[str], None], warn: Callable[[str], None], missed: str) -> Teller:
    warned = False

    def tell_all(find: Callable[[], Iterable[str]]) -> None:
        try:
            for secret in find():
                tell(secret)
        except Exception as exc:
            nonlocal warned
            if not warned:
                warned = True
                # At its end the worker has nobody to warn any more. The exception's text could be of the answer that holds the secret.
                with contextlib.suppress(Exception):
                    warn(f"{missed}: {type(exc).__name__}")

    return tell_all


# --- one seam a driver -------------------------------------------------------------------------------------------------------


def _botocore(tell: Teller) -> None:
    """Takes part in all sessions made from now on: redshift_connector asks for passwords, Snowflake's connector for a token of AWS."""
    from botocore import handlers, parsers

    def telling(secrets: Callable[[Mapping[str, Any]], Iterable[str]]) -> Callable[..., None]:
        def before_parse(operation_model: Any, response_dict: Mapping[str, Any], **_: Any) -> None:
            def find() -> Iterable[str]:
                if response_dict["status_code"] >= 300:
                    return ()
                parser: Any = parsers.create_parser(operation_model.service_model.resolved_protocol)
                # As `parse` does, which writes the whole answer to the log first.
                return secrets(parser._do_parse(response_dict, operation_model.output_shape))

            tell(find)

        return before_parse

    handlers.BUILTIN_HANDLERS.extend((f"before-parse.{answer}", telling(secrets)) for answer, secrets in _AWS_ANSWERS.items())


def _google_auth(tell: Teller) -> None:
    """Listens to the transport by which credentials are obtained: the exchange of a token, and the impersonation. Data takes another."""
    from google.auth.transport import requests

    transport: Any = requests.Request
    original = transport.__call__

    def call(request: Any, *args: Any, **kwargs: Any) -> Any:
        answer = original(request, *args, **kwargs)
        tell(lambda: _google_tokens(answer.data))
        return answer

    transport.__call__ = call


def _google_tokens(raw: bytes) -> Iterator[str]:
    try:
        document = json.loads(raw)
    except ValueError:
        # Not every answer is JSON: a subject token, or a proxy's page.
        return
    if isinstance(document, dict):
        yield from (document[name] for name in _GOOGLE_FIELDS if isinstance(document.get(name), str))


def _snowflake_connector(tell: Teller) -> None:
    """Listens where a connection gets its session and master token, at the login and at each renewal."""
    from snowflake.connector import network

    connection: Any = network.SnowflakeRestful
    original = connection.update_tokens

    def update_tokens(rest: Any, *args: Any, **kwargs: Any) -> None:
        tell(lambda: [value for value in (*args, *kwargs.values()) if isinstance(value, str)])
        original(rest, *args, **kwargs)

    connection.update_tokens = update_tokens


BOTOCORE = Driver(KnownVersions("botocore", (1, 44), (2,)), _botocore)
GOOGLE_AUTH = Driver(KnownVersions("google-auth", (2, 62), (3,)), _google_auth)
SNOWFLAKE_CONNECTOR = Driver(KnownVersions("snowflake-connector-python", (4, 8), (5,)), _snowflake_connector)
DRIVERS: Mapping[str, tuple[Driver, ...]] = {
    "redshift": (BOTOCORE,),
    "snowflake": (BOTOCORE, SNOWFLAKE_CONNECTOR),
    "bigquery": (GOOGLE_AUTH,),
    "athena": (BOTOCORE,),
}
