"""An environment on the embedded AWS with the real definition, whose containers are cheap processes of their own."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asl import render
from dbt_runner.local.ecs_agent import TaskEnd
from dbt_runner.local.emulator import Emulator
from local.support import ROLE
from runner.conftest import config_of

ENVIRONMENT, TABLE = render.SAMPLE["environment"], render.SAMPLE["table"]
# A step that stays until the test lets it go, or whose first attempt grows where there is a limit of memory to join. It speaks
# DynamoDB's protocol itself: boto3 takes a second to import.
CONTAINER = """
import json, os, time, urllib.request
folder, kind = os.environ["FOLDER"], os.environ["DBT_RUNNER_STEP"]
run_id = os.environ["DBT_RUNNER_RUN_KEY"].rsplit("#", 1)[1]
def say(word):
    with open(folder + "/containers", "a") as file:
        file.write(f"{word} {run_id} {kind}\\n")
say("came")
limit = folder + "/memory"
if kind == "1" and os.environ["DBT_RUNNER_ATTEMPT"] == "1" and os.path.exists(limit):
    with open(open(limit).read(), "a") as procs:
        procs.write(f"{os.getpid()}\\n")
    kept = [b"x" * (10 << 20) for _ in range(60)]
while kind == "1" and not os.path.exists(folder + "/go"):
    time.sleep(0.05)
name = "health_check" if kind == "0" else "build"
key = {"pk": {"S": f"RUN#ENVIRONMENT#{run_id}"}, "sk": {"S": f"STEP#{int(kind):02}#{name}#{os.environ['DBT_RUNNER_ATTEMPT']}"}}
item = {**key, "exit_code": {"N": "0"}, "counts": {"M": {}}, "seconds": {"N": "0"}}
request = urllib.request.Request(
    os.environ["AWS_ENDPOINT_URL"],
    json.dumps({"TableName": "TABLE", "Item": item}).encode(),
    {"X-Amz-Target": "DynamoDB_20120810.PutItem", "Content-Type": "application/x-amz-json-1.0",
     "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"},
)
urllib.request.urlopen(request).read()
say("went")
""".replace("ENVIRONMENT#", f"{ENVIRONMENT}#").replace('"TABLE"', f'"{TABLE}"')


class Environment:
    """An environment on the embedded AWS: its table, cluster, topic and state machine."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.folder = folder
        self._emulator = emulator
        self._client = emulator.client
        self.dynamodb, self.stepfunctions = emulator.client("dynamodb"), emulator.client("stepfunctions")
        keys = [("pk", "HASH"), ("sk", "RANGE")]
        self.dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
        )
        topic = emulator.client("sns").create_topic(Name="analytics-prod")["TopicArn"]
        self._put("CONFIG", config=json.dumps(self._config(topic)))
        self._put("RELEASE#CURRENT", pk=f"POINTER#{ENVIRONMENT}", version="1.4.2", project="shop")
        values = {**render.SAMPLE, "topic": topic}
        definition = json.dumps(render.load("dbt_run.asl.json", values))
        self.machine = self.stepfunctions.create_state_machine(name="analytics-prod", definition=definition, roleArn=ROLE)[
            "stateMachineArn"
        ]

    def _config(self, topic: str) -> dict[str, Any]:
        ecs = self._client("ecs")
        container = {"name": "dbt", "image": "none", "essential": True, "stopTimeout": 1}
        container["environment"] = [{"name": "FOLDER", "value": str(self.folder)}]
        task = ecs.register_task_definition(
            family="analytics-prod",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[container],
        )["taskDefinition"]["taskDefinitionArn"]
        found = config_of(ENVIRONMENT)
        subnet = self._client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        cluster = ecs.create_cluster(clusterName="analytics-prod")["cluster"]["clusterArn"]
        places = {"cluster": cluster, "task_definition": task, "subnets": [subnet], "security_groups": ["sg-1"]}
        sizes = [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}]
        found["compute"] = {**found["compute"], "sizes": sizes}
        found["retry"]["interval_seconds"] = 1
        found.update(table=TABLE, topic=topic, ecs={**found["ecs"], **places})
        return found

    def _put(self, sort_key: str, **attributes: str) -> None:
        item = {name: {"S": value} for name, value in {"pk": f"ENV#{ENVIRONMENT}", "sk": sort_key, **attributes}.items()}
        self.dynamodb.put_item(TableName=TABLE, Item=item)

    def start(self, number: int) -> list[str]:
        """Starts so many executions at one moment; their ARNs."""
        together = threading.Barrier(number)
        arns: list[str] = []

        def one(place: int) -> None:
            together.wait()
            given = json.dumps({"job": "hourly"})
            arns.append(
                self.stepfunctions.start_execution(stateMachineArn=self.machine, name=f"run-{place:02}", input=given)["executionArn"]
            )

        threads = [threading.Thread(target=one, args=(place,)) for place in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return arns

    def statuses(self) -> Counter[str]:
        listed = self.stepfunctions.list_executions(stateMachineArn=self.machine)["executions"]
        return Counter(execution["status"] for execution in listed)

    def records(self) -> Counter[str]:
        """How many records there are in each status."""
        items = self.dynamodb.scan(TableName=TABLE)["Items"]
        return Counter(item["status"]["S"] for item in items if item["sk"]["S"].startswith("RUN#"))

    def record(self) -> dict[str, Any]:
        """The one record that there is."""
        items = self.dynamodb.scan(TableName=TABLE)["Items"]
        [found] = [item for item in items if item["sk"]["S"].startswith("RUN#")]
        return dict(found)

    @property
    def ended(self) -> tuple[TaskEnd, ...]:
        """The tasks that have ended."""
        return self._emulator.agent.ended

    def told(self) -> list[list[str]]:
        """What the containers said: came or went, the run, and the step's place."""
        path = self.folder / "containers"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def lock(self) -> object:
        key = {"pk": {"S": f"ENV#{ENVIRONMENT}"}, "sk": {"S": "LOCK"}}
        return self.dynamodb.get_item(TableName=TABLE, Key=key).get("Item")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Looks seldom: the interpreter runs in this process."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.25)


@contextlib.contextmanager
def environment(folder: Path) -> Iterator[Environment]:
    """Makes one in `folder`, and ends what runs there."""
    script = folder / "container.py"
    script.write_text(CONTAINER)
    emulator = Emulator(folder / "logs", entry_point=(sys.executable, "-S", str(script)))
    emulator.start()
    try:
        yield Environment(emulator, folder)
    finally:
        (folder / "go").touch()
        emulator.stop()
