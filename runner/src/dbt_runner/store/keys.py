"""What items and objects are called."""

from __future__ import annotations

from datetime import UTC, datetime

CONFIG = "CONFIG"
LOCK = "LOCK"
CURRENT_RELEASE = "RELEASE#CURRENT"
RELEASE_META = "META"
PROMOTION_PREFIX = "PROMOTION#"
RUN_PREFIX = "RUN#"
RELEASES = "releases/"
STEP_PREFIX = "STEP#"
NODE_PREFIX = "NODE#"
CLAIM = "CLAIM"


def environment_pk(environment: str) -> str:
    return f"ENV#{environment}"


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
    return f"{node_prefix(step)}{unique_id}"


def release_key(version: str, name: str) -> str:
    """The S3 key of one of a release's three files: bundle.tar.gz, manifest.json, release.json."""
    return f"{RELEASES}{version}/{name}"


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
