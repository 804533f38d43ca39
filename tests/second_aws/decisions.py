"""The decisions that the second AWS has recorded, and the same requests asked of the tests' own evaluator."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terraform.prover import listed
from terraform.simulation import Asked, allowed_by, conditions_hold

# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html: no policy is asked.
_ALWAYS = {"sts:GetCallerIdentity"}

Statements = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Decision:
    """One answer of IAM.

    Attributes:
        role: its name.
        principal: who wants to become the role; None where it is not a matter of trust.
        refuse: whether the request had to be refused, whoever made it.
    """

    role: str
    asked: Asked
    principal: tuple[str, str] | None
    allowed: bool
    refuse: bool = False

    def again(self, statements: Statements) -> bool:
        """What the tests' own evaluator says to the request."""
        if self.principal is None:
            return allowed_by(statements, self.asked) is not None
        trusting = {sid: s for sid, s in statements.items() if self._named(s.get("Principal", {})) and conditions_hold(s, self.asked)}
        return any(self.asked.action in listed(s["Action"]) and s["Effect"] == "Allow" for s in trusting.values())

    def _named(self, principals: Mapping[str, Any]) -> bool:
        assert self.principal is not None
        kind, name = self.principal
        if kind == "AWS" and ":assumed-role/" in name:
            # A policy names the role, and a caller is one of its sessions. Names of roles are unique in an account, whatever their path.
            role = name.split(":assumed-role/")[1].split("/")[0]
            return any(str(principal).rsplit("/", 1)[-1] == role for principal in listed(principals.get(kind, [])))
        return name in listed(principals.get(kind, []))


def read(file: Path, begin: int = 0, end: int | None = None) -> Iterator[Decision]:
    """The decisions between two offsets of the file, in order."""
    with file.open("rb") as lines:
        lines.seek(begin)
        for line in lines:
            begin += len(line)
            if end is not None and begin > end:
                return
            decision = _parse(json.loads(line))
            if decision.asked.action not in _ALWAYS:
                yield decision


def _parse(entry: Mapping[str, Any]) -> Decision:
    keys = {key.lower(): tuple(listed(value)) for key, value in entry["context"].items() if value is not None and value != []}
    principal = next(iter(entry["principal"].items())) if "principal" in entry else None
    asked = Asked(entry["action"], entry["resource"], keys)
    return Decision(entry["role"], asked, principal, entry["allowed"], entry.get("must") == "refuse")


def distinct(decisions: Sequence[Decision]) -> list[Decision]:
    """Each decision once."""
    return list({(d.role, str(d.asked), d.principal, d.allowed): d for d in decisions}.values())
