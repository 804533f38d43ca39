"""What is beyond the limits that a precondition knows, in one configuration.

Each module stands by itself there: in the root module a refusal of one would keep the others from being planned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from terraform import largest
from terraform.largest import ACCOUNT, JOBS, KMS_KEY, NAME, REGION, Variables

LOCATION = {"partition": "aws", "dns_suffix": "amazonaws.com", "region": REGION, "account": ACCOUNT}
IAM = {"path": "/", "permissions_boundary": None, "name_prefix": ""}
IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/dbt-runner@sha256:{'0f' * 32}"
ARNS = (
    "table bucket topic chat_topic cluster tasks task_family function function_logs runner_logs state_machine executions finalize announce "
    "event_bus finalize_rule schedule_group"
)
ID = f"{NAME}-prod"

Arguments = Mapping[str, Any]


class Expression(str):
    """An argument in Terraform's own language."""


def arns(names: str = ARNS) -> dict[str, str]:
    return {name: f"arn:aws:x:{REGION}:{ACCOUNT}:table/{NAME}-{name}" for name in names.split()}


def network() -> dict[str, Any]:
    return {"vpc": True, **largest.variables()["network"]}


def identity(**more: Any) -> Arguments:
    """Of modules/identity; what is not given is as small as it can be."""
    return {
        "id": ID, "environment": "prod", "location": LOCATION, "arns": arns(), "chat": False, "namespace": "dbt/x/prod",
        "warehouse": {"type": "postgres", "settings": {}, "identity": {}}, "function": None, "image": IMAGE, "secrets": {}, "iam": IAM,
        "kms_key_arn": KMS_KEY, "tags": {}, **more,
    }  # fmt: skip


def long_secrets(number: int) -> dict[str, str]:
    """Secrets whose names are as long as they may be, which come first by the names of their variables."""
    return {f"A_{n:03}": largest.secret_arn(n).replace("source-systems", "s" * 460) for n in range(number)}


def long_inline() -> Arguments:
    """A function whose first secrets have the longest names, and a few locations more than fit."""
    lake = largest.lake(databases_read=1, locations_read=largest.LOCATIONS_READ + 6)
    return identity(warehouse=lake, function=network(), secrets=long_secrets(4))


def long_managed() -> Arguments:
    """One secret more than fits, of which the first have the longest names."""
    long = long_secrets(12)
    return identity(secrets={**long, **largest.secrets(largest.SECRETS - len(long) + 1)})


def containers() -> Arguments:
    """Variables that neither a function nor a task takes, and a function's image in another region."""
    return {
        "id": ID, "environment": "prod", "region": REGION, "log_group": "/x/prod/runner", "log_retention_days": 90, "image": IMAGE,
        "compute": {"sizes": [{"cpu": 1024, "memory": 4096}], "architecture": "ARM64"},
        "function": {**network(), "memory": 2048, "timeout_seconds": 900, "ephemeral_storage": 1024, "reserved_concurrency": None},
        "table": f"{NAME}-audit", "bucket": f"{NAME}-audit",
        "env_vars": {**{f"DBT_VARIABLE_{n:03}": "x" * 100 for n in range(350)}, "X": "a name that Lambda does not take"},
        "secrets": {},
        "task_role_arn": f"arn:aws:iam::{ACCOUNT}:role/x-task", "execution_role_arn": f"arn:aws:iam::{ACCOUNT}:role/x-execution",
        "kms_key_arn": None, "tags": {},
    }  # fmt: skip


def jobs() -> Variables:
    """One job too many, of which one has a command too many."""
    more = largest.largest_job()
    more["steps"][0]["commands"].append(more["steps"][0]["commands"][0])
    filled = {"enabled": True, "full_refresh": False, "schedule": None, "timezone": "UTC", "vars": "{}"}
    step = {"compute": "fargate", "on_failure": "fail", "on_timeout": "fail", "timeout_seconds": 1740}
    given = {**largest.jobs(JOBS + 1), "longer": more}
    return {name: {**filled, **job, "steps": [{**step, **each} for each in job["steps"]]} for name, job in given.items()}


def run(given: Arguments) -> Arguments:
    """Of modules/state_machine, from the arguments that are known to be planned."""
    return {**given, "settings": {**given["settings"], "jobs": jobs()}}


def dashboard() -> Arguments:
    return {
        "id": ID, "environment": "prod", "location": LOCATION, "namespace": "dbt/x/prod", "arns": arns("finalize announce"),
        "jobs": {f"job-{n}": {"fresh_within_minutes": None} for n in range(JOBS + 1)}, "log_groups": {"runner": "/x"},
        "observability": {"alarms": False, "dashboard": True, "saved_queries": False, "alarm_actions": []},
        "emails": [], "kms_key_arn": None, "tags": {},
    }  # fmt: skip


def people(pull_requests: int, subjects: Sequence[str]) -> Arguments:
    """Of modules/oidc_federation: one environment for its people and so many in which pull requests are checked."""
    granted = {"github": {"subjects": list(subjects), "audiences": None}}
    provider = {"url": "https://token.actions.githubusercontent.com", "arn": None, "audiences": ["sts.amazonaws.com"], "thumbprints": None}
    return {
        "location": LOCATION, "table": f"{NAME}-audit", "identity_providers": {"github": provider},
        "environments": {
            f"environment-{n:03}": {
                "id": f"x-{n}", "arns": {**arns("table bucket state_machine executions"), "logs": []}, "deployer": {} if n else granted,
                "operator": {} if n else granted, "pull_requests": n > 0,
            }
            for n in range(pull_requests + 1)
        },
        "max_session_seconds": 3600, "trust_characters": 2048, "iam": IAM, "kms_key_arn": KMS_KEY, "tags": {},
    }  # fmt: skip


def configuration(folder: Path, modules: Mapping[str, tuple[str, Arguments]], more: str = "") -> Path:
    """Writes a configuration that calls each module with its arguments, two folders below the root; `more` is Terraform's own language."""
    folder.mkdir(parents=True)
    calls = [
        f'module "{name}" {{\n  source = "../../modules/{source}"\n'
        + "".join(f"  {argument} = {_written(value)}\n" for argument, value in arguments.items())
        + "}\n"
        for name, (source, arguments) in modules.items()
    ]
    (folder / "main.tf").write_text("\n".join([*calls, more]))
    return folder


def _written(value: Any) -> str:
    return value if isinstance(value, Expression) else f"jsondecode({json.dumps(json.dumps(value))})"
