"""Releases in the audit store: commit one, find it, list them, and fetch one.

A release is immutable. Its objects are written with If-None-Match, its META item is the commit point: without META there is
no release, with META nothing of it changes any more. docs/architecture.md names the items and objects.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dbt_runner import bundle as bundles
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, ErrorKind, TypedError
from dbt_runner.store import (
    RELEASE_META,
    RELEASES,
    AlreadyThere,
    Store,
    now,
    release_key,
    release_pk,
    sha256_of,
)

BUNDLE = "bundle.tar.gz"
MANIFEST = "manifest.json"
DESCRIPTION = "release.json"

# What the versions of pull requests' trees begin with; the rest is the beginning of their bundle's sha256. 128 bits, because the author
# of a pull request could find two bundles with the same 64.
CI = "ci"
CI_PREFIX = "ci-"
CI_DIGITS = 32

# The attribute of an item by which a release is on its way out, or gone: see dbt_runner.prune.
RETIRING = "retiring_at"

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CI_VERSION = re.compile(rf"{CI_PREFIX}[0-9a-f]{{{CI_DIGITS}}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ReleaseMeta:
    """A release's META item.

    Attributes:
        digest, manifest_digest: sha256 (hex) of bundle.tar.gz and manifest.json.
        size: bytes of bundle.tar.gz.
        git_commit: None when the project was not in a git checkout.
        project: the dbt project's name.
        published_at: ISO 8601, UTC.
        adapter: the warehouse type that the project was parsed for.
    """

    version: str
    digest: str
    manifest_digest: str
    size: int
    git_commit: str | None
    dbt_version: str
    author: str
    published_at: str
    project: str
    adapter: str


@dataclass(frozen=True)
class Description(ReleaseMeta):
    """What release.json says: META and what only people want to know.

    Attributes:
        git_dirty: whether the checkout held changes that were not committed; None without git.
        counts: nodes of the project and its packages by resource type.
    """

    git_branch: str | None
    git_dirty: bool | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Candidate:
    """A release that is not in the store yet: its two files, and what its description will say."""

    version: str
    bundle: Path
    manifest: bytes
    project: str
    dbt_version: str
    adapter: str
    author: str
    git_commit: str | None
    git_branch: str | None
    git_dirty: bool | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Published:
    """A release that is in the store; `new` is False when it had been there with the same content."""

    release: Description
    new: bool


@dataclass(frozen=True)
class Catalog:
    """The releases of a deployment.

    Attributes:
        releases: the newest first.
        damaged: what is wrong with those whose items cannot be read, by version.
    """

    releases: tuple[ReleaseMeta, ...]
    damaged: Mapping[str, str]


@dataclass(frozen=True)
class Release:
    """A release on this machine's disk: `project` is the folder with dbt_project.yml, its packages installed."""

    version: str
    digest: str
    project: Path
    project_name: str
    git_commit: str | None
    dbt_version: str


def check_version(version: str) -> None:
    """Refuses a version that cannot be part of a key, or that looks like a pull request's and cannot be one.

    Raises:
        TypedError: Dbt.InvalidRequest.
    """
    if not _VERSION.fullmatch(version):
        raise TypedError(
            INVALID_REQUEST, f"version {version!r}: use 1 to 64 letters, digits, dots, underscores and hyphens, a letter or digit first"
        )
    if is_ci(version) and not _CI_VERSION.fullmatch(version):
        raise TypedError(
            INVALID_REQUEST,
            f"version {version!r}: only {CI_PREFIX} and the first {CI_DIGITS} hexadecimal digits of its content's sha256, in lower case, "
            "begin so: these versions are made by dbt-runner ci",
        )


def _is_version(name: str) -> bool:
    try:
        check_version(name)
    except TypedError:
        return False
    return True


def is_ci(version: str) -> bool:
    """Whether a version is that of a pull request's tree, or is written like one: upper case is no way around the rules for them."""
    return version.lower().startswith(CI_PREFIX)


def ci_version(bundle: Path) -> str:
    """The version of a pull request's tree: the same content has the same one, whoever packs it and when."""
    return _ci_version(sha256_of(bundle))


def find(store: Store, version: str) -> ReleaseMeta:
    """Reads what a release is. Only the META item is read, not the bucket.

    Raises:
        TypedError: Dbt.ReleaseNotFound.
    """
    meta = _meta(store, version)
    if meta is None:
        raise TypedError(
            RELEASE_NOT_FOUND,
            f"release {version} is not published: publish it (dbt-runner release publish --version {version}), or use another version",
        )
    return meta


