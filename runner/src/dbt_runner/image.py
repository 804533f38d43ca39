"""Which image this is, as far as its surroundings know: for the audit."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dbt_runner import task_metadata

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest(environment: Mapping[str, str]) -> str | None:
    """The digest (sha256:...) of the image that runs here; None outside of a container of the module.

    The task's metadata say what ECS started. Elsewhere (Lambda, a process) DBT_RUNNER_IMAGE has what the deployment asked for.

    Args:
        environment: the container's environment variables.
    """
    metadata = task_metadata.container(environment)
    # ImageID comes last: under Docker it is the digest of the image's configuration, by which no registry finds it.
    for value in (metadata.get("Image"), environment.get("DBT_RUNNER_IMAGE"), metadata.get("ImageID")):
        found = _DIGEST.search(value) if isinstance(value, str) else None
        if found:
            return found[0]
    return None
