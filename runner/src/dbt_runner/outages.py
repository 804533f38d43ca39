"""An AWS that throttles, fails or cannot be reached for a while: what that looks like, and how long an attempt puts up with it."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from dbt_runner.errors import ACCESS_DENIED, INTERRUPTED, TypedError

_T = TypeVar("_T")

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
# Most outages are over before anybody hears of them. Within ECS's longest stop timeout of 120 s there is room for this beside the
# time that dbt gets to stop.
PATIENCE_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 8.0
_FIRST_WAIT_SECONDS = 0.25


def is_outage(exc: BaseException) -> bool:
    """Whether AWS did not answer or could not, rather than refuse."""
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, MetadataRetrievalError

    if isinstance(exc, ClientError):
        code, metadata = exc.response.get("Error", {}).get("Code", ""), exc.response.get("ResponseMetadata", {})
        return metadata.get("HTTPStatusCode", 0) >= 500 or code in _THROTTLED
    # The last one is the task's own endpoint of credentials; TimeoutError is a batch that was not taken in full.
    return isinstance(exc, (ConnectionError, HTTPClientError, MetadataRetrievalError, TimeoutError))


def is_refusal(exc: BaseException) -> bool:
    """Whether AWS refused the caller."""
    from botocore.exceptions import ClientError

    if not isinstance(exc, ClientError):
        return False
    code: str = exc.response.get("Error", {}).get("Code", "")
    return code.startswith("AccessDenied") or exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403


def typed(exc: Exception) -> TypedError | None:
    """What an exception of AWS's clients means for the attempt; None where nothing is known of it.

    An outage that outlasts the attempt's patience is an interruption: nobody has to act, and another attempt may help.
    """
    from botocore.exceptions import ClientError

    if is_outage(exc):
        return TypedError(INTERRUPTED, f"AWS did not answer for too long: {exc}", f"{type(exc).__name__} again and again")
    if isinstance(exc, ClientError) and is_refusal(exc):
        code = exc.response.get("Error", {}).get("Code", "")
        return TypedError(ACCESS_DENIED, f"AWS refuses the task role: {exc}", f"{code} of {exc.operation_name}")
    return None


class Patience:
    """Calls again what an outage kept from succeeding, with waits of full jitter, until it is enough.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        seconds: how long one call may be tried.
        clock: seconds that only grow.
        sleep: waits so many seconds.
        random: a number from 0 to 1.
    """

    def __init__(
        self,
        seconds: float = PATIENCE_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._deadline: float | None = None

    def end_in(self, seconds: float) -> None:
        """From now on all calls together have so long. Only the first time counts."""
        if self._deadline is None:
            self._deadline = self._clock() + seconds

    def __call__(self, call: Callable[[], _T]) -> _T:
        """The answer of `call`, or its last exception: at once what is no outage, an outage when the time is over."""
        until = self._clock() + self._seconds if self._deadline is None else self._deadline
        for number in itertools.count():
            try:
                return call()
            except Exception as exc:
                left = until - self._clock()
                if not is_outage(exc) or left <= 0:
                    raise
            self._sleep(min(left, self._random() * min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**number)))
        raise AssertionError("unreachable")


def once(call: Callable[[], _T]) -> _T:
    """No patience at all: boto3's own retries are enough for whoever waits in front of a terminal."""
    return call()