def catalog(store: Store) -> Catalog:
    """All published releases. What a publisher began and did not finish is none."""
    found, damaged = [], {}
    for version in store.folders(RELEASES):
        try:
            meta = _meta(store, version, retired=None) if _is_version(version) else None
        except TypedError as exc:
            damaged[version] = exc.message
        else:
            found += [meta] if meta else []
    return Catalog(tuple(sorted(found, key=lambda meta: meta.published_at, reverse=True)), damaged)


def describe(store: Store, version: str) -> Description:
    """Everything that was recorded about a release.

    Raises:
        TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
    """
    find(store, version)
    return _description(version, _read(store, release_key(version, DESCRIPTION)))


def manifest(store: Store, version: str) -> dict[str, Any]:
    """A release's manifest, verified.

    Raises:
        TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt.
    """
    meta = find(store, version)
    body = _read(store, release_key(version, MANIFEST))
    if _sha256(body) != meta.manifest_digest:
        raise _corrupt(version, f"its manifest has the sha256 {_sha256(body)}, {meta.manifest_digest} was published")
    document: dict[str, Any] = json.loads(body)
    return document


def fetch(store: Store, version: str, destination: Path) -> Release:
    """Downloads a release, verifies its digest, and unpacks it.

    Args:
        destination: the project's folder; must not exist yet.

    Raises:
        TypedError: Dbt.ReleaseNotFound, Dbt.ReleaseCorrupt. The destination is not there then.
    """
    meta = find(store, version)
    with tempfile.TemporaryDirectory(prefix="dbt-release-") as folder:
        path = Path(folder, BUNDLE)
        if not store.download(release_key(version, BUNDLE), path):
            raise _corrupt(version, "its bundle is not in the bucket")
        digest = sha256_of(path)
        if digest != meta.digest:
            raise _corrupt(version, f"its bundle has the sha256 {digest}, {meta.digest} was published")
        bundles.unpack(path, destination)
    return Release(
        version=version,
        digest=digest,
        project=destination,
        project_name=meta.project,
        git_commit=meta.git_commit,
        dbt_version=meta.dbt_version,
    )


def published(store: Store, version: str, bundle: Path) -> Published | None:
    """The release of this version if it is published with the content of `bundle`; None when the version is free.

    Raises:
        TypedError: Dbt.InvalidRequest when it is published with other content, or was and is retired.
    """
    meta = _meta(store, version, retired=INVALID_REQUEST)
    if meta is None:
        return None
    if meta.digest != sha256_of(bundle) and _stored_bundle(store, version, bundle) is None:
        raise _taken(version)
    return Published(_description(version, _read(store, release_key(version, DESCRIPTION))), new=False)


def commit(store: Store, candidate: Candidate) -> Published:
    """Puts a release into the store, once.

    The bundle goes first: of several publishers of one version, the one whose bundle is in the bucket has won, and whoever has
    other content changes nothing any more. Then manifest and description, then META. Each of them is kept as it is when it is
    there already, so a publisher of the same content finishes what one that died left behind, and two at the same time agree.

    A publisher that died leaves a bundle that nobody may overwrite or delete. Publishing the same content again (the
    same commit, for instance) finishes the release; other content needs another version. So a version never means two things,
    not even to someone who saw the first one's bundle.

    Raises:
        TypedError: Dbt.InvalidRequest when the version is taken by other content; nothing was changed. Dbt.ReleaseCorrupt when
            objects and items of the version do not belong together.
    """
    version = candidate.version
    check_version(version)
    digest, size = _commit_bundle(store, version, candidate.bundle)
    _check_name(version, digest)
    kept = _put_once(store, release_key(version, MANIFEST), candidate.manifest)
    own = Description(
        version=version,
        digest=digest,
        manifest_digest=_sha256(kept),
        size=size,
        git_commit=candidate.git_commit,
        git_branch=candidate.git_branch,
        git_dirty=candidate.git_dirty,
        dbt_version=candidate.dbt_version,
        adapter=candidate.adapter,
        project=candidate.project,
        author=candidate.author,
        published_at=now(),
        counts=dict(sorted(candidate.counts.items())),
    )
    document = json.dumps(asdict(own), indent=2, sort_keys=True).encode()
    description = _description(version, _put_once(store, release_key(version, DESCRIPTION), document))
    if (description.digest, description.manifest_digest) != (own.digest, own.manifest_digest):
        raise _corrupt(version, f"its {DESCRIPTION} does not describe its other files")
    meta = {field.name: getattr(description, field.name) for field in fields(ReleaseMeta)}
    try:
        store.put({"pk": release_pk(version), "sk": RELEASE_META, **meta}, only_if_new=True)
    except AlreadyThere:
        if find(store, version).digest != digest:
            raise _corrupt(version, "its item does not describe its bundle") from None
        return Published(description, new=False)
    return Published(description, new=True)


