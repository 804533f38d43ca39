"""The CONFIG item: read as the contract has it, or refused with what to do."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest

from dbt_runner import config
from dbt_runner.errors import INVALID_REQUEST, RUNNER_ERROR
from dbt_runner.store import Store
from runner.releases import refused


def test_an_environment_is_read_as_terraform_applied_it(store: Store, environment: dict[str, Any]) -> None:
    found = config.load(store, "prod")
    assert (found.environment, found.name, found.region) == ("prod", "analytics", environment["region"])
    assert found.warehouse == config.Warehouse("duckdb", environment["warehouse"]["settings"], {})
    assert found.jobs == environment["jobs"]
    assert found.roles == environment["roles"]
    assert found.compute == environment["compute"]
    assert (found.overlap, found.timeout_seconds, found.health_check_timeout_seconds) == ("skip", 14400, 60)
    assert (found.bucket, found.state_machine) == (environment["bucket"], environment["state_machine"])


def test_what_is_not_set_is_empty(environment: dict[str, Any]) -> None:
    environment["warehouse"].update(settings=None, identity=None)
    assert config.parse(json.dumps(environment)).warehouse == config.Warehouse("duckdb", {}, {})


def test_an_environment_that_does_not_exist_is_named(store: Store, environment: dict[str, Any]) -> None:
    assert "no environment dev" in refused(INVALID_REQUEST, lambda: config.load(store, "dev"))


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "null", "{}"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    assert "terraform apply" in refused(RUNNER_ERROR, lambda: config.parse(text))


@pytest.mark.parametrize("schema", [1, 3])
def test_a_configuration_of_another_schema_is_refused_before_it_is_read(environment: dict[str, Any], schema: int) -> None:
    assert f"schema {schema}" in refused(RUNNER_ERROR, lambda: config.parse(f'{{"schema": {schema}}}'))


def test_every_key_that_the_runner_needs_is_named_when_it_is_missing(environment: dict[str, Any]) -> None:
    needed = [key for key in environment if key not in ("account", "table", "finalize", "topic", "retry", "ecs")]
    assert len(needed) > 10
    for key in needed:
        less = {name: value for name, value in copy.deepcopy(environment).items() if name != key}
        assert f"'{key}'" in refused(RUNNER_ERROR, partial(config.parse, json.dumps(less)))
