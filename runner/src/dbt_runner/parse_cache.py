"""dbt's parse cache between runs: the first run of a release in an environment makes it, later ones start from it.

Nothing here decides whether a cached parse is right. dbt compares versions, variables, profile, project and every file with what is
in it, and parses from scratch where they differ or where it cannot read the file; it is asked what it did, and the answer stands in
the outcome. No failure of the cache fails a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from dbt_runner import variables
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

    def keep(self, parsed: Parsed | None) -> Mapping[str, str]:
        """Leaves dbt's parse for later runs, unless it started from what is there already.

        Args:
            parsed: what the worker said about the first parse; None when it came to none.

        Returns:
            what the outcome says: `cache`, one of the words above, and `reason`, dbt's own, where it parsed the whole project.
        """
        reason = {"reason": "; ".join(parsed.reasons)} if parsed and parsed.reasons else {}
        if parsed is not None and not parsed.reasons and self._etag is not None:
            return {"cache": USED}
        return {"cache": self._write() if parsed is not None else NONE, **reason}

    def _write(self) -> str:
        if self._key is None or not self._path.is_file():
            return NONE
        try:
            if self._mask.occurs_in(self._path.read_bytes()):
                self._log.warning(
                    "dbt's parse holds the value of a secret variable and is not kept: later runs parse the whole project, too"
                )
                return NONE
            self._store.upload_version(self._path, self._key, replaces=self._etag)
        except AlreadyThere:
            return KEPT
        except Exception as exc:
            self._log.warning("the parse cache could not be written: the next run parses the whole project", error=repr(exc))
            return NONE
        return RENEWED if self._etag else MADE


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
