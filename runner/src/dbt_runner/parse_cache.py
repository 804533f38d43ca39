"""dbt's parse cache between runs: the first run of a release in an environment makes it, later ones start from it.

Nothing here decides whether a cached parse is right. dbt compares versions, variables, profile, project and every file with what is
in it, and parses from scratch where they differ or where it cannot read the file; it is asked what it did, and the answer stands in
the outcome. No failure of the cache fails a run.

Later runs execute what is in it, so it is taken at the one moment when nothing but the release's own Jinja can have written it: dbt has
parsed, and no query, hook or node has run. What a worker leaves there later is ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from dbt_runner import untrusted_files, variables
from dbt_runner.errors import TypedError
from dbt_runner.events import Parsed
from dbt_runner.logs import JsonLog
from dbt_runner.masking import Mask
from dbt_runner.profile import Target
from dbt_runner.release import Release
from dbt_runner.request import AttemptRequest
from dbt_runner.store import AlreadyThere, Store, cache_key

FILE = "partial_parse.msgpack"

# What became of the cache, as the outcome says it.
USED = "used"  # dbt started from it
MADE = "made"  # there was none: this attempt left one
RENEWED = "renewed"  # dbt refused what was there: this attempt replaced it
KEPT = "kept"  # there is one, although this attempt did not start from it: another run made it meanwhile
NONE = "none"  # this attempt neither found nor left one


class ParseCache:
    """The cache of one release in one environment, for one attempt.

    Args:
        asked: the attempt. Variables of its own are another parse, and as likely as not they never come again: there is a cache
            for a run without any and for the variables of each job. Nor does a schema of a run's own come again.
        target: the one that dbt parses the release for.
        folder: where dbt looks for its cache, and leaves it.
        mask: a parse in which it finds a secret is not kept. dbt stores there what env_var() gave to the project's files.
    """

    def __init__(
        self, store: Store, asked: AttemptRequest, release: Release, target: Target, folder: Path, log: JsonLog, mask: Mask
    ) -> None:
        self._store = store
        self._log = log
        self._mask = mask
        self._path = folder / FILE
        self._etag: str | None = None
        self._parsed: Parsed | None = None
        self._copy: BinaryIO | None = None
        comes_again = not target.schema_suffix and (not asked.vars or asked.vars in map(_vars_of, asked.config.jobs.values()))
        self._key = _key(asked, release, target) if comes_again else None

    def fetch(self) -> None:
        """Puts the cache, if there is one, where dbt looks for it."""
        if self._key is None:
            return
        try:
            self._etag = self._store.download_version(self._key, self._path)
        except TypedError:
            # The attempt was asked to stop.
            raise
        except Exception as exc:
            self._path.unlink(missing_ok=True)
            self._log.warning("the parse cache could not be read: dbt parses the whole project", error=repr(exc))

    def take(self, parsed: Parsed) -> None:
        """Takes what dbt has written, while the worker waits: a copy without a name, which the worker cannot reach.

        Args:
            parsed: what the worker said about the first parse.
        """
        self._parsed = parsed
        if self._key is None or (self._etag is not None and not parsed.reasons):
            return
        copy = tempfile.TemporaryFile()  # noqa: SIM115  # kept until `keep` or `withdraw`
        try:
            untrusted_files.copy(self._path, copy, untrusted_files.largest_file())
        except (OSError, untrusted_files.Unreadable) as exc:
            copy.close()
            self._log.warning("dbt's parse is not kept: later runs parse the whole project, too", error=repr(exc))
            return
        self._copy = copy

    def withdraw(self) -> None:
        """The worker had gone on before: what was taken may be a node's work."""
        self._drop()

    def keep(self) -> Mapping[str, str]:
        """Leaves dbt's parse for later runs, unless it started from what is there already.

        Returns:
            what the outcome says: `cache`, one of the words above, and `reason`, dbt's own, where it parsed the whole project.
        """
        parsed = self._parsed
        reason = {"reason": "; ".join(parsed.reasons)} if parsed and parsed.reasons else {}
        if parsed is not None and not parsed.reasons and self._etag is not None:
            return {"cache": USED}
        try:
            return {"cache": self._write(), **reason}
        finally:
            self._drop()

    def _write(self) -> str:
        if self._key is None or self._copy is None:
            return NONE
        try:
            self._copy.seek(0)
            body = self._copy.read()
            if self._mask.occurs_in(body):
                self._log.warning(
                    "dbt's parse holds the value of a secret variable and is not kept: later runs parse the whole project, too"
                )
                return NONE
            self._store.upload_version(body, self._key, replaces=self._etag)
        except AlreadyThere:
            return KEPT
        except Exception as exc:
            self._log.warning("the parse cache could not be written: the next run parses the whole project", error=repr(exc))
            return NONE
        return RENEWED if self._etag else MADE

    def _drop(self) -> None:
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._copy.close()
            self._copy = None


def _vars_of(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A job's variables; None where they cannot be read, which is that job's to say."""
    try:
        return variables.of_input(job["vars"])
    except TypedError:
        return None


def _key(asked: AttemptRequest, release: Release, target: Target) -> str | None:
    """Everything that makes dbt refuse a cache is part of its key, so that caches do not take turns in one place."""
    try:
        versions = [f"{name}-{metadata.version(name)}" for name in ("dbt-core", f"dbt-{target.warehouse.type}")]
    except metadata.PackageNotFoundError:
        # dbt has better words for that.
        return None
    rest = json.dumps([release.digest, target.name, target.output(), asked.vars], sort_keys=True)
    fingerprint = hashlib.sha256(rest.encode()).hexdigest()[:16]
    return cache_key(asked.key.environment, f"{release.version}/{'_'.join(versions)}/{fingerprint}/{FILE}")
