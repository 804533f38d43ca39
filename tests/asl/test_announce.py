"""announce tells of an ended run: metrics for alarms, an event for other stacks, and people where it concerns them."""

from __future__ import annotations

from typing import Any

import pytest

from asl import render
from asl.ended import ENDED, FAILED, leave, node
from asl.fakes import EXECUTION, NOW, RUN_ID, RUN_KEY, STARTED_AT, TABLE, Cloud, Fault

LATER = "2026-11-22T11:00:00.000Z"
NEXT_DAY = "2026-11-23T00:10:00.000Z"


def announce(cloud: Cloud, faults: dict[str, Fault] | None = None) -> str:
    """Announces the run; returns whom it told of what."""
    execution = cloud.announce(RUN_KEY, faults)
    assert execution.error is None, f"{execution.error}: {execution.cause}"
    assert isinstance(execution.output, dict)
    return str(execution.output["told"])


def job(cloud: Cloud) -> dict[str, Any] | None:
    """What is known of the job hourly."""
    return next(({k: next(iter(v.values())) for k, v in item.items()} for item in cloud.items() if item["sk"]["S"] == "JOB#hourly"), None)


def before(cloud: Cloud, **changes: str | int) -> None:
    """The job has failed before, with the same node."""
    known: dict[str, str | int] = {
        "run_id": "before",
        "started_at": "2026-11-22T09:00:00.000Z",
        "ended_at": "2026-11-22T09:05:00.000Z",
        "status": "FAILED",
        "failing_since": "2026-11-22T08:05:00.000Z",
        "failures": 2,
        "problem": "Dbt.ModelError model.shop.orders",
    }
    cloud.put("JOB#hourly", **{**known, **changes})


def metrics(cloud: Cloud) -> dict[tuple[str, ...], float]:
    """Each metric's value, by its name and the values of its dimensions."""
    (request,) = cloud.metrics
    assert request["Namespace"] == "dbt/analytics/prod"
    return {(m["MetricName"], *(d["Value"] for d in m["Dimensions"])): m["Value"] for m in request["MetricData"]}


def test_success_is_measured_and_published_and_troubles_nobody(cloud: Cloud) -> None:
    leave(cloud, ENDED)
    assert announce(cloud) == "no"
    assert (cloud.notifications, cloud.chats) == ([], [])
    values = {"RunsSucceeded": 1, "RunsFailed": 0, "RunSeconds": 4.877}
    assert metrics(cloud) == {(name, *where): value for where in [(), ("hourly",)] for name, value in values.items()}
    (event,) = cloud.published
    assert (event["Source"], event["DetailType"]) == ("dbt/analytics/prod", "dbt.run")
    detail = event["Detail"]
    assert {key: detail[key] for key in ("environment", "job", "run_id", "release", "status", "trigger", "ended_at", "seconds")} == {
        "environment": "prod",
        "job": "hourly",
        "run_id": RUN_ID,
        "release": "1.4.2",
        "status": "SUCCEEDED",
        "trigger": "schedule",
        "ended_at": NOW,
        "seconds": 4.877,
    }
    assert [step["step"] for step in detail["steps"]] == ["health_check", "freshness", "build"]
    assert job(cloud) == {
        "pk": "ENV#prod",
        "sk": "JOB#hourly",
        "run_id": RUN_ID,
        "started_at": STARTED_AT,
        "ended_at": NOW,
        "status": "SUCCEEDED",
        "succeeded_at": NOW,
    }


def test_every_run_that_is_told_of_has_its_row_in_the_long_term_audit(cloud: Cloud) -> None:
    for record in (ENDED, FAILED, {name: value for name, value in FAILED.items() if name not in ("job", "steps", "release")}):
        leave(cloud, record)
        item = {"versions": {"M": {"dbt-core": {"S": "1.11.16"}}}}
        key = {"pk": {"S": "ENV#prod"}, "sk": {"S": RUN_KEY}}
        values = {name: {"S": value} for name, value in record.items()}
        cloud.dynamodb.put_item(TableName=TABLE, Item={**key, **values, **item})
        announce(cloud)
        row = {**record, "environment": "prod", "versions": {"dbt-core": "1.11.16"}}
        assert cloud.archived == {f"audit/runs/env=prod/date={STARTED_AT[:10]}/{RUN_ID}.jsonl": row}
        cloud.archived.clear()


