"""Node results on their way to the table: at once or in batches, through outages, and beside results that DynamoDB refuses."""

from __future__ import annotations

import io
import json
import random
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner.events import Batch, NodeResult
from dbt_runner.logs import JsonLog
from dbt_runner.node_writer import NodeWriter, ResultsNotWritten
from dbt_runner.request import AttemptKey
from dbt_runner.store import BATCH, Refused, Store, node_sk
from dbt_runner.texts import fit
from dbt_runner.wire import MAX_ID, MAX_ID_BYTES, decode, encode
from runner.projects import wait_until
from security.fuzzing import bounded

ROOT = Path(__file__).parents[2]
KEY = AttemptKey("prod", "r-1", 1, "build", 2)


def result(name: str, status: str = "success", **fields: Any) -> NodeResult:
    return NodeResult(0, f"model.shop.{name}", "model", name, status, **fields)


class Flaky:
    """A store whose batches fail the first times."""

    def __init__(self, store: Store, failures: int = 0) -> None:
        self._store = store
        self.failures = failures
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def put_many(self, items: Iterable[Mapping[str, Any]], *, rounds: int) -> list[Refused]:
        self.gate.wait(30)
        written = list(items)
        self.batches.append([item["name"] for item in written])
        if len(self.batches) <= self.failures:
            raise ConnectionError("DynamoDB does not answer")
        return self._store.put_many(written)

    def names(self) -> list[str]:
        return sorted(item["name"] for item in self._store.query(KEY.pk, "NODE#"))


def writer(store: Flaky, log: io.StringIO | None = None, flush_seconds: float = 0.02) -> NodeWriter:
    return NodeWriter(store, KEY, JsonLog({}, log or io.StringIO()), flush_seconds=flush_seconds, retry_seconds=0.02)  # type: ignore[arg-type]


def test_a_result_is_written_while_the_step_still_runs(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: flaky.names() == ["a"])


def test_the_first_result_is_written_at_once_and_then_each_batch_that_is_full(store: Store) -> None:
    """What is left when the process is killed there is less than a batch."""
    flaky = Flaky(store)
    names = [f"m{i:02d}" for i in range(60)]
    with writer(flaky, flush_seconds=3600) as nodes:
        nodes.add(result(names[0]))
        wait_until(lambda: flaky.names() == names[:1])
        for name in names[1:]:
            nodes.add(result(name))
        wait_until(lambda: len(flaky.names()) == 1 + 2 * BATCH)
    assert flaky.batches == [names[:1], names[1:26], names[26:51], names[51:]]
    assert flaky.names() == names


def test_a_table_that_fails_is_not_asked_for_every_batch(store: Store) -> None:
    flaky = Flaky(store, failures=1)
    with NodeWriter(flaky, KEY, JsonLog({}, io.StringIO()), retry_seconds=3600) as nodes:  # type: ignore[arg-type]
        for number in range(10 * BATCH):
            nodes.add(result(f"m{number}"))
    assert [len(batch) for batch in flaky.batches] == [1, 10 * BATCH]


def test_what_is_written_is_not_written_again(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: flaky.names() == ["a"])
        nodes.add(result("b"))
    assert flaky.batches == [["a"], ["b"]]


def test_leaving_writes_what_is_left_at_once(store: Store) -> None:
    flaky = Flaky(store)
    with writer(flaky, flush_seconds=3600) as nodes:
        nodes.add(result("a"))
    assert flaky.names() == ["a"]


def test_leaving_writes_what_is_left_also_when_the_step_failed(store: Store) -> None:
    flaky = Flaky(store)
    with pytest.raises(KeyError), writer(flaky, flush_seconds=3600) as nodes:
        nodes.add(result("a"))
        raise KeyError("something in between")
    assert flaky.names() == ["a"]


def test_nothing_is_lost_when_writes_fail(store: Store) -> None:
    log = io.StringIO()
    flaky = Flaky(store, failures=3)
    with writer(flaky, log) as nodes:
        nodes.add(result("a"))
        wait_until(lambda: len(flaky.batches) >= 2)
        nodes.add(result("b"))
        wait_until(lambda: flaky.names() == ["a", "b"])
        nodes.add(result("c"))
    assert flaky.names() == ["a", "b", "c"]
    assert "could not be written yet" in log.getvalue()


def test_a_store_that_never_answers_is_no_secret(store: Store) -> None:
    log = io.StringIO()
    with pytest.raises(ResultsNotWritten, match="1 node results"), writer(Flaky(store, failures=10_000), log) as nodes:
        nodes.add(result("a", "error", message="no such column"))
    told = json.loads(log.getvalue().splitlines()[-1])
    assert [(r["unique_id"], r["status"], r["message"]) for r in told["results"]] == [("model.shop.a", "error", "no such column")]


