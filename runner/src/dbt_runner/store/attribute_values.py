"""Items as DynamoDB has them, and as Python does. None is not stored."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

Item = dict[str, Any]


class Unstorable(Exception):
    """A value is none that DynamoDB has: NaN, a number of more than 38 digits, an unknown type, endless nesting."""


def marshal(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as DynamoDB's clients take it.

    Raises:
        Unstorable: it cannot be written, whatever the number of tries.
    """
    from boto3.dynamodb.types import TypeSerializer

    serializer = TypeSerializer()
    try:
        return {key: serializer.serialize(_to_decimal(value)) for key, value in item.items() if value is not None}
    except (TypeError, ValueError, ArithmeticError, RecursionError) as exc:
        raise Unstorable(f"{type(exc).__name__}: {exc}") from exc


def unmarshal(item: Mapping[str, Any]) -> Item:
    from boto3.dynamodb.types import TypeDeserializer

    deserializer = TypeDeserializer()
    return {key: _from_decimal(deserializer.deserialize(value)) for key, value in item.items()}


def _to_decimal(value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    if isinstance(value, Mapping):
        return {key: _to_decimal(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, (list, tuple)):
        return [_to_decimal(inner) for inner in value]
    return value


def _from_decimal(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: _from_decimal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_from_decimal(inner) for inner in value]
    return value
