"""The largest environments of docs/limits.md, as variables of the root module, and one beyond each limit.

Three of them, because one cannot have everything at its most: `tasks` has jobs and secrets, `function` what Lambda limits, `lake` what
Athena's databases and locations make of a policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ACCOUNT = "123456789012"
REGION = "eu-central-1"
NAME = "n" * 28
# The roles <name>-<environment>-execution have 64 characters.
TASKS, FUNCTION, LAKE = (f"{word}-{'e' * (24 - len(word))}" for word in ("tasks", "function", "lake"))
KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/11111111-2222-3333-4444-555555555555"

JOBS = 250
# The job that is as long as a job may be: so many commands of so many characters, and vars of so many.
COMMANDS, COMMAND_CHARACTERS, VARS_CHARACTERS = 5, 8000, 50_000
SECRETS, SECRETS_OF_FUNCTION = 84, 23
SUBJECTS = 57
TRUST_CHARACTERS = 4096
DATABASES, DATABASES_READ, LOCATIONS_READ = 60, 180, 20

Variables = dict[str, Any]


def secret_arn(number: int, account: str = ACCOUNT, region: str = REGION) -> str:
    """The ARN of a secret whose name says whose it is, as such names do."""
    return f"arn:aws:secretsmanager:{region}:{account}:secret:analytics/production/dbt/source-systems/secret-{number:03}-AbCdEf"


def largest_job() -> Variables:
    """Its commands build `fast`, a model of the faults project, whichever number of times they name it."""
    names = " fast" * ((COMMAND_CHARACTERS - len("run --select")) // len(" fast"))
    text = "v" * (VARS_CHARACTERS - len('{"text": ""}'))
    return {"steps": [{"name": "largest", "commands": [f"run --select{names}"] * COMMANDS}], "vars": f'{{"text": "{text}"}}'}


def jobs(number: int = JOBS) -> Variables:
    """The largest job, and small ones that fill CONFIG."""
    small: Variables = {
        f"job-{n:03}-{'j' * 32}": {
            "steps": [
                {"name": "freshness", "commands": ["source freshness"], "on_failure": "continue"},
                {"name": "build", "commands": [f"build --select tag:job-{n:03} --exclude tag:never,{'x' * 60}"]},
            ]
        }
        for n in range(1, number)
    }
    # A name of 40 characters, which goes into the input of a schedule; it is never due.
    small[f"job-001-{'j' * 32}"]["schedule"] = "cron(0 3 1 1 ? 2099)"
    return {"largest": largest_job(), **small}


def tasks(secrets: Mapping[str, str]) -> Variables:
    """The environment with as many jobs and secrets as one may have, less its warehouse."""
    return {
        "compute": {"sizes": [{"cpu": 1024, "memory": 4096}], "spot": False},
        "health_check": {"compute": "fargate"},
        "retry": {"max_attempts": 3, "interval_seconds": 1, "backoff_rate": 1},
        "timeout_seconds": 1800,
        "jobs": jobs(),
        "secrets": dict(secrets),
        "env_vars": {f"DBT_VARIABLE_{n:03}": "x" * 100 for n in range(80)},
    }


def names(word: str, number: int) -> str:
    """So many names of databases, separated by commas."""
    return ",".join(f"{word}_{n:03}" for n in range(number))


def lake(
    databases: int = DATABASES, databases_read: int = DATABASES_READ, locations_read: int = LOCATIONS_READ, region: str = REGION
) -> Variables:
    """The warehouse of the environment with as many databases and locations as one may have."""
    locations = [f"s3://analytics-production-source-{n:03}/landing/zone/" for n in range(locations_read)]
    data = "s3://analytics-production-lake"
    return {
        "type": "athena",
        "settings": {
            "region_name": region,
            "work_group": "w" * 64,
            "schema": "marts",
            "s3_staging_dir": f"{data}/staging/",
            "s3_data_dir": f"{data}/marts/",
        },
        "identity": {
            "databases": names("analytics_production_marts", databases),
            "read_databases": names("analytics_production_source", databases_read),
            "read_locations": ",".join(locations),
        },
    }


def secrets(number: int) -> dict[str, str]:
    return {f"DBT_ENV_SECRET_{n:03}": secret_arn(n) for n in range(number)}


def variables() -> Variables:
    """The root module's variables for all three."""
    postgres = {"type": "postgres", "settings": {"host": "db.example.com", "user": "dbt", "dbname": "analytics"}, "identity": {}}
    return {
        "name": NAME,
        "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/data/platform/dbt-runner@sha256:{'0f' * 32}",
        "network": {
            "subnet_ids": [f"subnet-{n:017x}" for n in range(16)],
            "security_group_ids": [f"sg-{n:017x}" for n in range(5)],
        },
        "environments": {
            TASKS: {"warehouse": postgres, **tasks(secrets(SECRETS))},
            FUNCTION: {
                "warehouse": postgres,
                "compute": {"type": "lambda"},
                "slim_ci": {"state_target": "prod"},
                "env_vars": {f"DBT_VARIABLE_{n:03}": "x" * 10 for n in range(10)},
                "secrets": secrets(SECRETS_OF_FUNCTION),
                "jobs": {"nightly": {"schedule": "cron(0 3 * * ? *)", "steps": [{"name": "build", "commands": ["build"]}]}},
            },
            LAKE: {"warehouse": lake()},
        },
        "oidc": {
            "providers": {"github": {"url": "https://token.actions.githubusercontent.com", "audiences": ["sts.amazonaws.com"]}},
            "environments": {
                env: {role: {"github": {"subjects": subjects(SUBJECTS)}} for role in ("deployer", "operator")} for env in (TASKS, FUNCTION)
            },
            "trust_characters": TRUST_CHARACTERS,
        },
        "notifications": {"emails": ["team@example.com"], "chat": True},
        "observability": {"alarms": False},
        "iam": {"path": "/data/platform/dbt/"},
        "kms_key_arn": KMS_KEY,
        "kms_key_services": [f"logs.{REGION}.amazonaws.com"],
        "tags": {f"tag-{n:02}": "x" for n in range(50)},
    }


def subjects(number: int) -> Sequence[str]:
    return [f"repo:acme-data-platform/analytics-{n:03}:environment:production" for n in range(number)]
