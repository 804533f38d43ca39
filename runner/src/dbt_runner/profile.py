"""The profiles.yml that dbt gets: generated from the environment's configuration, never taken from the project.

dbt is always called with `--profile dbt_runner --target <target>`, so the name of the project's own profile does not matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.request import AttemptRequest
from dbt_runner.warehouses import adapter_of

PROFILE = "dbt_runner"
# The target of a run into schemas of its own: what a project does in prod alone, such as naming schemas, it must not do there.
CI_TARGET = "ci"


@dataclass(frozen=True)
class Target:
    """What dbt calls a target: a connection, and a name that the project can ask for.

    Attributes:
        schema_suffix: what the name of the schema ends in, after an underscore; None for the environment's own schema.
    """

    name: str
    warehouse: Warehouse
    schema_suffix: str | None = None

    def output(self) -> dict[str, Any]:
        """As `output`, for this target."""
        return output(self.warehouse, self.schema_suffix)

    def write(self, directory: Path) -> None:
        """As `write`, for this target."""
        write(self.warehouse, self.name, directory, self.schema_suffix)


def of_run(asked: AttemptRequest) -> Target:
    """The target for a run's own commands."""
    name = CI_TARGET if asked.schema_suffix else asked.key.environment
    return Target(name, asked.config.warehouse, asked.schema_suffix)


def of_state(asked: AttemptRequest) -> Target:
    """The target for which the release was built that a run compares with."""
    return Target(asked.config.state_target or asked.key.environment, asked.config.warehouse)


def output(warehouse: Warehouse, schema_suffix: str | None = None) -> dict[str, Any]:
    """One output of a profile: dbt's connection settings for this warehouse.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the setting.
    """
    adapter = adapter_of(warehouse)
    settings = adapter.output(warehouse)
    if schema_suffix:
        settings[adapter.schema_setting] = f"{settings[adapter.schema_setting]}_{schema_suffix}"
    return settings


def write(warehouse: Warehouse, target: str, directory: Path, schema_suffix: str | None = None) -> None:
    """Writes `directory`/profiles.yml with one profile and one target."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {PROFILE: {"target": target, "outputs": {target: output(warehouse, schema_suffix)}}}
    # JSON is YAML.
    (directory / "profiles.yml").write_text(json.dumps(document, indent=2))
