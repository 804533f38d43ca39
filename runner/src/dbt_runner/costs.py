"""What an environment's runs of a month cost, reckoned from their records and one table of prices.

docs/cost.md explains the formulas and what is left out. It is an estimate: the bill is AWS's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbt_runner.config import EnvironmentConfig
from dbt_runner.errors import INVALID_REQUEST, OUT_OF_MEMORY, TypedError
from dbt_runner.request import HEALTH_CHECK
from dbt_runner.run_records import Outcome, Run

# Fargate bills from the image pull, and a minute at least. The records begin when the runner does.
START_SECONDS = 30.0
_LEAST_SECONDS = 60.0
_FINALIZE_TRANSITIONS = 8
_ANNOUNCE_TRANSITIONS, _ANNOUNCE_FAILURE_TRANSITIONS = 8, 14
_PRICES = Path(__file__).with_name("prices.json")


@dataclass(frozen=True)
class Prices:
    """One region's list prices. Keys of the maps are the processor architectures.

    Attributes:
        fargate_spot_factor: what Spot costs of the price on demand; it moves with the market.
        state_transition, dynamodb_write, s3_put, lambda_request: for one.
    """

    as_of: str
    region: str
    currency: str
    fargate_vcpu_hour: Mapping[str, float]
    fargate_gb_hour: Mapping[str, float]
    fargate_spot_factor: float
    lambda_gb_second: Mapping[str, float]
    lambda_request: float
    state_transition: float
    dynamodb_write: float
    s3_put: float
    s3_gb_month: float


@dataclass
class JobCost:
    """What one job's runs of the month used and cost. `job` is None for runs of steps that were given with them."""

    job: str | None
    runs: int = 0
    tasks: int = 0
    vcpu_hours: float = 0.0
    gb_hours: float = 0.0
    transitions: int = 0
    stored_bytes: int = 0
    fargate: float = 0.0
    lambda_: float = 0.0
    step_functions: float = 0.0
    storage: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class MonthCost:
    """What an environment's runs of a month cost, the most expensive job first; money is in the prices' currency."""

    environment: str
    month: str
    prices_region: str
    prices_as_of: str
    currency: str
    jobs: tuple[JobCost, ...] = field(default=())
    total: float = 0.0


def load_prices(path: Path | None = None) -> Prices:
    """The table of prices that comes with the package, or another one of the same form.

    Raises:
        TypedError: Dbt.InvalidRequest, naming what is wrong with the file.
    """
    try:
        raw = json.loads((path or _PRICES).read_text(encoding="utf-8"))
        names = {price.name for price in fields(Prices)}
        wrong = sorted(names ^ set(raw))
        if wrong:
            raise TypedError(INVALID_REQUEST, f"--prices {path}: {wrong[0]} is {'missing' if wrong[0] in names else 'not known'}")
        return Prices(**raw)
    except (OSError, ValueError, TypeError) as exc:
        raise TypedError(INVALID_REQUEST, f"--prices {path}: cannot be read ({exc}); dbt_runner/prices.json shows the form") from exc


def month_of(text: str) -> tuple[datetime, datetime]:
    """The first moment of a month, such as 2026-11, and that of the next one, in UTC.

    Raises:
        TypedError: Dbt.InvalidRequest.
    """
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as exc:
        raise TypedError(INVALID_REQUEST, f"--month {text}: give a month such as 2026-11") from exc
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def cost_of_month(config: EnvironmentConfig, month: str, runs: Iterable[tuple[Run, Iterable[Outcome], int]], prices: Prices) -> MonthCost:
    """Adds up what a month's runs cost.

    Args:
        runs: each run with its attempts' outcomes and the number of its node results.
    """
    jobs: dict[str | None, JobCost] = {}
    for run, outcomes, nodes in runs:
        job = jobs.setdefault(run.job, JobCost(run.job))
        _add(job, config, run, list(outcomes), nodes, prices)
    for job in jobs.values():
        job.total = job.fargate + job.lambda_ + job.step_functions + job.storage
        for name in ("vcpu_hours", "gb_hours", "fargate", "lambda_", "step_functions", "storage", "total"):
            setattr(job, name, round(getattr(job, name), 6))
    ordered = tuple(sorted(jobs.values(), key=lambda job: (-job.total, job.job or "")))
    total = round(sum(job.total for job in ordered), 6)
    return MonthCost(config.environment, month, prices.region, prices.as_of, prices.currency, ordered, total)


