"""A planned run with a release on a moto server, for sandboxes and containers whose worker is hostile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from moto.server import ThreadedMotoServer

from dbt_runner.local.lambda_sandbox import LambdaSandbox
from dbt_runner.store import CONFIG, Store, environment_pk
from runner import projects
from runner.attempts import Run, publish
from runner.conftest import audit_store, config_of
from runner.sandboxes import World
from security.unprivileged import command

__all__ = ["AuditStore", "Hostile", "audit_store", "hostile"]

AuditStore = Callable[[], contextlib.AbstractContextManager[Store]]
PROJECT = {"dbt_project.yml": projects.PROJECT, "models/orders.sql": "select 1 as id", "models/deep/answers.sql": "select 2 as id"}
# A worker that does what the test has written into a file, so that one sandbox serves many attacks.
_TOLD = """
with open(os.environ["TOLD"]) as told:
    exec(told.read())
"""


class Hostile(World):
    """As a World, with a worker that runs the code in `told`, and processes without capabilities."""

    def __init__(self, run: Run, server: str, folder: Path) -> None:
        super().__init__(run, server, folder)
        self.marks = folder / "marks"
        self.marks.mkdir()
        self.told = folder / "told.py"
        self.worker = {**self.scripted(_TOLD), "TOLD": str(self.told), "MARKS": str(self.marks)}
        self.runs = 0

    def tell(self, code: str) -> None:
        """What the worker of the next run does; the run is planned."""
        self.runs += 1
        self.plan(f"r-{self.runs}")
        self.told.write_text(code)

    def unprivileged(self, seconds: float = 120) -> LambdaSandbox:
        """A sandbox as the module applies it."""
        return self.sandbox(seconds, environ=self.worker, around=command)

    def outcome_of_last(self) -> dict[str, object]:
        item = self.run.store.get(f"RUN#prod#r-{self.runs}", "STEP#01#build#1")
        assert item is not None
        return dict(item)


@contextlib.contextmanager
def hostile(audit_store: AuditStore, folder: Path) -> Iterator[Hostile]:
    """Such a world, for as long as the block lasts."""
    with audit_store() as store:
        config = config_of("prod")
        config["warehouse"]["settings"]["path"] = str(folder / "warehouse.duckdb")
        store.put({"pk": environment_pk("prod"), "sk": CONFIG, "config": json.dumps(config)})
        publish(store, folder / "project", PROJECT)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        world = Hostile(Run(store, config), "http://{}:{}".format(*server.get_host_and_port()), folder)
        try:
            yield world
        finally:
            world.close()
            server.stop()
