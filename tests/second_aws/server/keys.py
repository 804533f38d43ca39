"""The condition keys that AWS takes from a request, and ministack does not.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core import iam_actions
from ministack.core.responses import get_account_id, get_region

Context = dict[str, Any]

_WORD = re.compile(r"[#:]?[A-Za-z_]\w*")
_NO_ATTRIBUTES = {
    *("SET", "REMOVE", "ADD", "DELETE", "AND", "OR", "NOT", "BETWEEN", "IN"),
    *("attribute_not_exists", "attribute_exists", "attribute_type", "begins_with", "contains", "size", "if_not_exists", "list_append"),
}
_EXPRESSIONS = ("UpdateExpression", "ConditionExpression", "ProjectionExpression", "FilterExpression", "KeyConditionExpression")


class KeyedArn(str):
    """A resource of one item of a transaction, which has keys of its own."""

    keys: Context


def install() -> None:
    iam_actions.dynamodb_service_context = lambda body: of_items(json.loads(body or b"{}"))
    _install_transactions()
    _install_tags()
    _install_s3()
    _install_resources()


def of_items(parameters: Mapping[str, Any]) -> Context:
    """`dynamodb:LeadingKeys` and `dynamodb:Attributes` of a request or of one part of a transaction."""
    names = parameters.get("ExpressionAttributeNames") or {}
    attributes: set[str] = set()
    partitions: list[str] = []
    for item in _items(parameters):
        attributes |= set(item)
        partitions += [next(iter(item["pk"].values()))] if "pk" in item else []
    partitions += _queried(parameters, names)
    for expression in _EXPRESSIONS:
        words = _WORD.findall(parameters.get(expression) or "")
        attributes |= {names.get(word, word) for word in words if word not in _NO_ATTRIBUTES and not word.startswith(":")}
    found: Context = {}
    if partitions:
        found["dynamodb:LeadingKeys"] = list(dict.fromkeys(partitions))
    if attributes:
        found["dynamodb:Attributes"] = sorted(attributes)
    return found


def _items(parameters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from (parameters[name] for name in ("Key", "Item") if name in parameters)
    for batch in (parameters.get("RequestItems") or {}).values():
        if isinstance(batch, dict):
            yield from batch.get("Keys", [])
            continue
        for write in batch:
            yield (write.get("PutRequest") or {}).get("Item") or (write.get("DeleteRequest") or {}).get("Key") or {}


def _queried(parameters: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    found = re.search(r"(#?\w+)\s*=\s*(:\w+)", parameters.get("KeyConditionExpression") or "")
    if found is None or parameters.get("IndexName") or names.get(found[1], found[1]) != "pk":
        return []
    return [next(iter(parameters["ExpressionAttributeValues"][found[2]].values()))]


def _install_transactions() -> None:
    checks = iam_actions.dynamodb_transaction_checks

    def with_keys(action: str, body: bytes, region: str, account: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        asked = checks(action, body, region, account)
        for (part, arn), item in zip(asked, json.loads(body)["TransactItems"] if asked else [], strict=True):
            keyed = KeyedArn(arn)
            keyed.keys = of_items(next(iter(item.values())))
            found.append((part, keyed))
        return found

    iam_actions.dynamodb_transaction_checks = with_keys


def _install_tags() -> None:
    tags = iam_actions.request_tag_context

    def with_service_keys(service: str, action: str, body: bytes, parameters: Any) -> Context:
        found: Context = tags(service, action, body, parameters)
        document = json.loads(body) if service in ("states", "ecs") and body[:1] == b"{" else {}
        machine = document.get("stateMachineArn", "")
        if service == "states" and machine.count(":") == 7:
            found["states:StateMachineQualifier"] = machine.rsplit(":", 1)[1]
        if service == "ecs" and document.get("cluster"):
            found["ecs:cluster"] = cluster_arn(document["cluster"])
        return found

    iam_actions.request_tag_context = with_service_keys


def cluster_arn(name: str) -> str:
    """The ARN of a cluster that a call names by its name or ARN."""
    return name if name.startswith("arn:") else f"arn:aws:ecs:{get_region()}:{get_account_id()}:cluster/{name}"


def _install_s3() -> None:
    context = iam_actions.s3_service_context

    def with_preconditions(action: str, query: Any, path: str = "", headers: Any = None) -> Context:
        found: Context = context(action, query, path, headers)
        for name in ("if-none-match", "if-match"):
            if headers and headers.get(name):
                found[f"s3:{name}"] = headers[name]
        return found

    iam_actions.s3_service_context = with_preconditions


def _install_resources() -> None:
    extract = iam_actions.extract_resource_arn

    def as_aws_asks(service: str, method: str, path: str, headers: Mapping[str, str], *more: Any, **named: Any) -> str:
        arn: str = extract(service, method, path, headers, *more, **named)
        if service == "logs" and ":log-group:" in arn and ":log-stream:" not in arn:
            # Of a group's streams AWS asks by `<group>:log-stream:<stream>`, and of all by an empty one.
            return f"{arn}:log-stream:"
        if service == "ssm" and ":parameter/arn:" in arn:
            # The parameter is named by its ARN.
            return arn.partition(":parameter/")[2]
        if service == "glue" and ":table/" in arn and "/" not in arn.partition(":table/")[2]:
            return arn.replace(":table/", ":database/")
        return arn

    iam_actions.extract_resource_arn = as_aws_asks
