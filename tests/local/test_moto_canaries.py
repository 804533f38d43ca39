"""Every patch of moto is needed, and does what it promises.

Each check below states one behaviour of AWS. It must hold with all patches in, and must fail with its one patch taken
out. When moto gains the behaviour, the second test says which patch to drop.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser, ASLParserException

from dbt_runner.local import moto_patches
from dbt_runner.local.moto_patches.registry import Patch
from local.support import ROLE, SYNC, World, wait_for

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")

PATCHES = moto_patches.all_patches()
CHECKS: dict[str, Callable[[World], None]] = {}


def check(name: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def register(function: Callable[[World], None]) -> Callable[[World], None]:
        CHECKS[name] = function
        return function

    return register


def sdk(action: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{action}", "Arguments": arguments, "End": True, **more}


def test_every_patch_has_a_check() -> None:
    assert sorted(CHECKS) == sorted(patch.name for patch in PATCHES)


def test_no_two_patches_replace_the_same_thing(world: World) -> None:
    replaced = [(id(owner), attribute) for patch in PATCHES for owner, attribute, _ in patch._originals]
    assert replaced
    assert len(replaced) == len(set(replaced))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_patched_moto_behaves_like_aws(world: World, patch: Patch) -> None:
    CHECKS[patch.name](world)


# Without its patch, a worker thread of moto may end with the very error that the patch prevents.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_moto_still_lacks_what_the_patch_adds(world: World, patch: Patch) -> None:
    patch.revert()
    try:
        CHECKS[patch.name](world)
    except Exception:
        return
    finally:
        patch.apply()
    pytest.fail(f"moto now does this itself: drop patch {patch.name}")


@check("stepfunctions-api.validate-definition")
def _(world: World) -> None:
    sfn = world.client("stepfunctions")
    good = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    bad = {"StartAt": "A", "States": {"A": {"Type": "Nope"}}}
    assert sfn.validate_state_machine_definition(definition=json.dumps(good))["result"] == "OK"
    assert sfn.validate_state_machine_definition(definition=json.dumps(bad))["result"] == "FAIL"


PASS = {"A": {"Type": "Pass", "End": True}}


@check("stepfunctions-api.list-versions")
def _(world: World) -> None:
    machine = world.machine(PASS)
    world.alias(machine)
    versions = world.client("stepfunctions").list_state_machine_versions(stateMachineArn=machine)["stateMachineVersions"]
    assert [version["stateMachineVersionArn"] for version in versions] == [f"{machine}:1"]


@check("stepfunctions-api.delete-version")
def _(world: World) -> None:
    machine, sfn = world.machine(PASS), world.client("stepfunctions")
    world.alias(machine)
    sfn.delete_state_machine_version(stateMachineVersionArn=f"{machine}:1")
    with pytest.raises(ClientError):
        sfn.describe_state_machine(stateMachineArn=f"{machine}:1")


@check("stepfunctions-api.start-execution")
def _(world: World) -> None:
    machine, sfn = world.machine({"A": {"Type": "Pass", "Output": "published", "End": True}}), world.client("stepfunctions")
    alias = world.alias(machine)
    later = {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": {"Type": "Pass", "Output": "later", "End": True}}}
    sfn.update_state_machine(stateMachineArn=machine, definition=json.dumps(later))
    for arn, output in ((alias, "published"), (f"{machine}:1", "published"), (machine, "later")):
        started = sfn.start_execution(stateMachineArn=arn)["executionArn"]
        assert re.search(r":[0-9a-f-]{36}$", started)
        assert json.loads(world.ended(started)["output"]) == output


@check("stepfunctions-api.describe-execution")
def _(world: World) -> None:
    machine = world.machine({"A": {"Type": "Pass", "Output": "text", "End": True}})
    alias = world.alias(machine)
    execution = world.ended(world.start(alias))
    assert execution["output"] == '"text"'
    assert (execution["stateMachineArn"], execution["stateMachineAliasArn"]) == (machine, alias)
    assert execution["stateMachineVersionArn"] == f"{machine}:1"
    assert execution["redriveCount"] == 0


@check("stepfunctions-api.list-executions")
def _(world: World) -> None:
    machine = world.machine(PASS)
    alias, sfn = world.alias(machine), world.client("stepfunctions")
    through_alias, direct = world.start(alias), world.start(machine)
    for arn in (through_alias, direct):
        world.ended(arn)
    assert [item["executionArn"] for item in sfn.list_executions(stateMachineArn=alias)["executions"]] == [through_alias]
    both = sfn.list_executions(stateMachineArn=machine, statusFilter="SUCCEEDED")["executions"]
    assert {item["executionArn"] for item in both} == {through_alias, direct}


WAIT = {"A": {"Type": "Wait", "Seconds": 60, "End": True}}


@check("stepfunctions-api.stop-execution")
def _(world: World) -> None:
    execution = world.start(world.machine(WAIT))
    world.client("stepfunctions").stop_execution(executionArn=execution, error="Cancelled", cause="by a test")
    stopped = world.ended(execution)
    assert (stopped["status"], stopped["error"], stopped["cause"]) == ("ABORTED", "Cancelled", "by a test")


@check("stepfunctions-lifecycle.end-is-final")
def _(world: World) -> None:
    from moto.stepfunctions.parser.asl.eval.environment import Environment
    from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped

    env = Environment(None, None, {"Execution": {"Input": None}}, None, None, {})
    env.next_state_name = "A"
    env.set_stop(stop_date=datetime.now(UTC), error=None, cause=None)
    env.set_error({"error": "States.Runtime"})
    env.set_timed_out()
    assert isinstance(env.program_state(), ProgramStopped)


@check("stepfunctions-lifecycle.history-ends")
def _(world: World) -> None:
    from moto.stepfunctions.parser.api import HistoryEventType
    from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext, EventManager

    manager = EventManager()
    for event_type in (HistoryEventType.ExecutionStarted, HistoryEventType.ExecutionAborted, HistoryEventType.TaskFailed):
        manager.add_event(EventHistoryContext.of_program_start(), event_type)
    assert [event["type"] for event in manager.get_event_history()] == ["ExecutionStarted", "ExecutionAborted"]


@check("stepfunctions-lifecycle.status-comes-last")
def _(world: World) -> None:
    from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded
    from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication

    class States:
        @staticmethod
        def get_input() -> str:
            return "output"

    class Env:
        states = States

        @staticmethod
        def program_state() -> Any:
            return ProgramEnded()

    class Worker:
        env = Env

    class Execution:
        exec_worker = Worker
        stop_date = None

        def __init__(self) -> None:
            self.order: list[str] = []

        def __setattr__(self, name: str, value: Any) -> None:
            self.__dict__[name] = value
            self.order.append(name)

    execution = Execution()
    BaseExecutionWorkerCommunication(execution)._reflect_execution_status()
    assert execution.order[-1] == "exec_status"


@check("stepfunctions-lifecycle.stop-at-once")
def _(world: World) -> None:
    execution = world.start(world.machine({"A": world.sync_state("trap '' TERM; sleep 60")}))
    world.running_task(execution)
    world.client("stepfunctions").stop_execution(executionArn=execution)
    try:
        assert world.execution(execution)["status"] == "ABORTED"
        assert world.history(execution)[-1] == "ExecutionAborted"
    finally:
        world.ended(execution)


@check("stepfunctions-engine.clients")
def _(world: World) -> None:
    table = world.table()
    get = {"Type": "Task", "Resource": "arn:aws:states:::dynamodb:getItem", "End": True}
    key = {"pk": {"S": "a"}, "sk": {"S": "b"}}
    assert "Item" not in world.output({"A": {**get, "Arguments": {"TableName": table, "Key": key}}})


@check("stepfunctions-engine.parse-once")
def _(world: World) -> None:
    definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": "A", "States": PASS})
    (program, tree), (again, same_tree) = (AmazonStateLanguageParser.parse(definition) for _ in range(2))
    assert same_tree is tree
    assert again is not program, "a component may keep what belongs to one execution"
    with pytest.raises(ASLParserException):
        AmazonStateLanguageParser.parse(definition.replace("Pass", "Nope"))


@check("stepfunctions-engine.parameter-case")
def _(world: World) -> None:
    output = world.output({"A": sdk("ecs:describeClusters", {"Clusters": ["cluster"]})})
    assert "cluster" in json.dumps(output)
    # An object as a body is written as JSON, which is how the state machines write rows of the long-term audit.
    bucket = world.client("s3")
    bucket.create_bucket(Bucket="rows", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    world.output({"A": sdk("s3:putObject", {"Bucket": "rows", "Key": "a.jsonl", "Body": {"a": "\u2264"}, "ChecksumAlgorithm": "SHA256"})})
    assert json.loads(bucket.get_object(Bucket="rows", Key="a.jsonl")["Body"].read()) == {"a": "\u2264"}


@check("stepfunctions-engine.result-case")
def _(world: World) -> None:
    execution = world.ended(world.start(world.machine(PASS)))["executionArn"]
    described = world.output({"A": sdk("sfn:describeExecution", {"ExecutionArn": execution})})
    assert described["Status"] == "SUCCEEDED"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", described["StartDate"])


@check("stepfunctions-engine.context-times")
def _(world: World) -> None:
    output = world.output({"A": {"Type": "Pass", "Output": "{% $states.context.Execution.StartTime %}", "End": True}})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", output)


@check("stepfunctions-engine.sdk-error-names")
def _(world: World) -> None:
    execution = world.execute({"A": sdk("ecs:describeTasks", {"Cluster": "missing", "Tasks": ["x"]})})
    assert execution["error"] == "Ecs.ClusterNotFoundException"


@check("stepfunctions-engine.string-escapes")
def _(world: World) -> None:
    assigned = {"text": 'a "quoted"\nline', "query": "{% 'b\n' & \"c\\\\\" %}"}
    states = {
        "A": {"Type": "Pass", "Assign": assigned, "Next": "B"},
        "B": {"Type": "Pass", "Output": {"text": "{% $text %}", "query": "{% $query %}"}, "End": True},
    }
    assert world.output(states) == {"text": 'a "quoted"\nline', "query": "b\nc\\"}


@check("stepfunctions-engine.wildcard-errors")
def _(world: World) -> None:
    catch_all = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    misspelt = sdk("ecs:describeClusters", {"Misspelt": True}, Catch=catch_all)
    execution = world.execute({"A": misspelt, "Caught": {"Type": "Succeed"}})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.Runtime")


@check("stepfunctions-engine.heartbeat-error")
def _(world: World) -> None:
    topic, _ = world.topic()
    silent = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sns:publish.waitForTaskToken",
        "Arguments": {"TopicArn": topic, "Message": "{% $states.context.Task.Token %}"},
        "HeartbeatSeconds": 1,
        "TimeoutSeconds": 30,
        "End": True,
    }
    execution = world.execute({"A": silent})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.HeartbeatTimeout")


@check("stepfunctions-jsonata.evaluation")
def _(world: World) -> None:
    states = {
        "A": {"Type": "Pass", "Assign": {"text": "{% $states.input.text %}", "nothing": None}, "Next": "B"},
        "B": {"Type": "Pass", "Output": {"text": "{% $text %}", "null": "{% $nothing = null %}", "sum": "{% 1 + 1 %}"}, "End": True},
    }
    text = 'a "quote", a \\ and a\nline'
    assert world.output(states, {"text": text}) == {"text": text, "null": True, "sum": 2}
    undefined = world.execute({"A": {"Type": "Pass", "Output": "{% $states.input.missing %}", "End": True}})
    assert (undefined["status"], undefined["error"]) == ("FAILED", "States.QueryEvaluationError")


@check("stepfunctions-ecs.run-task-parameters")
def _(world: World) -> None:
    arguments = world.run_task_arguments("true", CapacityProviderStrategy=[{"CapacityProvider": "FARGATE_SPOT", "Weight": 1}])
    del arguments["LaunchType"]
    output = world.output({"A": {"Type": "Task", "Resource": SYNC, "Arguments": arguments, "End": True}})
    assert output["CapacityProviderName"] == "FARGATE_SPOT"


@check("stepfunctions-ecs.error-names")
def _(world: World) -> None:
    arguments = world.run_task_arguments("true", TaskDefinition="missing")
    execution = world.execute({"A": {"Type": "Task", "Resource": SYNC, "Arguments": arguments, "End": True}})
    assert execution["error"] == "ECS.ClientException"


@check("stepfunctions-ecs.sync")
def _(world: World) -> None:
    execution = world.execute({"A": world.sync_state("exit 3")})
    assert (execution["status"], execution["error"]) == ("FAILED", "States.TaskFailed")
    cause = json.loads(execution["cause"])
    assert cause["StopCode"] == "EssentialContainerExited"
    assert cause["StoppedReason"] == "Essential container in task exited"
    assert [container["ExitCode"] for container in cause["Containers"]] == [3]
    assert isinstance(cause["StoppedAt"], int)
    assert world.output({"A": world.sync_state("exit 0")})["Containers"][0]["ExitCode"] == 0


@check("ecs.container-without-memory")
def _(world: World) -> None:
    assert world.ended_task(world.run_task("exit 0"))["containers"][0]["exitCode"] == 0


@check("ecs.tasks-run")
def _(world: World) -> None:
    arn = world.run_task("exit 7")
    assert world.task(arn)["lastStatus"] in ("PENDING", "RUNNING", "STOPPED")
    ended = world.ended_task(arn)
    assert (ended["containers"][0]["exitCode"], ended["stopCode"]) == (7, "EssentialContainerExited")


@check("lambda.functions-run")
def _(world: World) -> None:
    arn = world.function(Environment={"Variables": {"DBT_RUNNER_TABLE": "t", "DBT_RUNNER_BUCKET": "b", "DBT_RUNNER_ENVIRONMENT": "e"}})
    state = {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke", "Arguments": {"FunctionName": arn, "Payload": {}}, "End": True}
    execution = world.execute({"A": state})
    assert execution["error"] == "TypedError"
    assert "the event must be ['run_key', 'step', 'attempt']" in json.loads(execution["cause"])["errorMessage"]


@check("events.execution-status")
def _(world: World) -> None:
    machine, (url, queue) = world.machine({"A": {"Type": "Fail", "Error": "Broken", "Cause": "here"}}), world.queue()
    pattern = {"source": ["aws.states"], "detail": {"stateMachineArn": [machine]}}
    rule, events = world.name("rule"), world.client("events")
    events.put_rule(Name=rule, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": queue, "InputTransformer": {"InputTemplate": "<aws.events.event.json>"}}])
    execution = world.start(machine)
    received = [json.loads(message)["detail"] for message in world.messages(url, 2)]
    assert [(detail["status"], detail["error"], detail["cause"]) for detail in received] == [
        ("RUNNING", None, None),
        ("FAILED", "Broken", "here"),
    ]
    assert received[1]["executionArn"] == execution
    assert received[1]["stopDate"] >= received[1]["startDate"] > 1_000_000_000_000


@check("events.targets")
def _(world: World) -> None:
    machine, (topic, url) = world.machine(PASS), world.topic()
    rule, source, events = world.name("rule"), world.name("source"), world.client("events")
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": [source]}))
    template = {"InputPathsMap": {"id": "$.detail.id"}, "InputTemplate": '"run <id> failed"'}
    events.put_targets(
        Rule=rule,
        Targets=[{"Id": "machine", "Arn": machine, "RoleArn": ROLE}, {"Id": "topic", "Arn": topic, "InputTransformer": template}],
    )
    events.put_events(Entries=[{"Source": source, "DetailType": "Test", "Detail": json.dumps({"id": "r1"})}])
    assert world.messages(url, 1) == ["run r1 failed"]
    sfn = world.client("stepfunctions")
    [started] = wait_for(lambda: sfn.list_executions(stateMachineArn=machine)["executions"], "an execution was started")
    assert json.loads(world.ended(started["executionArn"])["input"])["detail"] == {"id": "r1"}


@check("dynamodb.atomic-writes")
def _(world: World) -> None:
    from moto.dynamodb.models import table as models

    table, dynamodb, inside = world.table(), world.client("dynamodb"), threading.Barrier(2)
    written: list[str] = []
    original = models.get_filter_expression

    def pausing(*args: Any, **kwargs: Any) -> Any:
        """Both writes meet here if they can: each has read what is there, and has not written yet."""
        with contextlib.suppress(threading.BrokenBarrierError):
            inside.wait(1)
        return original(*args, **kwargs)

    def put(owner: str) -> None:
        item = {"pk": {"S": "ENV#test"}, "sk": {"S": "LOCK"}, "owner": {"S": owner}}
        with contextlib.suppress(dynamodb.exceptions.ConditionalCheckFailedException):
            dynamodb.put_item(TableName=table, Item=item, ConditionExpression="attribute_not_exists(pk)")
            written.append(owner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "get_filter_expression", pausing)
        threads = [threading.Thread(target=put, args=(owner,)) for owner in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(written) == 1


@check("s3.tls-only-deny")
def _(world: World) -> None:
    s3, bucket = world.client("s3"), world.name("bucket")
    s3.create_bucket(Bucket=bucket)
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}/*"}
    tls_only = {"Version": "2012-10-17", "Statement": [{**deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(tls_only))
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"v"
    # A Deny without a condition still denies.
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    with pytest.raises(ClientError):
        s3.get_object(Bucket=bucket, Key="k")


@check("core.unknown-actions")
def _(world: World) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: world.client("logs").associate_kms_key(logGroupName="x", kmsKeyId="arn:aws:kms:eu-central-1:123456789012:key/1"),  # JSON
        lambda: world.client("cloudwatch").put_anomaly_detector(Namespace="x", MetricName="x", Stat="Sum"),  # a query
        lambda: world.client("ec2").describe_fast_snapshot_restores(),  # EC2's own
    )
    for call in calls:
        with pytest.raises(ClientError) as raised:
            call()
        answer = raised.value.response
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400, answer
        assert answer["Error"]["Code"] == "InvalidAction"
        assert f"the embedded AWS lacks {raised.value.operation_name}" in re.sub(r"\w+:", "", answer["Error"]["Message"], count=1)


@check("logs.query-definitions")
def _(world: World) -> None:
    logs, name = world.client("logs"), world.name("query")
    saved = logs.put_query_definition(name=name, queryString="fields @message", logGroupNames=["a"])["queryDefinitionId"]
    logs.put_query_definition(name=name, queryString="stats count(*)", queryDefinitionId=saved)
    [found] = logs.describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"]
    assert (found["queryDefinitionId"], found["queryString"], "logGroupNames" in found) == (saved, "stats count(*)", False)
    assert logs.delete_query_definition(queryDefinitionId=saved)["success"]
    assert logs.describe_query_definitions(queryDefinitionNamePrefix=name)["queryDefinitions"] == []


@check("athena.no-tags")
def _(world: World) -> None:
    athena, name = world.client("athena"), world.name("workgroup")
    athena.create_work_group(Name=name)
    arn = f"arn:aws:athena:us-east-1:123456789012:workgroup/{name}"
    assert athena.list_tags_for_resource(ResourceARN=arn)["Tags"] == []
