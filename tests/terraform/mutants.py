"""Policies with one fence taken away, for the controls of the proofs: a proof that no missing fence can break proves nothing."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terraform.prover import listed

Statements = Sequence[Mapping[str, Any]]

ADMINISTRATOR: Mapping[str, Any] = {"Effect": "Allow", "Action": "*", "Resource": "*"}
ANYBODY: Mapping[str, Any] = {"Effect": "Allow", "Action": "sts:*", "Principal": "*"}


@dataclass(frozen=True)
class Mutant:
    """One looser statement in place of another; `name` is its sid and what was taken away. The others of the policy stay as they are."""

    name: str
    statement: Mapping[str, Any]


def mutants(statements: Statements) -> Iterator[Mutant]:
    """For each statement: without each of its conditions, on every resource, with an action that it does not need, for every caller."""
    for statement in statements:
        # A looser Deny is a stricter policy.
        if statement["Effect"] == "Deny":
            continue
        for name, looser in _looser(statement):
            yield Mutant(f"{statement['Sid']} {name}", looser)


def _looser(statement: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for operator, tests in statement.get("Condition", {}).items():
        for key in tests:
            looser = copy.deepcopy(dict(statement))
            del looser["Condition"][operator][key]
            yield f"without {operator} {key}", looser
    if "Resource" in statement and listed(statement["Resource"]) != ["*"]:
        yield "on everything", {**statement, "Resource": "*"}
        services = sorted({action.split(":")[0] for action in listed(statement["Action"])})
        yield "with one more action", {**statement, "Action": [*listed(statement["Action"]), *(f"{s}:PutResourcePolicy" for s in services)]}
    if "Principal" in statement:
        yield "for every caller", {**statement, "Principal": "*"}
