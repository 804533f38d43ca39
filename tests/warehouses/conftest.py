"""A small dbt project, and runs of it by the real attempt: supervisor, broker, worker, dbt and adapter. Only the clouds are stand-ins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import bundle, stage
from dbt_runner.store import Item, Store
from dbt_runner.warehouses.driver_secrets import DRIVERS
from runner import projects
from runner.attempts import Run, publish
from runner.conftest import audit_store, environment, no_outside_settings, store
from runner.traces import places, written
from warehouses.aws import Aws, aws
from warehouses.gate import certificate

__all__ = ["audit_store", "environment", "no_outside_settings", "store"]

PROJECT: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/orders.sql": "{{ config(materialized='table') }} select 1 as id, 10 as amount union all select 2 as id, 20 as amount",
    "models/big_orders.sql": "select id from {{ ref('orders') }} where amount > 15",
    "models/models.yml": "models: [{ name: big_orders, columns: [{ name: id, data_tests: [not_null] }] }]",
}

# Has the drivers tell all that they do, in the container's log and in an artifact: every line of their logs, and what they send.
_TALKATIVE = """
import http.client, logging, os, sys

http.client.HTTPConnection.debuglevel = 1
http.client.print = lambda *words: logging.debug(" ".join(map(str, words)))
handlers = [logging.StreamHandler(sys.stderr)]
if os.path.isdir("../target"):
    handlers.append(logging.FileHandler("../target/dbt.log"))
logging.basicConfig(level=logging.DEBUG, handlers=handlers)
# Which of its own functions it calls.
logging.getLogger("botocore.hooks").setLevel(logging.INFO)
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Aws]:
    with aws() as made:
        yield made


@pytest.fixture(scope="module")
def localhost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of localhost."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def cloud(served: Aws, no_outside_settings: None, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """AWS as a test begins with it. The supervisor of a test is this process, so that its variables are this process's."""
    served.reset()
    for service in ("STS", "REDSHIFT", "REDSHIFT_SERVERLESS", "KMS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", served.url)
    return served


class WarehouseRun(Run):
    """A run of the project on a warehouse. None of its attempts leaves anything that AWS or a warehouse gave out as a secret.

    Attributes:
        said: the container's log of the last attempt.
    """

    def __init__(self, store: Store, config: dict[str, Any], cloud: Aws, talkative: Path, capfd: pytest.CaptureFixture[str]) -> None:
        super().__init__(store, config)
        self.sts = cloud.control_client
        self.said = ""
        self._cloud = cloud
        self._talkative = talkative
        self._capfd = capfd

    def attempt(self, position: int = 1, number: int = 1) -> int:
        code = super().attempt(position, number)
        captured = self._capfd.readouterr()
        self.said = captured.out
        # Also no part of one: messages are cut.
        parts = [secret[at : at + 40] for secret in self._cloud.secrets for at in range(0, len(secret), 40)]
        assert places(written(self.store, captured.out + captured.err), [part for part in parts if len(part) >= 16]) == set()
        return code

    def build(self) -> Item:
        """`dbt build`, with drivers that talk where they obtain secrets by themselves; the outcome."""
        # Athena's does so for another role only, which there is not, and would talk the most.
        if self.config["warehouse"]["type"] in set(DRIVERS) - {"athena"}:
            self.environment.update(PYTHONPATH=str(self._talkative), DBT_SNOWFLAKE_CONNECTOR_DEBUG_LOGGING="DEBUG")
        self.attempt()
        return self.outcome()

    def check(self) -> Item:
        """The health check; its outcome."""
        self.attempt(0)
        return self.outcome("STEP#00#health_check#1")

    def built(self) -> Mapping[str, str]:
        return {node["name"]: node["status"] for node in self.nodes().values()}


@pytest.fixture
def runs(
    store: Store, environment: dict[str, Any], cloud: Aws, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., WarehouseRun]:
    """Makes a run on a warehouse, as CONFIG has it; of a release with a profiles.yml of its own where one is given."""

    def make(warehouse: dict[str, Any], profiles: str | None = None) -> WarehouseRun:
        project, packed = tmp_path / "project", tmp_path / "release.tar.gz"
        files = stage.files(projects.write(project, PROJECT))
        if profiles is not None:
            (project / "profiles.yml").write_text(profiles)
            files["profiles.yml"] = project / "profiles.yml"
        bundle.pack(files, packed)
        publish(store, project, {}, packed.read_bytes())
        environment["warehouse"] = {"identity": {}, "profile": "generated", **warehouse}
        # A driver's import takes its time where many tests run at once.
        environment["health_check"]["timeout_seconds"] = 300
        run = WarehouseRun(store, environment, cloud, projects.write(tmp_path / "talkative", {"sitecustomize.py": _TALKATIVE}), capfd)
        run.steps[0]["timeout_seconds"] = 600
        # Of what a container has, what leads the drivers to the stand-ins.
        run.environment.update({name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL_")})
        return run

    return make
