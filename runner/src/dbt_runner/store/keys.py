"""What items and objects are called."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

CONFIG = "CONFIG"
LOCK = "LOCK"
CURRENT_RELEASE = "RELEASE#CURRENT"
RELEASE_META = "META"
PROMOTION_PREFIX = "PROMOTION#"
POINTER_PREFIX = "POINTER#"
RUN_PREFIX = "RUN#"
RELEASES = "releases/"
STEP_PREFIX = "STEP#"
NODE_PREFIX = "NODE#"
CLAIM = "CLAIM"
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
MAX_SORT_KEY_BYTES = 1024
_DIGEST = re.compile(r"~sha256:[0-9a-f]{64}\Z")
_DIGEST_BYTES = len("~sha256:") + 64


def environment_pk(environment: str) -> str:
    return f"ENV#{environment}"


def pointer_pk(environment: str) -> str:
    """The partition of an environment's release pointer and of the record of its moves, which the deployer writes.

    It is apart from `environment_pk`, because IAM sees partition keys only: a role that may write one item of a partition may replace any.
    """
    return f"{POINTER_PREFIX}{environment}"


def run_pk(environment: str, run_id: str) -> str:
    return f"RUN#{environment}#{run_id}"


def release_pk(version: str) -> str:
    return f"RELEASE#{version}"


def step_prefix(position: int, name: str) -> str:
    """What the sort keys of all attempts of a step begin with."""
    return f"{STEP_PREFIX}{position:02d}#{name}#"


def step_sk(position: int, name: str, attempt: int) -> str:
    return f"{step_prefix(position, name)}{attempt}"


def node_prefix(step: str) -> str:
    """What the sort keys of all nodes of a step begin with."""
    return f"{NODE_PREFIX}{step}#"


def node_sk(step: str, unique_id: str) -> str:
    """The sort key of a node's result, at most MAX_SORT_KEY_BYTES long: dbt puts every argument of a test into its id.

    A longer one is cut and ends in the digest of the id, as does a short one that looks like that. Two ids never have one key.
    """
    key = f"{node_prefix(step)}{unique_id}"
    raw = key.encode(errors="surrogatepass")
    if len(raw) <= MAX_SORT_KEY_BYTES and not _DIGEST.search(key):
        return key
    digest = hashlib.sha256(unique_id.encode(errors="surrogatepass")).hexdigest()
    return f"{raw[: MAX_SORT_KEY_BYTES - _DIGEST_BYTES].decode(errors='ignore')}~sha256:{digest}"


def release_key(version: str, name: str) -> str:
    """The S3 key of one of a release's three files: bundle.tar.gz, manifest.json, release.json."""
    return f"{RELEASES}{version}/{name}"


def pin_key(environment: str, version: str) -> str:
    """The S3 key of what a version means in an environment, written once: see dbt_runner.pins."""
    return f"pins/{environment}/{version}.json"


def cache_key(environment: str, name: str) -> str:
    """The S3 key of something that can be made again, for one environment."""
    return f"cache/{environment}/{name}"


def archive_prefix(table: str, environment: str) -> str:
    """What the keys of all rows of one table of the long-term audit begin with, for one environment."""
    return f"audit/{table}/env={environment}/"


def documentation_key(environment: str, version: str | None = None) -> str:
    """The S3 key of a project's documentation: that of a release, or of the one that is current."""
    return f"docs/{environment}/{version + '/' if version else ''}index.html"


def archive_key(table: str, environment: str, date: str, name: str) -> str:
    """The S3 key of rows of the long-term audit; its folders are the partitions of the table that reads them.

    Args:
        table: runs, attempts, nodes or promotions.
        date: the day on which the run began or the promotion was made (UTC), such as 2026-11-22.
    """
    return f"{archive_prefix(table, environment)}date={date}/{name}.jsonl"


def now() -> str:
    """The present moment as the store writes it: ISO 8601, UTC, milliseconds, Z."""
    return timestamp(datetime.now(UTC))


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