def test_a_row_that_cannot_be_written_fails_announce_in_the_end_and_nothing_else(cloud: Cloud) -> None:
    leave(cloud, FAILED, node("model.shop.orders"))
    execution = cloud.announce(RUN_KEY, {"ArchiveRun": Fault("S3.SlowDownException")})
    assert cloud.archived == {} and len(cloud.notifications) == 1
    assert (execution.error, "ArchiveRun: S3.SlowDownException" in str(execution.cause)) == ("Dbt.RunnerError", True)


def test_failure_says_what_failed_who_owns_it_and_what_it_blocks(cloud: Cloud) -> None:
    leave(cloud, FAILED, node("model.shop.orders", owner={"S": "finance"}, blocked={"N": "4"}), node("model.shop.items"))
    assert announce(cloud) == "failed"
    everybody, owner = cloud.notifications
    assert everybody["Subject"] == "dbt hourly failed in prod: Dbt.ModelError"
    assert everybody["Message"].split("\n") == [
        f"Run: {RUN_ID}",
        "Environment: prod",
        "Job: hourly",
        "Release: 1.4.2",
        "Error: Dbt.ModelError",
        "Cause: build: 1 of 3 nodes failed",
        "",
        "What failed:",
        "- model.shop.orders, owner finance, blocks 4: model.shop.orders is broken",
        "- model.shop.items: model.shop.items is broken",
        "",
        f"Look closer: dbt-runner show --environment prod {RUN_ID}",
        f"Console: https://console.aws.amazon.com/states/home?region=us-east-1#/v2/executions/details/{EXECUTION}",
    ]
    assert attributes(everybody) == {"environment": "prod", "error": "Dbt.ModelError", "audience": "everybody"}
    assert owner["Subject"] == "dbt: 1 node of yours failed in prod"
    assert attributes(owner) == {"environment": "prod", "error": "Dbt.ModelError", "audience": "owner", "owner": "finance"}
    assert "- model.shop.orders, blocks 4: model.shop.orders is broken" in owner["Message"].split("\n")
    assert "items" not in owner["Message"]
    assert metrics(cloud)["RunsFailed", "Dbt.ModelError"] == 1
    assert metrics(cloud)["RunsFailed", "hourly"] == 1
    assert [(event["DetailType"], event["Detail"].get("node", {}).get("unique_id")) for event in cloud.published] == [
        ("dbt.run", None),
        ("dbt.node.failed", "model.shop.orders"),
        ("dbt.node.failed", "model.shop.items"),
    ]


def attributes(message: dict[str, Any]) -> dict[str, str]:
    """The message attributes that a subscription can filter on."""
    return {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}


@pytest.mark.parametrize(
    "record", [FAILED, ENDED, {**FAILED, "error": "Dbt.EnvironmentBusy", "steps": "[]"}], ids=["failed", "ended", "busy"]
)
@pytest.mark.parametrize("job", [True, False], ids=["job", "no job"])
def test_run_into_schemas_of_its_own_is_nobodys_alarm(cloud: Cloud, record: dict[str, str], job: bool) -> None:
    """A pull request's: what becomes of it says nothing about the environment, nor about the job of which it may have the steps."""
    before(cloud)
    known = cloud.items()
    record = {**record, "schema_suffix": "pr_7", "release": "ci-1"}
    leave(cloud, record if job else {k: v for k, v in record.items() if k != "job"}, node("model.shop.orders", owner={"S": "finance"}))
    assert announce(cloud) == "no"
    assert (cloud.notifications, cloud.metrics) == ([], [])
    assert [item for item in cloud.items() if item["sk"]["S"] == "JOB#hourly"] == [
        item for item in known if item["sk"]["S"] == "JOB#hourly"
    ]
    (event,) = cloud.published
    assert (event["DetailType"], event["Detail"]["schema_suffix"], event["Detail"]["status"]) == ("dbt.run", "pr_7", record["status"])
    assert [row["schema_suffix"] for row in cloud.archived.values()] == ["pr_7"]


