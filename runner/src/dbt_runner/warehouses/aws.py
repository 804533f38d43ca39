"""Error codes of AWS, for every adapter whose driver calls it: to log in, or for all its work.

https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html, and the errors of each action on its own page.
"""

from __future__ import annotations

from collections.abc import Mapping

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind

CODES: Mapping[str, Mapping[str, ErrorKind | None]] = {
    "aws": {
        **dict.fromkeys(
            (
                "InternalError",
                "InternalFailure",
                "InternalServerError",
                "InternalServerException",
                "LimitExceededException",
                "RequestLimitExceeded",
                "RequestTimeout",
                "ServiceUnavailable",
                "ServiceUnavailableException",
                "SlowDown",
                "Throttling",
                "ThrottlingException",
                "ThrottledException",
                "TooManyRequestsException",
            ),
            WAREHOUSE_UNAVAILABLE,
        ),
        **dict.fromkeys(
            (
                "AccessDenied",
                "AccessDeniedException",
                "ExpiredToken",
                "ExpiredTokenException",
                "IncompleteSignature",
                "InvalidClientTokenId",
                "InvalidIdentityToken",
                "InvalidSignatureException",
                "NotAuthorized",
                "OptInRequired",
                # https://docs.aws.amazon.com/STS/latest/APIReference/API_GetWebIdentityToken.html
                "OutboundWebIdentityFederationDisabledException",
                "SignatureDoesNotMatch",
                "UnauthorizedOperation",
                "UnrecognizedClientException",
            ),
            ACCESS_DENIED,
        ),
    },
    "http": {"5*": WAREHOUSE_UNAVAILABLE, "429": WAREHOUSE_UNAVAILABLE, "401": ACCESS_DENIED, "403": ACCESS_DENIED},
}
# botocore's own, before any request: the credentials that the supervisor serves could not be had.
TYPES: Mapping[str, ErrorKind | None] = {
    "NoCredentialsError": ACCESS_DENIED,
    "CredentialRetrievalError": ACCESS_DENIED,
    "MetadataRetrievalError": ACCESS_DENIED,
}
