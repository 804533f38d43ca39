"""Who the worker is not: it gets no variable of the control role, and cannot look them up in the supervisor.

What it gets instead, the warehouse role's credentials, is dbt_runner.broker's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# Names that AWS and the runner own, and nobody else may use: validated in Terraform, reserved by ECS and Lambda. Everything that leads
# to the control role is under one of them. What an image sets besides (proxies, certificates, ODBC) cannot be listed here, and has to go
# along, so this is a list of what does not. The last three are Lambda's own.
_CONTROL_PREFIXES = ("AWS_", "ECS_", "DBT_RUNNER_", "LAMBDA_", "_HANDLER", "_X_AMZN_")
# Of these, what says where AWS is and not who is asking: the worker's SDKs need it as much as the supervisor's.
_HARMLESS = frozenset(
    {
        "AWS_CA_BUNDLE",
        "AWS_DEFAULT_REGION",
        "AWS_MAX_ATTEMPTS",
        "AWS_REGION",
        "AWS_RETRY_MODE",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_USE_DUALSTACK_ENDPOINT",
        "AWS_USE_FIPS_ENDPOINT",
    }
)
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
_ENDPOINTS = "AWS_ENDPOINT_URL"
_LOOPBACK = "127.0.0.1"
# Places that the runner alone decides and gives dbt only where a run has them. A variable would lead dbt to another release's state than
# the outcome names, or to a parse that an earlier run has left; without the comparison of files, dbt reads none of the project at all. Each
# flag of dbt is read from these two prefixes.
_PLACES = frozenset(
    prefix + name
    for prefix in ("DBT_", "DBT_ENGINE_")
    for name in ("ARTIFACT_STATE_PATH", "DEFER_STATE", "PARTIAL_PARSE_FILE_DIFF", "PARTIAL_PARSE_FILE_PATH", "RECORD_TIMING_INFO", "STATE")
)


# Those of the names above that hold a secret themselves: as plain variables on Lambda, where ECS has an address.
_CONTROL_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")


def control_secrets(own: Mapping[str, str]) -> list[str]:
    """The control role's secrets, as far as they stand in this process's environment."""
    return [own[name] for name in _CONTROL_SECRETS if name in own]


def worker_environment(own: Mapping[str, str], work: Path) -> dict[str, str]:
    """The worker's environment variables: the container's own, less the control role's and those that would lead dbt elsewhere.

    Args:
        own: the supervisor's environment.
        work: the attempt's folder, which becomes HOME, because the root file system may be read-only.
    """
    environment = {
        key: value for key, value in own.items() if key not in _PLACES and (not key.startswith(_CONTROL_PREFIXES) or _is_harmless(key))
    }
    environment.update(
        HOME=str(work),
        DBT_SEND_ANONYMOUS_USAGE_STATS="false",
        PYTHONUNBUFFERED="1",
        # The machine's own role is nobody's here, and where there is no such service SDKs wait for it.
        AWS_EC2_METADATA_DISABLED="true",
    )
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in environment):
        # The broker's address is no matter for a proxy.
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, (environment.get(name), _LOOPBACK)))
    return environment


def hide() -> None:
    """Keeps this process's environment and memory from the worker, which runs as the same user. On Linux only, and for good.

    Without it the team's code could read the control role's variables in /proc, or trace this process. The worker is not affected: it
    is another program. Nor can anything that it starts become more than its user by a set-user-ID program of the image.
    https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html
    https://man7.org/linux/man-pages/man2/PR_SET_NO_NEW_PRIVS.2const.html

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform != "linux":
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def _is_harmless(name: str) -> bool:
    return name in _HARMLESS or name == _ENDPOINTS or name.startswith(f"{_ENDPOINTS}_")
