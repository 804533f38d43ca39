"""Alarms and dashboards speak of metrics that exist: each that they name is one that the runner, announce or AWS emits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import tftest
from moto import mock_aws

from asl.ended import ENDED, FAILED, leave
from asl.fakes import RUN_KEY, make_cloud
from asl.fakes import config as environment_config
from dbt_runner import config, metrics
from terraform.inventory import resources

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-plans")]

NAMESPACE = "dbt/analytics/prod"
# https://docs.aws.amazon.com/step-functions/latest/dg/procedure-cw-metrics.html
# https://docs.aws.amazon.com/scheduler/latest/UserGuide/monitoring-cloudwatch.html
OF_AWS = {
    ("AWS/States", "ExecutionsFailed", ("StateMachineArn",)),
    ("AWS/States", "ExecutionsTimedOut", ("StateMachineArn",)),
    ("AWS/Scheduler", "InvocationDroppedCount", ("ScheduleGroup",)),
}
Named = tuple[str, str, tuple[str, ...]]


@pytest.fixture(scope="module")
def emitted() -> set[Named]:
    """Namespace, name and dimensions of every metric of a run, as announce and the runner write them."""
    found: set[Named] = set()
    for record in (ENDED, FAILED):
        with mock_aws():
            cloud = make_cloud()
            leave(cloud, record)
            assert cloud.announce(RUN_KEY).error is None
            (request,) = cloud.metrics
            found |= {(request["Namespace"], m["MetricName"], tuple(d["Name"] for d in m["Dimensions"])) for m in request["MetricData"]}
    outcome = {"exit_code": 0, "seconds": 1.0, "counts": {}, "peak_memory_mib": 300}
    moment = "2026-11-22T10:00:00.000Z"
    waited = metrics.waits(moment, asked_for_at=moment, run_started_at=moment, lock_since=moment)
    line = metrics.of_attempt(config.parse(json.dumps(environment_config())), "hourly", outcome, waited)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for metric in directive["Metrics"]:
            assert metric["Name"] in line, "a metric without a value is none"
            found |= {(directive["Namespace"], metric["Name"], tuple(names)) for names in directive["Dimensions"]}
    return found


def observed(plan: tftest.TerraformPlanOutput, kind: str) -> dict[str, Any]:
    """Planned resources of prod's observability of one type, by what follows the type in their address."""
    prefix = f'module.observability["prod"].{kind}.'
    return {address.removeprefix(prefix): r["values"] for address, r in resources(plan).items() if address.startswith(prefix)}


def of_alarm(alarm: dict[str, Any]) -> Iterator[Named]:
    if alarm.get("metric_name"):
        yield alarm["namespace"], alarm["metric_name"], tuple(alarm.get("dimensions") or ())
    for query in alarm.get("metric_query") or ():
        for metric in query["metric"]:
            yield metric["namespace"], metric["metric_name"], tuple(metric["dimensions"] or ())


def test_alarms_watch_what_is_emitted(two_environments: tftest.TerraformPlanOutput, emitted: set[Named]) -> None:
    alarms = observed(two_environments, "aws_cloudwatch_metric_alarm")
    watched = {named for alarm in alarms.values() for named in of_alarm(alarm)}
    assert watched - emitted - OF_AWS == set()
    assert watched & emitted == {
        (NAMESPACE, "RunsFailed", ()),
        (NAMESPACE, "RunsSucceeded", ("Job",)),
        (NAMESPACE, "RunSeconds", ("Job",)),
    }
    assert watched >= OF_AWS, "a metric of AWS's is listed here and watched by nothing"


def test_dashboard_shows_what_is_emitted(two_environments: tftest.TerraformPlanOutput, emitted: set[Named]) -> None:
    (dashboard,) = observed(two_environments, "aws_cloudwatch_dashboard").values()
    widgets = json.loads(dashboard["dashboard_body"])["widgets"]
    shown = [metric for widget in widgets if widget["type"] == "metric" for metric in widget["properties"]["metrics"]]
    assert {(namespace, name, (dimension,)) for namespace, name, dimension, _ in shown} <= emitted
    assert {job for *_, job in shown} == {"hourly", "nightly", "by_hand"}
    places = [(widget["x"], widget["y"]) for widget in widgets]
    assert len(places) == len(set(places)) and all(widget["x"] + widget["width"] <= 24 for widget in widgets)


