"""docs/limits.md: the largest environments are planned, each figure is that of their plan, and whatever is beyond a limit is refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tftest

from asl import render
from dbt_runner.variables import MAX_CHARACTERS
from terraform import beyond, largest
from terraform.beyond import Expression
from terraform.inventory import resources
from terraform.largest import FUNCTION, LAKE, TASKS
from terraform.test_validations import AT_LIMIT, CASES
from terraform.tool import ROOT, Terraform

# One worker makes each plan once.
pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

PAGE = ROOT / "docs" / "limits.md"
UPDATE = "UPDATE_LIMITS"
NAMED = re.compile(r'Limit "([^"]+)"')

Figure = Callable[[tftest.TerraformPlanOutput], int]


@pytest.fixture(scope="module")
def plan(online: Terraform, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> tftest.TerraformPlanOutput:
    file = tmp_path_factory.mktemp("largest") / "largest.tfvars.json"
    file.write_text(json.dumps(largest.variables()))
    return online.plan(checkout, file)


# --- figures ----------------------------------------------------------------------------------------------------------------


def without_blanks(policy: str) -> int:
    """Characters of a policy as IAM counts them."""
    return len(json.dumps(json.loads(policy), separators=(",", ":")))


def values(plan: tftest.TerraformPlanOutput, kind: str) -> Iterator[Mapping[str, Any]]:
    return (r["values"] for r in resources(plan).values() if r["type"] == kind)


def longest(kind: str, attribute: str = "name") -> Figure:
    """How long the longest value of an attribute is among the resources of a type."""
    return lambda plan: max(len(found[attribute]) for found in values(plan, kind))


def largest_policy(kind: str, attribute: str = "policy") -> Figure:
    return lambda plan: max(without_blanks(found[attribute]) for found in values(plan, kind))


def managed_policies(plan: tftest.TerraformPlanOutput) -> int:
    roles = [found["role"] for found in values(plan, "aws_iam_role_policy_attachment")]
    return max(roles.count(role) for role in roles)


def environment_of_function(plan: tftest.TerraformPlanOutput) -> int:
    [function] = values(plan, "aws_lambda_function")
    return len(json.dumps(function["environment"][0]["variables"], separators=(",", ":")).encode())


def input_of_schedule(plan: tftest.TerraformPlanOutput) -> int:
    return max(len(schedule["target"][0]["input"]) for schedule in values(plan, "aws_scheduler_schedule"))


def metrics(plan: tftest.TerraformPlanOutput) -> list[int]:
    """The number of metrics of each graph of the largest dashboard."""
    bodies = [json.loads(found["dashboard_body"]) for found in values(plan, "aws_cloudwatch_dashboard")]
    return max(([len(w["properties"].get("metrics", [])) for w in body["widgets"]] for body in bodies), key=sum)


def overrides(_: tftest.TerraformPlanOutput) -> int:
    """Of RunTask, as the state machine makes them, with values that are as long as they can be: names and places are bounded."""
    environment = "e" * 40
    longest = {"Cpu": "16384", "Memory": "122880", "Name": "dbt", "Value": f"RUN#2026-11-22T03:00:00.000Z#{environment}{'r' * 80}"}

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: longest.get(k, v) if isinstance(v, str) and v.startswith("{%") else filled(v) for k, v in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    states = render.load(render.DEFINITIONS[0])["States"]
    found = [filled(states[name]["Arguments"]["Overrides"]) for name in ("HealthCheck", "RunStep")]
    assert "{%" not in json.dumps(found)
    return max(len(json.dumps(each)) for each in found)


def output(name: str) -> Figure:
    return lambda plan: max(each[name] for each in plan["planned_values"]["outputs"]["limits"]["value"].values())


@dataclass(frozen=True)
class Row:
    """A limit as the page has it.

    Attributes:
        most: AWS's figure, or the project's own where that is smaller.
        figure: that of the largest environments, from their plan.
        refused: whether plan refuses what is beyond it; else names and lists are bounded so that nothing is.
    """

    most: int
    figure: Figure
    refused: bool = True


LIMITS: dict[str, Row] = {
    "payload of a state": Row(262_144 - 16_384, output("config")),
    "payload of a job": Row(131_072, output("largest_job")),
    "vars of a job": Row(MAX_CHARACTERS, lambda _: len(largest.largest_job()["vars"])),
    "state machine definition": Row(1_048_576, longest("aws_sfn_state_machine", "definition"), refused=False),
    "inline policies of a role": Row(10_240, largest_policy("aws_iam_role_policy")),
    "managed policy": Row(6_144, largest_policy("aws_iam_policy")),
    "managed policies of a role": Row(10, managed_policies),
    "trust policy of a role": Row(largest.TRUST_CHARACTERS, largest_policy("aws_iam_role", "assume_role_policy")),
    "identity provider": Row(100, lambda _: len(AT_LIMIT["oidc.providers.github.audiences"])),
    "path of a role": Row(512, lambda _: len(AT_LIMIT["iam.path"])),
    "environment of a function": Row(4_096, environment_of_function),
    "task definition": Row(65_536 - 16_384, longest("aws_ecs_task_definition", "container_definitions")),
    "task overrides": Row(8_192, overrides, refused=False),
    "input of a schedule": Row(262_144, input_of_schedule, refused=False),
    "pattern of a rule": Row(2_048, longest("aws_cloudwatch_event_rule", "event_pattern"), refused=False),
    "metrics of a dashboard": Row(2_500, lambda plan: sum(metrics(plan))),
    "metrics of a graph": Row(500, lambda plan: max(metrics(plan)), refused=False),
    "anomaly detection models": Row(500, lambda _: AT_LIMIT["jobs"]),
    "filter policies of a topic": Row(200, lambda _: len(AT_LIMIT["notifications.emails"])),
    "tags of a resource": Row(50, lambda _: len(AT_LIMIT["tags"])),
    "name of a role": Row(64, longest("aws_iam_role")),
    "name of a managed policy": Row(128, longest("aws_iam_policy"), refused=False),
    "name of a rule": Row(64, longest("aws_cloudwatch_event_rule"), refused=False),
    "name of a schedule": Row(64, longest("aws_scheduler_schedule"), refused=False),
    "name of a schedule group": Row(64, longest("aws_scheduler_schedule_group"), refused=False),
    "name of a function": Row(64, longest("aws_lambda_function", "function_name"), refused=False),
    "name of a state machine": Row(80, longest("aws_sfn_state_machine"), refused=False),
    "name of a bucket": Row(63, longest("aws_s3_bucket", "bucket"), refused=False),
    "name of a table": Row(255, longest("aws_dynamodb_table"), refused=False),
    "name of a cluster": Row(255, longest("aws_ecs_cluster"), refused=False),
    "name of a task definition": Row(255, longest("aws_ecs_task_definition", "family"), refused=False),
    "name of a topic": Row(256, longest("aws_sns_topic"), refused=False),
    "name of a log group": Row(512, longest("aws_cloudwatch_log_group"), refused=False),
    "name of a dashboard": Row(255, longest("aws_cloudwatch_dashboard", "dashboard_name"), refused=False),
}  # fmt: skip


@cache
def said() -> dict[str, list[str]]:
    """The rows of the page: by the limit, AWS's figure, that of the largest environments, why, and what is beyond."""
    table = [line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in table if len(cells) == 5 and cells[0] not in ("limit", "---")}


