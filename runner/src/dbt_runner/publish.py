"""Publishing: from a dbt project on disk to a release in the store.

The order is: stage a copy, install its packages, pack it, unpack that somewhere else, hold it against the project in place, let dbt parse
what came out, search it for the publisher's secrets, commit. So what was parsed is what runs will get, and the project on disk is only
read.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbt_runner import bundle as bundles
from dbt_runner import checkout, packages, profile, release, stage
from dbt_runner.checkout import Git
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.publish_dbt import Dbt
from dbt_runner.publisher import Publisher
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

# A path in quotes that leads out of the working directory, to a file by its ending.
_ELSEWHERE = re.compile(
    r"""['"]((?:\.\./|/|~/|\./\.\./)[^'"\n]{1,300}\.(?:csv|tsv|parquet|json|jsonl|ndjson|xlsx|duckdb|db|sqlite)(?:\.gz)?)['"]"""
)
_PIECE = 8 << 20
_OVERLAP = 64 << 10
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
    publisher: Publisher | None = None,
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
        publisher: whose environment this is; None for this process's, of which the project gets nothing by name.

    Raises:
        TypedError: Dbt.InvalidRequest (no such project, a version that is taken, files that dbt reads and the release would not have, a
            secret of the publisher, ...), Dbt.CompilationError (packages that cannot be installed, a project that does not parse;
            with dbt's own message). Nothing was published then.
    """
    with tempfile.TemporaryDirectory(prefix="dbt-publish-") as folder:
        packed = pack(project, version, adapter, Path(folder), on_progress, vars, with_profiles, publisher)
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
    _packages: Mapping[str, Path]
    _git: Git
    _dbt: Dbt
    _publisher: Publisher


def pack(
    project: Path,
    version: str,
    adapter: str,
    folder: Path,
    on_progress: Callable[[str], None],
    vars: Mapping[str, Any] | None = None,
    with_profiles: bool = False,
    publisher: Publisher | None = None,
) -> Packed:
    """Makes a project's bundle, with its packages in it.

    Args:
        folder: an empty folder, for the bundle and for what dbt leaves behind.
        version, vars, with_profiles, publisher: as `publish`.

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
    publisher = publisher or Publisher.of(os.environ)
    # A project's Jinja can write below this folder while it is parsed: nothing else lies there.
    workplace = temporary / "dbt"
    workplace.mkdir(mode=0o700)
    dbt = Dbt(workplace, adapter, _CONNECTIONS[adapter], vars or {}, publisher)

    profiles = {profile.FILE: _own_profiles(source)} if with_profiles else {}
    on_progress(f"copying project {source.name}")
    staged = stage.stage(source, temporary / "stage")
    taken = packages.install(source, staged, lambda: dbt.deps(staged), on_progress)
    collected = packages.collect(source, staged, taken)
    bundle = temporary / release.BUNDLE
    contents = {**stage.files(staged.project.root), **collected.files, **profiles}
    bundles.pack(contents, bundle)
    if bundle.stat().st_size > bundles.LARGE:
        for line in bundles.sizes(contents, bundle.stat().st_size):
            on_progress(line)
    if version == release.CI:
        version = release.ci_version(bundle)
        on_progress(f"its content makes this version {version}")
    return Packed(version, adapter, bundle, temporary, source, collected.in_place, git, dbt, publisher)


def parse(packed: Packed, author: str, on_progress: Callable[[str], None]) -> release.Candidate:
    """Lets dbt parse what is in a bundle; what parses, is the project in place, and holds no secret of the publisher can be committed.

    Raises:
        TypedError: Dbt.CompilationError, with dbt's own message; Dbt.InvalidRequest for files that dbt reads in place and the bundle does
            not have as they are there, and for a secret, with its variable and its file.
    """
    on_progress(f"parsing it for {packed.adapter} (dbt parse)")
    source, git, dbt = packed._source, packed._git, packed._dbt
    unpacked = packed._folder / "unpacked"
    bundles.unpack(packed.bundle, unpacked)
    places = {str(unpacked): source.root, **{str(unpacked / name): path for name, path in packed._packages.items()}}
    manifest = dbt.parse(unpacked, places, _metadata(packed.version, git))
    document = json.loads(manifest)
    candidate = release.Candidate(
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
    packed._publisher.check(_contents(unpacked, manifest, git))
    for line in _reads_elsewhere(document):
        on_progress(line)
    return candidate


def _contents(unpacked: Path, manifest: bytes, git: Git) -> Iterator[tuple[str, bytes]]:
    """All that a release makes readable: what to call it, and its bytes."""
    for path in sorted(unpacked.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                # In pieces that overlap by more than any secret's length: a seed may be larger than the memory.
                before = b""
                while (piece := file.read(_PIECE)) or not before:
                    yield str(path.relative_to(unpacked)), before + piece
                    if not piece:
                        break
                    before = piece[-_OVERLAP:]
    yield "the manifest that dbt made of it (a model's config, description or macro)", manifest
    yield "the name of the git branch", (git.branch or "").encode()


def _reads_elsewhere(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about files that SQL or a source names outside of the project, which no release holds."""
    texts = [(node_id, str(node.get("raw_code") or "")) for node_id, node in manifest.get("nodes", {}).items()]
    texts += [
        (source_id, json.dumps([source.get("meta"), source.get("external")])) for source_id, source in manifest.get("sources", {}).items()
    ]
    for name, text in texts:
        for path in sorted({found[1] for found in _ELSEWHERE.finditer(text)}):
            yield f"warning: {name} names the file {path}, which is outside of the project and no part of the release"


def _own_profiles(source: stage.Project) -> Path:
    path = source.root / profile.FILE
    if path.is_symlink():
        raise TypedError(INVALID_REQUEST, f"{path} is a link: put the file itself there to publish it")
    profile.outputs_of(source.root)
    return path


def _metadata(version: str, git: Git) -> dict[str, str]:
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
