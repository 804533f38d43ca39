"""Publishing: from a dbt project on disk to a release in the store.

The order is: stage a copy, let dbt install its packages, pack it, unpack that somewhere else, let dbt parse what came out,
commit. So what was parsed is what runs will get, and the project on disk is only read.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner import bundle as bundles
from dbt_runner import checkout, profile, release, secret_variables, stage
from dbt_runner.checkout import Git
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST, TypedError
from dbt_runner.masking import Mask
from dbt_runner.store import Store

# Enough of a connection for dbt to load the adapter. Parsing opens none.
_CONNECTIONS: Mapping[str, Mapping[str, Any]] = {
    "athena": {"region_name": "us-east-1", "s3_staging_dir": "s3://placeholder/", "database": "awsdatacatalog", "schema": "placeholder"},
    "bigquery": {"method": "oauth", "project": "placeholder", "dataset": "placeholder"},
    "duckdb": {"path": ":memory:"},
    "postgres": {
        "host": "localhost",
        "port": 5432,
        "user": "placeholder",
        "password": "",
        "dbname": "placeholder",
        "schema": "placeholder",
    },
    "redshift": {
        "host": "localhost",
        "port": 5439,
        "user": "placeholder",
        "password": "",
        "dbname": "placeholder",
        "schema": "placeholder",
    },
    "snowflake": {"account": "placeholder", "user": "placeholder", "password": "", "database": "placeholder", "schema": "placeholder"},
}
# Installed along with others (Redshift's adapter needs the one of Postgres) or for trying things out.
_ONLY_IF_ALONE = ("postgres", "duckdb")

_PROFILE = "dbt_runner"
_TARGET = "release"
# -P: a module of the working directory must not be taken for one of dbt's.
_DBT = (sys.executable, "-P", "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')")
_MAX_MESSAGE = 4_000
_NODES = ("nodes", "sources", "exposures", "metrics", "semantic_models", "saved_queries", "unit_tests")


def installed_adapters() -> list[str]:
    """The warehouse types whose adapters are installed, of those that a release can be parsed for."""
    return [kind for kind in _CONNECTIONS if _is_installed(kind)]


def choose_adapter(asked: str | None, warehouse: str | None) -> str:
    """The warehouse type to parse for.

    Args:
        asked: what the caller said (--adapter).
        warehouse: the warehouse type of the environment that the caller named.

    Raises:
        TypedError: Dbt.InvalidRequest when the type is unknown, its adapter is not installed, or several could be meant.
    """
    wanted = asked or warehouse
    if wanted is not None:
        if wanted not in _CONNECTIONS:
            raise TypedError(INVALID_REQUEST, f"unknown adapter {wanted}: known are {', '.join(_CONNECTIONS)}")
        if not _is_installed(wanted):
            raise TypedError(
                INVALID_REQUEST, f"the adapter of {wanted} is not installed: pip install 'dbt-runner[{wanted}]' or dbt-{wanted}"
            )
        return wanted
    installed = installed_adapters()
    if not installed:
        raise TypedError(INVALID_REQUEST, "no dbt adapter is installed: install the one of your warehouse, such as dbt-snowflake")
    candidates = [kind for kind in installed if kind not in _ONLY_IF_ALONE]
    if len(candidates) > 1:
        raise TypedError(
            INVALID_REQUEST, f"several adapters are installed ({', '.join(candidates)}): say --adapter, or --environment to use its own"
        )
    return candidates[0] if candidates else next(kind for kind in _ONLY_IF_ALONE if kind in installed)


def publish(
    store: Store,
    project: Path,
    version: str,
    *,
    adapter: str,
    author: str,
    on_progress: Callable[[str], None],
    vars: Mapping[str, Any] | None = None,
    with_profiles: bool = False,
) -> release.Published:
    """Publishes a dbt project as a release.

    Args:
        project: the folder with dbt_project.yml; nothing in it is changed.
        version: `auto` for what `checkout.version_of` makes of the checkout, `ci` for `release.ci_version`.
        adapter: the warehouse type to parse for, see `choose_adapter`.
        author: who publishes, as AWS knows them (an ARN).
        on_progress: is told what happens next, in a few words.
        vars: variables that the project needs in order to parse. They are no part of the release: a run brings its own.
        with_profiles: whether the project's profiles.yml is a part of it, for environments that take it into account.

    Raises:
        TypedError: Dbt.InvalidRequest (no such project, a version that is taken, ...), Dbt.CompilationError (packages that cannot
            be installed, a project that does not parse; with dbt's own message). Nothing was published then.
    """
    with tempfile.TemporaryDirectory(prefix="dbt-publish-") as folder:
        packed = pack(project, version, adapter, Path(folder), on_progress, vars, with_profiles)
        already = release.published(store, packed.version, packed.bundle)
        if already is not None:
            return already
        candidate = parse(packed, author, on_progress)
        on_progress(f"uploading release {packed.version} ({packed.bundle.stat().st_size:,} bytes)")
        return release.commit(store, candidate)


@dataclass(frozen=True)
class Packed:
    """A project as a bundle that no store knows yet. It lives as long as the folder in which it was packed.

    Attributes:
        version: what was asked for; never `auto` or `ci`.
    """

    version: str
    adapter: str
    bundle: Path
    _folder: Path
    _source: stage.Project
    _git: Git
    _dbt: _Dbt


def pack(
    project: Path,
    version: str,
    adapter: str,
    folder: Path,
    on_progress: Callable[[str], None],
    vars: Mapping[str, Any] | None = None,
    with_profiles: bool = False,
) -> Packed:
    """Makes a project's bundle, with its packages in it.

    Args:
        folder: an empty folder, for the bundle and for what dbt leaves behind.
        version, vars, with_profiles: as `publish`.

    Raises:
        TypedError: as `publish`.
    """
    release.check_version(version)
    if release.is_ci(version):
        raise TypedError(
            INVALID_REQUEST, f"version {version!r}: what begins with {release.CI_PREFIX} is made by dbt-runner ci; choose another"
        )
    source = stage.read_project(project)
    git = checkout.read(source.root, stage.local_packages(source))
    if version == checkout.AUTO:
        version = checkout.version_of(source.root, git)
        on_progress(f"the checkout makes this version {version}")
    if git.dirty and version != release.CI:
        on_progress("the checkout has changes that are not committed: they become part of the release")
    # Resolved: dbt prints resolved paths, and its messages are to name the project on disk instead.
    temporary = folder.resolve()
    dbt = _Dbt(temporary, adapter, vars or {})

    if with_profiles:
        profile.outputs_of(source.root)
    on_progress(f"copying project {source.name}")
    copy, stands_for = stage.stage(source, temporary / "stage")
    if stage.lists_packages(copy):
        on_progress("installing packages (dbt deps)")
        dbt.run("deps", copy, "its packages cannot be installed", shown_as=(temporary / "stage", stands_for))

    bundle = temporary / release.BUNDLE
    profiles = {profile.FILE: source.root / profile.FILE} if with_profiles else {}
    bundles.pack({**stage.with_packages(stage.read_project(copy)), **profiles}, bundle)
    if version == release.CI:
        version = release.ci_version(bundle)
        on_progress(f"its content makes this version {version}")
    return Packed(version, adapter, bundle, temporary, source, git, dbt)


def parse(packed: Packed, author: str, on_progress: Callable[[str], None]) -> release.Candidate:
    """Lets dbt parse what is in a bundle; what parses can be committed to a store.

    Raises:
        TypedError: Dbt.CompilationError, with dbt's own message.
    """
    on_progress(f"parsing it for {packed.adapter} (dbt parse)")
    source, git, dbt = packed._source, packed._git, packed._dbt
    unpacked = packed._folder / "unpacked"
    bundles.unpack(packed.bundle, unpacked)
    variables = _environment(packed.version, git)
    dbt.run("parse", unpacked, "it does not parse", shown_as=(unpacked, source.root), variables=variables)
    manifest = (dbt.target / "manifest.json").read_bytes()
    document = json.loads(manifest)
    return release.Candidate(
        version=packed.version,
        bundle=packed.bundle,
        manifest=manifest,
        project=source.name,
        dbt_version=document["metadata"]["dbt_version"],
        adapter=packed.adapter,
        author=author,
        git_commit=git.commit,
        git_branch=git.branch,
        git_dirty=git.dirty,
        counts=Counter(node["resource_type"] for kind in _NODES for node in document.get(kind, {}).values()),
    )


class _Dbt:
    """dbt in a process of its own, with a profile that connects to nothing.

    Args:
        folder: where the profile, the target and the logs go.
        vars: what it may read by var().
    """

    def __init__(self, folder: Path, adapter: str, vars: Mapping[str, Any]) -> None:
        self.target = folder / "target"
        self._folder = folder
        self._vars = ("--vars", json.dumps(vars)) if vars else ()
        # dbt leaves its downloads behind when it fails.
        self._environment = {**os.environ, "TMPDIR": str(folder)}
        outputs = {_TARGET: {"type": adapter, "threads": 1, **_CONNECTIONS[adapter]}}
        # JSON is YAML.
        (folder / "profiles.yml").write_text(json.dumps({_PROFILE: {"target": _TARGET, "outputs": outputs}}), encoding="utf-8")

    def run(
        self, command: str, project: Path, problem: str, *, shown_as: tuple[Path, Path], variables: Mapping[str, str] | None = None
    ) -> None:
        """Runs a dbt command in a project.

        Args:
            problem: what a failure means, for the message.
            shown_as: a path, and what to call it in dbt's message.
            variables: on top of this process's own.

        Raises:
            TypedError: Dbt.CompilationError when dbt's exit code is not 0.
        """
        arguments = [
            *("--project-dir", str(project), "--profiles-dir", str(self._folder), "--profile", _PROFILE, "--target", _TARGET),
            *("--log-path", str(self._folder / "logs"), "--log-format", "json", "--log-level", "info", "--quiet"),
            *self._vars,
            *("--no-use-colors", "--no-send-anonymous-usage-stats"),
            *(("--target-path", str(self.target), "--no-partial-parse", "--write-json") if command == "parse" else ()),
        ]
        done = subprocess.run(
            [*_DBT, command, *arguments],
            cwd=project,
            env={**self._environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            # CI has dbt's secret variables, which a project's error may show.
            mask = Mask(secret_variables.injected(self._environment).values())
            said = _said(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), mask)
            said = said.replace(str(shown_as[0]), str(shown_as[1]))
            raise TypedError(
                COMPILATION_ERROR, f"the project was not published, {problem}: {said}", why=f"dbt {command} exited with {done.returncode}"
            )


def _said(stdout: str, stderr: str, mask: Mask) -> str:
    """dbt's own words for a failure: its error events, or whatever it left on stderr when it did not get as far. Masked, then cut."""
    messages = []
    for line in stdout.splitlines():
        try:
            event = json.loads(line)
            if event["info"]["level"] == "error" and "stack_trace" not in event["data"]:
                messages.append(event["info"]["msg"].removeprefix("Encountered an error:\n"))
        except (ValueError, KeyError, TypeError):
            continue
    return mask.text("\n".join(messages or [stderr.strip()]))[-_MAX_MESSAGE:]


def _environment(version: str, git: Git) -> dict[str, str]:
    """What becomes `metadata.env` of the manifest: each name without DBT_ENV_CUSTOM_ENV_."""
    values = {
        "RELEASE": version,
        "GIT_COMMIT": git.commit,
        "GIT_BRANCH": git.branch,
        "GIT_DIRTY": None if git.dirty is None else str(git.dirty).lower(),
    }
    return {f"DBT_ENV_CUSTOM_ENV_{name}": value for name, value in values.items() if value is not None}


def _is_installed(kind: str) -> bool:
    try:
        importlib.metadata.distribution(f"dbt-{kind}")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
