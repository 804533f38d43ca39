"""What a version means in an environment: its digests, written once, when the environment first takes it.

A release's META item can be replaced by any deployer of the deployment, and its files can be published again once they are gone. A pin
can be neither: it is an object of the bucket which the environment's deployer (at a promotion) and its runner (at a run) may write with
If-None-Match only, and which no role of the module deletes and no lifecycle rule expires. The first pin is kept. One that
names other digests than the release has is a refusal, whoever wrote it: it cannot make an environment run anything.

Releases of pull requests need no pin: their name is the digest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from dbt_runner import integrity, release
from dbt_runner.errors import RELEASE_CORRUPT, TypedError
from dbt_runner.store import AlreadyThere, Store, now, pin_key

_LIMIT = 16_384
_HELD = ("version", "digest", "manifest_digest", "project")


@dataclass(frozen=True)
class Pin:
    """What an environment took a version for.

    Attributes:
        digest, manifest_digest: sha256 (hex) of bundle.tar.gz and manifest.json.
        project: the dbt project's name.
        pinned_at: ISO 8601, UTC.
        pinned_by: the ARN of the caller who promoted it, or the ARN of the execution that ran it first.
    """

    version: str
    digest: str
    manifest_digest: str
    project: str
    pinned_at: str
    pinned_by: str


def hold(store: Store, environment: str, meta: release.ReleaseMeta, *, by: str) -> None:
    """Holds a release against the environment's pin of its version, and pins it where there is none yet.

    Before it is pinned, its item is held against the description that was published with it, which cannot be overwritten either.

    Args:
        by: the caller who promotes it, or the execution that runs it.

    Raises:
        TypedError: Dbt.ReleaseCorrupt.
    """
    if release.is_ci(meta.version):
        return
    pinned = read(store, environment, meta.version)
    if pinned is None:
        check = integrity.check_description(store, meta)
        if check.problem:
            raise _differs(environment, meta.version, f"{check.key} {check.problem}")
        new = Pin(meta.version, meta.digest, meta.manifest_digest, meta.project, now(), by)
        try:
            store.upload_new(json.dumps(asdict(new), ensure_ascii=False).encode(), pin_key(environment, meta.version))
        except AlreadyThere:
            pinned = read(store, environment, meta.version) or new
        else:
            return
    differing = [name for name in _HELD if getattr(pinned, name) != getattr(meta, name)]
    if differing:
        was = ", ".join(f"{name} {getattr(pinned, name)}" for name in differing)
        since = f"since {pinned.pinned_at} it means {was} there"
        raise _differs(environment, meta.version, f"{since}, and the release that is published now is another one")


def check(store: Store, environment: str, meta: release.ReleaseMeta) -> integrity.Check | None:
    """Holds a release against the environment's pin of its version, without pinning it; None where there is no pin."""
    key = pin_key(environment, meta.version)
    try:
        pinned = None if release.is_ci(meta.version) else read(store, environment, meta.version)
    except TypedError as exc:
        return integrity.Check(key, exc.message)
    if pinned is None:
        return None
    differing = [name for name in _HELD if getattr(pinned, name) != getattr(meta, name)]
    return integrity.Check(key, f"differs from the release's item in {', '.join(differing)}" if differing else None)


def read(store: Store, environment: str, version: str) -> Pin | None:
    """The environment's pin of a version; None before it took that version.

    Raises:
        TypedError: Dbt.ReleaseCorrupt when there is one that cannot be read.
    """
    key = pin_key(environment, version)
    try:
        body = store.read(key, _LIMIT)
        if body is None:
            return None
        found = json.loads(body)
        values = {field.name: found[field.name] for field in fields(Pin)}
        if not all(isinstance(value, str) for value in values.values()):
            raise ValueError("a value is no text")
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise TypedError(
            RELEASE_CORRUPT,
            f"{key}, which says what {version} means in {environment}, cannot be read: publish the project under another version",
            why=repr(exc)[:300],
        ) from exc
    return Pin(**values)


def _differs(environment: str, version: str, problem: str) -> TypedError:
    return TypedError(RELEASE_CORRUPT, f"release {version} is not what {environment} may run: {problem}; publish under another version")
