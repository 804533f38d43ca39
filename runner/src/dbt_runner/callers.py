"""What an environment's callers may ask for: CONFIG's `requests`, held by the runner and by the command line.

The state machine holds the same rules before a run gets the lock (CheckRequest in asl/dbt_run.asl.json). It can only look at the
text of a command, so it refuses what may mean a refused word; here a command is in words already, as dbt gets them.

Jobs are the deployment's own: these rules do not bind the steps of a job, nor those of a run that resumes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dbt_runner.errors import INVALID_REQUEST, TypedError

if TYPE_CHECKING:
    from dbt_runner.config import EnvironmentConfig
    from dbt_runner.request import Command

# Fields of a request that change what a job does.
OVERRIDES = ("release", "vars", "full_refresh", "defer_to", "schema_suffix")
# dbt's flags for SQL that is no part of the release: --inline and --inline-direct. dbt knows no abbreviations.
INLINE = "--inline"
OPERATION = ("run-operation",)
# What `dbt-runner check` asks for. It reads the project and executes nothing in the warehouse.
_HARMLESS = ("parse",)


def check_overrides(environment: EnvironmentConfig, document: Mapping[str, Any]) -> None:
    """Refuses a request that changes what a run does, where the environment takes none.

    Args:
        document: the request, by field.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the first such field.
    """
    # A resume takes everything from the run that it resumes. The release that is current is what any job runs.
    if environment.requests.overrides or "resume" in document:
        return
    for field in OVERRIDES:
        if field in document:
            raise _refused(
                field,
                f"environment {environment.environment} runs its jobs as they are",
                "leave it out",
                f"set requests.overrides = true to allow {field}",
            )


def check_commands(environment: EnvironmentConfig, commands: Mapping[str, Command]) -> None:
    """Refuses commands of a caller's own that the environment does not take.

    Args:
        commands: by the field of the request that holds each.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the field.
    """
    allowed = environment.requests
    for field, command in commands.items():
        if not allowed.steps and command.words != _HARMLESS:
            raise _refused(
                field,
                f"environment {environment.environment} takes jobs and resumes, and no steps of their callers",
                "start a job",
                "set requests.steps = true",
            )
        if allowed.inline:
            continue
        if any(word.startswith(INLINE) for word in command.words):
            raise _refused(
                field,
                f"environment {environment.environment} runs no SQL of its callers ({INLINE})",
                "put the query into a model or an analysis of a release",
                "set requests.inline = true",
            )
        # A name behind an option could be that option's value: only the first word is certainly the macro's name.
        if command.verb == OPERATION and (command.words[1:2] or ("",))[0] not in allowed.operations:
            names = ", ".join(allowed.operations) or "none"
            raise _refused(
                field,
                f"environment {environment.environment} runs these macros for its callers: {names}",
                "give one of them directly after run-operation",
                "add its name to requests.operations",
            )


def _refused(field: str, problem: str, instead: str, allow: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"{field}: {problem}; {instead}, or {allow} in the module's environment")
