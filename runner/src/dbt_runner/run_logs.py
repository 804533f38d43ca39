"""What a run's containers and Lambda calls wrote to their logs, read from CloudWatch Logs."""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dbt_runner.run_records import Run

# Clocks differ, and a line takes a while to arrive.
_MARGIN = timedelta(minutes=2)


@dataclass(frozen=True)
class LogQuery:
    """Which lines: those of a run, of one of its steps, about one of its nodes (by unique_id)."""

    run_id: str
    step: str | None = None
    node: str | None = None

    @property
    def pattern(self) -> str:
        """As CloudWatch's filter pattern.

        Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntaxForMetricFilters.html
        """
        parts = [f"($.{name} = {json.dumps(value)})" for name, value in self._wanted.items()]
        return "{ " + " && ".join(parts) + " }"

    def matches(self, line: dict[str, Any]) -> bool:
        # Lines of metrics are for CloudWatch.
        return "_aws" not in line and all(line.get(name) == value for name, value in self._wanted.items())

    @property
    def _wanted(self) -> dict[str, str]:
        fields = {"run_id": self.run_id, "step": self.step, "node": self.node}
        return {name: value for name, value in fields.items() if value is not None}


def lines_of(logs: Any, log_groups: Sequence[str], run: Run, query: LogQuery) -> Iterator[dict[str, Any]]:
    """A run's log lines in the order of their time, each as the object that the container wrote.

    Args:
        logs: a boto3 client of CloudWatch Logs.
        log_groups: names; their lines are merged.
    """
    yield from _new_lines(logs, log_groups, run, query, set())


def follow(
    logs: Any,
    log_groups: Sequence[str],
    run: Run,
    query: LogQuery,
    refreshed: Callable[[Run], Run],
    *,
    interval: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[dict[str, Any]]:
    """A run's log lines as they come, until it has ended and its last lines have been read.

    Args:
        refreshed: gives a run as it is now.
        interval: seconds between two looks.
    """
    seen: set[str] = set()
    while True:
        # Asked before the lines are read: what a run wrote before it ended is then read once more.
        run = refreshed(run)
        ended = run.ended_at is not None
        yield from _new_lines(logs, log_groups, run, query, seen)
        if ended:
            sleep(interval)
            yield from _new_lines(logs, log_groups, run, query, seen)
            return
        sleep(interval)


def _new_lines(logs: Any, log_groups: Sequence[str], run: Run, query: LogQuery, seen: set[str]) -> Iterator[dict[str, Any]]:
    groups = [_new_events(logs, group, run, query, seen) for group in log_groups]
    yield from (line for _, line in heapq.merge(*groups, key=lambda event: event[0]))


def _new_events(logs: Any, log_group: str, run: Run, query: LogQuery, seen: set[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    arguments: dict[str, Any] = {
        "logGroupName": log_group,
        "filterPattern": query.pattern,
        "startTime": _millis(datetime.fromisoformat(run.started_at) - _MARGIN),
    }
    if run.ended_at:
        arguments["endTime"] = _millis(datetime.fromisoformat(run.ended_at) + _MARGIN)
    for page in logs.get_paginator("filter_log_events").paginate(**arguments):
        for event in page["events"]:
            if event["eventId"] in seen:
                continue
            seen.add(event["eventId"])
            try:
                line = json.loads(event["message"])
            except ValueError:
                continue
            if isinstance(line, dict) and query.matches(line):
                yield event["timestamp"], line


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
