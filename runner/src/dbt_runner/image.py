"""Which image this is, as far as its surroundings know: for the audit."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# The answer comes from the host, and nothing waits for it but a line of the audit.
_TIMEOUT_SECONDS = 2.0


def digest(environment: Mapping[str, str]) -> str | None:
    """The digest (sha256:...) of the image that runs here; None outside of a container of the module.

    The task's metadata say what ECS started. Elsewhere (Lambda, a process) DBT_RUNNER_IMAGE has what the deployment asked for.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html

    Args:
        environment: the container's environment variables.
    """
    metadata = _metadata(environment.get("ECS_CONTAINER_METADATA_URI_V4"))
    # ImageID comes last: under Docker it is the digest of the image's configuration, by which no registry finds it.
    for value in (metadata.get("Image"), environment.get("DBT_RUNNER_IMAGE"), metadata.get("ImageID")):
        found = _DIGEST.search(value) if isinstance(value, str) else None
        if found:
            return found[0]
    return None


def _metadata(uri: str | None) -> Mapping[str, object]:
    if not uri or not uri.startswith("http://"):
        return {}
    # A proxy of the environment must not be asked for a link-local address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(uri, timeout=_TIMEOUT_SECONDS) as answer:
            document = json.load(answer)
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
