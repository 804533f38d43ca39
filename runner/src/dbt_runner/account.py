"""A run as the bucket alone tells it, years later: which release, by whom, what ran, how it ended, and whether all of that holds together.

Nothing here reads the table. The rows of the long-term audit are by different hands: the run's is the state machine's, those of attempts
and nodes are the runner's, which may write them once, and those of promotions are the deployer's. What one of them says of another, or
of an artifact, is compared with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dbt_runner import release
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.integrity import Check, check_object
from dbt_runner.runs import LAST, chosen
from dbt_runner.store import Store, archive_key, archive_prefix, release_key

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Account:
    """What is left of a run.

    Attributes:
        run: its closing row.
        promotion: of its release, the last one before it began; None where it ran another release than the current one, or none.
        attempts: in the order of steps and attempts.
        nodes: in the order in which they ran.
        checks: of all that is written of these; a `problem` is something that does not hold.
    """

    run: Row
    promotion: Row | None
    attempts: tuple[Row, ...]
    nodes: tuple[Row, ...]
    checks: tuple[Check, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Nodes by dbt's status, of the last attempt that ran each."""
        last = {(node["step"], node["unique_id"]): node["status"] for node in self.nodes}
        return dict(sorted(Counter(last.values()).items()))


def find(store: Store, environment: str, reference: str) -> str:
    """Finds a run in the long-term audit and returns its id.

    Args:
        reference: a run id, the beginning of one, or `last` for the newest run.

    Raises:
        TypedError: Dbt.InvalidRequest: there is no such run, or several begin so.
    """
    keys = list(store.keys(archive_prefix("runs", environment)))
    if reference == LAST:
        # The key has the date; what was first on a day, the rows say.
        newest = max((key.rpartition("/")[0] for key in keys), default=None)
        rows = [row for key in keys if key.rpartition("/")[0] == newest for row in _rows(store, key)]
        if not rows:
            raise TypedError(INVALID_REQUEST, f"the long-term audit of environment {environment} has no runs yet")
        return str(max(rows, key=lambda row: str(row["started_at"]))["run_id"])
    names = [key.rpartition("/")[2].removesuffix(".jsonl") for key in keys]
    found = chosen(names, reference)
    if found is None:
        raise TypedError(INVALID_REQUEST, f"the long-term audit of environment {environment} has no run {reference}")
    return found


def read(store: Store, environment: str, run_id: str) -> Account:
    """Reads and compares all that the bucket has of a run.

    Raises:
        TypedError: Dbt.InvalidRequest when it has no such run.
    """
    name = f"/{run_id}.jsonl"
    key = next((key for key in store.keys(archive_prefix("runs", environment)) if key.endswith(name)), None)
    if key is None:
        raise TypedError(INVALID_REQUEST, f"the long-term audit of environment {environment} has no run {run_id}")
    (run,) = _rows(store, key)
    date = str(run["started_at"])[:10]
    checks: list[Check] = []
    attempts: list[Row] = []
    nodes: list[Row] = []
    begin = archive_key("attempts", environment, date, f"{run_id}.").removesuffix(".jsonl")
    for attempts_key in store.keys(begin):
        # The id of another run may begin with this one's.
        found = [row for row in _rows(store, attempts_key) if row["run_id"] == run_id]
        attempts += found
        checks += [Check(attempts_key, problem) for row in found for problem in [_contradiction(run, row)]]
    attempts.sort(key=lambda row: (row["position"], row["attempt"]))
    for row in attempts:
        if row.get("node_rows"):
            checks.append(check_object(store, row["node_rows"]["key"], row["node_rows"]["sha256"]))
            nodes += [node for node in _rows(store, row["node_rows"]["key"]) if node["run_id"] == run_id]
        checks += [check_object(store, artifact["key"], artifact["sha256"]) for artifact in row.get("artifacts", ())]
    checks += _missing(run, attempts, key)
    checks += _release(store, run, attempts)
    promotion = _promotion(store, environment, run)
    checks += _promoted(promotion, attempts, key)
    nodes.sort(key=lambda node: (node.get("started_at") or "", node["unique_id"]))
    return Account(run, promotion, tuple(attempts), tuple(nodes), tuple(checks))


def _contradiction(run: Row, attempt: Row) -> str | None:
    """What an attempt's row says otherwise than the run's."""
    step = next((step for step in _steps(run) if step["step"] == attempt["step"]), None)
    # A run that was aborted has no word of the step in which that happened.
    if step is None or attempt["attempt"] < step["attempts"]:
        return None
    if attempt["attempt"] > step["attempts"]:
        return f"is of attempt {attempt['attempt']}, the run's row knows {step['attempts']}"
    if attempt.get("error") != step["error"]:
        return f"says {attempt.get('error') or 'that it succeeded'}, the run's row says {step['error'] or 'that it succeeded'}"
    return None


def _missing(run: Row, attempts: Sequence[Row], key: str) -> Iterator[Check]:
    """Steps that succeeded, and of which no row of an attempt tells."""
    told = {row["step"] for row in attempts}
    for step in _steps(run):
        if step["status"] == "SUCCEEDED" and step["step"] not in told and not run.get("resumed_from"):
            yield Check(key, f"says that step {step['step']} succeeded, and no attempt has a row that says so")


def _release(store: Store, run: Row, attempts: Sequence[Row]) -> Iterator[Check]:
    """The release's files, as they are now, against what the attempts had of it."""
    version = run.get("release")
    for name, digest in ((release.BUNDLE, "release_digest"), (release.MANIFEST, "manifest_digest")):
        for sha256 in dict.fromkeys(str(row[digest]) for row in attempts if row.get(digest)):
            yield check_object(store, release_key(str(version), name), sha256)


def _promoted(promotion: Row | None, attempts: Sequence[Row], key: str) -> Iterator[Check]:
    """Attempts that had other content under the version than was promoted."""
    promised = promotion.get("digest") if promotion else None
    for sha256 in dict.fromkeys(str(row["release_digest"]) for row in attempts if row.get("release_digest")):
        if promised is not None and sha256 != promised:
            yield Check(key, f"ran a release with the sha256 {sha256}, {promised} was promoted")


def _promotion(store: Store, environment: str, run: Row) -> Row | None:
    """The last move of the pointer before the run began, if it was to the run's release."""
    last: Row | None = None
    for key in store.keys(archive_prefix("promotions", environment)):
        try:
            rows = _rows(store, key)
        except ValueError:
            # The deployer writes these, and one that is none must not hide the others.
            continue
        for row in rows:
            moment = row.get("promoted_at") if isinstance(row, dict) else None
            if isinstance(moment, str) and moment <= run["started_at"] and (last is None or moment > last["promoted_at"]):
                last = row
    return last if last is not None and last.get("version") == run.get("release") else None


def _steps(run: Row) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(run.get("steps") or "[]")
    return steps


def _rows(store: Store, key: str) -> list[Row]:
    with TemporaryDirectory(prefix="dbt-account-") as folder:
        path = Path(folder, "rows")
        if not store.download(key, path):
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
