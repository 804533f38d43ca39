"""What moto lacks before a state machine really runs on it, mended.

moto is a test double of AWS's control plane. A run of this project needs more: state machines that execute, ECS tasks
that end, events that arrive. Each module here mends one part of moto by replacing private functions, which is why
exactly one version of moto is accepted and why every patch has a canary in tests/local that fails once moto does the
same by itself.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from dbt_runner.local.errors import MotoError

if TYPE_CHECKING:
    from dbt_runner.local.moto_patches.registry import Patch

MOTO_VERSION = "5.2.5"
_MODULES = (
    "dynamodb",
    "stepfunctions_api",
    "stepfunctions_lifecycle",
    "stepfunctions_engine",
    "stepfunctions_jsonata",
    "stepfunctions_ecs",
    "ecs",
    "awslambda",
    "events",
    "s3",
    "logs",
    "athena",
    "core",
)


def check_moto() -> None:
    """Raise MotoError unless the one supported version of moto is installed and free to be used as a server."""
    remedy = f"moto {MOTO_VERSION} is needed: pip install 'dbt-runner[local]'"
    try:
        found = version("moto")
    except PackageNotFoundError as exc:
        raise MotoError(f"moto is not installed. {remedy}") from exc
    if found != MOTO_VERSION:
        raise MotoError(f"moto {found} is installed, but the patches of the embedded AWS rest on its private names. {remedy}")
    from moto.core.models import botocore_stubber

    if botocore_stubber.enabled:
        raise MotoError(
            "mock_aws of moto is active in this process, so that no request would reach the embedded AWS. "
            "Leave mock_aws (or end its fixture) before the local stack starts."
        )


def all_patches() -> list[Patch]:
    """Every patch, in the order in which they are applied. Raises MotoError like `check_moto`."""
    check_moto()
    return [patch for name in _MODULES for patch in importlib.import_module(f"{__name__}.{name}").PATCHES]


def apply_all() -> None:
    """Apply every patch and let moto execute state machines. Calling it again changes nothing."""
    patches = all_patches()
    _execute_state_machines(True)
    for patch in patches:
        patch.apply()


def revert_all() -> None:
    """Leave moto as it was, for whoever uses it in this process without us."""
    for patch in reversed(all_patches()):
        patch.revert()
    _execute_state_machines(False)


def _execute_state_machines(yes: bool) -> None:
    from moto.core.config import default_user_config

    default_user_config["stepfunctions"] = {"execute_state_machine": yes}
