"""IAM enforced in every call, and each decision recorded as one line of JSON in the file that SECOND_AWS_DECISIONS names.

Beside what ministack enforces by itself: calls of the services under the roles that they assume (state machines, schedules, rules, ECS
and Lambda), the trust of those roles, and the use of the customer managed key.
"""

from __future__ import annotations

import contextvars
import dataclasses
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

from ministack.core import iam_evaluator as iam
from ministack.core.responses import get_account_id, get_region
from ministack.services import iam as iam_service
from ministack.services import s3, sts

from second_aws.server import encryption, keys

_identity: contextvars.ContextVar[str | None] = contextvars.ContextVar("source_identity", default=None)
_lock = threading.Lock()


def install() -> None:
    from second_aws.server import services

    keys.install()
    _install_enforcement()
    _install_trust()
    services.install()


def record(**decision: Any) -> None:
    """Appends a decision to the file."""
    with _lock, open(os.environ["SECOND_AWS_DECISIONS"], "a", encoding="utf-8") as file:
        file.write(json.dumps(decision) + "\n")


def allowed(role_arn: str, action: str, resource: str, context: Mapping[str, Any] | None = None) -> bool:
    """Whether a service that has assumed a role may make a call; recorded. With it the calls of the key that it makes."""
    account, role = role_arn.split(":")[4], role_arn.rsplit("/", 1)[1]
    request = _request(role, account, action, resource, context or {})
    decision = iam.evaluate(request, iam._gather_role_policies(role, account)).decision == "Allow"
    record(kind="policy", role=role, action=action, resource=resource, context=context or {}, allowed=decision)
    if not decision or action.startswith("kms:"):
        return bool(decision)
    return _all_allowed(role_arn, encryption.requests(action, resource))


def _all_allowed(role_arn: str, requests: Iterable[encryption.Request]) -> bool:
    """Asks all of them, so that a refusal does not hide another."""
    answers = [allowed(role_arn, *request) for request in requests]
    return all(answers)


def refused(role_arn: str, action: str, resource: str, context: Mapping[str, Any]) -> None:
    """Records the answer to a request that a policy must refuse, and that no call here makes."""
    account, role = role_arn.split(":")[4], role_arn.rsplit("/", 1)[1]
    decision = (
        iam.evaluate(_request(role, account, action, resource, context), iam._gather_role_policies(role, account)).decision == "Allow"
    )
    record(kind="policy", role=role, action=action, resource=resource, context=context, allowed=decision, must="refuse")


def assumed_by_service(role_arn: str, service: str, source_arn: str) -> bool:
    """Whether a role's trust lets a service assume it for one of its resources; recorded."""
    role = iam_service._roles.get(role_arn.rsplit("/", 1)[1])
    document = role["AssumeRolePolicyDocument"] if role else "{}"
    document = json.loads(document) if isinstance(document, str) else document
    named = [s for s in document.get("Statement", []) if service in _list(s.get("Principal", {}).get("Service"))]
    context = {"aws:SourceAccount": get_account_id(), "aws:SourceArn": source_arn} if source_arn else {}
    request = _trust_request(f"arn:aws:iam::{get_account_id()}:root", role_arn, {key.lower(): value for key, value in context.items()})
    decision = iam.evaluate_trust_policy({"Statement": named}, request.principal_arn, request)
    _record_trust(role_arn, {"Service": service}, "sts:AssumeRole", context, decision)
    return bool(decision)


def _request(role: str, account: str, action: str, resource: str, context: Mapping[str, Any]) -> Any:
    return iam.EvalContext(
        principal_arn=f"arn:aws:sts::{account}:assumed-role/{role}/service",
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=resource,
        region=get_region(),
        service_context={key.lower(): value for key, value in context.items()},
    )


def _with_s3(action: str, resource: str, context: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """What S3 asks beside the action itself.

    Without the right to list, an object that is missing is answered with 403; a write under If-Match reads.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
    if action == "s3:GetObject" and s3._get_object_data(bucket, key) is None:
        yield "s3:ListBucket", f"arn:aws:s3:::{bucket}", {"s3:prefix": key}
    if action == "s3:PutObject" and "s3:if-match" in context:
        yield "s3:GetObject", resource, {}


def _trust_request(caller: str, role_arn: str, context: Mapping[str, Any]) -> Any:
    return iam.EvalContext(
        principal_arn=caller,
        principal_type="Root",
        principal_account=get_account_id(),
        action="sts:AssumeRole",
        resource_arn=role_arn,
        region=get_region(),
        service_context=dict(context),
    )


def _record_trust(role_arn: str, principal: Mapping[str, str], action: str, context: Mapping[str, Any], decision: bool) -> None:
    role = role_arn.rsplit("/", 1)[1]
    record(kind="trust", role=role, principal=principal, action=action, resource=role_arn, context=context, allowed=bool(decision))


def _install_enforcement() -> None:
    enforce, resolve = iam.enforce, iam._resolve_condition_key

    def recorded(key: str, action: str, service: str, region: str, resource_arn: str = "*", service_context: Any = None) -> Any:
        context = {**(service_context or {}), **getattr(resource_arn, "keys", {})}
        denied = enforce(key, action, service, region, resource_arn=str(resource_arn), service_context=context)
        who = iam.caller_arn()
        if ":assumed-role/" not in who:
            return denied
        role = who.split(":assumed-role/")[1].split("/")[0]
        record(kind="policy", role=role, action=action, resource=str(resource_arn), context=context, allowed=denied is None)
        arn = f"arn:aws:iam::{get_account_id()}:role/{role}"
        more = [*encryption.requests(action, str(resource_arn)), *_with_s3(action, str(resource_arn), context)]
        if denied is None and not _all_allowed(arn, more):
            return iam.EvalResult("ImplicitDeny", principal_arn=who)
        return denied

    iam.enforce = recorded
    # The server has no certificate; what the policies refuse without TLS is proven in tests/terraform.
    iam._resolve_condition_key = lambda key, request: "true" if key.lower() == "aws:securetransport" else resolve(key, request)


def _install_trust() -> None:
    evaluate, handle = iam.evaluate_trust_policy, sts.handle_request

    def recorded(document: Any, caller: str, request: Any = None) -> bool:
        if request is None or caller.endswith(":root"):
            return bool(evaluate(document, caller, request))
        if identity := _identity.get():
            request.service_context["sts:sourceidentity"] = identity
        # A session with tags or a source identity needs these actions as well.
        more = ["sts:TagSession"] * bool(request.request_tags) + ["sts:SetSourceIdentity"] * bool(identity)
        actions = [request.action] + (more if request.action == "sts:AssumeRole" else [])
        context = {**request.service_context, **{f"aws:RequestTag/{name}": value for name, value in request.request_tags.items()}}
        principal = {"Federated" if request.action == "sts:AssumeRoleWithWebIdentity" else "AWS": caller}
        decisions = [bool(evaluate(document, caller, dataclasses.replace(request, action=action))) for action in actions]
        for action, decision in zip(actions, decisions, strict=True):
            _record_trust(request.resource_arn, principal, action, context, decision)
        return all(decisions)

    async def with_identity(method: str, path: str, headers: Any, body: bytes | None, query: Any) -> Any:
        parameters = {**parse_qs((body or b"").decode("utf-8", "replace")), **query}
        _identity.set((parameters.get("SourceIdentity") or [None])[0])
        return await handle(method, path, headers, body, query)

    iam.evaluate_trust_policy = recorded
    sts.handle_request = with_identity


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