def test_adding_does_not_wait_for_the_store(store: Store) -> None:
    """The supervisor reads the worker's pipe on the same thread."""
    flaky = Flaky(store)
    flaky.gate.clear()
    with writer(flaky, flush_seconds=0.0) as nodes:
        for i in range(100):
            nodes.add(result(f"m{i}"))
        flaky.gate.set()
    assert len(flaky.names()) == 100


def test_the_last_result_of_a_node_wins(store: Store) -> None:
    with writer(Flaky(store), flush_seconds=3600) as nodes:
        nodes.add(result("a", "error"))
        nodes.add(result("a", "success"))
    assert [item["status"] for item in store.query(KEY.pk, "NODE#")] == ["success"]


def test_a_node_item_is_as_the_contract_has_it(store: Store) -> None:
    full = result(
        "orders",
        "error",
        message="x" * 5000,
        started_at="2026-11-23T01:00:00.000Z",
        ended_at="2026-11-23T01:00:01.500Z",
        seconds=1.5,
        thread="Thread-1",
        relation='"a"."b"."orders"',
        rows=7,
        failures=3,
        batches=(Batch("2026-11-22T00:00:00.000Z", "2026-11-23T00:00:00.000Z", "error", "a bad day", 1.5),),
        batches_total=1,
    )
    with writer(Flaky(store)) as nodes:
        nodes.add(full)
        nodes.add(result("bare"))
    items = {item["name"]: item for item in store.query(KEY.pk, "NODE#")}
    orders = items["orders"]
    assert (orders["pk"], orders["sk"]) == ("RUN#prod#r-1", "NODE#build#model.shop.orders")
    row = next(
        line for line in (ROOT / "docs/architecture.md").read_text().splitlines() if line.startswith("| `RUN#<env>#<run id>` | `NODE#")
    )
    contract = set(re.findall(r"`(\w+)`", row.split("|")[3]))
    assert contract <= {*orders, *orders["batches"][0]}
    assert (orders["step"], orders["attempt"], orders["rows"], orders["seconds"]) == ("build", 2, 7, 1.5)
    assert len(orders["message"]) == 4000
    assert {"relation", "rows", "failures", "batches", "batches_total"}.isdisjoint(items["bare"]), "what is not known is not there"


# What DynamoDB refuses


# Four bytes each at the most, so that the id alone fits into an item.
MAX_REFUSED_ID = 75_000
CHARACTERS = st.characters()
IDS = st.one_of(
    st.text(CHARACTERS, min_size=1, max_size=40),
    # Long ones are made of a short piece: hypothesis draws no 100,000 characters one by one.
    st.builds(lambda piece, length: (piece * length)[:length], st.text(CHARACTERS, min_size=1, max_size=8), st.integers(1, MAX_ID)),
)
GOOD = st.builds(lambda unique_id: NodeResult(0, unique_id, "test", "t", "pass"), IDS)
# Each is refused in another way: by the client, by the serializer, by DynamoDB for the size of the item or of a number.
REFUSED = st.sampled_from(
    [
        {"name": 500_000 * "x"},
        {"thread": 200_000 * "\u2603"},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"rows": 10**40},
        {"relation": object()},
        {"failures": 1j},
    ]
)


@bounded(15)
@given(good=st.lists(GOOD, max_size=30), bad=st.lists(st.tuples(IDS, REFUSED), max_size=4), place=st.randoms(use_true_random=False))
def test_a_refused_result_takes_no_other_one_with_it(store: Store, good: list[NodeResult], bad: list[Any], place: random.Random) -> None:
    """Ids of any length and any characters, as they come through the pipe, beside results that cannot be written as they are."""
    for item in list(store.query(KEY.pk, "NODE#")):
        store.delete(item["pk"], item["sk"])
    arrived = [decode(encode(each)) for each in good if len(fit(each.unique_id).encode()) <= MAX_ID_BYTES]
    refused = [
        NodeResult(0, fit(f"{number}.{unique_id}")[:MAX_REFUSED_ID], **{"resource_type": "model", "name": "n", "status": "error", **fields})
        for number, (unique_id, fields) in enumerate(bad)
    ]
    everything: list[Any] = [*arrived, *refused]
    place.shuffle(everything)
    log = io.StringIO()
    with writer(Flaky(store), log, flush_seconds=3600) as nodes:
        for each in everything:
            nodes.add(each)
    written = {item["sk"]: item for item in store.query(KEY.pk, "NODE#")}
    statuses = {node_sk("build", each.unique_id): (each.unique_id, each.status) for each in everything}
    assert {sk: (item["unique_id"], item["status"]) for sk, item in written.items()} == statuses
    assert len(nodes.left_out) == len(refused)
    assert all("DynamoDB refuse" in written[node_sk("build", each.unique_id)]["message"] for each in refused)
    assert log.getvalue().count("its key and its status are written") >= len(refused), "a long line is continued"
