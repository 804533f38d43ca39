"""Help for the tests of attempts: a planned run in the store, and a release for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import bundle, release, stage
from dbt_runner.attempt import Attempt
from dbt_runner.store import CONFIG, LOCK, Item, Store, environment_pk
from runner import projects

EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:analytics-prod:r-1"
RUN_KEY = "RUN#2026-11-23T01:00:00.000Z#r-1"
PREFIX = "runs/prod/2026/11/23/r-1/"


class Run:
    """A planned run of environment `prod` in the store, as the state machine leaves it before it starts a container.

    Attributes:
        environment: the container's environment variables.
        sts: how the attempt gets a client of STS.
    """

    def __init__(self, store: Store, config: dict[str, Any]) -> None:
        self.store = store
        self.config = config
        self.environment = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "control", "DBT_RUNNER_TABLE": store.table}
        self.sts: Callable[[], Any] = lambda: pytest.fail("nothing here needs STS")
        self.steps: list[dict[str, Any]] = [{"name": "build", "commands": ["build"], "on_failure": "fail", "timeout_seconds": 600}]
        self.plan: dict[str, Any] = {"job": "hourly", "vars": {}, "full_refresh": False, "trigger": "schedule"}
        self.lock: Item | None = {"owner": EXECUTION, "run_id": "r-1"}
        self.release = "1.4.2"

    def write(self) -> None:
        """What the state machine and Terraform have written before a container starts."""
        pk = environment_pk("prod")
        self.store.put({"pk": pk, "sk": CONFIG, "config": json.dumps(self.config)})
        if self.lock:
            self.store.put({"pk": pk, "sk": LOCK, **self.lock})
        item = {"run_id": "r-1", "execution": EXECUTION, "release": self.release, "artifacts": PREFIX, "status": "RUNNING"}
        started_at = RUN_KEY.split("#")[1]
        self.store.put(
            {"pk": pk, "sk": RUN_KEY, **item, "started_at": started_at, "request": json.dumps({**self.plan, "steps": self.steps})}
        )

    def attempt(self, position: int = 1, number: int = 1) -> int:
        self.write()
        return self.start(position, number)

    def start(self, position: int = 1, number: int = 1) -> int:
        """The attempt alone, of a run that has been written."""
        return Attempt(self.store, self.sts, self.environment).run("prod", RUN_KEY, position, number)

    def outcome(self, sk: str = "STEP#01#build#1") -> Item:
        found = self.store.get("RUN#prod#r-1", sk)
        assert found is not None, list(self.store.query("RUN#prod#r-1", "STEP#"))
        return found

    def nodes(self) -> dict[str, Item]:
        return {item["unique_id"]: item for item in self.store.query("RUN#prod#r-1", "NODE#")}


def publish(store: Store, folder: Path, files: Mapping[str, str | bytes], packed: bytes | None = None, *, version: str = "1.4.2") -> None:
    """A release with these files, or with another bundle."""
    projects.write(folder, files)
    path = folder.with_name(f"{folder.name}.tar.gz")
    bundle.pack(stage.files(folder), path)
    if packed is not None:
        path.write_bytes(packed)
    release.commit(
        store,
        release.Candidate(
            version=version,
            bundle=path,
            manifest=b"{}",
            project="tiny",
            dbt_version="1.11.16",
            adapter="duckdb",
            author="arn",
            git_commit=None,
            git_branch=None,
            git_dirty=None,
            counts={},
        ),
    )
