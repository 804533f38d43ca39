"""What the state machines of the project use works in the embedded AWS as it does on AWS."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.support import World, wait_for

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")

KEY = {"pk": {"S": "ENV#test"}, "sk": {"S": "LOCK"}}


def dynamodb(action: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::dynamodb:{action}", "Arguments": arguments, "End": True, **more}


def sdk(action: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": f"arn:aws:states:::aws-sdk:{action}", "Arguments": arguments, "End": True, **more}


def test_choice_assigns_before_the_next_state(world: World) -> None:
    choice = {"Condition": "{% $states.input.n > 1 %}", "Assign": {"size": "{% 'large' & $states.input.n %}"}, "Next": "Done"}
    states = {
        "Choose": {"Type": "Choice", "Choices": [choice], "Default": "Small"},
        "Small": {"Type": "Fail", "Error": "Small"},
        "Done": {"Type": "Succeed", "Output": "{% $size %}"},
    }
    assert world.output(states, {"n": 2}) == "large2"
    assert world.execute(states, {"n": 1})["error"] == "Small"


def test_wait_takes_an_expression_and_assigns(world: World) -> None:
    states = {
        "Wait": {"Type": "Wait", "Seconds": "{% $states.input.seconds %}", "Assign": {"waited": True}, "Next": "Done"},
        "Done": {"Type": "Succeed", "Output": "{% $waited %}"},
    }
    assert world.output(states, {"seconds": 0}) is True


def test_map_runs_its_items_in_order_with_their_context(world: World) -> None:
    processor = {
        "ProcessorConfig": {"Mode": "INLINE"},
        "StartAt": "Double",
        "States": {"Double": {"Type": "Pass", "Output": "{% $states.input.value * 2 %}", "End": True}},
    }
    selector = {"value": "{% $states.context.Map.Item.Value %}", "index": "{% $states.context.Map.Item.Index %}"}
    map_state = {
        "Type": "Map",
        "Items": "{% $states.input.items %}",
        "MaxConcurrency": 1,
        "ItemSelector": selector,
        "ItemProcessor": processor,
        "Output": {"doubled": "{% $states.result %}"},
        "End": True,
    }
    assert world.output({"Map": map_state}, {"items": [1, 2, 3]}) == {"doubled": [2, 4, 6]}


def test_an_error_inside_a_map_reaches_its_catch_with_error_and_cause(world: World) -> None:
    processor = {
        "StartAt": "Fail",
        "States": {"Fail": {"Type": "Fail", "Error": "Dbt.TestFailure", "Cause": "{% 'item ' & $states.input %}"}},
    }
    catch = {"ErrorEquals": ["Dbt.TestFailure"], "Assign": {"caught": "{% $states.errorOutput %}"}, "Next": "Done"}
    states = {
        "Map": {"Type": "Map", "Items": ["a"], "ItemProcessor": processor, "Catch": [catch], "End": True},
        "Done": {"Type": "Succeed", "Output": "{% $caught %}"},
    }
    assert world.output(states) == {"Error": "Dbt.TestFailure", "Cause": "item a"}


def test_a_failed_condition_is_caught_by_name_and_fail_takes_expressions(world: World) -> None:
    catch = {
        "ErrorEquals": ["DynamoDB.ConditionalCheckFailedException"],
        "Assign": {"error": "{% $states.errorOutput.Error %}"},
        "Next": "Fail",
    }
    item = {"TableName": world.table(), "Item": KEY, "ConditionExpression": "attribute_exists(pk)"}
    states = {
        "Put": dynamodb("putItem", item, Catch=[catch]),
        "Fail": {"Type": "Fail", "Error": "{% 'Dbt.' & 'Busy' %}", "Cause": "{% 'because of ' & $error %}"},
    }
    execution = world.execute(states)
    assert (execution["error"], execution["cause"]) == ("Dbt.Busy", "because of DynamoDB.ConditionalCheckFailedException")


def test_items_are_put_updated_read_and_deleted(world: World) -> None:
    table = world.table()
    read = {"TableName": table, "Key": KEY, "ConsistentRead": True}
    update = {
        "TableName": table,
        "Key": KEY,
        "UpdateExpression": "SET #owner = :me, lease = :until",
        "ExpressionAttributeNames": {"#owner": "owner"},
        "ExpressionAttributeValues": {":me": {"S": "{% $states.context.Execution.Name %}"}, ":until": {"N": "{% $string(1 + 1) %}"}},
    }
    assign = {"before": "{% $exists($states.result.Item) %}"}
    states = {
        "Read": {**dynamodb("getItem", read, Assign=assign), "End": False, "Next": "Update"},
        "Update": {**dynamodb("updateItem", update), "Next": "ReadAgain"},
        "ReadAgain": dynamodb("getItem", read, Assign={"item": "{% $states.result.Item %}"}, Next="Delete"),
        "Delete": dynamodb("deleteItem", {"TableName": table, "Key": KEY, "ReturnValues": "ALL_OLD"}, Next="Done"),
        "Done": {"Type": "Succeed", "Output": {"before": "{% $before %}", "lease": "{% $item.lease.N %}"}},
    }
    for state in states.values():
        if "Next" in state:
            state.pop("End", None)
    assert world.output(states) == {"before": False, "lease": "2"}
    assert world.client("dynamodb").scan(TableName=table)["Items"] == []


def test_batch_get_and_query_give_the_items(world: World) -> None:
    table = world.table()
    world.client("dynamodb").put_item(TableName=table, Item={**KEY, "owner": {"S": "me"}})
    batch = {"RequestItems": {table: {"ConsistentRead": True, "Keys": [KEY, {**KEY, "sk": {"S": "MISSING"}}]}}}
    lookup = f"{{% $lookup($states.result.Responses, '{table}')[sk.S = 'LOCK'].owner.S %}}"
    assert world.output({"A": sdk("dynamodb:batchGetItem", batch, Output=lookup)}) == "me"
    query = {"TableName": table, "KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": KEY["pk"]}}
    assert world.output({"A": sdk("dynamodb:query", query, Output="{% $states.result.Items.owner.S %}")}) == "me"


def test_an_unknown_execution_has_awss_error_name(world: World) -> None:
    arn = "arn:aws:states:us-east-1:123456789012:execution:missing:missing"
    catch = {"ErrorEquals": ["Sfn.ExecutionDoesNotExistException"], "Next": "Gone"}
    states = {"A": sdk("sfn:describeExecution", {"ExecutionArn": arn}, Catch=[catch]), "Gone": {"Type": "Succeed", "Output": "gone"}}
    assert world.output(states) == "gone"


def test_a_message_is_published_with_subject_and_attributes(world: World) -> None:
    topic, url = world.topic()
    publish = {
        "TopicArn": topic,
        "Subject": "{% 'run ' & 'failed' %}",
        "Message": "{% 'line 1\n' & 'line 2' %}",
        "MessageAttributes": {"error": {"DataType": "String", "StringValue": "{% 'Dbt.' & 'ModelError' %}"}},
    }
    output = world.output({"A": {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Arguments": publish, "End": True}})
    assert output["MessageId"]
    assert world.messages(url, 1) == ["line 1\nline 2"]


def test_an_expression_can_be_caught_like_any_other_error(world: World) -> None:
    catch = {"ErrorEquals": ["States.QueryEvaluationError"], "Output": "{% $states.errorOutput.Cause %}", "Next": "Done"}
    states = {
        "A": sdk("ecs:describeClusters", {"Clusters": "{% $states.input.missing %}"}, Catch=[catch]),
        "Done": {"Type": "Succeed"},
    }
    assert "$states.input.missing" in world.output(states)


def rule_for(world: World, machine: str) -> str:
    """The URL of a queue that gets the status changes of a machine."""
    url, queue = world.queue()
    rule, events = world.name("rule"), world.client("events")
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["aws.states"], "detail": {"stateMachineArn": [machine]}}))
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": queue}])
    return url


def test_an_aborted_execution_stops_its_task_and_is_announced_once(world: World) -> None:
    assign = {"arn": "{% $states.result.TaskArn %}"}
    machine = world.machine({"A": world.sync_state("trap 'exit 40' TERM; sleep 60 & wait", Assign=assign)})
    url = rule_for(world, machine)
    execution = world.start(machine)
    task = world.running_task(execution)
    world.client("stepfunctions").stop_execution(executionArn=execution, error="Cancelled", cause="by a test")
    ended = world.ended_task(task)
    assert (ended["stopCode"], ended["stoppedReason"]) == ("UserInitiated", "Stopped by AWS Step Functions")
    assert ended["containers"][0]["exitCode"] == 40
    details = [json.loads(message)["detail"] for message in world.messages(url, 2)]
    assert [(detail["status"], detail["error"], detail["cause"]) for detail in details] == [
        ("RUNNING", None, None),
        ("ABORTED", "Cancelled", "by a test"),
    ]
    # What the aborted state does once its task has ended leaves no trace: neither in the status nor in the history.
    later = world.start(machine)
    world.client("stepfunctions").stop_execution(executionArn=later)
    assert world.execution(execution)["status"] == "ABORTED"
    assert world.history(execution)[-1] == "ExecutionAborted"


def test_an_execution_out_of_time_is_timed_out_and_announced(world: World) -> None:
    machine = world.machine({"A": {"Type": "Wait", "Seconds": 60, "End": True}}, TimeoutSeconds=1)
    url = rule_for(world, machine)
    execution = world.ended(world.start(machine))
    assert execution["status"] == "TIMED_OUT"
    assert execution["stopDate"] > execution["startDate"]
    statuses = [json.loads(message)["detail"]["status"] for message in world.messages(url, 2)]
    assert statuses == ["RUNNING", "TIMED_OUT"]
    assert world.history(execution["executionArn"])[-1] == "ExecutionTimedOut"


def test_a_task_out_of_time_is_caught_and_runs_on(world: World) -> None:
    catch = {"ErrorEquals": ["States.Timeout"], "Next": "Late"}
    states = {
        "A": world.sync_state("trap 'exit 3' TERM; sleep 60 & wait", TimeoutSeconds=3, Catch=[catch]),
        "Late": {"Type": "Succeed", "Output": "late"},
    }
    machine = world.machine(states)
    execution = world.start(machine)
    task = world.running_task(execution)
    assert json.loads(world.ended(execution)["output"]) == "late"
    wait_for(lambda: not [t for t in threading.enumerate() if "_exec_and_notify" in t.name], "the state that timed out is done with")
    assert world.task(task)["desiredStatus"] == "RUNNING"
    world.client("ecs").stop_task(cluster="cluster", task=task, reason="over")
    assert world.ended_task(task)["containers"][0]["exitCode"] == 3
    assert "TaskSucceeded" not in world.history(execution)


def test_a_failed_task_can_be_retried(world: World) -> None:
    retry = [{"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "MaxAttempts": 1}]
    fails_once = f"mkdir {world.logs / world.name('attempt')} || exit 0; exit 3"
    assert world.output({"A": world.sync_state(fails_once, Retry=retry)})["Containers"][0]["ExitCode"] == 0


def test_a_closed_name_is_refused_and_a_running_one_is_the_same_execution(world: World) -> None:
    machine, sfn = world.machine({"A": {"Type": "Wait", "Seconds": 60, "End": True}}), world.client("stepfunctions")
    first = world.start(machine, name="r1")
    assert world.start(machine, name="r1") == first
    sfn.stop_execution(executionArn=first)
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        world.start(machine, name="r1")


def test_an_object_is_not_overwritten_when_that_is_forbidden(world: World) -> None:
    s3, bucket = world.client("s3"), world.name("bucket")
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="release", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="release", Body=b"second", IfNoneMatch="*")
    assert s3.get_object(Bucket=bucket, Key="release")["Body"].read() == b"first"


def test_many_executions_at_once_all_end_with_their_own_output(world: World) -> None:
    machine = world.machine({"A": {"Type": "Pass", "Output": "{% $states.input.n * 2 %}", "End": True}})
    executions = [world.start(machine, {"n": number}) for number in range(20)]
    outputs = [json.loads(world.ended(execution)["output"]) for execution in executions]
    assert outputs == [number * 2 for number in range(20)]


def test_an_aborted_execution_wakes_nothing_after_its_wait(world: World) -> None:
    table = world.table()
    put = dynamodb("putItem", {"TableName": table, "Item": KEY})
    machine = world.machine({"Wait": {"Type": "Wait", "Seconds": 60, "Next": "Put"}, "Put": put})
    execution = world.start(machine)
    wait_for(lambda: "WaitStateEntered" in world.history(execution), "the execution waits")
    world.client("stepfunctions").stop_execution(executionArn=execution)
    assert world.execution(execution)["status"] == "ABORTED"
    assert world.client("dynamodb").scan(TableName=table)["Items"] == []
