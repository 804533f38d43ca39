"""What no role can ever do: proven over all requests from the policies that a plan renders, each proof with controls that must fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tftest
import z3

from terraform.claims import ACCOUNT, BUCKET, FEDERATED, LEADING, NAME, REGION, ROLES, TABLE, TABLES, Claim, becomes, claims, role_arn
from terraform.inventory import resources
from terraform.mutants import ADMINISTRATOR, ANYBODY, Statements, mutants
from terraform.prover import Request, witness

# One worker makes the plan once.
pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

DIRECTIONS = [("prod", "prod-eu"), ("prod-eu", "prod")]
TRUSTED = json.loads((Path(__file__).parent / "inputs" / "two_environments.tfvars.json").read_text())["oidc"]
CLAIMS = [(mine, claim) for mine, other in DIRECTIONS for claim in claims(mine, other)]
TRUSTS = [(mine, claim) for mine, _ in DIRECTIONS for claim in becomes(mine, TRUSTED)]


def name_of(value: object) -> str:
    return f"{'+'.join(value.roles) if len(value.roles) < 3 else 'roles'} never {value.never}" if isinstance(value, Claim) else str(value)


Policies = dict[str, dict[str, Statements]]


def _by_role(plan: tftest.TerraformPlanOutput, kind: str, role: str, document: str) -> Policies:
    found: Policies = {mine: {word: [] for word in ROLES} for mine, _ in DIRECTIONS}
    for r in resources(plan).values():
        if r["type"] != kind:
            continue
        environment, _, word = r["values"][role].removeprefix("x-analytics-").rpartition("-")
        found[environment][word] = [*found[environment][word], *json.loads(r["values"][document])["Statement"]]
    return found


@pytest.fixture(scope="module")
def policies(two_environments: tftest.TerraformPlanOutput) -> Policies:
    """The statements of every role, by environment and role word."""
    return _by_role(two_environments, "aws_iam_role_policy", "role", "policy")


@pytest.fixture(scope="module")
def trusts(two_environments: tftest.TerraformPlanOutput) -> Policies:
    """The same of the trust policies."""
    return _by_role(two_environments, "aws_iam_role", "name", "assume_role_policy")


def broken(claim: Claim, policies: dict[str, Statements]) -> dict[str, Any]:
    """By role, a request that breaks the claim."""
    return {role: found for role in claim.roles if (found := witness(policies[role], claim.question)) is not None}


def test_nothing_else_gives_the_roles_permissions(two_environments: tftest.TerraformPlanOutput, policies: Policies) -> None:
    types = {r["type"] for r in resources(two_environments).values() if r["type"].startswith("aws_iam_")}
    assert types == {"aws_iam_role", "aws_iam_role_policy", "aws_iam_openid_connect_provider"}
    assert {word for mine in policies.values() for word, found in mine.items() if not found} == set()


@pytest.mark.parametrize(("mine", "claim"), CLAIMS, ids=name_of)
def test_roles_can_never(policies: Policies, mine: str, claim: Claim) -> None:
    assert broken(claim, policies[mine]) == {}


@pytest.mark.parametrize(("mine", "claim"), CLAIMS, ids=name_of)
def test_an_administrator_is_found(mine: str, claim: Claim) -> None:
    assert broken(claim, {role: [ADMINISTRATOR] for role in ROLES}).keys() == set(claim.roles)


@pytest.mark.parametrize(("mine", "claim"), TRUSTS, ids=name_of)
def test_callers_can_never(trusts: Policies, mine: str, claim: Claim) -> None:
    assert broken(claim, trusts[mine]) == {}
    assert broken(claim, {role: [ANYBODY] for role in ROLES}).keys() == set(claim.roles)


def test_roles_cannot_become_roles_of_another_environment(trusts: Policies) -> None:
    for mine, other in DIRECTIONS:
        theirs = [f"AWS:{role_arn(other, role)}" for role in ROLES]
        assert {role for role in ROLES if witness(trusts[mine][role], lambda r, theirs=theirs: r.by(*theirs))} == set()  # type: ignore[misc]


def _calls(mine: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """What an operator's commands call, as docs/security.md has it: action, resource, context."""
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{NAME}-{mine}"
    execution = f"{machine.replace(':stateMachine:', ':execution:')}:r-1"
    yield "states:StartExecution", machine, {"states:StateMachineQualifier": "live"}
    yield "states:ListExecutions", machine, {}
    for verb in ("Describe", "Stop"):
        yield f"states:{verb}Execution", execution, {}
    # history and cost read many nodes at once.
    for verb in ("GetItem", "Query", "BatchGetItem"):
        for key in (f"ENV#{mine}", f"POINTER#{mine}", f"RUN#{mine}#r-1"):
            yield f"dynamodb:{verb}", TABLE, {LEADING: key}
    # release list, show and diff.
    yield "dynamodb:GetItem", TABLE, {LEADING: "RELEASE#1.4.2"}
    # release verify --run --archive: the rows, what they name, and the release.
    for folder in (
        "releases/1.4.2",
        f"pins/{mine}",
        f"runs/{mine}/2026/11/23/r-1",
        *(f"audit/{table}/env={mine}/date=2026-11-23" for table in TABLES),
    ):
        yield "s3:GetObject", f"{BUCKET}/{folder}/x", {}
        yield "s3:ListBucket", BUCKET, {"s3:prefix": f"{folder}/"}


def _can(statements: Statements, action: str, resource: str, context: dict[str, str]) -> bool:
    def asked(r: Request) -> Any:
        return z3.And(r.does(action), r.on(resource), *(r.has(key, value) for key, value in context.items()))

    return witness(statements, asked) is not None


@pytest.mark.parametrize(("mine", "other"), DIRECTIONS)
def test_an_operator_can_do_what_the_commands_need(policies: Policies, mine: str, other: str) -> None:
    operator = policies[mine]["operator"]
    assert [call for call in _calls(mine) if not _can(operator, *call)] == []
    # The control: of another environment's only what all environments share.
    assert {f"{resource} {context}" for action, resource, context in _calls(other) if _can(operator, action, resource, context)} == {
        f"{BUCKET}/releases/1.4.2/x {{}}",
        f"{BUCKET} {{'s3:prefix': 'releases/1.4.2/'}}",
        f"{TABLE} {{'{LEADING}': 'RELEASE#1.4.2'}}",
    }


def test_every_fence_of_a_policy_is_needed(policies: Policies) -> None:
    mine, other = DIRECTIONS[0]
    questions = list(claims(mine, other))
    missed = {
        f"{role} {mutant.name}"
        for role in ROLES
        for mutant in mutants(policies[mine][role])
        if not any(role in claim.roles and witness([mutant.statement], claim.question) for claim in questions)
    }
    assert missed == set()


def test_every_fence_of_a_trust_policy_is_needed(trusts: Policies) -> None:
    mine, _ = DIRECTIONS[0]
    questions = list(becomes(mine, TRUSTED))
    missed = {
        f"{role} {mutant.name}"
        for role in ROLES
        for mutant in mutants(trusts[mine][role])
        if not any(role in claim.roles and witness([mutant.statement], claim.question) for claim in questions)
    }
    assert missed == set()
    assert {role for role in ROLES for claim in questions if role in claim.roles} == {*ROLES}
    assert set(FEDERATED) < set(ROLES)
