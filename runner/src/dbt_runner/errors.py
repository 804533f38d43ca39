"""The typed errors of a run: one table for exit codes, retries and ownership.

The state machine, the runner and the CLI name errors by this table; docs/architecture.md shows it to people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorKind:
    """One way in which a run can fail.

    Attributes:
        name: what the execution, the records and the messages call it.
        exit_code: the runner's exit code.
        retryable: whether another attempt can help without anybody changing anything.
        owner: who acts on it.
    """

    name: str
    exit_code: int
    retryable: bool
    owner: str


RUNNER_ERROR = ErrorKind("Dbt.RunnerError", 1, False, "the project (a bug of ours)")
MODEL_ERROR = ErrorKind("Dbt.ModelError", 10, False, "the model's owner")
TEST_FAILURE = ErrorKind("Dbt.TestFailure", 11, False, "the model's owner")
COMPILATION_ERROR = ErrorKind("Dbt.CompilationError", 12, False, "the release's author")
NOTHING_SELECTED = ErrorKind("Dbt.NothingSelected", 13, False, "the job's author")
STALE_SOURCE = ErrorKind("Dbt.StaleSource", 14, False, "the source's owner")
WAREHOUSE_UNAVAILABLE = ErrorKind("Dbt.WarehouseUnavailable", 20, True, "nobody, unless it lasts")
ACCESS_DENIED = ErrorKind("Dbt.AccessDenied", 21, False, "the platform team")
INVALID_REQUEST = ErrorKind("Dbt.InvalidRequest", 30, False, "the caller")
RELEASE_NOT_FOUND = ErrorKind("Dbt.ReleaseNotFound", 31, False, "the release's author")
RELEASE_CORRUPT = ErrorKind("Dbt.ReleaseCorrupt", 32, False, "the release's author")
LOCK_LOST = ErrorKind("Dbt.LockLost", 33, False, "the platform team")
ENVIRONMENT_BUSY = ErrorKind("Dbt.EnvironmentBusy", 34, False, "the caller")
INTERRUPTED = ErrorKind("Dbt.Interrupted", 40, True, "nobody")
OUT_OF_MEMORY = ErrorKind("Dbt.OutOfMemory", 41, True, "the platform team, if sizes run out")
TIMEOUT = ErrorKind("Dbt.Timeout", 42, False, "the job's author")

ERRORS: dict[str, ErrorKind] = {
    kind.name: kind
    for kind in (
        RUNNER_ERROR,
        MODEL_ERROR,
        TEST_FAILURE,
        COMPILATION_ERROR,
        NOTHING_SELECTED,
        STALE_SOURCE,
        WAREHOUSE_UNAVAILABLE,
        ACCESS_DENIED,
        INVALID_REQUEST,
        RELEASE_NOT_FOUND,
        RELEASE_CORRUPT,
        LOCK_LOST,
        ENVIRONMENT_BUSY,
        INTERRUPTED,
        OUT_OF_MEMORY,
        TIMEOUT,
    )
}


class TypedError(Exception):
    """A failure that we understand: its kind, a message that says what to do, and the evidence.

    Args:
        kind: a row of the table above.
        message: one or two sentences for the person who has to act.
        why: what was seen that led to this kind; empty where the message already says it.
    """

    def __init__(self, kind: ErrorKind, message: str, why: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.why = why

    def __str__(self) -> str:
        return f"{self.kind.name}: {self.message}"
