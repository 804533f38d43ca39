"""Writes of many items, in which one item that DynamoDB refuses takes no other one with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dbt_runner.store.attribute_values import Unstorable, marshal

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
BATCH = 25
# The answers to a request that is refused for what is in it. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_REFUSALS = frozenset({"ValidationException", "SerializationException"})
_TOO_LARGE = 413


@dataclass(frozen=True)
class Refused:
    """An item that DynamoDB does not take, whatever the number of tries.

    Attributes:
        item: as it was given.
        reason: what DynamoDB or its client says about it.
    """

    item: Mapping[str, Any]
    reason: str


def is_refusal(exc: BaseException) -> bool:
    """Whether an exception is about what a request holds: the same request fails again, and another one need not."""
    from botocore.exceptions import ClientError, ParamValidationError

    if isinstance(exc, ClientError):
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return exc.response.get("Error", {}).get("Code") in _REFUSALS or status == _TOO_LARGE
    return isinstance(exc, (ParamValidationError, UnicodeError, Unstorable))


def put_many(
    dynamodb: DynamoDBClient, table: str, items: Iterable[Mapping[str, Any]], *, rounds: int, sleep: Callable[[float], None] = time.sleep
) -> list[Refused]:
    """Writes items in batches of 25, and again what DynamoDB left unprocessed, until all are written.

    DynamoDB refuses a batch as a whole. A refused batch is halved until the items that cause the refusal stand alone. The order is kept,
    so that of two items with one key the later one stays.

    Args:
        rounds: how often a batch is sent.
        sleep: waits so many seconds between the rounds.

    Returns:
        The items that were not written because DynamoDB or its client refuses them.

    Raises:
        TimeoutError: a batch was still not accepted after all rounds.
        Exception: anything else that the client raises.
    """
    refused: list[Refused] = []
    written: list[tuple[Mapping[str, Any], Any]] = []
    for item in items:
        try:
            written.append((item, {"PutRequest": {"Item": marshal(item)}}))
        except Unstorable as exc:
            refused.append(Refused(item, str(exc)))
    left = [written[start : start + BATCH] for start in reversed(range(0, len(written), BATCH))]
    while left:
        batch = left.pop()
        try:
            _put(dynamodb, table, [request for _, request in batch], rounds, sleep)
        except Exception as exc:
            if not is_refusal(exc):
                raise
            if len(batch) == 1:
                refused.append(Refused(batch[0][0], str(exc)))
            else:
                middle = len(batch) // 2
                left += [batch[middle:], batch[:middle]]
    return refused


def _put(dynamodb: DynamoDBClient, table: str, requests: Sequence[Any], rounds: int, sleep: Callable[[float], None]) -> None:
    left: Any = requests
    for round_ in range(1, rounds + 1):
        answer = dynamodb.batch_write_item(RequestItems={table: left})
        left = answer.get("UnprocessedItems", {}).get(table, [])
        if not left:
            return
        if round_ < rounds:
            sleep(min(0.1 * 2 ** (round_ - 1), 15.0))
    raise TimeoutError(f"DynamoDB did not accept {len(left)} items of table {table} within its retries")
