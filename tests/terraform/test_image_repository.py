"""The repository of the image: nobody but those who run it can pull, and what was pushed stays what it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tftest

from terraform.inventory import compare, resources, statements
from terraform.mutants import mutants
from terraform.prover import Question, Request, witness
from terraform.tool import ROOT, Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

MODULE = ROOT / "modules" / "image_repository"
INPUTS = Path(__file__).parent / "inputs" / "image_repository.tfvars.json"
GIVEN: dict[str, Any] = json.loads(INPUTS.read_text())
SERVICE = "Service:lambda.amazonaws.com"

BAD: dict[str, tuple[Any, str]] = {
    "name": ("DBT", "name must be 2 to 256 characters"),
    "pull_role_arns": (["arn:aws:iam::*:role/x"], "by an ARN with its account (arn:aws:iam::<account>:role/...): arn:aws:iam::*:role/x."),
    "push_role_arns": (["arn:aws:iam::123456789012:user/x"], "must be ARNs of roles with their account"),
    "function_arns": (["arn:aws:lambda:*:*:function:x"], "must be ARNs of functions with their region and account"),
    "keep_images": (9, "keep_images must be a whole number, at least 10"),
    "untagged_days": (0, "untagged_days must be a whole number of days"),
    "kms_key_arn": ("alias/x", "kms_key_arn must be the ARN of a key"),
}


@pytest.fixture(scope="module")
def plan(online: Terraform, checkout: Path) -> tftest.TerraformPlanOutput:
    """The module with everything that can be set, and the example with what must be, both by one plan."""
    folder = checkout / "examples" / "of_image"
    folder.mkdir()
    modules = {
        "repository": {"source": "../../modules/image_repository", **GIVEN},
        "example": {"source": "../runner_image", "region": "eu-central-1", "repository": "acme/dbt-platform"},
    }
    outputs = {"push_policy": {"value": "${module.repository.push_policy}"}}
    (folder / "main.tf.json").write_text(json.dumps({"module": modules, "output": outputs}))
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    return online.plan(folder)


@pytest.fixture(scope="module")
def policy(plan: tftest.TerraformPlanOutput) -> dict[str, dict[str, Any]]:
    return statements(resources(plan)["module.repository.aws_ecr_repository_policy.this"]["values"]["policy"])


def test_plan_is_as_its_inventory_says(plan: tftest.TerraformPlanOutput) -> None:
    compare("image_repository", plan)


def others(request: Request) -> Any:
    """A request of somebody who is not named."""
    import z3

    named = z3.And(
        request.by("AWS:arn:aws:iam::123456789012:root", "AWS:arn:aws:iam::210987654321:root"),
        request.has("aws:PrincipalArn", *GIVEN["pull_role_arns"]),
    )
    # Of a function of the account: its ARN says so, and the account itself says nothing else where it is sent.
    of_account = z3.Or(z3.Not(request.present("aws:SourceAccount")), request.has("aws:SourceAccount", "123456789012"))
    function = z3.And(request.by(SERVICE), request.has("aws:SourceArn", *GIVEN["function_arns"]), of_account)
    return z3.Not(z3.Or(named, function))


def changes(request: Request) -> Any:
    """A request for something else than reading an image."""
    import z3

    return z3.Not(request.does("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"))


@pytest.mark.parametrize("question", [others, changes])
def test_the_repository_lets_nobody_else_in_and_nobody_change_it(policy: dict[str, dict[str, Any]], question: Question) -> None:
    assert witness(policy.values(), question) is None


def test_a_policy_with_a_fence_less_lets_somebody_in(policy: dict[str, dict[str, Any]]) -> None:
    loose = list(mutants([{"Sid": sid, **statement} for sid, statement in policy.items()]))
    assert len(loose) >= 5
    assert [mutant.name for mutant in loose if witness([mutant.statement], others) is None] == []


def test_what_an_administrators_own_policy_allows_does_not_pull(policy: dict[str, dict[str, Any]]) -> None:
    denied = policy["PullByNobodyElse"]
    assert (denied["Effect"], denied["Action"]) == ("Deny", ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"])
    assert denied["Principal"] in ("*", {"AWS": "*"})
    assert denied["Condition"] == {
        "ArnNotLike": {
            "aws:PrincipalArn": sorted(
                [*GIVEN["pull_role_arns"], *GIVEN["push_role_arns"], "arn:aws:iam::123456789012:role/aws-service-role/*"]
            )
        },
        "Bool": {"aws:PrincipalIsAWSService": "false"},
    }


def test_who_pushes_can_neither_delete_nor_open_the_repository(plan: tftest.TerraformPlanOutput) -> None:
    granted = statements(plan["output_changes"]["push_policy"]["after"])
    actions = {action for s in granted.values() for action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])}
    assert not {a for a in actions if re.search(r"\*|Delete|Policy|Tagging", a)}
    everywhere = {sid for sid, s in granted.items() if s["Resource"] == "*"}
    assert everywhere == {"LogInToEcr"}
    assert granted["PushImage"]["Resource"] == "arn:aws:ecr:eu-central-1:123456789012:repository/data/dbt-runner"


def test_the_example_lets_one_environment_of_one_repository_push(plan: tftest.TerraformPlanOutput) -> None:
    planned = {address.removeprefix("module.example."): r["values"] for address, r in resources(plan).items()}
    (trust,) = statements(planned["aws_iam_role.publisher"]["assume_role_policy"]).values()
    assert trust["Principal"] == {"Federated": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"}
    issuer = "token.actions.githubusercontent.com"
    assert trust["Condition"] == {
        "StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": "repo:acme/dbt-platform:environment:runner-image"}
    }
    granted = statements(planned["aws_iam_role_policy.publisher"]["policy"])
    assert granted["PushImage"]["Resource"] == "arn:aws:ecr:eu-central-1:123456789012:repository/dbt-runner"
    pulling = statements(planned["module.image_repository.aws_ecr_repository_policy.this"]["policy"])
    assert pulling["Pull"]["Condition"]["ArnLike"] == {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/analytics-*-execution"}
    assert (
        f"arn:aws:iam::123456789012:role/{planned['aws_iam_role.publisher']['name']}"
        in (pulling["PullByNobodyElse"]["Condition"]["ArnNotLike"]["aws:PrincipalArn"])
    )


def test_bad_input_is_refused_with_advice(offline: Terraform, tmp_path: Path) -> None:
    """Each validation has its case: one plan finds all of them."""
    shutil.copy(MODULE / "variables.tf", tmp_path)
    for inputs, expected in (
        ({**GIVEN, **{name: bad for name, (bad, _) in BAD.items()}}, [message for _, message in BAD.values()]),
        ({**GIVEN, "pull_role_arns": []}, ["pull_role_arns must name at least one role"]),
        (GIVEN, []),
        ({"pull_role_arns": GIVEN["pull_role_arns"]}, []),
    ):
        (tmp_path / "case.tfvars.json").write_text(json.dumps(inputs))
        done = offline.run(tmp_path, "plan", "-input=false", "-json", "-var-file=case.tfvars.json")
        said = [json.loads(line) for line in done.stdout.splitlines()]
        errors = [
            e["diagnostic"].get("detail", "") for e in said if e.get("type") == "diagnostic" and e["diagnostic"]["severity"] == "error"
        ]
        assert len(errors) == len(expected), errors
        assert [message for message in expected if not any(message in error for error in errors)] == []
    assert len(BAD) == (MODULE / "variables.tf").read_text().count("validation {")
