"""What ECS says of the task that this process runs in.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping

from dbt_runner.errors import RUNNER_ERROR, TypedError

# The variable by which ECS gives a container the endpoint's address. Outside of ECS (Lambda, a process) there is none.
VARIABLE = "ECS_CONTAINER_METADATA_URI_V4"
# The answer comes from the host.
_TIMEOUT_SECONDS = 2.0
_TRIES = 5


def container(environment: Mapping[str, str]) -> Mapping[str, object]:
    """This container, as far as ECS tells of it: empty where there is no ECS, or no answer.

    Args:
        environment: the container's environment variables.
    """
    return _read(environment.get(VARIABLE))


def task_arn(environment: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> str | None:
    """The ARN of the task that this container belongs to; None outside of ECS.

    Args:
        environment: the container's environment variables.

    Raises:
        TypedError: Dbt.RunnerError when this is a task of ECS that cannot find out which one: nobody could stop it by its name.
    """
    uri = environment.get(VARIABLE)
    if not uri:
        return None
    for round_ in range(_TRIES):
        if round_:
            sleep(1.0)
        arn = _read(f"{uri}/task").get("TaskARN")
        if isinstance(arn, str) and arn:
            return arn
    raise TypedError(RUNNER_ERROR, f"ECS does not say which task this is, {uri}/task gave no TaskARN: nothing was executed")


def asked_for_at(environment: Mapping[str, str]) -> str | None:
    """When ECS began to pull the task's image (ISO 8601), from when on Fargate is billed; None where nobody says so.

    Args:
        environment: the container's environment variables.
    """
    uri = environment.get(VARIABLE)
    moment = _read(f"{uri}/task").get("PullStartedAt") if uri else None
    return moment if isinstance(moment, str) else None


def _read(uri: str | None) -> Mapping[str, object]:
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