def test_what_could_not_be_told_of_a_run_of_its_own_is_seen_all_the_same(cloud: Cloud) -> None:
    leave(cloud, {**FAILED, "schema_suffix": "pr_7"})
    execution = cloud.announce(RUN_KEY, {"Publish": Fault("EventBridge.InternalException")})
    assert (execution.error, cloud.notifications) == ("Dbt.RunnerError", [])


def test_one_digest_for_each_owner(cloud: Cloud) -> None:
    owned = [node(f"model.shop.m{n}", owner={"S": owner}) for n, owner in enumerate(["sales", "finance", "sales"])]
    leave(cloud, FAILED, *owned)
    announce(cloud)
    digests = {attributes(m).get("owner"): m["Subject"] for m in cloud.notifications[1:]}
    assert digests == {"sales": "dbt: 2 nodes of yours failed in prod", "finance": "dbt: 1 node of yours failed in prod"}


def test_same_failure_again_on_the_same_day_is_counted_and_not_told(cloud: Cloud) -> None:
    before(cloud)
    leave(cloud, FAILED, node("model.shop.orders", owner={"S": "finance"}))
    assert announce(cloud) == "no"
    assert (cloud.notifications, cloud.chats) == ([], [])
    known = job(cloud)
    assert known is not None
    assert (known["failures"], known["failing_since"], known["run_id"]) == ("3", "2026-11-22T08:05:00.000Z", RUN_ID)


@pytest.mark.parametrize("failed", ["model.shop.items", "model.shop.orders"], ids=["other nodes", "another day"])
def test_failure_that_goes_on_is_told_again_for_other_nodes_or_on_another_day(cloud: Cloud, failed: str) -> None:
    before(cloud, **({} if failed.endswith("items") else {"ended_at": "2026-11-21T23:59:59.999Z"}))
    leave(cloud, FAILED, node(failed))
    assert announce(cloud) == "still fails"
    (message,) = cloud.notifications
    assert message["Subject"] == "dbt hourly still fails in prod: Dbt.ModelError"
    assert "Failing since: 2026-11-22T08:05:00.000Z, run 3" in message["Message"].split("\n")


def test_order_of_the_failed_nodes_makes_no_other_failure(cloud: Cloud) -> None:
    before(cloud, problem="Dbt.ModelError model.shop.items model.shop.orders")
    leave(cloud, FAILED, node("model.shop.orders"), node("model.shop.items"))
    assert announce(cloud) == "no"


def test_recovery_is_told_once(cloud: Cloud) -> None:
    before(cloud)
    leave(cloud, ENDED)
    assert announce(cloud) == "works again"
    (message,) = cloud.notifications
    assert message["Subject"] == "dbt hourly works again in prod"
    assert "Failed since: 2026-11-22T08:05:00.000Z, runs: 2" in message["Message"].split("\n")
    assert attributes(message) == {"environment": "prod", "error": "none", "audience": "everybody"}
    known = job(cloud)
    assert known is not None and not {"failing_since", "failures", "problem"} & set(known)
    cloud.put(RUN_KEY, **{**ENDED, "started_at": LATER, "ended_at": LATER})
    assert announce(cloud) == "no"


def test_run_that_began_before_the_known_one_changes_nothing(cloud: Cloud) -> None:
    before(cloud, started_at=LATER)
    known = job(cloud)
    leave(cloud, ENDED)
    assert announce(cloud) == "no"
    assert job(cloud) == known


@pytest.mark.parametrize(("status", "words"), [("ABORTED", "aborted"), ("TIMED_OUT", "timed out")])
def test_run_that_finalize_closed_is_told_in_its_words(cloud: Cloud, status: str, words: str) -> None:
    leave(cloud, {**ENDED, "status": status, "error": "Dbt.Interrupted", "cause": "the execution ended", "steps": "[]"})
    assert announce(cloud) == "failed"
    (message,) = cloud.notifications
    assert message["Subject"] == f"dbt hourly {words} in prod: Dbt.Interrupted"


def test_run_of_no_job_is_told_and_has_no_history(cloud: Cloud) -> None:
    record = {key: value for key, value in FAILED.items() if key not in ("job", "release")}
    leave(cloud, record, node("model.shop.orders"))
    assert announce(cloud) == "failed"
    assert cloud.notifications[0]["Subject"] == "dbt run failed in prod: Dbt.ModelError"
    assert job(cloud) is None
    assert all("Job" not in (d["Name"] for d in m["Dimensions"]) for m in cloud.metrics[0]["MetricData"])


