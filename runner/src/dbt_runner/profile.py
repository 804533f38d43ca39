"""The profiles.yml that dbt gets: generated from the environment's configuration, and where that says so from the project's own as well.

dbt is always called with `--profile dbt_runner --target <environment>`, so the name of the project's own profile does not matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.errors import COMPILATION_ERROR, TypedError
from dbt_runner.warehouses import adapter_of

PROFILE = "dbt_runner"
FILE = "profiles.yml"
# The value of Warehouse.profile for one to which the release's own adds.
FROM_PROJECT = "project"

# Keys that would hold a secret or lead to one, as modules/warehouse knows them.
_SECRET = re.compile(r"(password|passwd|passphrase|passcode|private_key|access_key|api_key|keyfile)|(^|[_-])(pass|pwd|token|secret)$", re.I)


def output(warehouse: Warehouse, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One output of a profile: dbt's connection settings for this warehouse.

    Args:
        own: what the project says itself; the environment's settings win over it, and the identity over both.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the setting.
    """
    return adapter_of(warehouse).output(warehouse, own)


def write(warehouse: Warehouse, environment: str, directory: Path, project: Path | None = None) -> None:
    """Writes `directory`/profiles.yml with one profile and one target, called like the environment.

    Args:
        project: the release's project, where the environment takes its profile into account.

    Raises:
        TypedError: as `output` and `of_project`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    own = of_project(project, environment, warehouse.type) if project is not None and warehouse.profile == FROM_PROJECT else None
    document = {PROFILE: {"target": environment, "outputs": {environment: output(warehouse, own)}}}
    # JSON is YAML.
    (directory / FILE).write_text(json.dumps(document, indent=2))


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
        secrets = sorted(str(key) for key in one if _SECRET.search(str(key)))
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
