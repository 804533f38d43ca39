"""dbt's processes for publishing: `deps` and `parse`, with a profile that connects to nothing and an environment that holds nothing of the
publisher's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dbt_runner import variables
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST, TypedError
from dbt_runner.publisher import Publisher
from dbt_runner.release_parse import REFUSED, ParseSpec, Report
from dbt_runner.stage import Staged

_PROFILE = "dbt_runner"
_TARGET = "release"
_MAX_MESSAGE = 4_000
_MAX_NAMES = 10
# -I: neither the working directory nor a variable or a user's site folder brings modules. Where dbt was found by one of those, it is found
# by the same path again, which is passed by value.
_START = "import sys; sys.path += [path for path in {path!r} if path not in sys.path]; "
_DEPS = "from dbt.cli.main import cli; cli(prog_name='dbt')"
_PARSE = "from dbt_runner.release_parse import main; sys.exit(main())"


class Dbt:
    """dbt in processes of its own.

    Args:
        folder: where the profile, the target and the logs go; private, and all that these processes may write.
        connection: enough of one for dbt to load the adapter.
        vars: what a project may read by var().
    """

    def __init__(self, folder: Path, adapter: str, connection: Mapping[str, Any], vars: Mapping[str, Any], publisher: Publisher) -> None:
        self._folder = folder
        self._publisher = publisher
        self._vars = ("--vars", variables.for_dbt(vars)) if vars else ()
        outputs = {_TARGET: {"type": adapter, "threads": 1, **connection}}
        # JSON is YAML.
        (folder / "profiles.yml").write_text(json.dumps({_PROFILE: {"target": _TARGET, "outputs": outputs}}), encoding="utf-8")

    def deps(self, staged: Staged) -> None:
        """Installs the packages of a staged project.

        Raises:
            TypedError: Dbt.CompilationError when dbt's exit code is not 0.
        """
        environment = self._publisher.packages_environment(self._folder)
        done = self._run(_DEPS, ["deps", *self._arguments(staged.project.root)], staged.project.root, environment, None)
        if done.returncode != 0:
            raise self._failed("deps", done, "its packages cannot be installed", (staged.folder, staged.stands_for))

    def parse(self, unpacked: Path, places: Mapping[str, Path], metadata: Mapping[str, str]) -> bytes:
        """Parses an unpacked bundle and returns the manifest.

        Args:
            places: for the unpacked project and for each package that lies on this machine: where it lies in place.
            metadata: DBT_ENV_CUSTOM_ENV_* variables.

        Raises:
            TypedError: Dbt.InvalidRequest when dbt does not read in the bundle what it reads in place, or a file cannot be read;
                Dbt.CompilationError when dbt's exit code is not 0.
        """
        target, report = self._folder / "target", self._folder / "report.json"
        arguments = ["parse", *self._arguments(unpacked), "--target-path", str(target), "--no-partial-parse", "--write-json"]
        environment = {**self._publisher.parse_environment(self._folder), **metadata}
        root = next(iter(places.values()))
        spec = ParseSpec(
            arguments=arguments,
            in_place={folder: str(path) for folder, path in places.items()},
            writable=[str(self._folder)],
            visible=[str(unpacked), *map(str, places.values())],
            hidden=_hidden(),
            modules=[*_module_path(), sys.prefix, sys.base_prefix, str(Path(__file__).parent)],
            report=str(report),
        )
        done = self._run(_PARSE, [], self._folder, environment, json.dumps(asdict(spec)))
        if done.returncode == REFUSED:
            raise TypedError(INVALID_REQUEST, self._publisher.mask.text(_difference(Report.read(report), root)))
        if done.returncode != 0:
            raise self._failed("parse", done, "it does not parse", (unpacked, root))
        return (target / "manifest.json").read_bytes()

    def _arguments(self, project: Path) -> list[str]:
        return [
            *("--project-dir", str(project), "--profiles-dir", str(self._folder), "--profile", _PROFILE, "--target", _TARGET),
            *("--log-path", str(self._folder / "logs"), "--log-format", "json", "--log-level", "info", "--quiet"),
            *self._vars,
            *("--no-use-colors", "--no-send-anonymous-usage-stats"),
        ]

    def _run(
        self, code: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], text: str | None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-I", "-c", _START.format(path=_module_path()) + code, *arguments],
            cwd=folder,
            env=environment,
            input=(text or "").encode(),
            capture_output=True,
            check=False,
        )

    def _failed(self, command: str, done: subprocess.CompletedProcess[bytes], problem: str, shown_as: tuple[Path, Path]) -> TypedError:
        """An error with dbt's message, in which the publisher's secrets are masked and the project is called by its own path."""
        words = said(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        hint = self._publisher.hint(words)
        # Masked before it is cut: half a secret would not be found.
        words = self._publisher.mask.text(words.replace(str(shown_as[0]), str(shown_as[1])))[-_MAX_MESSAGE:]
        return TypedError(
            COMPILATION_ERROR,
            f"the project was not published, {problem}: {words}{hint}",
            why=f"dbt {command} exited with {done.returncode}",
        )


def said(stdout: str, stderr: str) -> str:
    """dbt's own words for a failure: its error events, or whatever it left on stderr when it did not get as far."""
    messages = []
    for line in stdout.splitlines():
        try:
            event = json.loads(line)
            if event["info"]["level"] == "error" and "stack_trace" not in event["data"]:
                messages.append(event["info"]["msg"].removeprefix("Encountered an error:\n"))
        except (ValueError, KeyError, TypeError):
            continue
    return "\n".join(messages or [stderr.strip()])


def _difference(report: Report, root: Path) -> str:
    if report.unreadable:
        return f"the project was not published: {report.unreadable}"
    kinds = (
        (report.outside, "lie outside of the project: move them into it, or make their folder a local package (packages.yml)"),
        (report.missing, "would not be in the release: rename or move them, because files and folders of such names are left out"),
        (report.changed, "changed while they were published: publish again when nothing changes them"),
        (report.added, "are in the release, and dbt does not read them in place: publish again when nothing changes the project"),
    )
    parts = [f"{_names(names)} {problem}" for names, problem in kinds if names]
    return f"the project was not published: dbt reads other files in {root} than it would in the release. " + ". ".join(parts)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"


def _hidden() -> list[str]:
    """Where people and pipelines keep what is theirs. A container's HOME may be the root, below which everything lies."""
    home = os.path.realpath(os.path.expanduser("~"))
    return [folder for folder in (home, "/root", "/home", "/Users", "/run/secrets", "/var/run/secrets") if folder != "/"]


def _module_path() -> list[str]:
    """Where this process finds its modules, but for the working directory, which is the project's as often as not."""
    here = os.getcwd()
    return [path for path in sys.path if os.path.isabs(path) and path != here]
