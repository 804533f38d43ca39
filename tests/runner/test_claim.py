"""Of all containers that are started for a run one at a time may work: who gets a place, who is refused; a stray writes nothing."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import attempt, claim, task_metadata
from dbt_runner.claim import Claim
from dbt_runner.compute import Compute
from dbt_runner.errors import LOCK_LOST, RUNNER_ERROR
from dbt_runner.request import AttemptKey
from dbt_runner.store import CLAIM, Item, Store
from runner import projects
from runner.attempts import Run, publish
from runner.releases import refused

ROOT = Path(__file__).parents[2]
TASK = "arn:aws:ecs:eu-central-1:123456789012:task/analytics-prod/0123"
PK = "RUN#prod#r-1"


def key(position: int = 1, number: int = 1) -> AttemptKey:
    return AttemptKey("prod", "r-1", position, "build" if position else "health_check", number)


def take(store: Store, position: int = 1, number: int = 1, task: str | None = TASK, seconds: float | None = None) -> Claim:
    return claim.take(store, key(position, number), "fargate", task, seconds)


def item(store: Store) -> Item:
    found = store.get(PK, CLAIM)
    assert found is not None
    return found


def close(store: Store, up_to: int) -> None:
    """What the state machine does before it goes on without an outcome."""
    store.update(PK, CLAIM, {"closed_up_to": up_to}, condition="attribute_not_exists(never)", values={})


# --- the item --------------------------------------------------------------------------------------------------------


def test_a_claim_names_the_task_and_is_as_the_contract_has_it(store: Store) -> None:
    mine = take(store)
    assert mine.place == 1001
    found = item(store)
    assert (found["place"], found["holder"], found["task"], found["compute"]) == (1001, mine.holder, TASK, "fargate")
    assert "ends_by" not in found
    row = next(line for line in (ROOT / "docs/architecture.md").read_text().splitlines() if "| `CLAIM` |" in line)
    documented = set(re.findall(r"`(\w+)`", row.split("|")[3]))
    assert set(found) - {"pk", "sk"} == documented - {"ends_by", "closed_up_to"}


def test_a_claim_on_lambda_says_when_its_function_has_ended(store: Store) -> None:
    take(store)
    before = time.time()
    take(store, number=2, task=None, seconds=900.5)
    found = item(store)
    assert before + 900 < found["ends_by"] < time.time() + 902
    assert "task" not in found, "that of the attempt before"


@pytest.mark.parametrize(
    "after", [(0, 2), (1, 1), (2, 1), (50, 10)], ids=["the next attempt", "the first step", "a later step", "the last of all"]
)
def test_a_later_place_is_free(store: Store, after: tuple[int, int]) -> None:
    take(store, 0, 1)
    assert item(store)["place"] < take(store, *after).place == item(store)["place"]


@pytest.mark.parametrize("place", [(2, 1), (1, 3), (1, 2), (0, 1)], ids=["the same", "an earlier step", "the one before", "health check"])
def test_a_place_that_somebody_has_or_that_is_over_is_refused(store: Store, place: tuple[int, int]) -> None:
    take(store, 2, 1)
    before = item(store)
    message = refused(LOCK_LOST, lambda: take(store, *place, task="another"))
    assert TASK in message and message.endswith("nothing was executed")
    assert item(store) == before


@pytest.mark.parametrize("claimed", [False, True])
def test_a_place_that_was_closed_is_refused_and_the_next_is_not(store: Store, claimed: bool) -> None:
    if claimed:
        take(store, 1, 1)
    close(store, 1002)
    for number in (1, 2):
        assert "given it up" in refused(LOCK_LOST, lambda number=number: take(store, number=number))  # type: ignore[misc]
    assert take(store, number=3).place == 1003
    assert item(store)["closed_up_to"] == 1002


def test_an_answer_that_was_lost_does_not_cost_the_claim(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sends the request again; the second one finds what the first has written."""
    same = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: same)
    assert take(store) == take(store)
    close(store, 1001)
    refused(LOCK_LOST, lambda: take(store))


