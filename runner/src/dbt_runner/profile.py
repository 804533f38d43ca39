"""The profiles.yml that dbt gets: generated from the environment's configuration, never taken from the project.

dbt is always called with `--profile dbt_runner --target <environment>`, so the name of the project's own profile does not matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.warehouses import adapter_of

PROFILE = "dbt_runner"


def output(warehouse: Warehouse) -> dict[str, Any]:
    """One output of a profile: dbt's connection settings for this warehouse.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the setting.
    """
    return adapter_of(warehouse).output(warehouse)


def write(warehouse: Warehouse, environment: str, directory: Path) -> None:
    """Writes `directory`/profiles.yml with one profile and one target, called like the environment."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {PROFILE: {"target": environment, "outputs": {environment: output(warehouse)}}}
    # JSON is YAML.
    (directory / "profiles.yml").write_text(json.dumps(document, indent=2))
