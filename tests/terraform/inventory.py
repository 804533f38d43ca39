"""What of a plan is written down and compared: what security or another part of the project rests on, not the whole plan."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import tftest
import yaml

UPDATE = "UPDATE_INVENTORIES"
FOLDER = Path(__file__).parent / "inventories"

Values = Mapping[str, Any]


def resources(plan: tftest.TerraformPlanOutput) -> dict[str, dict[str, Any]]:
    """Every managed resource of a plan, in all its modules: its address and its planned values."""
    found: dict[str, dict[str, Any]] = {}

    def walk(module: Mapping[str, Any]) -> None:
        found.update({r["address"]: r for r in module.get("resources", []) if r["mode"] == "managed"})
        for child in module.get("child_modules", []):
            walk(child)

    walk(plan["planned_values"]["root_module"])
    return found


def statements(policy: str) -> dict[str, Any]:
    """A policy's statements by sid, lists sorted, so that order is no difference."""
    return {s["Sid"]: _sorted({k: v for k, v in s.items() if k != "Sid"}) for s in json.loads(policy)["Statement"]}


def inventory(plan: tftest.TerraformPlanOutput, leave_out: str | None = None, only: Collection[str] | None = None) -> dict[str, Any]:
    """Of each resource that has an entry below, what that entry picks.

    Args:
        leave_out: a part of the addresses of resources that are left out.
        only: the addresses that count; None for all.
    """
    return {
        address: _compact(_PICK[r["type"]](r["values"]))
        for address, r in sorted(resources(plan).items())
        if r["type"] in _PICK and not (leave_out and leave_out in address) and (only is None or address in only)
    }


def compare(name: str, plan: tftest.TerraformPlanOutput, leave_out: str | None = None, only: Collection[str] | None = None) -> None:
    """Compares a plan with inventories/<name>.yaml; rewrites the file first where UPDATE_INVENTORIES is set.

    Raises:
        AssertionError: with the difference and the command that regenerates the file.
    """
    path = FOLDER / f"{name}.yaml"
    found = yaml.safe_dump(inventory(plan, leave_out, only), width=140, default_flow_style=None, sort_keys=True)
    if os.environ.get(UPDATE):
        path.write_text(found)
    expected = path.read_text() if path.exists() else ""
    difference = "\n".join(difflib.unified_diff(expected.splitlines(), found.splitlines(), path.name, "the plan", lineterm="", n=4))
    assert not difference, (
        f"the plan is not what inventories/{path.name} says:\n{difference}\n\n"
        f"If that is meant, regenerate it and review the change: {UPDATE}=1 pytest tests/terraform -k inventory"
    )


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(v) for key, v in value.items()}
    return sorted(value) if isinstance(value, list) else value


def _compact(value: Any) -> Any:
    """Without what is not set: nulls and empty texts, lists and objects."""
    if isinstance(value, dict):
        return {key: kept for key, v in value.items() if (kept := _compact(v)) not in (None, "", [], {})}
    return [_compact(v) for v in value] if isinstance(value, list) else value


def _keys(*names: str) -> Callable[[Values], dict[str, Any]]:
    """Picks attributes by name, of those that are known before apply."""
    return lambda values: {name: values.get(name) for name in names}


def _role(values: Values) -> dict[str, Any]:
    return _keys("name", "path", "permissions_boundary")(values) | {"trust": statements(values["assume_role_policy"])}


def _policy(values: Values) -> dict[str, Any] | None:
    return statements(values["policy"]) if values.get("policy") else None


def _machine(values: Values) -> dict[str, Any]:
    (logging,) = values["logging_configuration"]
    return _keys("name", "type", "publish", "role_arn", "tracing_configuration")(values) | {
        "logging": _keys("level", "include_execution_data")(logging),
        "timeout_seconds": json.loads(values["definition"])["TimeoutSeconds"],
    }


