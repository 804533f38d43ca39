"""What each role must be refused, as calls of the API, and beside each group the call that it may make: a control of the fence.

The roles are those of `prod`; `prod-2` is the other environment, and its name begins with the same letters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from dbt_runner.local.clients import ACCOUNT, REGION
from second_aws import identity
from second_aws.engine import Engine
from second_aws.identity import Session, role_arn

HOME, OTHER = "prod", "prod-2"
# The last database that the warehouse role of `lake` builds, which is in a managed policy.
MORE = "analytics_production_marts_015"
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"})


@dataclass(frozen=True)
class Attempt:
    """A call under a role, and whether IAM must refuse it."""

    role: str
    what: str
    service: str
    operation: str
    parameters: Mapping[str, Any]
    refuse: bool = True
    environment: str = HOME

    def __str__(self) -> str:
        return f"{self.environment}-{self.role}: {self.what}"

    def refused(self, session: Session) -> bool:
        """Whether IAM refuses it. An error of the service itself comes after IAM has let the call through."""
        try:
            getattr(session.client(self.service), self.operation)(**self.parameters)
        except ClientError as exc:
            return exc.response["Error"]["Code"] in DENIED or exc.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        return False


def attempts(table: str, bucket: str) -> list[Attempt]:
    """The whole matrix."""
    of_runs = [*_task(table, bucket), *_states(table, bucket), *_others(bucket), *_athena(bucket)]
    return [*_deployer(table, bucket), *_operator(table, bucket), *of_runs]


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def _machine(environment: str, suffix: str = "") -> str:
    return _arn("states", f"stateMachine:dbt-{environment}{suffix}")


def _execution(environment: str) -> str:
    return _arn("states", f"execution:dbt-{environment}:r-1")


def _item(pk: str, sk: str, **more: str) -> dict[str, Any]:
    return {name: {"S": value} for name, value in {"pk": pk, "sk": sk, **more}.items()}


class _Table:
    """Calls of one role on the table."""

    def __init__(self, role: str, table: str) -> None:
        self.role, self.table = role, table

    def get(self, pk: str, sk: str = "CONFIG", **more: Any) -> Attempt:
        return self._call(f"get {pk} {sk}", "get_item", more, Key=_item(pk, sk))

    def query(self, pk: str, **more: Any) -> Attempt:
        condition = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": pk}}}
        return self._call(f"query {pk}", "query", more, **condition)

    def put(self, pk: str, sk: str, attributes: Mapping[str, str] | None = None, **more: Any) -> Attempt:
        given = attributes or {}
        return self._call(f"put {pk} {sk} with {', '.join(given) or 'nothing else'}", "put_item", more, Item=_item(pk, sk, **given))

    def update(self, pk: str, sk: str, attribute: str, **more: Any) -> Attempt:
        expression = {"UpdateExpression": f"SET {attribute} = :v", "ExpressionAttributeValues": {":v": {"S": "x"}}}
        return self._call(f"update {attribute} of {pk} {sk}", "update_item", more, Key=_item(pk, sk), **expression)

    def delete(self, pk: str, sk: str, **more: Any) -> Attempt:
        return self._call(f"delete {pk} {sk}", "delete_item", more, Key=_item(pk, sk))

    def batch_get(self, *partitions: str, **more: Any) -> Attempt:
        keys = [_item(pk, "CONFIG") for pk in partitions]
        return self._call(f"batch get {' and '.join(partitions)}", "batch_get_item", more, RequestItems={self.table: {"Keys": keys}})

    def batch_put(self, *items: dict[str, Any], **more: Any) -> Attempt:
        requests = [{"PutRequest": {"Item": item}} for item in items]
        what = f"batch put {' and '.join(item['pk']['S'] + ' ' + item['sk']['S'] for item in items)}"
        return self._call(what, "batch_write_item", more, RequestItems={self.table: requests})

    def transact(self, what: str, *writes: dict[str, Any], **more: Any) -> Attempt:
        return self._call(f"transaction: {what}", "transact_write_items", more, TransactItems=list(writes))

    def scan(self) -> Attempt:
        return self._call("scan the table", "scan", {})

    def _call(self, what: str, operation: str, more: Mapping[str, Any], **parameters: Any) -> Attempt:
        named = {} if operation in ("batch_get_item", "batch_write_item", "transact_write_items") else {"TableName": self.table}
        return Attempt(self.role, what, "dynamodb", operation, {**named, **parameters}, **more)


class _Bucket:
    """Calls of one role on the bucket."""

    def __init__(self, role: str, bucket: str) -> None:
        self.role, self.bucket = role, bucket

    def get(self, key: str, **more: Any) -> Attempt:
        return self._call(f"read {key}", "get_object", more, Key=key)

    def list(self, prefix: str | None, **more: Any) -> Attempt:
        return self._call(f"list {prefix}", "list_objects_v2", more, **({} if prefix is None else {"Prefix": prefix}))

    def put(self, key: str, *, new: bool, **more: Any) -> Attempt:
        what = f"write {key} {'as a new object' if new else 'over what is there'}"
        return self._call(what, "put_object", more, Key=key, Body=b"x", **({"IfNoneMatch": "*"} if new else {}))

    def delete(self, key: str) -> Attempt:
        return self._call(f"delete {key}", "delete_object", {}, Key=key)

    def copy(self, source: str, key: str) -> Attempt:
        return self._call(f"copy {source} to {key}", "copy_object", {}, Key=key, CopySource={"Bucket": self.bucket, "Key": source})

    def multipart(self, key: str) -> Attempt:
        return self._call(f"begin a multipart upload of {key}", "create_multipart_upload", {}, Key=key)

    def part(self, key: str) -> Attempt:
        return self._call(f"upload a part of {key}", "upload_part", {}, Key=key, UploadId="x", PartNumber=1, Body=b"x")

    def complete(self, key: str) -> Attempt:
        parts = {"Parts": [{"ETag": "x", "PartNumber": 1}]}
        return self._call(
            f"complete a multipart upload of {key}", "complete_multipart_upload", {}, Key=key, UploadId="x", MultipartUpload=parts
        )

    def administer(self) -> Iterator[Attempt]:
        yield self._call("list versions", "list_object_versions", {})
        yield self._call("read the bucket's policy", "get_bucket_policy", {})
        yield self._call("delete the bucket's policy", "delete_bucket_policy", {})
        yield self._call("switch versioning off", "put_bucket_versioning", {}, VersioningConfiguration={"Status": "Suspended"})

    def _call(self, what: str, operation: str, more: Mapping[str, Any], **parameters: Any) -> Attempt:
        return Attempt(self.role, what, "s3", operation, {"Bucket": self.bucket, **parameters}, **more)


def _call(role: str, service: str, operation: str, what: str = "", /, **parameters: Any) -> Attempt:
    return Attempt(role, f"{service} {operation} {what}".rstrip(), service, operation, parameters)


def _pointer(environment: str) -> dict[str, Any]:
    return _item(f"POINTER#{environment}", "RELEASE#CURRENT", version="1", promoted_at="x", promoted_by="x")


def _of_people(role: str, table: str, bucket: str) -> Iterator[Attempt]:
    """What neither CI nor people may do, wherever they come from."""
    items, objects = _Table(role, table), _Bucket(role, bucket)
    yield items.get(f"ENV#{HOME}", refuse=False)
    yield items.query(f"RUN#{HOME}#r-1", refuse=False)
    yield items.get(f"ENV#{OTHER}")
    yield items.get("ENV#busy", "LOCK")
    for pk in (f"ENV#{OTHER}", f"POINTER#{OTHER}", f"RUN#{OTHER}#r-1"):
        yield items.query(pk)
    yield items.batch_get(f"ENV#{HOME}", refuse=False)
    yield items.batch_get(f"ENV#{HOME}", f"ENV#{OTHER}")
    yield items.scan()
    for sk, attributes in (("CONFIG", {"config": "{}"}), ("LOCK", {"owner": "me"}), ("RUN#1", {"status": "SUCCEEDED"})):
        yield items.put(f"ENV#{HOME}", sk, attributes)
        yield items.put(f"ENV#{OTHER}", sk, attributes)
    yield items.put(f"RUN#{HOME}#r-1", "STEP#0", {"status": "SUCCEEDED"})
    yield items.update(f"ENV#{HOME}", "LOCK", "lease_until")
    yield items.update("RELEASE#1", "META", "digest")
    yield items.delete(f"ENV#{HOME}", "LOCK")
    yield items.delete("RELEASE#1", "META")
    yield items.batch_put(_item("RELEASE#1", "META"))
    yield from (objects.get(f"{folder}/{OTHER}/r-1/report.html") for folder in ("runs", "cache", "docs"))
    yield from (objects.list(prefix) for prefix in (f"runs/{OTHER}/", f"cache/{HOME}/", "", None))
    for key in (f"runs/{HOME}/r-1/x", f"cache/{HOME}/x", f"docs/{HOME}/x", f"audit/runs/env={HOME}/x", f"audit/promotions/env={OTHER}/x"):
        yield objects.put(key, new=True)
    yield objects.delete("releases/1/bundle.tar.gz")
    yield from objects.administer()
    yield from _executions(role)
    yield _call(role, "logs", "filter_log_events", "of the other environment", logGroupName=f"/dbt/{OTHER}/runner")
    yield _call(role, "logs", "delete_log_group", logGroupName=f"/dbt/{HOME}/runner")
    yield from _powers(role)


def _executions(role: str) -> Iterator[Attempt]:
    start = "start_execution"
    live = f"{_machine(HOME)}:live"
    yield Attempt(
        role, "start a run", "stepfunctions", start, {"stateMachineArn": live, "input": json.dumps({"job": "no-such"})}, refuse=False
    )
    for what, machine in (
        ("without the alias", _machine(HOME)),
        ("of a version", f"{_machine(HOME)}:1"),
        ("of the other environment", f"{_machine(OTHER)}:live"),
        ("of finalize", _machine(HOME, "-finalize")),
        ("of announce", _machine(HOME, "-announce")),
    ):
        yield _call(role, "stepfunctions", start, what, stateMachineArn=machine)
    for operation in ("describe_execution", "get_execution_history", "stop_execution"):
        yield _call(role, "stepfunctions", operation, "of the other environment", executionArn=_execution(OTHER))
    yield _call(role, "stepfunctions", "list_executions", "of the other environment", stateMachineArn=_machine(OTHER))
    yield _call(role, "stepfunctions", "update_state_machine", stateMachineArn=_machine(HOME), definition="{}")
    yield _call(role, "stepfunctions", "delete_state_machine", stateMachineArn=_machine(HOME))


def _powers(role: str) -> Iterator[Attempt]:
    """What would be a way around: other roles, tasks, functions, secrets, schedules, messages."""
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    for name in ("task", "states", "warehouse", "execution"):
        yield _call(role, "sts", "assume_role", f"{name}", RoleArn=role_arn(HOME, name), RoleSessionName="test")
    own = identity.role_name(HOME, role)
    yield _call(role, "iam", "put_role_policy", RoleName=own, PolicyName="more", PolicyDocument=trust)
    yield _call(role, "iam", "update_assume_role_policy", RoleName=own, PolicyDocument=trust)
    yield _call(role, "ecs", "run_task", cluster=f"dbt-{HOME}", taskDefinition=f"dbt-{HOME}")
    yield _call(role, "ecs", "register_task_definition", family=f"dbt-{HOME}", containerDefinitions=[])
    yield _call(role, "lambda", "invoke", FunctionName=f"dbt-{OTHER}")
    yield _call(role, "secretsmanager", "get_secret_value", SecretId=_arn("secretsmanager", "secret:canary"))
    yield _call(role, "ssm", "get_parameter", Name="/canary", WithDecryption=True)
    yield _call(role, "scheduler", "get_schedule", GroupName=f"dbt-{HOME}", Name="nightly")
    yield _call(role, "events", "put_events", Entries=[{"Source": f"dbt/dbt/{HOME}", "DetailType": "x", "Detail": "{}"}])
    yield _call(role, "sns", "publish", TopicArn=_arn("sns", f"dbt-{HOME}"), Message="x")
    yield _call(role, "cloudwatch", "put_metric_data", Namespace=f"dbt/dbt/{HOME}", MetricData=[{"MetricName": "RunsFailed", "Value": 0}])


def _deployer(table: str, bucket: str) -> Iterator[Attempt]:
    role = "deployer"
    yield from _of_people(role, table, bucket)
    items, objects = _Table(role, table), _Bucket(role, bucket)
    yield items.put("RELEASE#matrix", "META", {"digest": "x"}, refuse=False)
    yield items.put(f"POINTER#{HOME}", "RELEASE#matrix", {"version": "1"}, refuse=False)
    # Attributes of the pointer in another place, and others in its place.
    yield items.put(f"ENV#{HOME}", "CONFIG", {"version": "1"})
    yield items.put(f"ENV#{HOME}", "LOCK", {"version": "1"})
    yield items.put(f"POINTER#{HOME}", "RELEASE#CURRENT", {"version": "1", "config": "{}"})
    yield objects.put(f"pins/{HOME}/matrix", new=True, refuse=False)
    yield objects.put(f"pins/{HOME}/matrix", new=False)
    yield objects.put(f"pins/{OTHER}/matrix", new=True)
    yield items.batch_put(_pointer(OTHER))
    move, check = (
        {"Put": {"TableName": table, "Item": _pointer(OTHER)}},
        {"TableName": table, "ConditionExpression": "attribute_exists(pk)"},
    )
    yield items.transact("move the other environment's pointer", move)
    yield items.transact(
        "look at the other environment's configuration", {"ConditionCheck": {**check, "Key": _item(f"ENV#{OTHER}", "CONFIG")}}
    )
    yield items.transact("delete the lock", {"Delete": {"TableName": table, "Key": _item(f"ENV#{HOME}", "LOCK")}})
    yield objects.put("releases/matrix/bundle.tar.gz", new=True, refuse=False)
    yield objects.put("releases/matrix/bundle.tar.gz", new=False)
    yield objects.copy("releases/matrix/bundle.tar.gz", "releases/matrix/other.tar.gz")
    yield objects.multipart("releases/matrix/other.tar.gz")
    yield objects.part("releases/matrix/other.tar.gz")
    yield objects.complete("releases/matrix/other.tar.gz")
    yield objects.put(f"audit/promotions/env={HOME}/matrix", new=False)
    yield objects.get(f"audit/runs/env={HOME}/x")
    yield _call(role, "stepfunctions", "stop_execution", executionArn=_execution(HOME))


def _operator(table: str, bucket: str) -> Iterator[Attempt]:
    role = "operator"
    yield from _of_people(role, table, bucket)
    items, objects = _Table(role, table), _Bucket(role, bucket)
    yield items.put(f"POINTER#{HOME}", "RELEASE#CURRENT", {"version": "1"})
    yield items.put("RELEASE#matrix", "META", {"digest": "x"})
    move = {"Put": {"TableName": table, "Item": _pointer(HOME)}}
    yield items.transact("move the pointer", move)
    for new in (True, False):
        yield objects.put("releases/matrix/bundle.tar.gz", new=new)
    yield objects.multipart("releases/matrix/other.tar.gz")
    yield objects.put(f"audit/promotions/env={HOME}/matrix", new=True)
    yield objects.get(f"cache/{HOME}/x")
    yield objects.get(f"audit/runs/env={OTHER}/x")
    yield Attempt(role, "stop a run", "stepfunctions", "stop_execution", {"executionArn": _execution(HOME)}, refuse=False)
    listed = {"stateMachineArn": _machine(HOME)}
    yield Attempt(role, "list runs", "stepfunctions", "list_executions", listed, refuse=False)


def _task(table: str, bucket: str) -> Iterator[Attempt]:
    role = "task"
    items, objects = _Table(role, table), _Bucket(role, bucket)
    yield items.get(f"ENV#{HOME}", refuse=False)
    yield items.get("RELEASE#1", "META", refuse=False)
    yield items.batch_put(_item(f"RUN#{HOME}#r-1", "NODE#x"), refuse=False)
    yield items.get(f"ENV#{OTHER}")
    yield items.get(f"RUN#{OTHER}#r-1", "STEP#0")
    yield items.scan()
    for pk, sk in ((f"ENV#{HOME}", "CONFIG"), (f"ENV#{HOME}", "LOCK"), (f"ENV#{HOME}", "RUN#1"), (f"POINTER#{HOME}", "RELEASE#CURRENT")):
        yield items.put(pk, sk, {"x": "x"})
        yield items.delete(pk, sk)
    yield items.update(f"ENV#{HOME}", "LOCK", "lease_until")
    yield items.put("RELEASE#1", "META", {"digest": "x"})
    yield items.put(f"RUN#{OTHER}#r-1", "STEP#0", {"status": "SUCCEEDED"})
    yield items.batch_put(_item(f"RUN#{HOME}#r-1", "NODE#x"), _item(f"RUN#{OTHER}#r-1", "NODE#x"))
    yield items.delete(f"RUN#{HOME}#r-1", "STEP#0")
    yield objects.put(f"runs/{HOME}/r-1/matrix", new=False, refuse=False)
    yield objects.put(f"docs/{HOME}/matrix", new=False, refuse=False)
    yield objects.put(f"pins/{HOME}/of-a-task", new=True, refuse=False)
    yield objects.put(f"pins/{HOME}/of-a-task", new=False)
    yield objects.put(f"pins/{OTHER}/of-a-task", new=True)
    yield objects.get(f"runs/{HOME}/r-1/a/sources.json", refuse=False)
    yield objects.put(f"audit/nodes/env={HOME}/matrix", new=True, refuse=False)
    yield objects.put(f"audit/nodes/env={HOME}/matrix", new=False)
    yield objects.put(f"audit/runs/env={HOME}/matrix", new=True)
    yield objects.put(f"audit/attempts/env={OTHER}/matrix", new=True)
    yield objects.put("releases/1/bundle.tar.gz", new=True)
    yield objects.get(f"runs/{HOME}/r-1/build/1/manifest.json")
    for folder in ("runs", "cache", "docs"):
        yield objects.put(f"{folder}/{OTHER}/matrix", new=True)
    yield objects.get(f"cache/{OTHER}/x")
    yield objects.list("runs/")
    yield objects.delete(f"runs/{HOME}/r-1/matrix")
    yield objects.copy("releases/1/bundle.tar.gz", "releases/2/bundle.tar.gz")
    for machine in (f"{_machine(HOME)}:live", _machine(HOME, "-announce")):
        yield _call(role, "stepfunctions", "start_execution", machine.rsplit(":", 1)[1], stateMachineArn=machine)
    yield _call(role, "stepfunctions", "stop_execution", executionArn=_execution(HOME))
    yield _call(role, "ecs", "run_task", cluster=f"dbt-{HOME}", taskDefinition=f"dbt-{HOME}")
    yield _call(role, "sns", "publish", TopicArn=_arn("sns", f"dbt-{HOME}"), Message="x")
    yield _call(role, "sts", "assume_role", "the states role", RoleArn=role_arn(HOME, "states"), RoleSessionName="test")


def _states(table: str, bucket: str) -> Iterator[Attempt]:
    role = "states"
    items, objects = _Table(role, table), _Bucket(role, bucket)
    yield items.get(f"ENV#{HOME}", refuse=False)
    yield items.get(f"RUN#{HOME}#r-1", "STEP#0", refuse=False)
    yield items.update(f"RUN#{HOME}#r-1", "CLAIM#0", "closed_up_to", refuse=False)
    yield items.update(f"RUN#{HOME}#r-1", "CLAIM#0", "holder")
    yield items.update(f"RUN#{HOME}#r-1", "STEP#0", "status")
    yield items.put(f"RUN#{HOME}#r-1", "STEP#0", {"status": "SUCCEEDED"})
    yield items.delete(f"RUN#{HOME}#r-1", "CLAIM#0")
    yield items.put(f"POINTER#{HOME}", "RELEASE#CURRENT", {"version": "1"})
    for pk in (f"ENV#{OTHER}", f"RUN#{OTHER}#r-1", "RELEASE#1"):
        yield items.get(pk)
        yield items.put(pk, "CONFIG", {"config": "{}"})
    yield items.update(f"RUN#{OTHER}#r-1", "CLAIM#0", "closed_up_to")
    yield items.batch_get(f"ENV#{HOME}", f"ENV#{OTHER}")
    yield items.scan()
    yield objects.put(f"audit/runs/env={HOME}/matrix", new=False, refuse=False)
    yield objects.put(f"audit/runs/env={OTHER}/matrix", new=False)
    yield objects.put(f"audit/nodes/env={HOME}/matrix", new=True)
    yield objects.put("releases/1/bundle.tar.gz", new=True)
    yield objects.get(f"runs/{HOME}/r-1/x")
    for machine in (f"{_machine(HOME)}:live", _machine(HOME, "-finalize"), _machine(OTHER, "-announce")):
        yield _call(role, "stepfunctions", "start_execution", machine.rsplit(":", 1)[1], stateMachineArn=machine)
    yield _call(role, "stepfunctions", "describe_execution", "of the other environment", executionArn=_execution(OTHER))
    network = {"awsvpcConfiguration": {"subnets": ["subnet-0"]}}
    for cluster, definition in ((OTHER, HOME), (HOME, OTHER)):
        named = {"cluster": f"dbt-{cluster}", "taskDefinition": f"dbt-{definition}:1", "networkConfiguration": network}
        yield _call(role, "ecs", "run_task", f"of {definition} on {cluster}", **named)
    yield _call(role, "ecs", "stop_task", "of the other environment", cluster=f"dbt-{OTHER}", task=_arn("ecs", f"task/dbt-{OTHER}/x"))
    yield _call(role, "events", "put_events", "of another source", Entries=[{"Source": "aws.states", "DetailType": "x", "Detail": "{}"}])
    yield _call(role, "events", "put_rule", Name=f"dbt-{HOME}-finalize", State="DISABLED", EventPattern="{}")
    metric = [{"MetricName": "x", "Value": 1}]
    yield _call(role, "cloudwatch", "put_metric_data", "of another namespace", Namespace=f"dbt/dbt/{OTHER}", MetricData=metric)
    yield _call(role, "sns", "publish", "to the other environment", TopicArn=_arn("sns", f"dbt-{OTHER}"), Message="x")
    yield _call(role, "lambda", "invoke", FunctionName=f"dbt-{OTHER}:1")


def _others(bucket: str) -> Iterator[Attempt]:
    """Roles that do one thing: anything else is refused."""
    for role in ("scheduler", "events"):
        yield _call(role, "stepfunctions", "start_execution", "of the other environment", stateMachineArn=f"{_machine(OTHER)}:live")
        yield _call(role, "stepfunctions", "start_execution", "of announce", stateMachineArn=_machine(HOME, "-announce"))
        yield _call(role, "stepfunctions", "stop_execution", executionArn=_execution(HOME))
    for role in ("scheduler", "events", "execution", "warehouse"):
        yield Attempt(role, "read a release", "s3", "get_object", {"Bucket": bucket, "Key": "releases/1/bundle.tar.gz"})
        yield Attempt(role, "read CONFIG", "dynamodb", "get_item", {"TableName": "dbt-audit", "Key": _item(f"ENV#{HOME}", "CONFIG")})
    other = _arn("secretsmanager", "secret:other")
    yield _call("execution", "secretsmanager", "get_secret_value", "of another secret", SecretId=other)
    yield _call("execution", "sts", "assume_role", "the warehouse role", RoleArn=role_arn(HOME, "warehouse"), RoleSessionName="test")


def _athena(bucket: str) -> Iterator[Attempt]:
    """The warehouse role of `lake`: what dbt-athena calls, and the same next to its databases and locations."""

    def call(service: str, operation: str, what: str, refuse: bool, parameters: Mapping[str, Any]) -> Attempt:
        return Attempt("warehouse", f"{operation} {what}", service, operation, parameters, refuse, "lake")

    for group, refuse in (("primary", False), ("other", True)):
        query = {"QueryString": "select 1", "WorkGroup": group}
        yield call("athena", "start_query_execution", f"in {group}", refuse, query)
        yield call("athena", "get_work_group", group, refuse, {"WorkGroup": group})
    yield call("glue", "get_databases", "", False, {})
    for database, write, see in (("marts", False, False), (MORE, False, False), ("raw", True, False), ("secret", True, True)):
        yield call("glue", "create_table", f"in {database}", write, {"DatabaseName": database, "TableInput": {"Name": "orders"}})
        yield call("glue", "delete_table", f"in {database}", write, {"DatabaseName": database, "Name": "orders"})
        yield call("glue", "get_table", f"of {database}", see, {"DatabaseName": database, "Name": "orders"})
        yield call("glue", "get_database", database, see, {"Name": database})
    for folder, write, see in (("staging", False, False), ("marts", False, False), ("raw", True, False), ("secret", True, True)):
        key = {"Bucket": "lake", "Key": f"{folder}/x"}
        yield call("s3", "put_object", f"{folder}/x", write, {**key, "Body": b"x"})
        yield call("s3", "delete_object", f"{folder}/x", write, key)
        yield call("s3", "get_object", f"{folder}/x", see, key)
        yield call("s3", "list_objects_v2", f"{folder}/", see, {"Bucket": "lake", "Prefix": f"{folder}/"})
    for name, refuse in (("lake", False), (bucket, True)):
        yield call("s3", "get_bucket_location", name, refuse, {"Bucket": name})


@dataclass(frozen=True)
class Assumption:
    """An attempt to become a role, and whether its trust must refuse it."""

    what: str
    become: Callable[[Engine], object]
    refuse: bool = True

    def refused(self, engine: Engine) -> bool:
        try:
            self.become(engine)
        except ClientError as exc:
            assert exc.response["Error"]["Code"] in (*DENIED, "InvalidIdentityToken", "IDPRejectedClaim"), exc
            return True
        return False


def assumptions() -> list[Assumption]:
    """Tokens and sessions at the doors of the deployer, the operator and the warehouse role."""
    return [*_tokens(), *_warehouse_sessions()]


def _tokens() -> Iterator[Assumption]:
    subject, person = f"repo:acme/analytics:environment:{HOME}", f"00uAda-{HOME}"

    def by(role: str, issuer: str, **claims: object) -> Callable[[Engine], object]:
        return lambda engine: identity.exchange(engine, role_arn(HOME, role), identity.token(issuer, claims))

    github, okta = (identity.GITHUB, identity.GITHUB_AUDIENCE), (identity.OKTA, identity.OKTA_AUDIENCE)
    yield Assumption("deployer by the environment's token", by("deployer", github[0], sub=subject, aud=github[1]), refuse=False)
    tag = f"repo:acme/analytics:ref:refs/tags/{HOME}-1"
    yield Assumption("deployer by a tag's token", by("deployer", github[0], sub=tag, aud=github[1]), refuse=False)
    yield Assumption("operator by a person's token", by("operator", okta[0], sub=person, aud=okta[1]), refuse=False)
    for sub in (
        f"repo:acme/analytics:environment:{OTHER}",
        f"repo:acme/analytics:environment:{HOME.upper()}",
        f"repo:acme/analytics:environment:{HOME}:x",
        f"repo:acme/other:environment:{HOME}",
        f"repo:acme-evil/analytics:environment:{HOME}",
        f"x:repo:acme/analytics:environment:{HOME}",
        f"repo:acme/analytics:ref:refs/tags/x{HOME}-1",
        "repo:acme/analytics:pull_request",
        f"repo:acme/analytics:environment:{HOME}*",
        "*",
        "",
    ):
        yield Assumption(f"deployer as {sub!r}", by("deployer", github[0], sub=sub, aud=github[1]))
    for aud in ("https://github.com/acme", identity.OKTA_AUDIENCE, "sts.amazonaws.com.evil.example", ""):
        yield Assumption(f"deployer for {aud!r}", by("deployer", github[0], sub=subject, aud=aud))
    yield Assumption("deployer without an audience", by("deployer", github[0], sub=subject))
    yield Assumption("deployer without a subject", by("deployer", github[0], aud=github[1]))
    yield Assumption("deployer by the people's provider", by("deployer", okta[0], sub=subject, aud=okta[1]))
    yield Assumption("deployer as a person", by("deployer", okta[0], sub=person, aud=okta[1]))
    yield Assumption("operator by CI's provider", by("operator", github[0], sub=person, aud=github[1]))
    yield Assumption("operator as the other environment's", by("operator", okta[0], sub=f"00uAda-{OTHER}", aud=okta[1]))
    yield Assumption("operator for CI's audience", by("operator", okta[0], sub=person, aud="0oaCi"))
    yield Assumption("task by a token", by("task", github[0], sub=subject, aud=github[1]))
    yield Assumption("deployer of an unknown issuer", by("deployer", "https://evil.example", sub=subject, aud=github[1]))


def _warehouse_sessions() -> Iterator[Assumption]:
    def by(role: str, environment: str, tags: Mapping[str, str], who: str | None) -> Callable[[Engine], object]:
        def become(engine: Engine) -> object:
            session = identity.service_role(engine, HOME, role)
            return identity.assume_warehouse(session, engine, role_arn(environment, "warehouse"), tags, who)

        return become

    right = {"environment": HOME, "run": "r-1"}
    yield Assumption("warehouse as the broker does", by("task", HOME, right, "r-1"), refuse=False)
    yield Assumption("warehouse without a source identity", by("task", HOME, right, None))
    yield Assumption("warehouse without tags", by("task", HOME, {}, "r-1"))
    yield Assumption("warehouse without the environment's tag", by("task", HOME, {"run": "r-1"}, "r-1"))
    yield Assumption("warehouse with the other environment's tag", by("task", HOME, {"environment": OTHER}, "r-1"))
    yield Assumption("the other environment's warehouse", by("task", OTHER, {"environment": OTHER}, "r-1"))
    yield Assumption("the other environment's warehouse with this one's tag", by("task", OTHER, right, "r-1"))
    for role in ("states", "execution", "deployer", "operator"):
        yield Assumption(f"warehouse by the {role} role", by(role, HOME, right, "r-1"))
