"""What the examples and a deployment with every setting would create, and what must hold of it whatever the setting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import tftest

from dbt_runner.local import image_process
from terraform.inventory import compare, resources, statements
from terraform.tool import ROOT

# One worker makes each plan once.
pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

ROLES = ("states", "task", "warehouse", "execution", "scheduler", "events")
FEDERATED = ("deployer", "operator")

# What a state's Resource needs. A .sync task is followed and stopped, too; the tags of RunTask are a permission of their own.
PERMISSIONS = {
    "ecs:runTask.sync": {
        "ecs:RunTask", "ecs:StopTask", "ecs:DescribeTasks", "ecs:TagResource", "iam:PassRole",
        "events:PutTargets", "events:PutRule", "events:DescribeRule",
    },
    "lambda:invoke": {"lambda:InvokeFunction"},
    "sns:publish": {"sns:Publish"},
    "aws-sdk:sfn:describeExecution": {"states:DescribeExecution"},
    "aws-sdk:sfn:startExecution": {"states:StartExecution"},
}  # fmt: skip


def policies(plan: tftest.TerraformPlanOutput, environment: str) -> dict[str, dict[str, Any]]:
    """The statements of the inline policies of an environment's roles, by role word and sid."""
    prefix = f'module.identity["{environment}"].aws_iam_role_policy.'
    federated = {f'module.oidc_federation.aws_iam_role_policy.{role}["{environment}"]' for role in FEDERATED}
    found = {address: r["values"] for address, r in resources(plan).items() if address.startswith(prefix) or address in federated}
    return {v["role"].rsplit("-", 1)[1]: statements(v["policy"]) for v in found.values()}


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def leading_keys(statement: Mapping[str, Any]) -> list[str]:
    conditions = statement.get("Condition", {})
    return [key for test in conditions.values() for key in listed(test.get("dynamodb:LeadingKeys", [])) if key != "false"]


def known_outputs(plan: tftest.TerraformPlanOutput) -> dict[str, Any]:
    """The outputs, less what is known only after apply."""
    return {name: change["after"] for name, change in plan["output_changes"].items()}


# Inventories


# The second environment has the default of everything, as the one in `minimal` has, but for a function of its own.
@pytest.mark.parametrize(("name", "leave_out"), [("minimal", None), ("local", None), ("two_environments", '["prod-eu"]')])
def test_plan_is_as_its_inventory_says(name: str, leave_out: str | None, request: pytest.FixtureRequest) -> None:
    compare(name, request.getfixturevalue(name), leave_out)


# The contract


# What a team names itself. The names of jobs are a team's, too, but what a job holds is not.
TEAMS_OWN = {("warehouse", "settings"), ("warehouse", "identity"), ("jobs", "*", "vars")}