# --- attempts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    publish(store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    return Run(store, environment)


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "Supervisor", lambda *_, **__: pytest.fail("a worker was started"))


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("why", ["claimed", "closed"])
def test_a_second_container_executes_and_writes_nothing(
    run: Run, store: Store, nothing_starts: None, capsys: pytest.CaptureFixture[str], position: int, why: str
) -> None:
    if why == "claimed":
        take(store, position)
    else:
        close(store, claim.place(position, 1))
    before = list(store.query(PK))
    assert run.attempt(position=position) == LOCK_LOST.exit_code == 33
    assert list(store.query(PK)) == before
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["level"] == "error" and "is not this container's" in line["message"]


def test_the_lock_is_looked_at_after_the_claim(run: Run, store: Store, nothing_starts: None) -> None:
    """Whoever closes a run's claims before it frees the lock knows of every container that may have seen the lock held."""
    run.lock = {"owner": "arn:of:another", "run_id": "r-2"}
    assert run.attempt() == 33
    assert run.outcome()["error"] == "Dbt.LockLost"
    assert item(store)["place"] == 1001


def test_an_outcome_is_that_of_the_claim_and_replaces_no_other_one(
    run: Run, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.environment.update(projects.scripted(tmp_path / "scripted", "node('a')\ndone()\n"))
    assert run.attempt() == 0
    assert run.outcome()["holder"] == item(store)["holder"]
    theirs = {"pk": PK, "sk": "STEP#01#build#2", "holder": "another", "exit_code": 0}
    store.put(theirs)
    capsys.readouterr()
    assert run.attempt(number=2) == 1
    assert run.outcome("STEP#01#build#2") == theirs
    assert "the outcome could not be written" in capsys.readouterr().out


def test_an_outcome_whose_answer_was_lost_is_written_again(store: Store) -> None:
    outcome = {"pk": PK, "sk": "STEP#01#build#1", "holder": "me", "exit_code": 0}
    for _ in range(2):
        store.put(outcome, only_over="holder")
    assert store.get(PK, "STEP#01#build#1") == outcome


def test_an_attempt_on_lambda_claims_for_as_long_as_its_function_may_live(run: Run, store: Store, nothing_starts: None) -> None:
    run.lock = None
    run.attempt()
    compute = Compute(name="lambda", lifetime_seconds=60)
    attempt.Attempt(store, run.sts, run.environment, compute).run("prod", "RUN#2026-11-23T01:00:00.000Z#r-1", 1, 2)
    assert (item(store)["compute"], item(store)["place"]) == ("lambda", 1002)
    assert item(store)["ends_by"] > time.time() + 50


# --- which task this is ------------------------------------------------------------------------------------------------


def test_a_claim_has_the_task_that_ecs_says(
    run: Run, store: Store, nothing_starts: None, metadata: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # never asked
    run.lock = None
    run.environment[task_metadata.VARIABLE] = metadata(json.dumps({"TaskARN": TASK}).encode())
    run.attempt()
    assert item(store)["task"] == TASK


@pytest.mark.parametrize("answer", [b"{}", b"no JSON", b'{"TaskARN": ""}', None])
def test_a_task_that_cannot_be_named_executes_nothing(
    run: Run,
    store: Store,
    nothing_starts: None,
    metadata: Callable[[bytes], str],
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes | None,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    uri = "http://127.0.0.1:9/v4/id" if answer is None else metadata(answer)
    message = refused(RUNNER_ERROR, lambda: task_metadata.task_arn({task_metadata.VARIABLE: uri}, sleep=waits.append))
    assert uri in message and waits == [1.0] * 4
    monkeypatch.setattr(task_metadata, "_TRIES", 1)
    run.environment[task_metadata.VARIABLE] = uri
    assert run.attempt() == 1
    assert list(store.query(PK)) == []
