"""An environment as Terraform applied it: the CONFIG item, read once and never guessed at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dbt_runner.errors import INVALID_REQUEST, RUNNER_ERROR, TypedError
from dbt_runner.store import CONFIG, Store, environment_pk

SCHEMA = 2


@dataclass(frozen=True)
class Warehouse:
    """How an environment reaches its warehouse: adapter type, plain settings, and how the identity is obtained.

    Attributes:
        profile: `generated` for a profile that is made of the settings alone, `project` for one to which the release's own adds.
    """

    type: str
    settings: Mapping[str, str]
    identity: Mapping[str, str]
    profile: str = "generated"


@dataclass(frozen=True)
class Requests:
    """What an environment's callers may ask for. The defaults are those of Terraform's variable `environments`.

    Attributes:
        steps: steps of their own, beside the environment's jobs and resumes.
        inline: SQL of their own (`--inline`, `--inline-direct`), and any macro by `run-operation`.
        operations: the macros that they may run by `run-operation` where `inline` is false, as the command names them.
        overrides: release, vars, full_refresh, defer_to and schema_suffix of a run.
    """

    steps: bool = True
    inline: bool = False
    operations: tuple[str, ...] = ()
    overrides: bool = True


@dataclass(frozen=True)
class EnvironmentConfig:
    """The parts of the CONFIG item that the runner and the CLI use. ARNs and names are as AWS knows them.

    Attributes:
        state_target: dbt's target under which a release is parsed that a run defers to; None for the environment's name.
        schema_suffixes: a regular expression for the whole of a run's schema suffix; None for any.
    """

    environment: str
    name: str
    region: str
    bucket: str
    state_machine: str
    warehouse: Warehouse
    compute: Mapping[str, Any]
    jobs: Mapping[str, Mapping[str, Any]]
    roles: Mapping[str, str]
    overlap: str
    timeout_seconds: int
    health_check_timeout_seconds: int
    health_check_enabled: bool
    log_group: str
    retry_max_attempts: int
    items_retention_days: int = 0
    function: Mapping[str, Any] | None = None
    state_target: str | None = None
    schema_suffixes: str | None = None
    requests: Requests = Requests()

    @property
    def slim_ci(self) -> bool:
        """Whether releases of pull requests (ci-*) may run here and be compared with: the environment says something of slim_ci."""
        return self.state_target is not None or self.schema_suffixes is not None

    @property
    def log_groups(self) -> tuple[str, ...]:
        """That of the containers, and that of the Lambda function where there is one."""
        return (self.log_group,) if self.function is None else (self.log_group, self.function["log_group"])


def parse(text: str) -> EnvironmentConfig:
    """Reads the JSON of a CONFIG item.

    Raises:
        TypedError: Dbt.RunnerError when it is not what this version of the runner understands.
    """
    try:
        raw = json.loads(text)
        if raw["schema"] != SCHEMA:
            raise TypedError(
                RUNNER_ERROR,
                f"the environment's configuration has schema {raw['schema']}, this runner understands {SCHEMA}: "
                "use the image and the module of the same version",
            )
        return EnvironmentConfig(
            environment=raw["environment"],
            name=raw["name"],
            region=raw["region"],
            bucket=raw["bucket"],
            state_machine=raw["state_machine"],
            warehouse=Warehouse(
                type=raw["warehouse"]["type"],
                settings=raw["warehouse"]["settings"] or {},
                identity=raw["warehouse"]["identity"] or {},
                profile=raw["warehouse"].get("profile", "generated"),
            ),
            compute=raw["compute"],
            jobs=raw["jobs"],
            roles=raw["roles"],
            overlap=raw["overlap"],
            timeout_seconds=raw["timeout_seconds"],
            health_check_timeout_seconds=raw["health_check"]["timeout_seconds"],
            health_check_enabled=raw["health_check"]["enabled"],
            log_group=raw["ecs"]["log_group"],
            retry_max_attempts=raw["retry"]["max_attempts"],
            function=raw["lambda"],
            # Without a word about it nothing expires.
            items_retention_days=(raw.get("audit") or {}).get("items_retention_days") or 0,
            state_target=raw["slim_ci"]["state_target"],
            schema_suffixes=raw["slim_ci"]["schema_suffixes"],
            requests=_requests(raw["requests"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise TypedError(RUNNER_ERROR, f"the environment's configuration cannot be read: {exc!r}; run terraform apply again") from exc


def _requests(raw: Mapping[str, Any]) -> Requests:
    """Only JSON's true allows anything."""
    operations: tuple[str, ...] = tuple(raw["operations"])
    if not all(isinstance(name, str) for name in operations):
        raise TypeError("requests.operations holds a value that is not a name")
    return Requests(raw["steps"] is True, raw["inline"] is True, operations, raw["overrides"] is True)


def load(store: Store, environment: str) -> EnvironmentConfig:
    """Reads an environment's CONFIG item.

    Raises:
        TypedError: Dbt.InvalidRequest when this table has no such environment, Dbt.RunnerError when it cannot be understood.
    """
    item = store.get(environment_pk(environment), CONFIG)
    if item is None:
        raise TypedError(INVALID_REQUEST, f"table {store.table} has no environment {environment}: check the name, or run terraform apply")
    return parse(item["config"])
