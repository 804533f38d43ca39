"""What each role has to be able to do: the calls of the real code, each asked of the role's statements as the plan has them.

The other half, what no role can ever do, is proven in tests/terraform/test_isolation.py. Together they say that a policy is neither too
tight nor too wide: no call is refused, and without any one statement some call would be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from dbt_runner import cli, dbt_docs, release
from dbt_runner.cli import aws
from dbt_runner.store import Store
from runner import projects
from runner.attempts import Run, publish
from runner.recorded_runs import LiveAlias, create_machine, node_item, record_outcome, record_run, step_result
from runner.releases import candidate
from terraform.claims import SECRETS
from terraform.simulation import Asked, Calls, Statements, policy, recorded, requests

# What services do under a role by themselves: Lambda's network and log, and DynamoDB's look at the key.
OF_SERVICES = {"CreateInterfaces", "ManageInterfaces", "SeeInterfaces", "NoInterfacesFromCode", "DescribeKey", "WriteFunctionLogs"}
READS = (
    ("secretsmanager", "GetSecretValue", {"SecretId": SECRETS["prod"][0]}),
    ("ssm", "GetParameter", {"Name": SECRETS["prod"][1]}),
)
# What dbt leaves: an old look at sources in one step; documentation and a parse in the next.
LEAVES = """
looks = bool(spec["commands"]) and "source" in spec["commands"][0]
for name in ("run_results.json", "sources.json" if looks else "static_index.html", "partial_parse.msgpack"):
    with open(os.path.join("..", "target", name), "w") as file:
        file.write(PAGE if name == "static_index.html" else "{}")
say("Parsed", index=0)
node("model.shop.orders")
done()
"""


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    publish(store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    made = Run(store, environment)
    documentation = dbt_docs.template().decode()
    for data in ("MANIFEST", "CATALOG"):
        documentation = documentation.replace(f'"{data}.JSON INLINE DATA"', "{}")
    made.environment.update(projects.scripted(tmp_path / "scripted", f"PAGE = {documentation!r}\n{LEAVES}"))
    rds = {"host": "db.example.org", "user": "dbt", "dbname": "a"}
    role = "arn:aws:iam::123456789012:role/data/x-analytics-prod-warehouse"
    made.config |= {"warehouse": {"type": "postgres", "settings": rds, "identity": {"method": "rds_iam"}}}
    made.config["roles"] |= {"warehouse": role}
    made.sts = lambda: boto3.client("sts")
    step = {"on_failure": "fail", "timeout_seconds": 80}
    made.steps = [
        {"name": "fresh", "commands": ["source freshness"], **step},
        {"name": "docs", "commands": ["docs generate --static"], **step},
    ]
    return made


def unneeded(calls: Calls, statements: Statements, *besides: str) -> set[str]:
    return {*statements} - calls.needed(statements) - OF_SERVICES - {*besides}


def test_the_task_role_can_do_what_attempts_do(run: Run) -> None:
    statements = policy("prod", "task")
    run.config["audit"] = {"items_retention_days": 91}
    run.write()
    with recorded() as calls:
        # The health check, both steps, and the second one once more: a script answers none of the check's questions.
        assert [run.start(0), run.start(1), run.start(2), run.start(2, 2)][1:] == [0, 0, 0]
        # As on Lambda, where the supervisor does what ECS does for a task.
        for service, operation, parameters in READS:
            calls.add(requests(service, operation, parameters))
    assert calls.refused(statements) == []
    assert unneeded(calls, statements) == set()


@pytest.fixture
def call(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls dbt-runner as its user would, with real clients on moto."""
    create_machine(boto3.client("stepfunctions"))
    boto3.client("logs").create_log_group(logGroupName="/analytics/prod/runner")
    client = aws.client
    monkeypatch.setattr(aws, "client", lambda service: LiveAlias(client(service)) if service == "stepfunctions" else client(service))
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("DBT_RUNNER_ENVIRONMENT", "prod")

    def invoke(*words: str) -> Result:
        done = CliRunner().invoke(cli.cli, words)
        assert done.exception is None, f"{words}: {done.exception!r} {done.output}"
        return done

    return invoke


