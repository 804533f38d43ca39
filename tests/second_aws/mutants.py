"""Policies with one statement taken out: a statement that no decision needs is none that the tests hold.

No mutant is applied. The requests that the second AWS has decided are asked again of the statements that are left.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from second_aws.decisions import Decision, Statements, distinct
from second_aws.engine import Engine

# By role: its policies, inline and managed, and its trust.
Policies = Mapping[str, Mapping[bool, Statements]]
# The word for a role, whether it is of its trust, and the statement's sid: one statement of the module's code.
Statement = tuple[str, bool, str]


def policies(engine: Engine) -> Policies:
    """Each role of the module as it was applied: the statements of its trust (True) and of its policy (False), by sid."""
    iam = engine.client("iam")
    found: dict[str, dict[bool, Statements]] = {}
    for page in iam.get_paginator("list_roles").paginate(PathPrefix="/data/"):
        for role in page["Roles"]:
            name = role["RoleName"]
            documents = [*_inline(iam, name), *_managed(iam, name)]
            found[name] = {True: _by_sid([role["AssumeRolePolicyDocument"]]), False: _by_sid(documents)}
    return found


def _inline(iam: Any, role: str) -> Iterator[Any]:
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]


def _managed(iam: Any, role: str) -> Iterator[Any]:
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        arn = attached["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        yield iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def _by_sid(documents: Iterable[Any]) -> Statements:
    parsed = [json.loads(document) if isinstance(document, str) else document for document in documents]
    return {statement["Sid"]: statement for document in parsed for statement in document["Statement"]}


def word(role: str) -> str:
    """`deployer` of `x-dbt-prod-2-deployer`."""
    return role.rsplit("-", 1)[1]


def disagreements(found: Policies, decisions: Sequence[Decision]) -> list[str]:
    """Decisions that the tests' own evaluator does not come to."""
    return [
        f"{d.role}: {d.asked} by {d.principal}: {'allowed' if d.allowed else 'refused'} there, not here"
        for d in distinct(decisions)
        if d.again(found[d.role][d.principal is not None]) != d.allowed
    ]


def statements(found: Policies) -> set[Statement]:
    """Every statement, once for all environments."""
    return {(word(role), trust, sid) for role, kinds in found.items() for trust, by_sid in kinds.items() for sid in by_sid}


def held(found: Policies, decisions: Sequence[Decision]) -> set[Statement]:
    """The statements without which at least one decision would be another."""
    of_role: dict[tuple[str, bool], list[Decision]] = defaultdict(list)
    for decision in distinct(decisions):
        of_role[decision.role, decision.principal is not None].append(decision)
    needed: set[Statement] = set()
    for (role, trust), asked in of_role.items():
        all_of_them = found[role][trust]
        for sid in all_of_them:
            without = {other: statement for other, statement in all_of_them.items() if other != sid}
            if any(decision.again(without) != decision.allowed for decision in asked):
                needed.add((word(role), trust, sid))
    return needed
