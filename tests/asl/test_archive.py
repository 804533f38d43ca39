"""The long-term audit has every run, however it ended."""

from __future__ import annotations

import pytest

from asl.endings import assert_archived, event
from asl.fakes import OTHER_EXECUTION, RUN_KEY, Cloud, Fault, fails

HOURLY = {"job": "hourly", "trigger": "schedule", "reason": "it is time"}
LOST = Fault("S3.SlowDownException")


def test_a_run_that_succeeds_is_archived(cloud: Cloud) -> None:
    cloud.run(HOURLY)
    (record,) = cloud.records()
    assert_archived(cloud, record)
    (row,) = cloud.archived.values()
    assert (row["status"], row["job"], row["release"], row["environment"]) == ("SUCCEEDED", "hourly", "1.4.2", "prod")


def test_a_run_that_fails_or_is_refused_is_archived(cloud: Cloud) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    cloud.run(HOURLY)
    assert_archived(cloud, cloud.records()[0])
    cloud.delete(RUN_KEY)
    cloud.run({"job": "nobody"})
    assert_archived(cloud, cloud.records()[0])


def test_a_run_that_is_skipped_is_archived_and_leaves_the_lock_alone(cloud: Cloud) -> None:
    cloud.hold_lock()
    cloud.statuses[OTHER_EXECUTION] = "RUNNING"
    execution = cloud.run(HOURLY)
    assert_archived(cloud, cloud.records()[0])
    assert "ReleaseLock" not in execution.states


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT"])
def test_finalize_archives_what_could_not_do_so_itself(cloud: Cloud, status: str) -> None:
    cloud.finalize(event(status=status))
    (record,) = cloud.records()
    assert_archived(cloud, record)
    assert record["status"]["S"] == status


def test_finalize_archives_a_failed_run_that_could_not_be_archived(cloud: Cloud) -> None:
    cloud.attempts["2"] = fails("Dbt.ModelError", 10)
    execution = cloud.run(HOURLY, {"ArchiveRun": LOST})
    assert cloud.archived == {} and execution.error == "Dbt.ModelError"
    cloud.finalize(event(execution))
    assert_archived(cloud, cloud.records()[0])