def _meta(store: Store, version: str, retired: ErrorKind | None = RELEASE_NOT_FOUND) -> ReleaseMeta | None:
    """A release's item; of one that is retired none, or an error of this kind."""
    check_version(version)
    item = store.get(release_pk(version), RELEASE_META)
    if item is not None and RETIRING in item:
        if retired is None:
            return None
        raise TypedError(retired, f"release {version} is retired since {item[RETIRING]}: publish the project under another version")
    if item is None:
        return None
    try:
        meta = ReleaseMeta(
            **{field.name: item[field.name] for field in fields(ReleaseMeta) if field.name != "git_commit"},
            git_commit=item.get("git_commit"),
        )
    except KeyError as exc:
        raise _corrupt(version, f"its item lacks {exc}") from exc
    _check_meta(version, meta)
    return meta


def _check_meta(version: str, meta: ReleaseMeta) -> None:
    """Refuses what no publisher of this version wrote: every deployer of the deployment may write the item."""
    texts = (meta.digest, meta.manifest_digest, meta.dbt_version, meta.author, meta.published_at, meta.project, meta.adapter)
    if not all(isinstance(text, str) for text in (*texts, meta.git_commit or "")) or isinstance(meta.size, str):
        raise _corrupt(version, "its description holds values of other types")
    if meta.version != version:
        raise _corrupt(version, f"its description is that of {meta.version!r}")
    if not (_SHA256.fullmatch(meta.digest) and _SHA256.fullmatch(meta.manifest_digest)):
        raise _corrupt(version, "its description holds no sha256")
    _check_name(version, meta.digest)


def _check_name(version: str, digest: str) -> None:
    """Holds the name of a pull request's release against its content. Other names say nothing of it."""
    if is_ci(version) and version != _ci_version(digest):
        raise _corrupt(version, f"the sha256 of its content is {digest}, which its name does not say")


def _ci_version(digest: str) -> str:
    return f"{CI_PREFIX}{digest[:CI_DIGITS]}"


def _description(version: str, document: bytes) -> Description:
    try:
        description = Description(**json.loads(document))
    except (TypeError, ValueError, RecursionError) as exc:
        raise _corrupt(version, f"its {DESCRIPTION} cannot be read") from exc
    _check_meta(version, description)
    return description


def _commit_bundle(store: Store, version: str, bundle: Path) -> tuple[str, int]:
    """Makes sure that the bucket holds this bundle; digest and size of the stored one."""
    try:
        store.upload_new(bundle.read_bytes(), release_key(version, BUNDLE))
    except AlreadyThere as exc:
        stored = _stored_bundle(store, version, bundle)
        if stored is not None:
            return stored
        if _meta(store, version) is not None:
            raise _taken(version) from exc
        raise TypedError(
            INVALID_REQUEST,
            f"version {version} is being published with other content, or its publisher died before it was done; choose another version",
        ) from exc
    return sha256_of(bundle), bundle.stat().st_size


def _stored_bundle(store: Store, version: str, bundle: Path) -> tuple[str, int] | None:
    """Digest and size of the stored bundle if it holds what `bundle` holds."""
    with tempfile.TemporaryDirectory(prefix="dbt-release-") as folder:
        stored = Path(folder, BUNDLE)
        if not store.download(release_key(version, BUNDLE), stored):
            raise _corrupt(version, "its bundle is not in the bucket")
        digest = sha256_of(stored)
        if digest == sha256_of(bundle) or bundles.content_digest(stored) == bundles.content_digest(bundle):
            return digest, stored.stat().st_size
    return None


def _put_once(store: Store, key: str, body: bytes) -> bytes:
    """Writes an object unless it is there; what the bucket holds then."""
    try:
        store.upload_new(body, key)
    except AlreadyThere:
        return _read(store, key)
    return body


def _read(store: Store, key: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="dbt-release-") as folder:
        path = Path(folder, "object")
        if not store.download(key, path):
            raise TypedError(RELEASE_CORRUPT, f"{key} is not in the bucket")
        return path.read_bytes()


def _taken(version: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"version {version} is published with other content; choose another version")


def _corrupt(version: str, problem: str) -> TypedError:
    return TypedError(RELEASE_CORRUPT, f"release {version} is damaged: {problem}; publish the project under another version")


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
