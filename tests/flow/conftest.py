"""One apply for the whole session, in a process of its own; destroyed cleanly at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from dbt_runner.store import Item
from flow.support import FAULTS, SHOP, Stack, down, up, wait_for


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with the releases shop-1 and faults-1; leaves nothing behind, and says so if it does."""
    stack = up(tmp_path_factory.mktemp("stack"))
    try:
        stack.keep_secrets()
        for project, version in ((SHOP, "shop-1"), (FAULTS, "faults-1")):
            stack.cli("release", "publish", "--project", str(project), "--version", version)
        for environment in ("local", "queue", "busy"):
            stack.cli("release", "promote", "--environment", environment, "--version", "faults-1")
        yield stack
        stack.terraform().destroy()
        assert stack.client("dynamodb").list_tables()["TableNames"] == []
        assert stack.client("s3").list_buckets()["Buckets"] == []
        assert stack.client("iam").list_roles()["Roles"] == []
        assert stack.client("stepfunctions").list_state_machines()["stateMachines"] == []
        assert stack.client("sns").list_topics()["Topics"] == []
        down(stack)
    finally:
        with contextlib.suppress(ProcessLookupError):
            stack.process.kill()
        stack.process.wait()


@pytest.fixture(scope="session")
def hourly(stack: Stack) -> tuple[Mapping[str, Any], Item]:
    """The sample project's main job, once: the execution and its record."""
    return stack.run("local", {"job": "hourly", "release": "shop-1", "reason": "a test", "trigger": "test"})


@pytest.fixture(autouse=True)
def every_run_is_closed(stack: Stack) -> Iterator[None]:
    """After any test here no record is open and no lock stays held."""
    yield
    assert stack.open_records() == []
    # finalize closes a record first, and frees the lock when the task has stopped.
    wait_for("free locks", lambda: all(stack.lock(environment) is None for environment in ("local", "queue", "busy")) or None, 60)
