"""What an attempt keeps of the files that dbt left: copies that the worker cannot change any more, without secrets, within limits."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dbt_runner import untrusted_files
from dbt_runner.masking import Mask
from dbt_runner.request import AttemptRequest
from dbt_runner.store import Store, StoredObject

MANIFEST = "manifest.json"
NAMES = (
    "run_results.json",
    MANIFEST,
    "sources.json",
    "dbt.log",
    "catalog.json",
    "semantic_manifest.json",
    "index.html",
    "static_index.html",
)
_OF_COMMAND = "run_results.json"
# How many entries of the worker's folder are looked at, to count those that are not taken.
_MOST_ENTRIES = 10_000


@dataclass(frozen=True)
class Collected:
    """Artifacts in a folder of the supervisor's.

    Attributes:
        names: relative to the folder.
        left_out: what was not taken and why, one text each.
    """

    folder: Path
    names: Sequence[str]
    left_out: Sequence[str]


def collect(source: Path, folder: Path, commands: int, mask: Mask, until: float = float("inf")) -> Collected:
    """Copies artifacts and takes secrets out of the copies. Raises nothing: one file that cannot be kept costs no other.

    Args:
        source: where dbt and the team's code left them.
        folder: an empty folder, made after the worker's end.
        commands: how many the step has; each of them may have a run_results.json of its own.
        until: no further file is begun after this moment (time.monotonic).
    """
    names: list[str] = []
    left_out: list[str] = []
    room = 2 * untrusted_files.largest_file()
    for name in [*NAMES, *(f"command-{index}/{_OF_COMMAND}" for index in range(commands))]:
        if not os.path.lexists(source / name):
            continue
        if time.monotonic() > until:
            left_out.append(f"{name}: no time was left")
            continue
        try:
            room -= _keep(source / name, folder / name, min(room, untrusted_files.largest_file()), mask)
        except FileNotFoundError:
            continue
        except untrusted_files.Unreadable as exc:
            left_out.append(f"{name}: {exc}")
        except Exception as exc:
            # A full disk, or a mask that cannot read it. What cannot be masked is not kept.
            left_out.append(f"{name}: {type(exc).__name__}")
        else:
            names.append(name)
    if others := sum(1 for _ in _other_commands(source, commands)):
        left_out.append(f"{others} folders of commands that the step does not have")
    return Collected(folder, names, left_out)


def upload(store: Store, request: AttemptRequest, collected: Collected) -> list[StoredObject]:
    """Uploads what was collected; returns what was written, with digests."""
    prefix = f"{request.artifacts}{request.key.name}/{request.key.attempt}/"
    with ThreadPoolExecutor(len(NAMES), "upload") as pool:
        return list(pool.map(lambda name: store.upload(collected.folder / name, prefix + name), collected.names))


def _keep(source: Path, target: Path, most: int, mask: Mask) -> int:
    target.parent.mkdir(exist_ok=True)
    try:
        with target.open("xb") as file:
            size = untrusted_files.copy(source, file, most)
        mask.file(target)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return size


def _other_commands(source: Path, commands: int) -> Iterator[str]:
    expected = {f"command-{index}" for index in range(commands)}
    try:
        with os.scandir(source) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_ENTRIES:
                    return
                if entry.name.startswith("command-") and entry.name not in expected:
                    yield entry.name
    except OSError:
        return