def transitions_of(run: Run) -> int:
    """How many states a run has entered, those of finalize and announce among them, as docs/cost.md counts; without retries and waits."""
    if run.status == "SKIPPED":
        return 11
    ended_badly = run.ended_at is not None and run.status != "SUCCEEDED"
    others = _FINALIZE_TRANSITIONS + _ANNOUNCE_FAILURE_TRANSITIONS if ended_badly else _ANNOUNCE_TRANSITIONS
    if run.release is None:
        return 10 + others
    checked = any(step.step == HEALTH_CHECK for step in run.steps)
    steps = [step for step in run.steps if step.step != HEALTH_CHECK]
    attempts = sum(max(0, step.attempts - 1) for step in run.steps)
    if ended_badly and not steps:
        return 18 + others
    return (18 if ended_badly else 17) - (0 if checked else 4) + 4 * len(steps) + 5 * attempts + others


def _add(job: JobCost, config: EnvironmentConfig, run: Run, outcomes: list[Outcome], nodes: int, prices: Prices) -> None:
    job.runs += 1
    transitions = transitions_of(run)
    job.transitions += transitions
    job.step_functions += transitions * prices.state_transition
    for outcome in outcomes:
        job.tasks += 1
        _add_task(job, config, outcome, outcomes, prices)
    artifacts = [artifact for outcome in outcomes for artifact in outcome.artifacts]
    job.stored_bytes += sum(int(artifact["bytes"]) for artifact in artifacts)
    writes = 4 + len(outcomes) + nodes
    gigabytes = sum(int(artifact["bytes"]) for artifact in artifacts) / 1024**3
    job.storage += writes * prices.dynamodb_write + len(artifacts) * prices.s3_put + gigabytes * prices.s3_gb_month


def _add_task(job: JobCost, config: EnvironmentConfig, outcome: Outcome, outcomes: list[Outcome], prices: Prices) -> None:
    architecture = str(config.compute.get("architecture") or "ARM64")
    if outcome.compute == "lambda":
        # Billed by the millisecond; the seconds of a record end before the answer does.
        seconds = math.ceil(outcome.seconds * 1000) / 1000
        job.lambda_ += prices.lambda_request + seconds * _function_memory(config) / 1024 * prices.lambda_gb_second[architecture]
        return
    cpu, memory = _size(config, outcome, outcomes)
    hours = max(_LEAST_SECONDS, outcome.seconds + START_SECONDS) / 3600
    vcpu_hours, gb_hours = hours * cpu / 1024, hours * memory / 1024
    factor = prices.fargate_spot_factor if _on_spot(config, outcome) else 1.0
    job.vcpu_hours += vcpu_hours
    job.gb_hours += gb_hours
    job.fargate += factor * (vcpu_hours * prices.fargate_vcpu_hour[architecture] + gb_hours * prices.fargate_gb_hour[architecture])


def _size(config: EnvironmentConfig, outcome: Outcome, outcomes: list[Outcome]) -> tuple[int, int]:
    """CPU units and MiB of an attempt on Fargate, as state JudgeStep of the state machine moves on after one that ran out of memory: to the
    next size, or from Lambda to the first one that has more than the function."""
    sizes: list[Mapping[str, Any]] = list(config.compute["sizes"])
    last, chosen = len(sizes) - 1, 0
    for earlier in sorted((o for o in outcomes if o.step == outcome.step and o.attempt < outcome.attempt), key=lambda o: o.attempt):
        if earlier.error != OUT_OF_MEMORY.name:
            continue
        small = sum(size["memory"] <= _function_memory(config) for size in sizes)
        chosen = min(small if earlier.compute == "lambda" else chosen + 1, last)
    return int(sizes[chosen]["cpu"]), int(sizes[chosen]["memory"])


def _function_memory(config: EnvironmentConfig) -> int:
    """MiB of the function; where there is none any more, what it would have."""
    return int((config.function or config.compute["lambda"])["memory"])


def _on_spot(config: EnvironmentConfig, outcome: Outcome) -> bool:
    """As state NextStep of the state machine decides it for a first start."""
    most = config.retry_max_attempts
    return bool(config.compute.get("spot")) and (outcome.attempt < most or outcome.attempt == 1)