def _task_definition(values: Values) -> dict[str, Any]:
    (container,) = json.loads(values["container_definitions"])
    return _keys("family", "cpu", "memory", "network_mode", "runtime_platform", "task_role_arn", "execution_role_arn")(values) | {
        "container": container
    }


def _schedule(values: Values) -> dict[str, Any]:
    (target,) = values["target"]
    return _keys("name", "group_name", "schedule_expression", "schedule_expression_timezone", "state", "flexible_time_window")(values) | {
        "target": _keys("role_arn", "retry_policy")(target) | {"input": json.loads(target["input"])}
    }


_PICK: dict[str, Callable[[Values], dict[str, Any]]] = {
    "aws_athena_named_query": _keys("name", "workgroup", "database"),
    "aws_athena_workgroup": _keys("name", "configuration"),
    "aws_glue_catalog_database": _keys("name"),
    "aws_glue_catalog_table": _keys("name", "parameters", "partition_keys"),
    "aws_s3_bucket_object_lock_configuration": _keys("rule"),
    "aws_cloudwatch_event_rule": lambda v: {"name": v["name"], "pattern": json.loads(v["event_pattern"])},
    "aws_cloudwatch_event_target": _keys("rule", "role_arn"),
    "aws_cloudwatch_log_group": _keys("name", "retention_in_days", "kms_key_id"),
    "aws_dynamodb_table": _keys(
        "name", "billing_mode", "hash_key", "range_key", "deletion_protection_enabled", "point_in_time_recovery", "server_side_encryption"
    ),
    "aws_ecr_lifecycle_policy": lambda v: {"rules": json.loads(v["policy"])["rules"]},
    "aws_ecr_repository": _keys("name", "image_tag_mutability", "image_scanning_configuration", "encryption_configuration", "force_delete"),
    "aws_ecr_repository_policy": lambda v: {"statements": statements(v["policy"])},
    "aws_ecs_cluster": _keys("name"),
    "aws_ecs_cluster_capacity_providers": _keys("capacity_providers"),
    "aws_ecs_task_definition": _task_definition,
    "aws_iam_openid_connect_provider": _keys("url", "client_id_list"),
    "aws_iam_role": _role,
    "aws_iam_role_policy": lambda v: {"role": v["role"], "statements": statements(v["policy"])},
    "aws_lambda_function": _keys(
        "function_name",
        "package_type",
        "image_uri",
        "image_config",
        "architectures",
        "memory_size",
        "timeout",
        "ephemeral_storage",
        "reserved_concurrent_executions",
        "publish",
        "role",
        "environment",
        "vpc_config",
    ),
    "aws_s3_bucket": _keys("bucket", "force_destroy", "object_lock_enabled"),
    "aws_s3_bucket_lifecycle_configuration": _keys("rule"),
    "aws_s3_bucket_ownership_controls": _keys("rule"),
    "aws_s3_bucket_policy": lambda v: {"statements": statements(v["policy"])},
    "aws_s3_bucket_public_access_block": _keys("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets"),
    "aws_s3_bucket_server_side_encryption_configuration": _keys("rule"),
    "aws_s3_bucket_versioning": _keys("versioning_configuration"),
    "aws_scheduler_schedule": _schedule,
    "aws_scheduler_schedule_group": _keys("name"),
    "aws_sfn_alias": _keys("name"),
    "aws_sfn_state_machine": _machine,
    "aws_sns_topic": _keys("name", "kms_master_key_id"),
    "aws_sns_topic_policy": lambda v: {"statements": statements(v["policy"])},
    "aws_sns_topic_subscription": _keys("protocol", "endpoint"),
    "aws_vpc_endpoint": lambda v: _keys("service_name", "vpc_endpoint_type", "private_dns_enabled")(v) | {"policy": _policy(v)},
    "aws_vpc_security_group_egress_rule": _keys("description", "cidr_ipv4", "ip_protocol", "from_port", "to_port"),
    "aws_vpc_security_group_ingress_rule": _keys("description", "cidr_ipv4", "ip_protocol", "from_port", "to_port"),
}
