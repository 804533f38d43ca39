"""AWS for the commands that people call: one session from the caller's environment, and errors that say what to do."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dbt_runner.errors import ACCESS_DENIED, INVALID_REQUEST, RUNNER_ERROR, ErrorKind, TypedError
from dbt_runner.store import Store

if TYPE_CHECKING:
    import boto3
    from botocore.exceptions import ClientError

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError", "AllAccessDisabled"})
_BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_NO_SUCH_THING = frozenset({"ResourceNotFoundException", "NoSuchBucket", "StateMachineDoesNotExist"})


def open_store(table: str | None, bucket: str | None = None) -> Store:
    """The audit store as the caller's session sees it. Nothing is read yet.

    Args:
        table: the table's name, from --table or DBT_RUNNER_TABLE.
        bucket: the bucket's name; None for commands that only read and write items.

    Raises:
        TypedError: Dbt.InvalidRequest when the table or the region is not known, Dbt.AccessDenied without credentials.
    """
    if not table:
        raise TypedError(INVALID_REQUEST, "set DBT_RUNNER_TABLE or --table to the audit table: terraform output -json cli says it")
    with aws_errors():
        session = _session()
        return Store(session.client("dynamodb"), session.client("s3"), table, bucket or None)


def client(service: str) -> Any:
    """A boto3 client of the caller's session, such as client("stepfunctions").

    Raises:
        TypedError: as `open_store`.
    """
    with aws_errors():
        return _session().client(service)  # type: ignore[call-overload]  # the name is not a literal here


def caller() -> str:
    """Who calls, as AWS knows them: an ARN."""
    arn: str = client("sts").get_caller_identity()["Arn"]
    return arn


def credentials() -> dict[str, str]:
    """The secrets of the caller's session, by what to call them; wherever the session has them from."""
    with aws_errors():
        found = _session().get_credentials()
        frozen = found.get_frozen_credentials() if found else None
    named = {"the AWS secret access key": frozen.secret_key, "the AWS session token": frozen.token} if frozen else {}
    return {name: value for name, value in named.items() if value}


@contextlib.contextmanager
def aws_errors() -> Iterator[None]:
    """Turns what botocore raises in this block into a TypedError for the person at the terminal.

    Raises:
        TypedError: Dbt.AccessDenied (AWS refuses the caller, or there is no usable identity), Dbt.InvalidRequest (no region, no
            such table or bucket, AWS not reachable), Dbt.RunnerError (any other answer of AWS).
    """
    from botocore import exceptions

    try:
        yield
    except exceptions.NoRegionError as exc:
        raise TypedError(INVALID_REQUEST, "no AWS region is set: set AWS_REGION, or AWS_PROFILE to a profile that has one") from exc
    except exceptions.ClientError as exc:
        raise _client_error(exc) from exc
    except (exceptions.HTTPClientError, exceptions.ConnectionError) as exc:
        raise TypedError(INVALID_REQUEST, f"AWS cannot be reached: check the network and the region ({exc})") from exc
    except (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.LoginError,
        exceptions.ProfileNotFound,
        exceptions.SSOError,
        exceptions.TokenRetrievalError,
    ) as exc:
        raise TypedError(
            ACCESS_DENIED, f"no usable AWS credentials: set AWS_PROFILE or sign in, for example with aws sso login ({exc})"
        ) from exc
    except exceptions.BotoCoreError as exc:
        raise TypedError(RUNNER_ERROR, f"the AWS SDK refused a call: {exc}") from exc


@functools.cache
def _session() -> boto3.Session:
    """One for all clients of a command: credentials are looked up once, and a person is asked for a code once."""
    import boto3

    # AWS_REGION is the name that every other SDK and the AWS CLI v2 know; boto3 alone reads only AWS_DEFAULT_REGION.
    return boto3.Session(region_name=os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or None)


def _client_error(exc: ClientError) -> TypedError:
    code = exc.response.get("Error", {}).get("Code", "")
    said = exc.response.get("Error", {}).get("Message") or code
    kind: ErrorKind
    if code in _DENIED:
        kind, advice = ACCESS_DENIED, "use an identity that may, or ask the platform team for it"
    elif code in _BAD_CREDENTIALS:
        kind, advice = ACCESS_DENIED, "the AWS credentials are not valid (any more): sign in again"
    elif code in _NO_SUCH_THING:
        kind, advice = INVALID_REQUEST, "check --table, --bucket, the AWS account and the region: terraform output -json cli says them"
    else:
        return TypedError(RUNNER_ERROR, f"{exc.operation_name} failed: {said} ({code})")
    return TypedError(kind, f"{exc.operation_name} failed: {said}; {advice}", why=code)