def number(cell: str) -> int:
    """The first number of a cell."""
    found = re.search(r"\d[\d,]*", cell)
    assert found, cell
    return int(found[0].replace(",", ""))


def test_the_page_has_every_limit_and_no_other() -> None:
    assert set(said()) == set(LIMITS)
    assert {name: number(cells[0]) for name, cells in said().items()} == {name: row.most for name, row in LIMITS.items()}
    assert {name for name, cells in said().items() if cells[3].startswith("refused")} == {
        name for name, row in LIMITS.items() if row.refused
    }


def test_the_page_has_the_figures_of_the_largest_environments(plan: tftest.TerraformPlanOutput) -> None:
    """UPDATE_LIMITS=1 writes them."""
    figures = {name: row.figure(plan) for name, row in LIMITS.items()}
    if os.environ.get(UPDATE):
        lines = PAGE.read_text(encoding="utf-8").splitlines()
        for place, line in enumerate(lines):
            cells = line.strip("| ").split(" | ")
            if len(cells) == 5 and cells[0] in figures:
                cells[2] = f"{figures[cells[0]]:,}"
                lines[place] = f"| {' | '.join(cells)} |"
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
        said.cache_clear()
    assert {name: number(cells[1]) for name, cells in said().items()} == figures, f"{UPDATE}=1 pytest {__file__} writes them"
    assert {name: figure for name, figure in figures.items() if figure > LIMITS[name].most} == {}


def test_the_page_says_what_the_largest_environments_have() -> None:
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    for said_as in (
        f"{largest.JOBS} jobs", f"{largest.SECRETS} secrets", f"{largest.SECRETS_OF_FUNCTION} secrets", f"{largest.SUBJECTS} subjects",
        f"{1 + largest.DATABASES + largest.DATABASES_READ} databases", f"{2 + largest.LOCATIONS_READ} locations",
    ):  # fmt: skip
        assert said_as in text, said_as


def test_config_is_measured_as_the_state_machine_reads_it(
    plan: tftest.TerraformPlanOutput, state_machine: tftest.TerraformPlanOutput
) -> None:
    """What the module computes before it knows the last ARNs is not less than what LoadEnvironment will answer."""
    item = json.loads(resources(state_machine)["aws_dynamodb_table_item.config"]["values"]["item"])["config"]
    measured = state_machine["planned_values"]["outputs"]["bytes"]["value"]
    assert 0 <= measured["config"] - len(json.dumps(item, ensure_ascii=False).encode()) < 700
    config = json.loads(item["S"])
    for name, job in config["jobs"].items():
        request = json.dumps({"job": name, "steps": job["steps"], "job_vars": job["vars"]}, separators=(",", ":"))
        written = json.dumps({"steps": job["steps"], "request": {"S": request}}, separators=(",", ":"))
        assert 0 <= measured["jobs"][name] - len(written.encode()) <= 2