@pytest.mark.parametrize("text", ["not json", '{"job": 7}', "[]", ""])
def test_run_that_was_refused_for_its_input_is_told(cloud: Cloud, text: str) -> None:
    record = {key: value for key, value in FAILED.items() if key != "job"}
    leave(cloud, {**record, "request": text, "error": "Dbt.InvalidRequest", "cause": "what is wrong", "steps": "[]"})
    assert announce(cloud) == "failed"


def test_chat_gets_the_same_facts_in_its_own_form(cloud: Cloud) -> None:
    leave(cloud, FAILED, node("model.shop.orders", owner={"S": "finance"}, blocked={"N": "4"}), node("model.shop.items"))
    announce(cloud)
    (message,) = cloud.chats
    assert message == {
        "version": "1.0",
        "source": "custom",
        "id": f"prod/{RUN_ID}",
        "content": {
            "textType": "client-markdown",
            "title": "dbt hourly failed in prod: Dbt.ModelError",
            "description": "\n".join(
                [
                    f"Run `{RUN_ID}`, release `1.4.2`",
                    "`Dbt.ModelError`: build: 1 of 3 nodes failed",
                    "",
                    "What failed:",
                    "- `model.shop.orders`, owner finance, blocks 4: model.shop.orders is broken",
                    "- `model.shop.items`: model.shop.items is broken",
                ]
            ),
            "nextSteps": [
                f"`dbt-runner show --environment prod {RUN_ID}`",
                f"`dbt-runner report --environment prod {RUN_ID}`",
                f"https://console.aws.amazon.com/states/home?region=us-east-1#/v2/executions/details/{EXECUTION}",
            ],
            "keywords": ["prod", "hourly", "Dbt.ModelError"],
        },
        "metadata": {
            "threadId": f"dbt/analytics/prod/hourly/{NOW}",
            "summary": "dbt hourly failed in prod: Dbt.ModelError",
            "eventType": "dbt.run",
            "relatedResources": [EXECUTION],
            "additionalContext": {
                "environment": "prod",
                "job": "hourly",
                "run_id": RUN_ID,
                "release": "1.4.2",
                "status": "FAILED",
                "error": "Dbt.ModelError",
            },
        },
    }


def test_a_failure_and_what_follows_is_one_thread_and_the_next_failure_another(cloud: Cloud) -> None:
    times = [f"2026-11-22T1{hour}:00:00.000Z" for hour in range(5)]
    for ended_at, record in zip(times, [FAILED, FAILED, ENDED, ENDED, FAILED], strict=True):
        # Each time another node fails, so that each time people are told.
        leave(cloud, {**record, "started_at": ended_at, "ended_at": ended_at}, node(f"model.shop.m{ended_at}"))
        announce(cloud)
    assert [(message["content"]["title"], message["metadata"]["threadId"].rpartition("/")) for message in cloud.chats] == [
        ("dbt hourly failed in prod: Dbt.ModelError", ("dbt/analytics/prod/hourly", "/", times[0])),
        ("dbt hourly still fails in prod: Dbt.ModelError", ("dbt/analytics/prod/hourly", "/", times[0])),
        ("dbt hourly works again in prod", ("dbt/analytics/prod/hourly", "/", times[0])),
        ("dbt hourly failed in prod: Dbt.ModelError", ("dbt/analytics/prod/hourly", "/", times[4])),
    ]
    assert cloud.chats[2]["content"]["description"].endswith(f"\nFailed since {times[0]}, runs: 2")


