"""What an attempt tells its worker to run: dbt's command lines and places, and nothing that is secret."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dbt_runner import profile, request
from dbt_runner.events import EarlierCommand, WorkerSpec
from dbt_runner.request import AttemptRequest, Step
from dbt_runner.warehouses import adapter_of


def of_step(asked: AttemptRequest, step: Step, earlier: Sequence[EarlierCommand], work: Path, project: Path, target: Path) -> WorkerSpec:
    """The spec of a step's worker.

    Args:
        asked: the attempt.
        step: what it runs.
        earlier: what earlier attempts left of the step's commands.
        work: the attempt's folder, with the profile.
        project: the unpacked release.
        target: where dbt leaves its artifacts.
    """
    return replace(
        _common(asked, work, project, target),
        commands=[[*command.words, *_request_flags(asked, command)] for command in step.commands],
        executing=[command.verb in request.EXECUTING_VERBS for command in step.commands],
        earlier=earlier,
    )


def of_check(asked: AttemptRequest, work: Path, project: Path) -> WorkerSpec:
    """The spec of the health check's worker, which connects and asks, and runs no dbt.

    Args:
        asked: the attempt.
        work: its folder, with the profile.
        project: the unpacked release, or an empty folder where the profile is the environment's own.
    """
    warehouse = asked.config.warehouse
    return replace(_common(asked, work, project, work), probe=True, needs=adapter_of(warehouse).needs(warehouse))


def _common(asked: AttemptRequest, work: Path, project: Path, target: Path) -> WorkerSpec:
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
            asked.key.environment,
            "--target-path",
            str(target),
            "--log-path",
            str(work),
        ],
        project=str(project),
        profiles=profiles,
        profile=profile.PROFILE,
        target=asked.key.environment,
        artifacts=str(target),
        log_file=str(target / "dbt.log"),
    )


def _request_flags(asked: AttemptRequest, command: request.Command) -> list[str]:
    flags = ["--vars", json.dumps(asked.vars)] if asked.vars else []
    if asked.full_refresh and command.verb in request.FULL_REFRESH_VERBS and "--full-refresh" not in command.words:
        flags.append("--full-refresh")
    return flags