# --- beyond -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusal:
    """What a precondition said: the resource whose it is, and where it stands."""

    resource: str
    place: str
    detail: str


def refusals(terraform: Terraform, folder: Path) -> list[Refusal]:
    """The preconditions that a plan of a folder trips. Raises AssertionError where it fails for another reason."""
    terraform.check(folder, "get", "-no-color")
    done = terraform.run(folder, "plan", "-input=false", "-json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    errors = [e["diagnostic"] for e in events if e.get("type") == "diagnostic" and e["diagnostic"]["severity"] == "error"]
    assert {error["summary"] for error in errors} == {"Resource precondition failed"}, errors
    found = []
    for error in errors:
        file, line = Path(error["range"]["filename"]), error["range"]["start"]["line"]
        resource = ".".join(re.findall(r'"(\w+)"', error["snippet"]["context"]))
        found.append(Refusal(resource, f"{file.parent.name}/{file.name}:{line - 1}", error["detail"]))
    return found


# By resource, the limits that keep it from being planned.
PRECONDITIONS = {
    ("aws_dynamodb_table_item.config", "payload of a state"),
    ("aws_dynamodb_table_item.config", "payload of a job"),
    ("aws_iam_role_policy.task", "inline policies of a role"),
    ("aws_iam_role_policy.warehouse", "inline policies of a role"),
    ("aws_iam_role_policy.deployer", "inline policies of a role"),
    ("aws_iam_policy.managed", "managed policy"),
    ("aws_iam_policy.managed", "managed policies of a role"),
    ("aws_iam_role.deployer", "trust policy of a role"),
    ("aws_iam_role.operator", "trust policy of a role"),
    ("aws_lambda_function.this", "environment of a function"),
    ("aws_ecs_task_definition.this", "task definition"),
    ("aws_cloudwatch_dashboard.this", "metrics of a dashboard"),
}


@pytest.fixture(scope="module")
def refused(online: Terraform, checkout: Path) -> list[Refusal]:
    run = json.loads((Path(__file__).parent / "inputs" / "state_machine.tfvars.json").read_text())
    modules = {
        "inline": ("identity", beyond.long_inline()),
        "managed": ("identity", beyond.long_managed()),
        "runner": ("runner", beyond.containers()),
        "state_machine": ("state_machine", beyond.run(run)),
        "observability": ("observability", beyond.dashboard()),
        # Of what TRUST_CHARACTERS admits, half is beyond the default.
        "people": ("oidc_federation", beyond.people(0, largest.subjects(largest.SUBJECTS))),
        "pull_requests": ("oidc_federation", beyond.people(20, largest.subjects(1))),
    }
    return refusals(online, beyond.configuration(checkout / "examples" / "beyond", modules))


def test_whatever_is_beyond_is_refused_at_plan_with_the_name_of_the_limit(refused: list[Refusal]) -> None:
    found = {(refusal.resource, name) for refusal in refused for name in NAMED.findall(refusal.detail)}
    assert found == PRECONDITIONS
    details = {name: refusal.detail for refusal in refused for name in NAMED.findall(refusal.detail)}
    assert all("(docs/limits.md)." in detail and len(detail) < 900 for detail in details.values())
    refused_by_variables = {name for case in CASES for name in NAMED.findall(case.message)}
    assert set(details) | refused_by_variables == {name for name, row in LIMITS.items() if row.refused}


def test_every_precondition_is_tripped(refused: list[Refusal]) -> None:
    """One that is taken out, or that never fails, is found here: those of `warehouse` have tests of their own."""
    rules = {
        f"{file.parent.name}/{file.name}:{number}"
        for file in (ROOT / "modules").glob("*/*.tf")
        if file.parent.name != "warehouse"
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if line.strip() == "precondition {"
    }
    assert len(rules) == len(PRECONDITIONS) + 2, "the function has two that are about no limit"
    assert {refusal.place for refusal in refused} == rules


def test_what_is_unknown_before_apply_keeps_no_plan_from_being_made(online: Terraform, checkout: Path) -> None:
    """ARNs of secrets and of the key may come from resources of the same plan: the number of policies must not depend on them."""
    made = 'resource "terraform_data" "made" {}\n'
    secrets = '{ for n in range(6) : "SECRET_${n}" => "arn:aws:secretsmanager:x:1:secret:${terraform_data.made.id}" }'
    arguments = beyond.identity(secrets=Expression(secrets), kms_key_arn=Expression('"arn:aws:kms:x:1:key/${terraform_data.made.id}"'))
    folder = beyond.configuration(checkout / "examples" / "unknown", {"identity": ("identity", arguments)}, made)
    assert 'module.identity.aws_iam_policy.managed["execution-2"]' in resources(online.plan(folder))


def test_the_largest_environments_are_three(plan: tftest.TerraformPlanOutput) -> None:
    assert set(plan["planned_values"]["outputs"]["limits"]["value"]) == {TASKS, FUNCTION, LAKE}
