"""What to do about a failed run, in a sentence or two for each error; docs/operations.md says more."""

from __future__ import annotations

_RELEASE = "Correct it in the project, publish the result as a new release and promote it; the next run takes it."
_PLATFORM = "This is for the platform team."

ADVICE: dict[str, str] = {
    "Dbt.RunnerError": f"{_PLATFORM} Take the run's log to whoever maintains the deployment; a bug of the runner is likely.",
    "Dbt.ModelError": f"Read the message of each failed node: the warehouse says what it refused. {_RELEASE}",
    "Dbt.TestFailure": (
        "The data is not as the tests demand. Look at the failing rows (the test's compiled SQL shows them), correct the data or the "
        "test, and start the job again. A failed test is never repeated by itself."
    ),
    "Dbt.CompilationError": f"The project does not compile with this run's variables and target. {_RELEASE}",
    "Dbt.NothingSelected": "A command of this job selects no node: correct the selection of the job, or the tags of the nodes.",
    "Dbt.StaleSource": "The data was not delivered in time. Ask the source's owner; once it has arrived, start the job again.",
    "Dbt.WarehouseUnavailable": "All attempts found the warehouse away. Check that it runs and can be reached, then start the job again.",
    "Dbt.AccessDenied": f"{_PLATFORM} The warehouse or AWS refuses the run's identity: look at the grants and policies that changed last.",
    "Dbt.InvalidRequest": "Correct the request (the message names the field) and start the run again.",
    "Dbt.ReleaseNotFound": "Publish the release, or promote one that exists.",
    "Dbt.ReleaseCorrupt": "The bundle is not what was published. Promote an earlier release, and publish this one again as a new version.",
    "Dbt.LockLost": f"{_PLATFORM} Another run has the environment's lock: find out which, before this one is started again.",
    "Dbt.EnvironmentBusy": "Another run holds the environment. Start this one again when it has ended.",
    "Dbt.Interrupted": "The run was stopped, or its last attempt was interrupted. Start it again if nobody stopped it on purpose.",
    "Dbt.OutOfMemory": f"{_PLATFORM} The largest of the environment's sizes was not enough: add a larger one, or use fewer threads.",
    "Dbt.Timeout": "The step or the run took longer than it may. Look at the critical path below, then raise the limit or split the job.",
}
