"""The profiles.yml that dbt gets: generated from the environment's configuration, and where that says so from the project's own as well.

dbt is always called with `--profile dbt_runner --target <target>`, so the name of the project's own profile does not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.errors import COMPILATION_ERROR, TypedError
from dbt_runner.request import AttemptRequest
from dbt_runner.warehouses import adapter_of

PROFILE = "dbt_runner"
FILE = "profiles.yml"
# The value of Warehouse.profile for one to which the release's own adds.
FROM_PROJECT = "project"
# The target of a run into schemas of its own: what a project does in prod alone, such as naming schemas, it must not do there.
CI_TARGET = "ci"

# Keys that would hold a secret or lead to one, as modules/warehouse knows them.
_SECRET = re.compile(r"(password|passwd|passphrase|passcode|private_key|access_key|api_key|keyfile)|(^|[_-])(pass|pwd|token|secret)$", re.I)


@dataclass(frozen=True)
class Target:
    """What dbt calls a target: a connection, and a name that the project can ask for.

    Attributes:
        name: as `target.name` in the project's Jinja.
        own: the output of the project's own profile that adds to the connection, where the environment takes that into account.
        schema_suffix: what the name of the schema ends in, after an underscore; None for the environment's own schema.
    """

    name: str
    warehouse: Warehouse
    own: str
    schema_suffix: str | None = None

    def output(self, project: Path | None = None) -> dict[str, Any]:
        """One output of a profile: dbt's connection settings for this target.

        Args:
            project: the release's project, where its own profile is to be taken into account if the environment does so.

        Raises:
            TypedError: Dbt.InvalidRequest, naming the setting; Dbt.CompilationError as `of_project`.
        """
        own = None
        if project is not None and self.warehouse.profile == FROM_PROJECT:
            own = of_project(project, self.own, self.warehouse.type)
        settings = output(self.warehouse, own)
        if self.schema_suffix:
            # Jinja of the project's own profile stays what it is, and dbt puts the ending behind what it comes to.
            key = adapter_of(self.warehouse).schema_setting
            settings[key] = f"{settings[key]}_{self.schema_suffix}"
        return settings

    def write(self, directory: Path, project: Path | None = None) -> None:
        """Writes `directory`/profiles.yml with one profile and this one target.

        Args:
            project: as `output`.

        Raises:
            TypedError: as `output`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        document = {PROFILE: {"target": self.name, "outputs": {self.name: self.output(project)}}}
        # JSON is YAML.
        (directory / FILE).write_text(json.dumps(document, indent=2))


def names_secret(key: str) -> bool:
    """Whether a setting or variable is named like a secret, as the module's validations say."""
    return bool(_SECRET.search(key))


def of_environment(warehouse: Warehouse, environment: str) -> Target:
    """The target for whatever is the environment's own."""
    return Target(environment, warehouse, own=environment)


def of_run(asked: AttemptRequest) -> Target:
    """The target for a run's own commands."""
    environment, warehouse = asked.key.environment, asked.config.warehouse
    if asked.schema_suffix:
        return Target(CI_TARGET, warehouse, own=environment, schema_suffix=asked.schema_suffix)
    return of_environment(warehouse, environment)


def of_state(asked: AttemptRequest) -> Target:
    """The target for which the release was built that a run compares with."""
    return of_environment(asked.config.warehouse, asked.config.state_target or asked.key.environment)


def output(warehouse: Warehouse, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An environment's connection settings for dbt.

    Args:
        own: what the project says itself; the environment's settings win over it, and the identity over both.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the setting.
    """
    return adapter_of(warehouse).output(warehouse, own)


def of_project(project: Path, environment: str, type_: str) -> Mapping[str, Any]:
    """The output of the project's own profile that is called like the environment. Its Jinja stays as it is: dbt renders it.

    Raises:
        TypedError: Dbt.CompilationError when there is none, when it is of another type, or when it holds a secret.
    """
    if not (project / FILE).is_file():
        raise _wrong(f"the environment's warehouse.profile is {FROM_PROJECT}, but the release has none", "publish it with --with-profiles")
    outputs = outputs_of(project)
    if environment not in outputs:
        raise _wrong(f"has no output {environment}", f"it has {', '.join(sorted(outputs)) or 'none'}")
    own = outputs[environment]
    if own.get("type") != type_:
        raise _wrong(f"output {environment} is of type {own.get('type')}", f"the environment's warehouse is of type {type_}")
    return own


def outputs_of(project: Path) -> Mapping[str, Mapping[str, Any]]:
    """The outputs of the profile that dbt_project.yml names, by their names.

    Raises:
        TypedError: Dbt.CompilationError when it cannot be read, or when one of them holds a secret: a release is for everybody to read.
    """
    name = _read(project / "dbt_project.yml").get("profile")
    found = _read(project / FILE).get(str(name))
    outputs = found.get("outputs") if isinstance(found, Mapping) else None
    if not isinstance(outputs, Mapping) or not all(isinstance(one, Mapping) for one in outputs.values()):
        raise _wrong(f"has no profile {name} with outputs", "dbt_project.yml names it")
    for target, one in outputs.items():
        secrets = sorted(str(key) for key in one if names_secret(str(key)))
        if secrets:
            raise _wrong(f"output {target} holds {', '.join(secrets)}", "remove it: the runner logs in by the environment's identity")
    return outputs


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as exc:
        # What YAML quotes of the file may be the secret that should not be in it.
        raise _wrong(f"{path.name} cannot be read", type(exc).__name__) from None
    return document if isinstance(document, Mapping) else {}


def _wrong(problem: str, advice: str) -> TypedError:
    return TypedError(COMPILATION_ERROR, f"the project's {FILE}: {problem}; {advice}")
