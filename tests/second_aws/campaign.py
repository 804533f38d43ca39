"""Everything that runs on the two implementations, once a session: the tests look at what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from dbt_runner.release import Candidate
from second_aws import commands, engine, identity, mutants, probes, refusals, scenarios
from second_aws.commands import Called
from second_aws.decisions import Decision, read
from second_aws.engine import FIRST, SECOND, Engine
from second_aws.mutants import Policies
from second_aws.scenarios import SCENARIOS, Paths

# By name of a scenario: its paths, or what kept it from having any.
Played = Mapping[str, Paths | Exception]


Candidates = Future[list[Candidate]]


@dataclass
class Results:
    """What came of it.

    Attributes:
        played: by implementation.
        probed: the answers to the probes, by implementation.
        of_scenarios: the decisions of IAM while the scenarios ran.
        called: the commands under each role.
        refused: for each attempt and assumption of the matrix, whether it was refused.
        decisions: all of them.
        listening: the addresses on which the second AWS listens.
    """

    played: dict[str, Played] = field(default_factory=dict)
    probed: dict[str, Mapping[str, str]] = field(default_factory=dict)
    of_scenarios: Sequence[Decision] = ()
    called: list[Called] = field(default_factory=list)
    refused: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    decisions: Sequence[Decision] = ()
    policies: Policies = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    listening: set[str] = field(default_factory=set)


def run(folder: Path) -> Results:
    """Runs it all; the two implementations side by side."""
    results = Results()
    # The releases are packed and parsed once, while Terraform waits for the provider.
    with engine.first(folder / FIRST) as moto, engine.second(folder / SECOND) as ministack, ThreadPoolExecutor(3) as pool:
        candidates = pool.submit(scenarios.candidates, folder)
        parts = [pool.submit(part, target, candidates, results) for part, target in ((_first, moto), (_second, ministack))]
        try:
            for part in as_completed(parts):
                part.result()
        except BaseException:
            # Without their servers the other parts end soon.
            moto.stop()
            ministack.stop()
            raise
    return results


def _first(moto: Engine, candidates: Candidates, results: Results) -> None:
    _scenarios(moto, candidates, results)
    results.probed[FIRST] = probes.ask(moto)


def _second(ministack: Engine, candidates: Candidates, results: Results) -> None:
    _scenarios(ministack, candidates, results)
    connections = psutil.Process(ministack.process.pid).net_connections("inet")
    results.listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    results.of_scenarios = list(read(ministack.decisions))
    results.policies = mutants.policies(ministack)
    with _timed(results, "IAM"):
        _call_commands(ministack, results)
        _try_matrix(ministack, results)
    results.decisions = list(read(ministack.decisions))
    # Last, because machines of the probes may not have the role that they name: its trust knows the module's only.
    results.probed[SECOND] = probes.ask(ministack)


@contextlib.contextmanager
def _timed(results: Results, what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    results.seconds[what] = time.monotonic() - begin


def _scenarios(target: Engine, candidates: Candidates, results: Results) -> None:
    with _timed(results, f"{target.name}: apply"):
        target.apply()
        scenarios.release_to(target, candidates.result())
    with _timed(results, f"{target.name}: scenarios"), ThreadPoolExecutor(len(SCENARIOS)) as pool:
        parts = pool.map(lambda environment: dict(scenarios.play(target, environment)), SCENARIOS)
        results.played[target.name] = {name: paths for part in parts for name, paths in part.items()}


def _call_commands(target: Engine, results: Results) -> None:
    """The deployer of one environment and the operator of another, so that neither waits for the other's lock."""
    homes = dict(zip(commands.ROLES, (refusals.HOME, refusals.OTHER), strict=True))

    def call(role: str) -> list[Called]:
        succeeded, failed = _runs(target, homes[role])
        promoted = scenarios.BROKEN
        if role == "operator":
            # Something to go back to, which the deployer makes itself.
            target.stack.cli("release", "promote", "-e", homes[role], "-V", promoted)
            promoted = scenarios.RELEASE
        return list(commands.call_all(target, role, homes[role], succeeded, failed, promoted))

    with ThreadPoolExecutor(len(homes)) as pool:
        results.called = [called for part in pool.map(call, homes) for called in part]


def _runs(target: Engine, environment: str) -> tuple[str, str]:
    """A run that succeeded, and one that was aborted in its middle."""
    records = list(target.stack.store.query(f"ENV#{environment}", "RUN#"))
    succeeded = next(record["run_id"] for record in records if record["status"] == "SUCCEEDED")
    return succeeded, next(record["run_id"] for record in records if record["status"] == "ABORTED")


def _try_matrix(target: Engine, results: Results) -> None:
    of_people = {"deployer": identity.deployer, "operator": identity.operator}
    sessions: dict[tuple[str, str], identity.Session] = {}
    _fill(target)
    for attempt in refusals.attempts(target.table, target.bucket):
        who = attempt.environment, attempt.role
        if who not in sessions:
            sessions[who] = of_people[attempt.role](target) if attempt.role in of_people else identity.service_role(target, *who)
        results.refused[str(attempt)] = attempt.refuse, attempt.refused(sessions[who])
    for assumption in refusals.assumptions():
        results.refused[assumption.what] = assumption.refuse, assumption.refused(target)


def _fill(target: Engine) -> None:
    """What the calls that are allowed find there: of an object that is missing S3 asks for the right to list."""
    s3, glue = target.client("s3"), target.client("glue")
    s3.create_bucket(Bucket="lake")
    for bucket, key in (
        *((target.bucket, key) for key in (f"runs/{refusals.HOME}/r-1/a/sources.json",)),
        *(("lake", f"{folder}/x") for folder in ("staging", "marts", "raw", "secret")),
    ):
        s3.put_object(Bucket=bucket, Key=key, Body=b"{}")
    for database in ("marts", refusals.MORE, "raw", "secret"):
        glue.create_database(DatabaseInput={"Name": database})