def key_paths(value: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """The paths of all values of a JSON document."""
    if isinstance(value, dict) and path not in TEAMS_OWN:
        children = [(v, (*path, "*" if path == ("jobs",) else key)) for key, v in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        children = [(v, (*path, "[]")) for v in value]
    else:
        return {path}
    return {found for child, at in children for found in key_paths(child, at)}


@pytest.fixture(scope="module")
def config(state_machine: tftest.TerraformPlanOutput) -> Any:
    item = json.loads(resources(state_machine)["aws_dynamodb_table_item.config"]["values"]["item"])
    assert (item["pk"], item["sk"]) == ({"S": "ENV#prod"}, {"S": "CONFIG"})
    return json.loads(item["config"]["S"])


def documented_config() -> Any:
    section = (ROOT / "docs" / "architecture.md").read_text().split("\n## CONFIG", 1)[1]
    block = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return json.loads(block[1])


def test_config_has_the_keys_that_the_architecture_page_shows(config: Any) -> None:
    assert key_paths(config) == key_paths(documented_config())


def test_config_says_what_was_given(config: Any) -> None:
    given = json.loads((Path(__file__).parent / "inputs" / "state_machine.tfvars.json").read_text())
    expected = given["settings"]
    assert {key: config[key] for key in expected} == expected
    assert (config["ecs"], config["lambda"]) == (given["ecs"], given["function"])
    assert config["roles"] == {role: given["roles"][role] for role in ("states", "task", "warehouse", "execution")}
    assert {key: config[key] for key in ("name", "environment", "table", "bucket")} == {
        key: given[key] for key in ("name", "environment", "table", "bucket")
    }
    assert {key: config[key] for key in ("region", "account")} == {key: given["location"][key] for key in ("region", "account")}


def test_config_names_the_alias_that_is_created(state_machine: tftest.TerraformPlanOutput, config: Any) -> None:
    planned = resources(state_machine)
    machine, alias = planned["aws_sfn_state_machine.dbt_run"]["values"]["name"], planned["aws_sfn_alias.live"]["values"]["name"]
    assert config["state_machine"].endswith(f":stateMachine:{machine}:{alias}")
    assert config["finalize"].endswith(f":stateMachine:{planned['aws_sfn_state_machine.finalize']['values']['name']}")


def test_config_can_be_read_by_the_runner(config: Any) -> None:
    from dbt_runner.config import parse

    parsed = parse(json.dumps(config))
    assert (parsed.environment, parsed.warehouse.type, parsed.jobs["hourly"]["steps"][0]["commands"]) == ("prod", "postgres", ["build"])


def matches(pattern: list[Any], value: str) -> bool:
    """Whether a field of an event is one of a pattern's values, or begins like one of its prefixes."""
    return any(value.startswith(item["prefix"]) if isinstance(item, dict) else value == item for item in pattern)


@pytest.mark.parametrize(
    ("behind", "heard"),
    [("", True), (":live", True), (":7", True), ("-finalize", False), ("-announce", False), ("-eu", False), ("-eu:live", False)],
)
def test_finalize_hears_of_runs_of_the_machine_its_versions_and_its_alias_alone(
    state_machine: tftest.TerraformPlanOutput, behind: str, heard: bool
) -> None:
    planned = resources(state_machine)
    pattern = json.loads(planned["aws_cloudwatch_event_rule.finalize"]["values"]["event_pattern"])["detail"]["stateMachineArn"]
    machine = json.loads((Path(__file__).parent / "inputs" / "state_machine.tfvars.json").read_text())["arns"]["state_machine"]
    assert matches(pattern, f"{machine}{behind}") is heard


def test_services_that_the_key_must_admit_are_named_at_plan(two_environments: tftest.TerraformPlanOutput) -> None:
    (check,) = (c for c in two_environments["checks"] if c["address"]["to_display"] == "check.kms_key_admits_services")
    assert check["status"] == "fail", "kms_key_services lists one of the two"
    message = check["instances"][0]["problems"][0]["message"]
    assert "must admit cloudwatch.amazonaws.com (variables.tf" in message and "no alarm reaches its topic" in message


def test_a_deployment_without_a_key_of_its_own_is_warned_of_none(minimal: tftest.TerraformPlanOutput) -> None:
    statuses = {c["status"] for c in minimal["checks"] if c["address"]["to_display"].endswith("check.kms_key_admits_services")}
    assert statuses <= {"pass"}


def test_schedules_and_the_rule_start_what_is_created_here(state_machine: tftest.TerraformPlanOutput) -> None:
    configured = {r["address"]: r["expressions"] for r in state_machine["configuration"]["root_module"]["resources"]}
    assert configured["aws_scheduler_schedule.job"]["target"][0]["arn"]["references"][0] == "aws_sfn_alias.live.arn"
    assert configured["aws_cloudwatch_event_target.finalize"]["arn"]["references"][0] == "aws_sfn_state_machine.finalize.arn"
    version = configured["aws_sfn_alias.live"]["routing_configuration"][0]["state_machine_version_arn"]["references"][0]
    assert version == "aws_sfn_state_machine.dbt_run.state_machine_version_arn"


def test_only_jobs_with_a_schedule_are_scheduled(state_machine: tftest.TerraformPlanOutput) -> None:
    schedules = [r["values"] for r in resources(state_machine).values() if r["type"] == "aws_scheduler_schedule"]
    assert [(s["name"], json.loads(s["target"][0]["input"])) for s in schedules] == [("hourly", {"job": "hourly", "trigger": "schedule"})]


@pytest.mark.parametrize("machine", ["dbt_run", "finalize", "announce"])
def test_definition_is_rendered_in_full(state_machine: tftest.TerraformPlanOutput, machine: str) -> None:
    text = resources(state_machine)[f"aws_sfn_state_machine.{machine}"]["values"]["definition"]
    source = json.loads((ROOT / "asl" / f"{machine}.asl.json").read_text())
    rendered = json.loads(text)
    assert "${" not in text
    assert rendered["States"].keys() == source["States"].keys()
    assert rendered["TimeoutSeconds"] == (5400 if machine == "dbt_run" else source["TimeoutSeconds"])
    if machine == "announce":
        assert rendered["States"]["Tell"]["Arguments"]["TopicArn"] == "arn:aws:sns:eu-central-1:123456789012:analytics-prod"
        assert rendered["States"]["Measure"]["Arguments"]["Namespace"] == "dbt/analytics/prod"
    else:
        announce = resources(state_machine)["aws_sfn_state_machine.announce"]["values"]["name"]
        assert rendered["States"]["Announce"]["Arguments"]["StateMachineArn"].endswith(f":stateMachine:{announce}")


@pytest.mark.parametrize("environment", ["prod", "prod-eu"])
def test_chat_has_a_topic_of_its_own_that_the_states_role_may_publish_to(
    two_environments: tftest.TerraformPlanOutput, environment: str
) -> None:
    topic = f"arn:aws:sns:eu-central-1:123456789012:analytics-{environment}"
    assert sorted(listed(policies(two_environments, environment)["states"]["Notify"]["Resource"])) == [topic, f"{topic}-chat"]
    assert f'module.notifications["{environment}"].aws_sns_topic.chat["chat"]' in resources(two_environments)
    machine = resources(two_environments)[f'module.state_machine["{environment}"].aws_sfn_state_machine.announce']
    told = json.loads(machine["values"]["definition"])["States"]
    assert told["TellChat"]["Arguments"]["TopicArn"] == f"{topic}-chat"
    assert told["HasChat"]["Choices"][0]["Condition"] == "{% 'on' = 'on' %}"


def test_without_chat_there_is_no_topic_and_no_permission_for_it(minimal: tftest.TerraformPlanOutput) -> None:
    planned = resources(minimal)
    assert [address for address in planned if ".aws_sns_topic.chat" in address] == []
    (role,) = [r for address, r in planned.items() if address.endswith(".aws_iam_role_policy.states")]
    (topic,) = listed(statements(role["values"]["policy"])["Notify"]["Resource"])
    assert not topic.endswith("-chat")
    (machine,) = [r for address, r in planned.items() if address.endswith(".aws_sfn_state_machine.announce")]
    assert json.loads(machine["values"]["definition"])["States"]["HasChat"]["Choices"][0]["Condition"] == "{% 'off' = 'on' %}"


def test_outputs_give_what_the_command_line_and_other_stacks_need(two_environments: tftest.TerraformPlanOutput) -> None:
    outputs = known_outputs(two_environments)
    assert outputs["cli"] == {"DBT_RUNNER_TABLE": outputs["table"], "DBT_RUNNER_BUCKET": outputs["bucket"]}
    assert (outputs["table"], outputs["bucket"]) == ("analytics-audit", "analytics-audit-123456789012-eu-central-1")
    prod = outputs["environments"]["prod"]
    assert prod["state_machine_arn"] == "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod:live"
    assert prod["role_arns"] == {role: f"arn:aws:iam::123456789012:role/data/x-analytics-prod-{role}" for role in (*ROLES, *FEDERATED)}
    assert outputs["oidc_provider_arns"] == {
        "github": "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com",
        "gitlab": "arn:aws:iam::123456789012:oidc-provider/gitlab.com",
        "okta": "arn:aws:iam::123456789012:oidc-provider/acme.okta.com/oauth2/aus1",
    }
    assert prod["log_groups"] == {
        "runner": "/analytics/prod/runner",
        "function": "/aws/lambda/analytics-prod",
        "dbt_run": "/aws/vendedlogs/states/analytics-prod",
        "finalize": "/aws/vendedlogs/states/analytics-prod-finalize",
        "announce": "/aws/vendedlogs/states/analytics-prod-announce",
    }


# Permissions


def test_state_machines_may_do_what_their_states_do_and_nothing_more(two_environments: tftest.TerraformPlanOutput) -> None:
    needed: set[str] = set()
    for definition in ROOT.glob("asl/*.asl.json"):
        for integration in re.findall(r'"Resource": "arn:\$\{partition\}:states:::([^"]+)"', definition.read_text()):
            service, action = integration.removeprefix("aws-sdk:").split(":")
            needed |= PERMISSIONS.get(integration) or {f"{service}:{action[0].upper()}{action[1:]}"}
    granted = {a for s in policies(two_environments, "prod")["states"].values() for a in listed(s["Action"])}
    of_the_service = {a for a in granted if a.startswith(("logs:", "xray:", "kms:"))}
    assert granted - of_the_service == needed


def test_only_actions_that_know_no_resource_are_allowed_on_all(two_environments: tftest.TerraformPlanOutput) -> None:
    everywhere = {
        (role, sid)
        for role, found in policies(two_environments, "prod").items()
        for sid, statement in found.items()
        if statement["Effect"] == "Allow" and "*" in listed(statement["Resource"])
    }
    of_states = {("states", sid) for sid in ("LogDelivery", "Measure", "Tracing")}
    assert everywhere == of_states | {("execution", "LogInToEcr"), ("task", "SeeInterfaces")}


def test_no_role_has_a_whole_service(two_environments: tftest.TerraformPlanOutput) -> None:
    found = [s for of_role in policies(two_environments, "prod").values() for s in of_role.values()]
    actions = {a for s in found if s["Effect"] == "Allow" for a in listed(s["Action"])}
    assert {a for a in actions if "*" in a} == {"kms:GenerateDataKey*", "kms:ReEncrypt*"}


def test_the_runner_cannot_change_the_environment_or_a_release(two_environments: tftest.TerraformPlanOutput) -> None:
    writes = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:BatchWriteItem", "dynamodb:DeleteItem"}
    statements = policies(two_environments, "prod")["task"].values()
    assert {key for s in statements if writes & set(listed(s["Action"])) for key in leading_keys(s)} == {"RUN#prod#*"}
    assert {r for s in statements if "s3:PutObject" in listed(s["Action"]) for r in listed(s["Resource"])} == {
        f"arn:aws:s3:::analytics-audit-123456789012-eu-central-1/{prefix}/*"
        for prefix in ("audit/attempts/env=prod", "audit/nodes/env=prod", "cache/prod", "docs/prod", "pins/prod", "runs/prod")
    }
    actions = {a for s in statements for a in listed(s["Action"])}
    assert not {"dynamodb:DeleteItem", "s3:DeleteObject", "s3:DeleteObjectVersion"} & actions


def test_table_is_never_reached_without_a_fence(two_environments: tftest.TerraformPlanOutput) -> None:
    for role, found in policies(two_environments, "prod").items():
        for sid, statement in found.items():
            if any(a.startswith("dynamodb:") for a in listed(statement["Action"])):
                assert leading_keys(statement), f"{role} {sid}"
                assert statement["Condition"]["Null"]["dynamodb:LeadingKeys"] == "false", f"{role} {sid}"


def test_nothing_is_granted_for_secrets_or_a_warehouse_role_that_are_not_there(local: tftest.TerraformPlanOutput) -> None:
    prefix = 'module.dbt.module.identity["local"].aws_iam_role_policy.'
    found = {address.removeprefix(prefix): r for address, r in resources(local).items() if address.startswith(prefix)}
    assert set(statements(found["execution"]["values"]["policy"])) == {"WriteLogs", "PullImage", "LogInToEcr"}
    assert "warehouse[0]" not in found


# Lambda


def function_of(plan: tftest.TerraformPlanOutput, environment: str) -> dict[str, Any]:
    planned = resources(plan)
    values: dict[str, Any] = planned[f'module.runner["{environment}"].aws_lambda_function.this[0]']["values"]
    return values


def test_function_has_what_is_set(two_environments: tftest.TerraformPlanOutput) -> None:
    function = function_of(two_environments, "prod")
    assert (function["memory_size"], function["timeout"], function["reserved_concurrent_executions"]) == (3008, 600, 4)
    assert function["ephemeral_storage"] == [{"size": 2048}]
    assert function["architectures"] == ["x86_64"]
    (network,) = function["vpc_config"]
    assert (network["subnet_ids"], network["security_group_ids"]) == (["subnet-0a"], ["sg-0a"])


def test_function_runs_the_same_image_with_the_same_variables_as_tasks(two_environments: tftest.TerraformPlanOutput) -> None:
    function = function_of(two_environments, "prod")
    task = resources(two_environments)['module.runner["prod"].aws_ecs_task_definition.this']["values"]
    (container,) = json.loads(task["container_definitions"])
    assert function["image_uri"] == container["image"]
    variables = dict(function["environment"][0]["variables"])
    secrets = json.loads(variables["DBT_RUNNER_SECRETS"])
    assert secrets == {s["name"]: s["valueFrom"] for s in container["secrets"]}
    # Lambda sets the region itself, and refuses a function that does.
    in_task = {v["name"]: v["value"] for v in container["environment"] if v["name"] != "AWS_DEFAULT_REGION"}
    assert variables == in_task


def test_task_and_function_start_isolated_as_the_local_stand_ins_start_them(two_environments: tftest.TerraformPlanOutput) -> None:
    function = function_of(two_environments, "prod")
    task = resources(two_environments)['module.runner["prod"].aws_ecs_task_definition.this']["values"]
    (container,), (image,) = json.loads(task["container_definitions"]), function["image_config"]
    assert tuple(container["entryPoint"]) == image_process.TASK_ENTRY_POINT
    assert tuple(image["entry_point"]) == image_process.FUNCTION_ENTRY_POINT
    assert tuple(image["command"]) == image_process.FUNCTION_COMMAND
    assert {container["workingDirectory"], image["working_directory"]} == {image_process.WORKING_DIRECTORY}
    assert function["environment"][0]["variables"]["HOME"] == image_process.HOME


def test_function_outside_of_the_vpc_has_no_right_on_networks(two_environments: tftest.TerraformPlanOutput) -> None:
    function = function_of(two_environments, "prod-eu")
    assert (function["vpc_config"], function["reserved_concurrent_executions"], function["ephemeral_storage"]) == ([], -1, [{"size": 1024}])
    granted = {a for s in policies(two_environments, "prod-eu")["task"].values() for a in listed(s["Action"])}
    assert {a for a in granted if a.startswith("ec2:")} == set()
    assert {a for a in granted if a.startswith("logs:")} == {"logs:CreateLogStream", "logs:PutLogEvents"}


def test_function_in_public_subnets_is_warned_of(two_environments: tftest.TerraformPlanOutput) -> None:
    (check,) = (c for c in two_environments["checks"] if c["address"]["to_display"] == "check.way_out_of_functions")
    assert check["status"] == "fail"
    assert check["instances"][0]["problems"][0]["message"].endswith("or set compute.lambda.vpc = false: prod.")


def test_function_is_made_only_where_something_runs_on_it(minimal: tftest.TerraformPlanOutput) -> None:
    assert [a for a in resources(minimal) if "lambda" in a or "function" in a] == []
    policy = next(r["values"]["policy"] for a, r in resources(minimal).items() if a.endswith("aws_iam_role_policy.states"))
    assert "InvokeFunction" not in statements(policy)


# Isolation


DATABASE_USERS = {"prod": "cluster-PROD0/dbt_prod", "prod-eu": "cluster-PRODEU0/dbt_eu"}


def names_of(plan: tftest.TerraformPlanOutput, environment: str) -> Iterator[str]:
    """ARNs of an environment's resources and of what lies inside them: executions, tasks, objects, log streams."""
    name, account, region = ("analytics", "123456789012", "eu-central-1")
    outputs = known_outputs(plan)["environments"][environment]
    yield from outputs["role_arns"].values()
    machine = outputs["state_machine_arn"].removesuffix(":live")
    yield from (
        machine,
        f"{machine}:live",
        f"{machine}-finalize",
        f"{machine}-announce",
        machine.replace(":stateMachine:", ":execution:") + ":some-run",
    )
    yield f"arn:aws:ecs:{region}:{account}:cluster/{name}-{environment}"
    yield f"arn:aws:ecs:{region}:{account}:task/{name}-{environment}/0123456789abcdef"
    yield f"arn:aws:ecs:{region}:{account}:task-definition/{name}-{environment}:7"
    yield f"arn:aws:lambda:{region}:{account}:function:{name}-{environment}:7"
    yield f"arn:aws:logs:{region}:{account}:log-group:/aws/lambda/{name}-{environment}:log-stream:2026/11/22/[7]0123"
    yield from (f"arn:aws:sns:{region}:{account}:{name}-{environment}{suffix}" for suffix in ("", "-chat"))
    yield f"arn:aws:logs:{region}:{account}:log-group:/{name}/{environment}/runner:log-stream:run/dbt/0"
    yield f"arn:aws:s3:::{name}-audit-{account}-{region}/runs/{environment}/2026/11/22/some-run/build/1/dbt.log"
    yield f"arn:aws:rds-db:{region}:{account}:dbuser:{DATABASE_USERS[environment]}"


def reached(plan: tftest.TerraformPlanOutput, environment: str, targets: list[str]) -> set[str]:
    """Which of the targets some statement of the environment's roles allows something on."""
    patterns = [
        pattern
        for found in policies(plan, environment).values()
        for sid, statement in found.items()
        if sid not in ("LogDelivery", "Tracing", "LogInToEcr", "SeeInterfaces", "Measure") and statement["Effect"] == "Allow"
        for pattern in listed(statement["Resource"])
    ]
    return {target for target in targets if any(fnmatchcase(target, pattern) for pattern in patterns)}


@pytest.mark.parametrize(("mine", "other"), [("prod", "prod-eu"), ("prod-eu", "prod")])
def test_an_environment_reaches_nothing_of_another(two_environments: tftest.TerraformPlanOutput, mine: str, other: str) -> None:
    assert reached(two_environments, mine, list(names_of(two_environments, other))) == set()
    # The control: the same question finds its own things.
    own = reached(two_environments, mine, list(names_of(two_environments, mine)))
    assert {target.split(":")[2] for target in own} == {
        "iam", "states", "ecs", "sns", "logs", "s3", "rds-db", "lambda",
    }  # fmt: skip


@pytest.mark.parametrize(("mine", "other"), [("prod", "prod-eu"), ("prod-eu", "prod")])
def test_an_environment_reads_and_writes_no_item_of_another(two_environments: tftest.TerraformPlanOutput, mine: str, other: str) -> None:
    patterns = [k for found in policies(two_environments, mine).values() for s in found.values() for k in leading_keys(s)]

    def allowed(key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in patterns)

    assert not allowed(f"ENV#{other}")
    assert not allowed(f"POINTER#{other}")
    assert not allowed(f"RUN#{other}#some-run")
    assert allowed(f"ENV#{mine}")
    assert allowed(f"POINTER#{mine}")
    assert allowed(f"RUN#{mine}#some-run")


@pytest.mark.parametrize("environment", ["prod", "prod-eu"])
def test_roles_trust_only_their_own_environment(two_environments: tftest.TerraformPlanOutput, environment: str) -> None:
    prefix = f'module.identity["{environment}"].aws_iam_role.'
    roles = {a.removeprefix(prefix): r["values"] for a, r in resources(two_environments).items() if a.startswith(prefix)}
    assert set(roles) == set(ROLES)
    for word, role in roles.items():
        trusted = statements(role["assume_role_policy"])
        function = trusted.pop("Functions", None)
        assert (function is not None) == (word == "task")
        if function is not None:
            assert function["Principal"] == {"Service": "lambda.amazonaws.com"}
            assert function["Condition"] == {"StringEqualsIfExists": {"aws:SourceAccount": "123456789012"}}
        (statement,) = trusted.values()
        conditions = statement["Condition"]
        if word == "warehouse":
            assert statement["Principal"] == {"AWS": f"arn:aws:iam::123456789012:role/data/x-analytics-{environment}-task"}
            assert conditions["StringEquals"] == {"aws:RequestTag/environment": environment}
            continue
        assert conditions["StringEquals"] == {"aws:SourceAccount": "123456789012"}, word
        (source,) = (test["aws:SourceArn"] for test in conditions.values() if "aws:SourceArn" in test)
        if word in ("task", "execution"):
            # ECS can't be held to more than the account and the region.
            assert source == "arn:aws:ecs:eu-central-1:123456789012:*"
        else:
            mine = re.compile(rf"[:/]analytics-{environment}(-finalize|-announce)?(:\*)?$")
            assert [arn for arn in listed(source) if not mine.search(arn)] == [], word


# CI and people


def test_an_adopted_provider_is_not_created(two_environments: tftest.TerraformPlanOutput) -> None:
    created = {r["index"] for r in resources(two_environments).values() if r["type"] == "aws_iam_openid_connect_provider"}
    assert created == {"github", "okta"}


@pytest.mark.parametrize("role", FEDERATED)
@pytest.mark.parametrize("environment", ["prod", "prod-eu"])
def test_tokens_are_trusted_for_a_subject_and_an_audience(
    two_environments: tftest.TerraformPlanOutput, environment: str, role: str
) -> None:
    given = json.loads((Path(__file__).parent / "inputs" / "two_environments.tfvars.json").read_text())["oidc"]
    issuers = {key: arn.split(":oidc-provider/")[1] for key, arn in known_outputs(two_environments)["oidc_provider_arns"].items()}
    values = resources(two_environments)[f'module.oidc_federation.aws_iam_role.{role}["{environment}"]']["values"]
    trusted: dict[str, list[str]] = {}
    for statement in statements(values["assume_role_policy"]).values():
        (provider,) = (key for key, issuer in issuers.items() if statement["Principal"]["Federated"].endswith(f":oidc-provider/{issuer}"))
        sub, aud = f"{issuers[provider]}:sub", f"{issuers[provider]}:aud"
        assert set(statement["Condition"]) <= {"StringEquals", "StringLike"}
        grant = given["environments"][environment][role][provider]
        audiences = grant.get("audiences", given["providers"][provider]["audiences"])
        assert sorted(listed(statement["Condition"]["StringEquals"][aud])) == sorted(audiences)
        trusted.setdefault(provider, []).extend(s for test in statement["Condition"].values() for s in listed(test.get(sub, [])))
        assert all("*" not in s for s in listed(statement["Condition"]["StringEquals"].get(sub, [])))
        assert all("*" in s for s in listed(statement["Condition"].get("StringLike", {}).get(sub, [])))
    assert {key: sorted(subjects) for key, subjects in trusted.items()} == {
        key: sorted(grant["subjects"]) for key, grant in given["environments"][environment][role].items()
    }
    assert values["max_session_duration"] == 7200


def test_nobody_from_outside_is_let_in_by_default(minimal: tftest.TerraformPlanOutput) -> None:
    assert [address for address in resources(minimal) if "oidc_federation" in address] == []
