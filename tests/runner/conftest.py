"""What the runner's tests share: an audit store on moto, and an environment by the contract of docs/architecture.md."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import boto3
import pytest
from moto import mock_aws

from dbt_runner.cli import aws
from dbt_runner.store import CONFIG, Store, environment_pk
from runner.warm import warm_worker

__all__ = ["warm_worker"]

ACCOUNT = "123456789012"
REGION: Final = "eu-central-1"
TABLE = "analytics-audit"
BUCKET = f"analytics-audit-{ACCOUNT}-{REGION}"


@pytest.fixture(autouse=True)
def no_outside_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings of the real AWS, of dbt-runner or of dbt: none of them may matter."""
    for name in ("AWS_PROFILE", "AWS_REGION", "DBT_RUNNER_TABLE", "DBT_RUNNER_BUCKET", "DBT_RUNNER_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    aws._session.cache_clear()


_session = functools.cache(boto3.Session)


@contextlib.contextmanager
def _one_session() -> Iterator[None]:
    """The same default session for every store: a new one reads the models of its services again, 0.1 s for each test."""
    before, boto3.DEFAULT_SESSION = boto3.DEFAULT_SESSION, _session()
    try:
        yield
    finally:
        boto3.DEFAULT_SESSION = before


@contextlib.contextmanager
def _audit_store() -> Iterator[Store]:
    with _one_session(), mock_aws(config={"core": {"reset_boto3_session": False}}):
        dynamodb = boto3.client("dynamodb", region_name=REGION)
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        s3 = boto3.client("s3", region_name=REGION)
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield Store(dynamodb, s3, TABLE, BUCKET)


@pytest.fixture(scope="session")
def audit_store() -> Callable[[], contextlib.AbstractContextManager[Store]]:
    """Makes what `store` is, for fixtures that live longer than a test."""
    return _audit_store


@pytest.fixture
def store(no_outside_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty audit store: the table and the versioned bucket as the module names them, on moto in this process."""
    monkeypatch.setattr(aws, "_session", _session)
    with _audit_store() as store:
        yield store


@pytest.fixture
def environment(store: Store) -> dict[str, Any]:
    """The environment `prod` as Terraform would have applied it; its CONFIG item is in the store."""
    config = config_of("prod")
    store.put({"pk": environment_pk("prod"), "sk": CONFIG, "config": json.dumps(config)})
    return config


@pytest.fixture
def metadata() -> Iterator[Callable[[bytes], str]]:
    """A task metadata endpoint; called with the document that it serves, it says its address."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[-1])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def serve(body: bytes) -> str:
            bodies.append(body)
            return f"http://127.0.0.1:{server.server_port}/v4/id"

        yield serve
        server.shutdown()
        thread.join()


def config_of(environment: str) -> dict[str, Any]:
    """The CONFIG document of an environment, by the contract: every key is there."""
    machine = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:analytics-{environment}"
    role = f"arn:aws:iam::{ACCOUNT}:role/analytics-{environment}"
    ecs = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
    return {
        "schema": 2,
        "name": "analytics",
        "environment": environment,
        "region": REGION,
        "account": ACCOUNT,
        "table": TABLE,
        "bucket": BUCKET,
        "state_machine": f"{machine}:live",
        "finalize": f"{machine}-finalize",
        "topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:analytics-{environment}",
        "warehouse": {"type": "duckdb", "settings": {"path": "warehouse.duckdb"}, "identity": {}, "profile": "generated"},
        "compute": {
            "type": "fargate",
            "sizes": [{"cpu": 1024, "memory": 4096}],
            "spot": True,
            "architecture": "ARM64",
            "on_timeout": "fail",
            "lambda": {"memory": 2048, "timeout_seconds": 900, "ephemeral_storage": 1024, "reserved_concurrency": None, "vpc": True},
        },
        "health_check": {"enabled": True, "compute": "fargate", "timeout_seconds": 60},
        "retry": {"max_attempts": 3, "interval_seconds": 30, "backoff_rate": 2},
        "overlap": "skip",
        "timeout_seconds": 14400,
        "slim_ci": {"state_target": None, "schema_suffixes": None},
        "requests": {"steps": True, "inline": False, "operations": [], "overrides": True},
        "jobs": {
            "hourly": {
                "schedule": "rate(1 hour)",
                "timezone": "UTC",
                "enabled": True,
                "vars": "{}",
                "full_refresh": False,
                "steps": [
                    {
                        "name": "build",
                        "commands": ["build"],
                        "on_failure": "fail",
                        "timeout_seconds": 3600,
                        "compute": "fargate",
                        "on_timeout": "fail",
                    }
                ],
            }
        },
        "roles": {kind: f"{role}-{kind}" for kind in ("states", "task", "warehouse", "execution")},
        "ecs": {
            "cluster": f"{ecs}:cluster/analytics-{environment}",
            "task_definition": f"{ecs}:task-definition/analytics-{environment}:1",
            "container": "dbt",
            "subnets": ["subnet-0123456789abcdef0"],
            "security_groups": [],
            "assign_public_ip": "DISABLED",
            "log_group": f"/analytics/{environment}/runner",
        },
        "lambda": None,
    }