# What CI and people read of a run.
OF_A_RUN = ("show r-1", "list", "history --node orders", "cost --month 2026-11", "logs r-1", "report r-1 --output /dev/null")


def record(store: Store) -> None:
    """The run of those commands."""
    record_run(
        store, "r-1", "2026-11-22T10:00:00.000Z", status="SUCCEEDED", ended_at="2026-11-22T10:02:00.000Z", results=[step_result("build")]
    )
    record_outcome(store, "r-1", 2, "build")
    store.put(node_item("r-1", "build", "orders"))


def test_the_deployer_can_do_what_ci_does(store: Store, call: Callable[..., Result], tmp_path: Path) -> None:
    statements = policy("prod", "deployer")
    record(store)
    with recorded() as calls:
        for version in ("1.4.2", "1.4.3"):
            release.commit(store, candidate(tmp_path / version, version, version=version))
            call("release", "promote", "--version", version, "--reason", "ticket 7")
        call("release", "rollback", "--reason", "ticket 8")
        for words in ("list", "list --promotions", "show --version 1.4.2", "verify --version 1.4.2"):
            call("release", *words.split())
        run_id = json.loads(call("start", "--job", "hourly", "--json").stdout)["run_id"]
        for words in (f"status {run_id}", *OF_A_RUN):
            call(*words.split())
    assert calls.refused(statements) == []
    assert unneeded(calls, statements) == set()


def test_the_operator_can_do_what_people_do(store: Store, call: Callable[..., Result], tmp_path: Path) -> None:
    statements = policy("prod", "operator")
    record(store)
    for version in ("1.4.2", "1.4.3"):
        release.commit(store, candidate(tmp_path / version, version, version=version))
    releases = ("list", "show --version 1.4.2", "verify --version 1.4.2")
    with recorded() as calls:
        run_id = json.loads(call("start", "--job", "hourly", "--json").stdout)["run_id"]
        for words in (f"status {run_id}", *OF_A_RUN, *(f"release {words}" for words in releases), "verify --version 1.4.2"):
            call(*words.split())
    assert calls.refused(statements) == []
    # AWS's console lists executions; the commands have the table.
    assert unneeded(calls, statements, "ListRuns") == set()


LOGS = "arn:aws:logs:eu-central-1:123456789012:log-group:/analytics/prod/runner:log-stream:run/dbt/0"
IMAGE = "arn:aws:ecr:eu-central-1:444455556666:repository/data/dbt-runner"
MACHINE = "arn:aws:states:eu-central-1:123456789012:stateMachine:analytics-prod"


@pytest.mark.parametrize(
    ("role", "asked"),
    [
        ("scheduler", [Asked("states:StartExecution", MACHINE, {"states:statemachinequalifier": ("live",)})]),
        ("events", [Asked("states:StartExecution", f"{MACHINE}-finalize")]),
        ("warehouse", [Asked("rds-db:connect", "arn:aws:rds-db:eu-central-1:123456789012:dbuser:cluster-PROD0/dbt_prod")]),
        (
            "execution",
            [
                *(Asked(f"logs:{action}", LOGS) for action in ("CreateLogStream", "PutLogEvents")),
                *(Asked(f"ecr:{action}", IMAGE) for action in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")),
                Asked("ecr:GetAuthorizationToken", "*"),
                *requests("secretsmanager", "GetSecretValue", {"SecretId": SECRETS["prod"][0]}),
                *requests("ssm", "GetParameters", {"Name": SECRETS["prod"][1]}),
            ],
        ),
    ],
)
def test_what_services_do_under_a_role_is_allowed(role: str, asked: list[Asked]) -> None:
    calls, statements = Calls(), policy("prod", role)
    calls.add(asked)
    assert calls.refused(statements) == []
    assert {*statements} - calls.needed(statements) == set()