def test_a_control_finds_a_metric_that_nothing_emits(emitted: set[Named]) -> None:
    unknown = {"namespace": NAMESPACE, "metric_name": "RunsLost", "dimensions": {"Job": "hourly"}}
    assert set(of_alarm(unknown)) - emitted - OF_AWS == {(NAMESPACE, "RunsLost", ("Job",))}


def test_questions_ask_for_fields_that_the_runner_logs(two_environments: tftest.TerraformPlanOutput) -> None:
    known = {"@timestamp", "run_id", "step", "attempt", "message", "exit_code", *metrics.UNITS}
    for definition in observed(two_environments, "aws_cloudwatch_query_definition").values():
        asked = re.search(r"fields ([^|]+)", definition["query_string"])
        assert asked is not None and set(re.split(r",\s*", asked[1].strip())) <= known
        assert definition["log_group_names"] == ["/analytics/prod/runner"]


@pytest.mark.parametrize(("job", "minutes", "period"), [("hourly", 130, 300), ("nightly", 2880, 3600)])
def test_a_job_that_silently_stopped_is_told_of(two_environments: tftest.TerraformPlanOutput, job: str, minutes: int, period: int) -> None:
    alarm = observed(two_environments, "aws_cloudwatch_metric_alarm")[f'stale["{job}"]']
    assert (alarm["metric_name"], alarm["dimensions"], alarm["statistic"]) == ("RunsSucceeded", {"Job": job}, "Sum")
    assert (alarm["treat_missing_data"], alarm["comparison_operator"], alarm["threshold"]) == ("breaching", "LessThanThreshold", 1)
    assert (alarm["period"], alarm["period"] * alarm["evaluation_periods"]) == (period, minutes * 60)
    # What CloudWatch lets an alarm look back.
    assert alarm["period"] * alarm["evaluation_periods"] <= (86_400 if period < 3600 else 604_800)


def test_only_promises_are_watched(two_environments: tftest.TerraformPlanOutput) -> None:
    alarms = observed(two_environments, "aws_cloudwatch_metric_alarm")
    assert {address for address in alarms if address.startswith("stale")} == {'stale["hourly"]', 'stale["nightly"]'}
    assert {address for address in alarms if address.startswith("slow")} == {f'slow["{job}"]' for job in ("hourly", "nightly", "by_hand")}


def test_every_alarm_reaches_people_when_it_comes_and_when_it_goes(two_environments: tftest.TerraformPlanOutput) -> None:
    topic = "arn:aws:sns:eu-central-1:123456789012:analytics-prod-alarms"
    for address, alarm in observed(two_environments, "aws_cloudwatch_metric_alarm").items():
        assert set(alarm["alarm_actions"]) == set(alarm["ok_actions"]) == {topic, "arn:aws:sns:eu-central-1:123456789012:on-call"}, address
        assert alarm["alarm_name"].startswith("analytics-prod-") and len(alarm["alarm_description"]) > 40
    (subscription,) = observed(two_environments, "aws_sns_topic_subscription").values()
    assert subscription["endpoint"] == "team@example.com"


def test_owners_get_their_digests_and_everybody_the_rest(two_environments: tftest.TerraformPlanOutput) -> None:
    prefix = 'module.notifications["prod"].aws_sns_topic_subscription.'
    filters = {
        address.removeprefix(prefix): json.loads(r["values"]["filter_policy"])
        for address, r in resources(two_environments).items()
        if address.startswith(prefix)
    }
    assert filters == {
        'email["team@example.com"]': {"audience": [{"exists": False}, "everybody"]},
        'owner["finance finance@example.com"]': {"audience": ["owner"], "owner": ["finance"]},
    }


def test_every_log_ends_and_every_machine_is_traced(two_environments: tftest.TerraformPlanOutput) -> None:
    planned = [r for address, r in resources(two_environments).items() if '["prod"]' in address]
    kept = {r["values"]["name"]: r["values"]["retention_in_days"] for r in planned if r["type"] == "aws_cloudwatch_log_group"}
    machines = [r["values"] for r in planned if r["type"] == "aws_sfn_state_machine"]
    assert kept == dict.fromkeys(
        [
            "/analytics/prod/runner",
            "/aws/lambda/analytics-prod",
            *(f"/aws/vendedlogs/states/analytics-prod{machine}" for machine in ("", "-finalize", "-announce")),
        ],
        365,
    )
    assert [machine["tracing_configuration"][0]["enabled"] for machine in machines] == [True] * 3
