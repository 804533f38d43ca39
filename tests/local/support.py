"""What the tests of the embedded AWS share: small state machines, tasks that are shell commands, and patience."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dbt_runner.local import image_process
from dbt_runner.local.emulator import Emulator

ROLE = "arn:aws:iam::123456789012:role/test"
SYNC = "arn:aws:states:::ecs:runTask.sync"

_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T | None], what: str, seconds: float = 10.0) -> _T:
    """The first result of `condition` that is true. Fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"after {seconds} s still not: {what}")


class World:
    """A started emulator, whose ECS tasks are shell commands, with one cluster and one task definition."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.lines: list[tuple[str, str]] = []
        self.emulator = Emulator(logs, on_line=lambda arn, line: self.lines.append((arn, line)), entry_point=("bash", "-c"))
        self._numbers = itertools.count()

    def client(self, service: str) -> Any:
        return self.emulator.client(service)

    def prepare(self) -> None:
        self.client("ecs").create_cluster(clusterName="cluster")
        self.subnet = self.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        self.task_definition = self.register(self.container())

    def name(self, prefix: str) -> str:
        """A name that no other test uses."""
        return f"{prefix}-{next(self._numbers)}"

    @staticmethod
    def container(**settings: Any) -> dict[str, Any]:
        return {"name": "dbt", "image": "none", "essential": True, "stopTimeout": 1, **settings}

    def register(self, container: Mapping[str, Any]) -> str:
        definition = self.client("ecs").register_task_definition(
            family=self.name("family"),
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[dict(container)],
        )
        return str(definition["taskDefinition"]["taskDefinitionArn"])

    def run_task(self, command: str, *, task_definition: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """RunTask through the API; the task's ARN."""
        overrides = {"name": "dbt", "command": [command], "environment": [{"name": k, "value": v} for k, v in (environment or {}).items()]}
        response = self.client("ecs").run_task(
            cluster="cluster",
            taskDefinition=task_definition or self.task_definition,
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": [self.subnet], "securityGroups": ["sg-1"]}},
            overrides={"containerOverrides": [overrides]},
        )
        return str(response["tasks"][0]["taskArn"])

    def function(self, **settings: Any) -> str:
        """Publish a function of the image; the ARN of its version."""
        name = self.name("function")
        trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        created = self.client("lambda").create_function(
            FunctionName=name,
            Role=self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"],
            PackageType="Image",
            Code={"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/dbt-runner@sha256:0"},
            Publish=True,
            ImageConfig={
                "EntryPoint": list(image_process.FUNCTION_ENTRY_POINT),
                "Command": list(image_process.FUNCTION_COMMAND),
                "WorkingDirectory": image_process.WORKING_DIRECTORY,
            },
            **settings,
        )
        return str(created["FunctionArn"])

    def task(self, arn: str) -> dict[str, Any]:
        [task] = self.client("ecs").describe_tasks(cluster="cluster", tasks=[arn])["tasks"]
        return dict(task)

    def ended_task(self, arn: str) -> dict[str, Any]:
        """The task once it is STOPPED."""

        def stopped() -> dict[str, Any] | None:
            task = self.task(arn)
            return task if task["lastStatus"] == "STOPPED" else None

        return wait_for(stopped, f"{arn} is STOPPED")

    def run_task_arguments(self, command: str, **more: Any) -> dict[str, Any]:
        """The Arguments of an `ecs:runTask` state."""
        vpc = {"Subnets": [self.subnet], "SecurityGroups": ["sg-1"], "AssignPublicIp": "DISABLED"}
        return {
            "Cluster": "cluster",
            "TaskDefinition": self.task_definition,
            "LaunchType": "FARGATE",
            "NetworkConfiguration": {"AwsvpcConfiguration": vpc},
            "Overrides": {"ContainerOverrides": [{"Name": "dbt", "Command": [command]}]},
            **more,
        }

    def sync_state(self, command: str, **more: Any) -> dict[str, Any]:
        return {"Type": "Task", "Resource": SYNC, "Arguments": self.run_task_arguments(command), "End": True, **more}

    def machine(self, states: Mapping[str, Any], **top: Any) -> str:
        """Create a JSONata state machine that starts at its first state; its ARN."""
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": dict(states), **top}
        created = self.client("stepfunctions").create_state_machine(
            name=self.name("machine"), definition=json.dumps(definition), roleArn=ROLE
        )
        return str(created["stateMachineArn"])

    def alias(self, machine: str) -> str:
        """Publish a state machine as its alias `live`, as the Terraform provider does."""
        sfn = self.client("stepfunctions")
        definition = sfn.describe_state_machine(stateMachineArn=machine)["definition"]
        version = sfn.update_state_machine(stateMachineArn=machine, definition=definition, publish=True)["stateMachineVersionArn"]
        routing = [{"stateMachineVersionArn": version, "weight": 100}]
        return str(sfn.create_state_machine_alias(name="live", routingConfiguration=routing)["stateMachineAliasArn"])

    def start(self, machine: str, input: Any = None, name: str | None = None) -> str:
        """Start an execution; its ARN."""
        started = self.client("stepfunctions").start_execution(
            stateMachineArn=machine, name=name or self.name("run"), input=json.dumps({} if input is None else input)
        )
        return str(started["executionArn"])

    def execution(self, arn: str) -> dict[str, Any]:
        return dict(self.client("stepfunctions").describe_execution(executionArn=arn))

    def ended(self, arn: str, seconds: float = 10.0) -> dict[str, Any]:
        """The execution once it has ended."""

        def over() -> dict[str, Any] | None:
            execution = self.execution(arn)
            return execution if execution["status"] != "RUNNING" else None

        return wait_for(over, f"{arn} has ended", seconds)

    def execute(self, states: Mapping[str, Any], input: Any = None, **top: Any) -> dict[str, Any]:
        """Run a state machine to its end; the execution as DescribeExecution gives it."""
        return self.ended(self.start(self.machine(states, **top), input))

    def output(self, states: Mapping[str, Any], input: Any = None) -> Any:
        """The output of an execution that must succeed."""
        execution = self.execute(states, input)
        assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))
        return json.loads(execution["output"])

    def history(self, arn: str) -> list[str]:
        return [event["type"] for event in self.client("stepfunctions").get_execution_history(executionArn=arn)["events"]]

    def running_task(self, execution: str) -> str:
        """The ARN of the task for which an execution waits, once its process runs."""

        def running() -> str | None:
            events = self.client("stepfunctions").get_execution_history(executionArn=execution)["events"]
            for event in events:
                if event["type"] == "TaskSubmitted":
                    arn = json.loads(event["taskSubmittedEventDetails"]["output"])["Tasks"][0]["TaskArn"]
                    return arn if self.task(arn)["lastStatus"] == "RUNNING" else None
            return None

        return wait_for(running, f"a task of {execution} is RUNNING")

    def queue(self) -> tuple[str, str]:
        """A new queue: its URL and ARN."""
        url = self.client("sqs").create_queue(QueueName=self.name("queue"))["QueueUrl"]
        return url, self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]

    def topic(self) -> tuple[str, str]:
        """A new topic with a queue that gets its messages as they are: the topic's ARN and the queue's URL."""
        topic = str(self.client("sns").create_topic(Name=self.name("topic"))["TopicArn"])
        url, arn = self.queue()
        self.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
        return topic, url

    def messages(self, queue_url: str, count: int, seconds: float = 5.0) -> list[str]:
        """The first `count` messages of a queue."""
        received: list[str] = []

        def enough() -> bool:
            response = self.client("sqs").receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=0)
            received.extend(message["Body"] for message in response.get("Messages", []))
            return len(received) >= count

        wait_for(enough, f"{count} messages in {queue_url}", seconds)
        return received

    def table(self) -> str:
        """A new table with the keys of the audit table."""
        name = self.name("table")
        self.client("dynamodb").create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return name
