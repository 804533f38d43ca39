"""Athena as the warehouse role, as far as moto goes: it checks and answers every call, and takes any SQL without doing it.

Where moto stops: no SQL is parsed or executed, no object is written for a table, and the answer to a test is laid down here.

What no emulator shows is compared with what was granted: each call that dbt made is one that the role's statements allow.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
import yaml
from moto.athena.models import QueryResults, athena_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.wrappers import Request, Response

from runner.conftest import ACCOUNT, REGION
from terraform.inventory import FOLDER
from terraform.simulation import Asked, allowed_by
from warehouses.aws import ROLE, Aws, Session
from warehouses.conftest import WarehouseRun

pytestmark = pytest.mark.xdist_group("warehouse-athena")

SETTINGS = {
    "region_name": REGION,
    "work_group": "analytics",
    "schema": "analytics",
    "s3_staging_dir": "s3://acme-lake/athena/",
    "s3_data_dir": "s3://acme-lake/analytics/",
}


class Lake:
    """Athena, Glue and S3 of moto, with a look at who asks for what.

    Attributes:
        role: who may use them.
        calls: the actions that were asked for, as IAM calls them.
        asked: the same in full, with what they were asked of.
        failures: what a test of dbt counts.
        denied: actions that even this role may not ask for.
    """

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.role = ROLE
        self.calls: set[str] = set()
        self.asked: list[Asked] = []
        self.failures = 0
        self.denied: set[str] = set()

    def answer(self, request: Request, service: str, session: Session) -> Response:
        action = request.headers.get("X-Amz-Target", "").rpartition(".")[2] or _s3_action(request)
        self.calls.add(f"{service}:{action}")
        self.asked += _asked(service, action, request)
        if session.role != self.role or f"{service}:{action}" in self.denied:
            refused = {
                "__type": "AccessDeniedException",
                "message": f"User: {session.role} is not authorized to perform: {service}:{action}",
            }
            return Response(json.dumps(refused), status=400, content_type="application/x-amz-json-1.1")
        if action == "StartQueryExecution":
            _do(json.loads(request.get_data())["QueryString"], self.failures)
        return Response.from_app(self._moto, {**request.environ, "wsgi.input": io.BytesIO(request.get_data())})


def _asked(service: str, action: str, request: Request) -> Iterator[Asked]:
    """What AWS asks IAM for a request: Glue for the catalog and the database, too, of whatever it is."""
    name = f"{service}:{action}"
    if service == "s3":
        bucket, _, key = request.path.strip("/").partition("/")
        # Several objects are deleted by a request on the bucket, which names them.
        keys = re.findall(r"<Key>([^<]*)</Key>", request.get_data(as_text=True)) if request.method == "POST" else [key]
        if key or request.method == "POST":
            yield from (Asked(name, f"arn:aws:s3:::{bucket}/{key}") for key in keys)
        else:
            prefix = {"s3:prefix": (request.args["prefix"],)} if request.args.get("prefix") else {}
            yield Asked(name, f"arn:aws:s3:::{bucket}", prefix)
        return
    given = json.loads(request.get_data())
    if service == "athena":
        assert given.get("WorkGroup", "analytics") == "analytics"
        yield Asked(name, f"arn:aws:athena:{REGION}:{ACCOUNT}:workgroup/analytics")
        return
    glue = f"arn:aws:glue:{REGION}:{ACCOUNT}"
    yield Asked(name, f"{glue}:catalog")
    if action == "GetDatabases":
        yield Asked(name, f"{glue}:database/anybodys")
        return
    of_database = action in ("GetDatabase", "CreateDatabase")
    database = given.get("DatabaseName") or given.get("DatabaseInput", given)["Name"]
    yield Asked(name, f"{glue}:database/{database}")
    if not of_database:
        table = given.get("TableName") or given.get("TableInput", {}).get("Name") or given.get("Name") or "any"
        yield Asked(name, f"{glue}:table/{database}/{table}")


def _do(sql: str, failures: int) -> None:
    """Of what Athena would do, what dbt looks for afterwards: the table in Glue, and the answer to a test."""
    if "as failures" in sql:
        # moto evaluates no query: it hands out what was laid down before.
        told = {
            "failures": ("bigint", str(failures)),
            "should_warn": ("boolean", "false"),
            "should_error": ("boolean", str(failures > 0).lower()),
        }
        rows = [list(told), [value for _, value in told.values()]]
        columns = [{"Name": name, "Label": name, "Type": kind, "Nullable": "UNKNOWN"} for name, (kind, _) in told.items()]
        answer = QueryResults([{"Data": [{"VarCharValue": value} for value in row]} for row in rows], columns)
        athena_backends[ACCOUNT][REGION].query_results_queue.append(answer)
    if made := re.search(r"create\s+(?:or replace )?(table|view)\s+(\S+)", sql, re.IGNORECASE):
        name, kind = made[2].split(".")[-1].strip('"`'), "VIRTUAL_VIEW" if made[1].lower() == "view" else "EXTERNAL_TABLE"
        table = boto3.client("glue", region_name=REGION).create_table
        table(DatabaseName="analytics", TableInput={"Name": name, "TableType": kind, "Parameters": {}})


def _s3_action(request: Request) -> str:
    on_object = request.path.strip("/").count("/") > 0
    if request.method == "GET" and not on_object:
        return "GetBucketLocation" if "location" in request.args else "ListBucket"
    return {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "POST": "DeleteObject"}[request.method]


@pytest.fixture
def lake(cloud: Aws, store: Any) -> Lake:
    made = Lake()
    cloud.others = made.answer
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="acme-lake", CreateBucketConfiguration={"LocationConstraint": REGION})
    boto3.client("athena", region_name=REGION).create_work_group(Name="analytics")
    boto3.client("glue", region_name=REGION).create_database(DatabaseInput={"Name": "analytics"})
    return made


Runs = Callable[..., WarehouseRun]


@pytest.fixture
def on_athena(runs: Runs, lake: Lake, cloud: Aws) -> WarehouseRun:
    run = runs({"type": "athena", "settings": SETTINGS})
    run.environment["AWS_ENDPOINT_URL"] = cloud.url
    return run


def test_a_build_passes_as_the_warehouse_role_and_within_its_permissions(on_athena: WarehouseRun, lake: Lake, cloud: Aws) -> None:
    assert on_athena.build().get("error") is None
    assert on_athena.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    (session,) = cloud.assumed
    assert session.source_identity == "r-1"
    assert {"athena:StartQueryExecution", "glue:GetTables", "s3:ListBucket"} < lake.calls
    assert _beyond_the_statements(lake) == []
    # The control: of somebody else's lake nothing is allowed.
    lake.asked = [replace(asked, resource=re.sub("acme-lake|analytics", "other", asked.resource)) for asked in lake.asked]
    assert len(_beyond_the_statements(lake)) > len(lake.asked) / 2


def _beyond_the_statements(lake: Lake) -> list[str]:
    """What the role's statements do not allow of what was asked for."""
    inventory = yaml.safe_load((FOLDER / "multi_warehouse.yaml").read_text())
    statements = inventory['module.dbt.module.identity["athena"].aws_iam_role_policy.warehouse[0]']["statements"]
    return [str(asked) for asked in lake.asked if allowed_by(statements, asked) is None]


