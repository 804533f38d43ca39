"""Schedules that EventBridge Scheduler would refuse, or would never start, and time zones that do not exist are refused at plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from terraform import timezones
from terraform.test_validations import DUCKDB, GOOD, STEP, Variables
from terraform.tool import ROOT, Terraform

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("terraform-schedules")]

ACCEPTED = [
    "rate(1 hour)",
    "rate(1 minute)",
    "rate(5 minutes)",
    "rate(12 hours)",
    "rate(7 days)",
    "cron(0 2 * * ? *)",
    "cron(0 2 ? * * *)",
    "cron(15 10 ? * 6L 2026-2030)",
    "cron(0 3 ? * MON-FRI *)",
    "cron(0/15 * * * ? *)",
    "cron(*/10 * ? * MON-FRI *)",
    "cron(0 8-17/2 ? * MON,WED,FRI *)",
    "cron(0,30 23 L * ? *)",
    "cron(0 9 ? * 2#1 *)",
    "cron(0 9 ? * TUE#3 *)",
    "cron(0 0 1W * ? *)",
    "cron(0 0 LW * ? *)",
    "cron(0 0 1,15 JAN,JUL ? *)",
    "cron(59 23 31 12 ? 2199)",
    "cron(0 0 1/5 1-6 ? *)",
    "cron(0 0 29 2 ? *)",
    "cron(0 0 31 2,3 ? *)",
    "cron(0 0 30 4 ? *)",
    "cron(0 0 ? * L *)",
    "cron(00 06 01 01 ? *)",
    "at(2026-11-22T03:00:00)",
    "at(2028-02-29T23:59:59)",
]
REFUSED = [
    "",
    "hourly",
    "@daily",
    "0 3 * * *",
    "rate(0 hours)",
    "rate(-1 hours)",
    "rate(1.5 hours)",
    "rate(1 week)",
    "rate(5)",
    "rate(5  minutes)",
    "RATE(1 hour)",
    "rate(1 hour) ",
    "cron(0 3 * * *)",
    "cron(0 3 * * ? * *)",
    "cron(0 2 * * * *)",
    "cron(0 2 ? * ? *)",
    "cron(0 2 1 * MON *)",
    "cron(0 2 1 * 2 *)",
    "cron(0 2 * * MON-FRI *)",
    "cron(60 2 * * ? *)",
    "cron(0 24 * * ? *)",
    "cron(0 2 0 * ? *)",
    "cron(0 2 32 * ? *)",
    "cron(0 2 * 0 ? *)",
    "cron(0 2 * 13 ? *)",
    "cron(0 2 ? * 0 *)",
    "cron(0 2 ? * 8 *)",
    "cron(0 2 ? * MONDAY *)",
    "cron(0 2 ? * 2#6 *)",
    "cron(0 2 ? * 2#0 *)",
    "cron(0 2 * * ? 1969)",
    "cron(0 2 * * ? 2200)",
    "cron(0 2 * * ? 26)",
    "cron(0/0 2 * * ? *)",
    "cron(a 2 * * ? *)",
    "cron(? 2 * * ? *)",
    "cron(0 ? * * ? *)",
    "cron(0 2 * ? MON *)",
    "cron(0 2 * * ? ?)",
    "cron(L 2 * * ? *)",
    "cron(0 2 W * ? *)",
    "cron(0 2 32W * ? *)",
    "cron(0 2 1, * ? *)",
    "cron(0 2 ,1 * ? *)",
    "cron(0 2 1- * ? *)",
    "cron(0 2 31 2 ? *)",
    "cron(0 2 30 FEB ? *)",
    "cron(0 2 30,31 2 ? *)",
    "cron(0 2 31 4,6,9,11 ? *)",
    "cron(0 2 31 APR ? *)",
    "cron( 0 2 * * ? *)",
    "cron(0 2 * * ? *",
    "at(tomorrow)",
    "at(2026-02-30T00:00:00)",
    "at(2027-02-29T00:00:00)",
    "at(2026-13-01T00:00:00)",
    "at(2026-11-22T24:00:00)",
    "at(2026-11-22T03:60:00)",
    "at(2026-11-22 03:00:00)",
    "at(2026-11-22T03:00:00Z)",
]
NO_ZONES = [
    "",
    "Europe/Berln",
    "europe/berlin",
    "Europe/Berlin ",
    "+02:00",
    "UTC+2",
    "GMT+2",
    "Berlin",
    "CEST",
    "Etc/GMT+15",
    "posix/UTC",
    "Factory",
]


def planned(schedules: Sequence[str], zones: Sequence[str] = ()) -> dict[str, Any]:
    jobs: dict[str, Any] = {f"s{number}": {"schedule": text, "steps": [STEP]} for number, text in enumerate(schedules)}
    jobs |= {f"z{number}": {"timezone": text, "steps": [STEP]} for number, text in enumerate(zones)}
    # Each job with an alarm is one of a region's anomaly detection models, of which there are fewer than time zones.
    return {**GOOD, "environments": {"prod": {**DUCKDB, "jobs": jobs}}, "oidc": {}, "observability": {"alarms": False}}


@pytest.fixture(scope="module")
def variables(offline: Terraform, tmp_path_factory: pytest.TempPathFactory) -> Variables:
    return Variables(offline, tmp_path_factory.mktemp("schedules"))


@pytest.fixture(scope="module")
def refusals(variables: Variables) -> str:
    return "\n".join(variables.errors(planned(REFUSED, NO_ZONES)))


def test_what_the_scheduler_takes_is_accepted_in_every_time_zone(variables: Variables) -> None:
    assert variables.errors(planned(ACCEPTED, timezones.names())) == []


@pytest.mark.parametrize("schedule", REFUSED)
def test_what_the_scheduler_refuses_or_never_starts_is_refused_at_plan(refusals: str, schedule: str) -> None:
    assert f"prod.jobs.s{REFUSED.index(schedule)} ({schedule})" in refusals


@pytest.mark.parametrize("zone", NO_ZONES)
def test_a_time_zone_that_does_not_exist_is_refused_at_plan(refusals: str, zone: str) -> None:
    assert f"prod.jobs.z{NO_ZONES.index(zone)} ({zone})" in refusals


def test_the_list_is_written_by_the_script_and_lacks_no_zone_of_this_machine() -> None:
    text = (ROOT / "timezones.tf").read_text()
    listed = re.findall(r'^    "([^"]+)",$', text, re.MULTILINE)
    assert text == timezones.document(sorted(set(listed)))
    again = f"python {Path(timezones.__file__).relative_to(ROOT)} > timezones.tf"
    assert set(timezones.names()) <= set(listed), f"the time zone database has new names: {again}"
