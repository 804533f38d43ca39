"""Where the fault of a health check lies, so that the right people look at the right place first.

The probe goes in stages, and how far it came says as much as the exception that ended it: who could not log in has an identity's
problem or none of its own at all; who could, and was refused then, lacks a permission.
"""

from __future__ import annotations

import re

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind, TypedError
from dbt_runner.events import Failure

# The stages of the probe: the connection, one question, and what dbt will need beyond that.
CONNECT, QUERY, NEEDS = range(3)

IDENTITY, NETWORK, WAREHOUSE, PERMISSION = "identity", "network", "warehouse", "permission"
FAULTS = (IDENTITY, NETWORK, WAREHOUSE, PERMISSION)

# What drivers raise about their own credentials, however late: BigQuery's and Athena's open no connection before the first query.
_CREDENTIALS = frozenset(
    {
        "CredentialRetrievalError",
        "DefaultCredentialsError",
        "MetadataRetrievalError",
        "NoCredentialsError",
        "OAuthError",
        "RefreshError",
        "TokenNotServed",
    }
)
# What AWS and Google answer to credentials that they do not take, whatever was asked for.
# https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
_OF_THE_IDENTITY = frozenset(
    {
        *(
            ("aws", code)
            for code in (
                "ExpiredToken",
                "ExpiredTokenException",
                "IncompleteSignature",
                "InvalidClientTokenId",
                "InvalidSignatureException",
                "SignatureDoesNotMatch",
                "UnrecognizedClientException",
            )
        ),
        ("http", "401"),
    }
)
# The server is there and says so: kinds of codes (dbt_runner.evidence) that come from nobody else, and PostgreSQL's way without any.
_SERVER_CODES = frozenset({"sqlstate", "errno", "reason", "aws", "athena"})
_SERVER_TEXTS = ("FATAL: ",)
# Not the one who asks: PostgreSQL's "does not exist" (without a code at a login) and Snowflake's "no active warehouse".
_OF_THE_WAREHOUSE = frozenset({("sqlstate", "3D000"), ("errno", "000606")})
_NO_DATABASE = re.compile(r'FATAL:\s+database ".*" does not exist')


def fault_of(stage: int, kind: ErrorKind, failure: Failure) -> str:
    """One of FAULTS.

    Args:
        stage: the one that failed.
        kind: what the failure means.
        failure: what ended it.
    """
    chain = failure.chain
    if (asked := failure.codes.get("fault")) is not None:
        return asked
    if any(_OF_THE_WAREHOUSE & link.codes.items() or _NO_DATABASE.search(link.message) for link in chain):
        return WAREHOUSE
    if kind is WAREHOUSE_UNAVAILABLE:
        answered = stage > CONNECT or any(
            _SERVER_CODES & link.codes.keys() or any(text in link.message for text in _SERVER_TEXTS) for link in chain
        )
        return WAREHOUSE if answered and not any("os" in link.codes for link in chain) else NETWORK
    not_known = any(_CREDENTIALS.intersection(link.names) or _OF_THE_IDENTITY & link.codes.items() for link in chain)
    if kind is ACCESS_DENIED and stage > CONNECT and not not_known:
        return PERMISSION
    return IDENTITY if kind is ACCESS_DENIED else WAREHOUSE


def fault_of_credential(exc: TypedError) -> str | None:
    """Of a credential that the broker could not get: the network's where nobody answered, as without a way to STS, else the identity's.

    Returns:
        One of FAULTS; None where it was something else that failed.
    """
    from botocore.exceptions import ConnectionError, HTTPClientError

    if exc.kind not in (ACCESS_DENIED, WAREHOUSE_UNAVAILABLE):
        return None
    unanswered = isinstance(exc.__cause__, (ConnectionError, HTTPClientError, OSError))
    return NETWORK if unanswered and exc.kind is WAREHOUSE_UNAVAILABLE else IDENTITY


def fault_without_answer(stage: int) -> str:
    """Of a probe that ran out of its time in this stage."""
    return NETWORK if stage == CONNECT else WAREHOUSE


def unmet(problem: str, fault: str) -> Failure:
    """What the worker says when the warehouse has denied what dbt will need."""
    return Failure("NeedNotMet", ("NeedNotMet",), problem, {"fault": fault})