def test_a_run_of_no_job_is_a_thread_of_its_own(cloud: Cloud) -> None:
    leave(cloud, {key: value for key, value in FAILED.items() if key not in ("job", "release")})
    announce(cloud)
    (message,) = cloud.chats
    assert message["metadata"]["threadId"] == f"dbt/analytics/prod/{RUN_ID}"
    assert "job" not in message["metadata"]["additionalContext"] and message["content"]["keywords"] == ["prod", "Dbt.ModelError"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<!channel> all", "< !channel> all"),
        ("ask <@U012AB3CD>", "ask < @U012AB3CD>"),
        ("<https://evil.example|the log>", "< https://evil.example|the log>"),
        ("[the log](https://evil.example)", "[the log] (https://evil.example)"),
        ("no ``` block", "no ''' block"),
        ("line 1\n\n  line 2", "line 1 line 2"),
    ],
)
def test_texts_of_others_mention_nobody_in_chat_and_lead_nowhere(cloud: Cloud, text: str, shown: str) -> None:
    leave(cloud, {**FAILED, "cause": text}, node(text, owner={"S": text}, message={"S": text}))
    announce(cloud)
    (message,) = cloud.chats
    lines = message["content"]["description"].split("\n")
    assert lines[1:] == [f"`Dbt.ModelError`: {shown}", "", "What failed:", f"- `{shown}`, owner {shown}: {shown}"]


def test_the_longest_message_is_short_enough_for_chat(cloud: Cloud) -> None:
    long = "x" * 4000
    failures = [node(f"{place}{long}", owner={"S": long}, message={"S": long}, blocked={"N": "99999"}) for place in range(10)]
    leave(cloud, {**FAILED, "cause": long}, *failures)
    announce(cloud)
    (message,) = cloud.chats  # the fake has held it against the form
    assert len([line for line in message["content"]["description"].split("\n") if line.startswith("- `")]) == 10


def test_without_chat_nothing_is_published_there(cloud: Cloud) -> None:
    cloud.definitions["announce.asl.json"] = render.load("announce.asl.json", {**render.SAMPLE, "chat": "off"})
    leave(cloud, FAILED, node("model.shop.orders", owner={"S": "finance"}))
    assert announce(cloud) == "failed"
    assert (len(cloud.notifications), cloud.chats) == (2, [])


@pytest.mark.parametrize("state", ["ReadOutcome", "RecordJob", "Measure", "Publish", "Tell", "TellChat", "TellOwner"])
def test_what_cannot_be_told_keeps_nothing_else_from_being_told_and_shows(cloud: Cloud, state: str) -> None:
    leave(cloud, FAILED, node("model.shop.orders", owner={"S": "finance"}))
    execution = cloud.announce(RUN_KEY, {state: Fault("Unheard.Of", "told to fail")})
    named = "TellOwner: finance" if state == "TellOwner" else state
    assert (execution.error, execution.cause) == ("Dbt.RunnerError", f"{named}: Unheard.Of: told to fail")
    assert len(cloud.metrics) == (0 if state == "Measure" else 1)
    assert (cloud.published == []) is (state == "Publish")
    told = [attributes(message)["audience"] for message in cloud.notifications]
    assert told == [audience for audience, by in [("everybody", "Tell"), ("owner", "TellOwner")] if state not in (by, "ReadOutcome")] or (
        state == "ReadOutcome" and told == ["everybody"]
    )
    assert len(cloud.chats) == (0 if state == "TellChat" else 1)
    assert (job(cloud) is None) is (state == "RecordJob")


def test_owner_who_cannot_be_told_keeps_the_others_from_nothing(cloud: Cloud) -> None:
    leave(cloud, FAILED, *(node(f"model.shop.{owner}", owner={"S": owner}) for owner in ("finance", "sales", "stock")))
    execution = cloud.announce(RUN_KEY, {"TellOwner": Fault("Unheard.Of", "told to fail", times=1)})
    assert (execution.error, execution.cause) == ("Dbt.RunnerError", "TellOwner: finance: Unheard.Of: told to fail")
    assert [attributes(message).get("owner") for message in cloud.notifications] == [None, "sales", "stock"]


@pytest.mark.parametrize("record", [None, {**ENDED, "status": "RUNNING"}], ids=["none", "open"])
def test_run_that_has_not_ended_is_not_told_of(cloud: Cloud, record: dict[str, str] | None) -> None:
    if record is not None:
        cloud.put(RUN_KEY, **{key: value for key, value in record.items() if key != "ended_at"})
    execution = cloud.announce(RUN_KEY)
    assert execution.error == "Dbt.RunnerError" and RUN_KEY in str(execution.cause)
    assert (cloud.notifications, cloud.metrics, cloud.published) == ([], [], [])
