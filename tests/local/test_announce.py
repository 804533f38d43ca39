"""announce on the embedded AWS: another engine than that of tests/asl, with a topic, an event bus and metrics that others read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asl import render
from asl.ended import ENDED, FAILED, node
from asl.fakes import RUN_ID, RUN_KEY
from local.support import World

# One worker imports moto and patches it.
pytestmark = pytest.mark.xdist_group("emulator")

NAMESPACE = "dbt/analytics/test"


@pytest.fixture
def table(world: World) -> str:
    return world.table()


def announce(world: World, table: str, topic: str, chat_topic: str | None = None) -> dict[str, Any]:
    """Runs announce for the run item of the tests."""
    chat = {"chat": "off" if chat_topic is None else "on", "chat_topic": chat_topic or topic}
    bucket = world.name("bucket")
    world.client("s3").create_bucket(Bucket=bucket)
    values = {"partition": "aws", "table": table, "bucket": bucket, "environment": "test", "topic": topic, "namespace": NAMESPACE, **chat}
    definition = render.load("announce.asl.json", values)
    return world.execute(definition["States"], {"key": RUN_KEY}, StartAt=definition["StartAt"])


def leave(world: World, table: str, record: dict[str, str], *failures: dict[str, Any]) -> None:
    dynamodb = world.client("dynamodb")
    item = {"pk": {"S": "ENV#test"}, "sk": {"S": RUN_KEY}, **{key: {"S": value} for key, value in record.items()}}
    dynamodb.put_item(TableName=table, Item=item)
    outcome = {"pk": {"S": f"RUN#test#{RUN_ID}"}, "sk": {"S": "STEP#02#build#2"}, "failures": {"L": list(failures)}}
    dynamodb.put_item(TableName=table, Item=outcome)


def test_failure_is_measured_published_and_told(world: World, table: str) -> None:
    leave(world, table, FAILED, node("model.shop.orders", owner={"S": "finance"}, blocked={"N": "4"}), node("model.shop.items"))
    topic, queue = world.topic()
    chat_topic, chats = world.topic()
    events, arn = world.queue()
    rule = world.name("rule")
    world.client("events").put_rule(Name=rule, EventPattern=json.dumps({"source": [NAMESPACE]}))
    world.client("events").put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])

    execution = announce(world, table, topic, chat_topic)

    assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))
    assert json.loads(execution["output"]) == {"run_id": RUN_ID, "told": "failed"}
    everybody, owner = world.messages(queue, 2)
    assert "- model.shop.orders, owner finance, blocks 4: model.shop.orders is broken" in everybody.split("\n")
    assert owner.startswith("Owner: finance\n") and "model.shop.items" not in owner
    (chat,) = [json.loads(text) for text in world.messages(chats, 1)]
    assert chat["content"]["title"] == "dbt hourly failed in test: Dbt.ModelError"
    assert "- `model.shop.orders`, owner finance, blocks 4: model.shop.orders is broken" in chat["content"]["description"].split("\n")
    assert chat["metadata"]["threadId"].startswith(f"{NAMESPACE}/hourly/")
    published = [json.loads(text) for text in world.messages(events, 3)]
    assert sorted(event["detail-type"] for event in published) == ["dbt.node.failed", "dbt.node.failed", "dbt.run"]
    assert {event["detail"]["job"] for event in published} == {"hourly"}
    metrics = world.client("cloudwatch").list_metrics(Namespace=NAMESPACE)["Metrics"]
    assert {metric["MetricName"] for metric in metrics} == {"RunsSucceeded", "RunsFailed", "RunSeconds"}
    assert ("RunsFailed", "Dbt.ModelError") in {(m["MetricName"], d["Value"]) for m in metrics for d in m["Dimensions"]}


def test_recovery_is_told(world: World, table: str) -> None:
    leave(world, table, ENDED)
    before = {"started_at": "2026-11-22T09:00:00.000Z", "ended_at": "2026-11-22T09:05:00.000Z", "failing_since": "2026-11-22T09:05:00.000Z"}
    job = {key: {"S": value} for key, value in {"pk": "ENV#test", "sk": "JOB#hourly", "problem": "Dbt.ModelError", **before}.items()}
    world.client("dynamodb").put_item(TableName=table, Item={**job, "failures": {"N": "2"}})
    topic, queue = world.topic()

    execution = announce(world, table, topic)

    assert json.loads(execution["output"]) == {"run_id": RUN_ID, "told": "works again"}
    (message,) = world.messages(queue, 1)
    assert "Failed since: 2026-11-22T09:05:00.000Z, runs: 2" in message.split("\n")


def test_run_without_a_record_is_refused(world: World, table: str) -> None:
    topic, _ = world.topic()
    execution = announce(world, table, topic)
    assert (execution["error"], execution["cause"]) == ("Dbt.RunnerError", f"there is no closed record {RUN_KEY}")