@pytest.mark.parametrize("there", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_check_asks_for_the_database_within_the_permissions(on_athena: WarehouseRun, lake: Lake, there: bool) -> None:
    if not there:
        boto3.client("glue", region_name=REGION).delete_database(Name="analytics")
    assert on_athena.check().get("error") is None
    assert {call for call in lake.calls if call.startswith("glue:")} == {"glue:GetDatabase", *(["glue:GetTables"] if there else [])}
    assert _beyond_the_statements(lake) == []


@pytest.mark.slow
@pytest.mark.parametrize("action", ["glue:GetDatabase", "glue:GetTables"])
def test_a_database_that_is_not_granted_is_access_denied(on_athena: WarehouseRun, lake: Lake, action: str) -> None:
    lake.denied = {action}
    outcome = on_athena.check()
    assert (outcome["error"], outcome["fault"]) == ("Dbt.AccessDenied", "permission")
    assert f"is not authorized to perform: {action}" in outcome["message"]


@pytest.mark.slow
def test_a_test_that_counts_failures_fails_the_build(on_athena: WarehouseRun, lake: Lake) -> None:
    lake.failures = 3
    outcome = on_athena.build()
    assert (outcome["error"], on_athena.built()["not_null_big_orders_id"]) == ("Dbt.TestFailure", "fail")


def test_a_session_that_is_over_is_access_denied(on_athena: WarehouseRun, lake: Lake, cloud: Aws) -> None:
    cloud.ahead = timedelta(minutes=61)
    outcome = on_athena.check()
    assert (outcome["error"], outcome["fault"], lake.calls) == ("Dbt.AccessDenied", "identity", set())
    assert "The security token included in the request is expired" in outcome["message"]


@pytest.mark.slow
def test_another_role_is_access_denied(on_athena: WarehouseRun, lake: Lake) -> None:
    lake.role = "arn:aws:iam::123456789012:role/analytics-staging-warehouse"
    outcome = on_athena.check()
    assert outcome["error"] == "Dbt.AccessDenied"
    assert "is not authorized to perform: athena:StartQueryExecution" in outcome["message"]
