"""Every flow of these tests has run with secrets in its variables: none of them is in anything that the flows have written.

Beside each secret stands a value that is told in the same places and is none. It is found everywhere, so the search would find a secret.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator

import pytest

from flow.support import CANARIES, CONTROL, Stack

pytestmark = [pytest.mark.stack, pytest.mark.terraform, pytest.mark.xdist_group("stack")]


def test_no_secret_is_in_anything_that_was_written(stack: Stack) -> None:
    """It comes after all flows of this folder, and makes one itself that tells what it knows: in logs, SQL, errors and results."""
    execution, record = stack.run("local", {"steps": [{"name": "tell", "commands": ["run --select fast telling"]}]})
    assert (execution["error"], record["error"]) == ("Dbt.ModelError", "Dbt.ModelError")

    found = defaultdict(set)
    for kind, where, text in _written(stack):
        for name, value in {**CANARIES, "control": CONTROL}.items():
            if value in text or json.dumps(value)[1:-1] in text:
                found[name].add((kind, where))
    control = {kind for kind, _ in found.pop("control")}
    assert control == {"item", "object", "log", "file", "execution", "history"}
    assert not found

    [telling] = [o for o in stack.outcomes("local", execution["executionArn"]) if o["step"] == "tell"]
    assert "*****" in telling["failures"][0]["message"]
    # In none of its forms is the value in a parse, so that the flows had the cache all the same.
    assert telling["parse"]["cache"] in ("used", "made")


def _written(stack: Stack) -> Iterator[tuple[str, str, str]]:
    """Everything: what kind of thing it is, where it is, and its text."""
    config = stack.config("local")
    for page in stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.environ["DBT_RUNNER_TABLE"]):
        for item in page["Items"]:
            yield "item", f"{item['pk']['S']} {item['sk']['S']}", json.dumps(item, ensure_ascii=False)
    for page in stack.client("s3").get_paginator("list_object_versions").paginate(Bucket=config.bucket):
        for version in page.get("Versions", []):
            read = stack.client("s3").get_object(Bucket=config.bucket, Key=version["Key"], VersionId=version["VersionId"])
            yield "object", version["Key"], read["Body"].read().decode(errors="replace")
    for path in stack.home.rglob("*"):
        # The warehouse is the team's: what a model writes there is its own.
        if path.is_file() and ".duckdb" not in path.name and ".terraform" not in path.parts:
            yield "log" if path.parent == stack.home / "logs" else "file", str(path), path.read_bytes().decode(errors="replace")
    yield from _executions(stack)
    for command in stack.commands:
        yield "process", command, command


def _executions(stack: Stack) -> Iterator[tuple[str, str, str]]:
    states = stack.client("stepfunctions")
    for machine in states.list_state_machines()["stateMachines"]:
        pages = states.get_paginator("list_executions").paginate(stateMachineArn=machine["stateMachineArn"])
        for arn in [execution["executionArn"] for page in pages for execution in page["executions"]]:
            yield "execution", arn, json.dumps(states.describe_execution(executionArn=arn), default=str)
            for page in states.get_paginator("get_execution_history").paginate(executionArn=arn):
                yield "history", arn, json.dumps(page, default=str)
