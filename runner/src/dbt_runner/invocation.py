"""How dbt is called: the flags that the runner owns, and those that follow from the request."""

from __future__ import annotations

import json
from pathlib import Path

from dbt_runner import profile, request
from dbt_runner.events import WorkerSpec
from dbt_runner.request import AttemptRequest, Command


def spec(target: profile.Target, folder: Path, project: Path, artifacts: Path) -> WorkerSpec:
    """What a worker has to know to call dbt; it has no commands yet.

    Args:
        target: the one of the profile that stands in `folder`/profiles.
        folder: also for what dbt writes that is nobody's.
        artifacts: the folder for what is kept.
    """
    profiles = folder / "profiles"
    where = {
        "--project-dir": project,
        "--profiles-dir": profiles,
        "--profile": profile.PROFILE,
        "--target": target.name,
        "--target-path": artifacts,
        "--log-path": folder,
    }
    return WorkerSpec(
        events_fd=-1,
        commands=[],
        executing=[],
        arguments=[str(word) for flag in where.items() for word in flag],
        project=str(project),
        profiles=str(profiles),
        profile=profile.PROFILE,
        target=target.name,
        artifacts=str(artifacts),
        log_file=str(artifacts / "dbt.log"),
    )


def words(asked: AttemptRequest, command: Command, state: Path | None) -> list[str]:
    """A command as dbt gets it.

    Args:
        state: the folder with the manifest of the release that the run compares with; None where it does not.
    """
    own = command.with_state(str(state)) if state else command.words
    flags = ["--vars", json.dumps(asked.vars)] if asked.vars else []
    if asked.full_refresh and command.verb in request.FULL_REFRESH_VERBS and "--full-refresh" not in command.words:
        flags.append("--full-refresh")
    return [*own, *flags]
