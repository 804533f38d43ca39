"""What an attempt tells its worker to run: dbt's command lines and places, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dbt_runner import profile, request, variables
from dbt_runner.events import EarlierCommand, WorkerSpec
from dbt_runner.profile import Target
from dbt_runner.request import AttemptRequest, Command, Step, parse_command

PARSE = parse_command("parse", "the parse of a release")


def of_step(
    asked: AttemptRequest, step: Step, earlier: Sequence[EarlierCommand], work: Path, project: Path, artifacts: Path, state: Path | None
) -> WorkerSpec:
    """The spec of a step's worker.

    Args:
        asked: the attempt.
        step: what it runs.
        earlier: what earlier attempts left of the step's commands.
        work: the attempt's folder, with the profile.
        project: the unpacked release.
        artifacts: where dbt leaves its own.
        state: the folder with the manifest of the release that the run compares with; None where it does not.
    """
    target = profile.of_run(asked)
    return replace(
        _common(asked, target, work, project, artifacts),
        commands=[_words(asked, command, state) for command in step.commands],
        executing=[command.verb in request.EXECUTING_VERBS for command in step.commands],
        earlier=earlier,
        apart=target.schema_suffix is not None,
    )


def of_parse(asked: AttemptRequest, target: Target, folder: Path, project: Path, artifacts: Path) -> WorkerSpec:
    """The spec of a worker that parses a release, and no more.

    Args:
        asked: the attempt: the release is parsed with the run's variables.
        target: the one of the profile in `folder`.
        folder: with the profile, and for what dbt writes that is nobody's.
        project: the unpacked release.
        artifacts: where dbt leaves its own.
    """
    return replace(_common(asked, target, folder, project, artifacts), commands=[_words(asked, PARSE, None)], executing=[False])


def of_check(asked: AttemptRequest, work: Path, project: Path) -> WorkerSpec:
    """The spec of the health check's worker, which connects and asks, and runs no dbt.

    Args:
        asked: the attempt.
        work: its folder, with the profile.
        project: the unpacked release, or an empty folder where the profile is the environment's own.
    """
    return replace(_common(asked, profile.of_run(asked), work, project, work), probe=True)


def _common(asked: AttemptRequest, target: Target, work: Path, project: Path, artifacts: Path) -> WorkerSpec:
    profiles = str(work / "profiles")
    return WorkerSpec(
        events_fd=-1,
        commands=[],
        executing=[],
        arguments=[
            "--project-dir",
            str(project),
            "--profiles-dir",
            profiles,
            "--profile",
            profile.PROFILE,
            "--target",
            target.name,
            "--target-path",
            str(artifacts),
            "--log-path",
            str(work),
        ],
        project=str(project),
        profiles=profiles,
        profile=profile.PROFILE,
        target=target.name,
        artifacts=str(artifacts),
        log_file=str(artifacts / "dbt.log"),
        warehouse=asked.config.warehouse.type,
    )


def _words(asked: AttemptRequest, command: Command, state: Path | None) -> list[str]:
    own = command.with_state(str(state)) if state else command.words
    flags = ["--vars", variables.for_dbt(asked.vars)] if asked.vars else []
    if asked.full_refresh and command.verb in request.FULL_REFRESH_VERBS and "--full-refresh" not in command.words:
        flags.append("--full-refresh")
    return [*own, *flags]
