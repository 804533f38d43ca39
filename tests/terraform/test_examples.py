"""The examples are planned by one plan: who may become what in those of CI and people, what another stack listens to, and what runs
where in that of Lambda."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import z3
from moto import mock_aws
from moto.events.models import EventPattern

from asl import render
from asl.ended import ENDED, FAILED, leave, node
from asl.fakes import RUN_KEY, make_cloud
from terraform.claims import LEADING
from terraform.inventory import resources, statements
from terraform.prover import Request, witness
from terraform.tool import Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

COMMON: dict[str, Any] = {
    "region": "eu-central-1",
    "image": f"registry.example.com/dbt-runner@sha256:{'0f' * 32}",
    "subnet_ids": ["subnet-0a"],
    "security_group_ids": ["sg-0a"],
    "database": {"host": "db.example.com", "name": "analytics", "resource_id": "db-ABC123"},
}
INPUTS: dict[str, dict[str, Any]] = {
    "lambda": {
        **COMMON,
        "image": f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/dbt-runner@sha256:{'0f' * 32}",
        "database": {**COMMON["database"], "user": "dbt"},
    },
    "github_actions": {**COMMON, "repository": "acme/analytics"},
    "okta": {
        **COMMON,
        "okta": {
            "domain": "acme.okta.com",
            "authorization_server": "aus1",
            "audience": "api://dbt",
            "people": ["00uAda", "00uBob"],
            "people_client": "0oaPeople",
            "ci_client": "0oaCi",
        },
    },
    "consume_from_another_stack": {
        "event_source": render.SAMPLE["namespace"],
        "job": "hourly",
        "state_machine_arn": "arn:aws:states:eu-central-1:123456789012:stateMachine:reports",
    },
}


@pytest.fixture(scope="module")
def planned(online: Terraform, checkout: Path) -> dict[str, dict[str, Any]]:
    """Every resource of the examples, by its address."""
    folder = checkout / "examples" / "of_identity"
    folder.mkdir()
    modules = {name: {"source": f"../{name}", **inputs} for name, inputs in INPUTS.items()}
    (folder / "main.tf.json").write_text(json.dumps({"module": modules}))
    (folder / "versions.tf").write_text((checkout / "versions.tf").read_text())
    return resources(online.plan(folder))


@pytest.fixture(scope="module")
def trusted(planned: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The conditions under which each example's roles are given, by example and <environment>-<role>."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in ("github_actions", "okta")}
    for address, r in planned.items():
        if r["type"] == "aws_iam_role" and ".module.oidc_federation." in address:
            (statement,) = statements(r["values"]["assume_role_policy"]).values()
            found[address.split(".")[1]][r["values"]["name"].removeprefix("analytics-")] = statement["Condition"]
    return found


def test_github_deploys_each_environment_from_its_own_of_the_same_name(trusted: dict[str, dict[str, dict[str, Any]]]) -> None:
    issuer = "token.actions.githubusercontent.com"
    subjects = {f"{env}-deployer": f"repo:acme/analytics:environment:{env}" for env in ("staging", "prod", "ci")}
    assert trusted["github_actions"] == {
        role: {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": subject}} for role, subject in subjects.items()
    }


def test_what_pull_requests_may_publish_nobody_else_runs(planned: dict[str, dict[str, Any]]) -> None:
    """Proven over all requests. The deployer of staging is the control."""
    account, bucket = "123456789012", "analytics-audit-123456789012-eu-central-1"
    table = f"arn:aws:dynamodb:eu-central-1:{account}:table/analytics-audit"

    def files(r: Request) -> Any:
        others = z3.And(r.on(f"arn:aws:s3:::{bucket}/releases/*"), z3.Not(r.on(f"arn:aws:s3:::{bucket}/releases/ci-*")))
        return z3.And(others, r.does("s3:Put*", "s3:Delete*"))

    def items(r: Request) -> Any:
        others = z3.And(r.has(LEADING, "RELEASE#*"), z3.Not(r.has(LEADING, "RELEASE#ci-*")))
        return z3.And(r.on(table), others, r.does("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"))

    def pointers(r: Request) -> Any:
        writes = r.does("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
        return z3.And(r.on(table), r.has(LEADING, "ENV#*", "POINTER#*"), writes)

    def promotions(r: Request) -> Any:
        return z3.And(r.on(f"arn:aws:s3:::{bucket}/pins/*", f"arn:aws:s3:::{bucket}/audit/*"), r.does("s3:Put*", "s3:Delete*"))

    def pointer_of_ci(r: Request) -> Any:
        return z3.And(pointers(r), r.has(LEADING, "POINTER#ci"))

    for question in (files, items, pointers, promotions, pointer_of_ci):
        can = {}
        for env in ("ci", "staging"):
            (policy,) = [
                json.loads(r["values"]["policy"])["Statement"]
                for address, r in planned.items()
                if address == f'module.github_actions.module.dbt.module.oidc_federation.aws_iam_role_policy.deployer["{env}"]'
            ]
            can[env] = witness(policy, question) is not None
        assert can == {"ci": False, "staging": True}, question.__name__


def test_okta_tells_people_and_ci_apart_by_their_audience(trusted: dict[str, dict[str, dict[str, Any]]]) -> None:
    issuer = "acme.okta.com/oauth2/aus1"
    assert trusted["okta"] == {
        "prod-operator": {"StringEquals": {f"{issuer}:aud": "0oaPeople", f"{issuer}:sub": ["00uAda", "00uBob"]}},
        "prod-deployer": {"StringEquals": {f"{issuer}:aud": "api://dbt", f"{issuer}:sub": "0oaCi"}},
    }


HEARD = [
    pytest.param(ENDED, True, id="fresh"),
    pytest.param(FAILED, False, id="failed"),
    pytest.param({**ENDED, "job": "x"}, False, id="other"),
]


@pytest.mark.parametrize(("record", "heard"), HEARD)
def test_another_stack_hears_of_fresh_data_alone(planned: dict[str, dict[str, Any]], record: dict[str, str], heard: bool) -> None:
    """Its pattern meets the events that announce sends, by the emulator's own matching."""
    prefix = "module.consume_from_another_stack.aws_cloudwatch_event_rule."
    (rule,) = [r["values"] for address, r in planned.items() if address.startswith(prefix)]
    with mock_aws():
        cloud = make_cloud()
        leave(cloud, record, node("model.shop.orders"))
        assert cloud.announce(RUN_KEY).error is None
    pattern = EventPattern.load(rule["event_pattern"])
    events = [{"source": e["Source"], "detail-type": e["DetailType"], "detail": e["Detail"]} for e in cloud.published]
    assert [event["detail-type"] for event in events if pattern.matches_event(event)] == (["dbt.run"] if heard else [])


def test_lambda_has_a_function_beside_the_task_and_schedules_both_jobs(planned: dict[str, dict[str, Any]]) -> None:
    values = {a.removeprefix("module.lambda."): r["values"] for a, r in planned.items() if a.startswith("module.lambda.")}
    function = values['module.dbt.module.runner["prod"].aws_lambda_function.this[0]']
    assert (function["memory_size"], function["reserved_concurrent_executions"], function["timeout"]) == (2048, 2, 900)
    assert values['module.dbt.module.runner["prod"].aws_ecs_task_definition.this']["cpu"] == "1024"
    schedules = {v["name"]: v["schedule_expression"] for a, v in values.items() if "aws_scheduler_schedule.job" in a}
    assert schedules == {"fresh": "rate(15 minutes)", "nightly": "cron(0 3 * * ? *)"}
