"""Where a report comes from: what the audit store has of a run, and the two artifacts that say more about its nodes."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dbt_runner import untrusted_files
from dbt_runner.config import EnvironmentConfig
from dbt_runner.lineage import Lineage, from_manifest
from dbt_runner.run_records import Outcome, RunDetail
from dbt_runner.store import Store

MANIFEST = "manifest.json"
FRESHNESS = "sources.json"


@dataclass(frozen=True)
class Freshness:
    """What `dbt source freshness` found of a source.

    Attributes:
        loaded_at: when its newest row was loaded (ISO 8601); None where the query did not come that far.
        age: seconds between that and the look at it.
        warn_after, error_after: as the project says it, such as "12 hours"; empty where it says nothing.
    """

    unique_id: str
    status: str
    loaded_at: str | None
    age: float | None
    warn_after: str
    error_after: str


@dataclass(frozen=True)
class Sources:
    """All that a report is made of.

    Attributes:
        lineage: empty when no attempt left a manifest.
        missing: the artifacts that the record names and the bucket no longer has.
    """

    detail: RunDetail
    config: EnvironmentConfig
    lineage: Lineage = field(default_factory=Lineage)
    freshness: tuple[Freshness, ...] = ()
    missing: tuple[str, ...] = ()


def from_store(store: Store, config: EnvironmentConfig, detail: RunDetail) -> Sources:
    """Reads the newest manifest.json and sources.json that the run's attempts left in the bucket."""
    documents: dict[str, Any] = {}
    missing = []
    with tempfile.TemporaryDirectory(prefix="dbt-report-") as folder:
        for name in (MANIFEST, FRESHNESS):
            key = _newest(detail.outcomes, name)
            if key is None:
                continue
            path = Path(folder) / name
            if store.download(key, path):
                documents[name] = untrusted_files.read_object(path)
            else:
                missing.append(key)
    return _sources(detail, config, documents, tuple(missing))


def from_folder(config: EnvironmentConfig, detail: RunDetail, folder: Path) -> Sources:
    """Takes both artifacts from the folder in which dbt left them."""
    documents = {name: untrusted_files.read_object(folder / name) for name in (MANIFEST, FRESHNESS) if (folder / name).is_file()}
    return _sources(detail, config, documents)


def from_attempt(store: Store, config: EnvironmentConfig, detail: RunDetail, folder: Path) -> Sources:
    """Takes both artifacts from the folder in which dbt left them, and sources.json from the bucket where another step looked at them.

    Of what earlier steps left, the role of a task may read nothing else.
    """
    here = from_folder(config, detail, folder)
    key = _newest(detail.outcomes, FRESHNESS)
    if (folder / FRESHNESS).is_file() or key is None:
        return here
    with tempfile.TemporaryDirectory(prefix="dbt-report-") as other:
        path = Path(other) / FRESHNESS
        found = untrusted_files.read_object(path) if store.download(key, path) else {}
    return replace(here, freshness=tuple(_freshness(found)))


def _sources(detail: RunDetail, config: EnvironmentConfig, documents: Mapping[str, Any], missing: tuple[str, ...] = ()) -> Sources:
    try:
        lineage = from_manifest(documents.get(MANIFEST) or {})
    except Exception:
        # The worker wrote it: it may be any JSON. A report without lineage is better than none.
        lineage = Lineage()
    return Sources(detail, config, lineage, tuple(_freshness(documents.get(FRESHNESS) or {})), missing)


def _newest(outcomes: Iterable[Outcome], name: str) -> str | None:
    """The key of the last attempt's artifact of this name. Copies of single commands (command-0/...) are not meant."""
    keys = [str(artifact["key"]) for outcome in outcomes for artifact in outcome.artifacts]
    return next((key for key in reversed(keys) if key.endswith(f"/{name}") and "/command-" not in key), None)


def _freshness(document: Mapping[str, Any]) -> Iterable[Freshness]:
    """https://docs.getdbt.com/reference/artifacts/sources-json"""
    results = document.get("results")
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, dict) or not isinstance(unique_id := result.get("unique_id"), str):
            continue
        criteria, loaded_at = result.get("criteria"), result.get("max_loaded_at")
        age = result.get("max_loaded_at_time_ago_in_s")
        yield Freshness(
            unique_id=unique_id,
            status=str(result.get("status"))[:100],
            loaded_at=loaded_at if isinstance(loaded_at, str) else None,
            age=float(age) if isinstance(age, (int, float)) and math.isfinite(age) else None,
            warn_after=_period(criteria.get("warn_after") if isinstance(criteria, dict) else None),
            error_after=_period(criteria.get("error_after") if isinstance(criteria, dict) else None),
        )


def _period(after: object) -> str:
    number, period = (after.get("count"), after.get("period")) if isinstance(after, Mapping) else (None, None)
    if not isinstance(number, int) or not number or not isinstance(period, str):
        return ""
    return f"{number} {period}{'' if number == 1 else 's'}"
