"""Lineage events reach an endpoint as the standard has them, and an endpoint that does not answer changes nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dbt_runner.config import Warehouse
from dbt_runner.events import NodeResult
from dbt_runner.logs import JsonLog
from dbt_runner.openlineage import API_KEY, URL, Sink, dataset_namespace
from runner import projects

POSTGRES = Warehouse("postgres", {"host": "db.example.com", "port": "5433"}, {})
MANIFEST = {
    "nodes": {
        "model.shop.orders": {
            "unique_id": "model.shop.orders",
            "resource_type": "model",
            "relation_name": '"analytics"."prod"."orders"',
            "depends_on": {"nodes": ["source.shop.raw.orders", "model.shop.only_in_cte"]},
        },
        "model.shop.only_in_cte": {"unique_id": "model.shop.only_in_cte", "resource_type": "model"},
    },
    "sources": {
        "source.shop.raw.orders": {
            "unique_id": "source.shop.raw.orders",
            "resource_type": "source",
            "relation_name": '"raw"."shop"."orders"',
        }
    },
}
ORDERS = NodeResult(
    command=0,
    unique_id="model.shop.orders",
    resource_type="model",
    name="orders",
    status="success",
    started_at="2026-11-22T10:00:00.000Z",
    ended_at="2026-11-22T10:00:01.500Z",
    relation='"analytics"."prod"."orders"',
)


class Endpoint(ThreadingHTTPServer):
    """An endpoint that keeps what it gets, or holds every request until it is let go."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.hold = threading.Event()
        self.hold.set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Endpoint)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.hold.wait(30)
        self.server.keys.add(self.headers.get("Authorization"))
        self.server.received.append(json.loads(body))
        self.send_response(201)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST))
    return path


def sink(manifest: Path, environment: dict[str, str]) -> Sink:
    return Sink(projects.asked(POSTGRES), environment, manifest, JsonLog({}))


def test_a_node_is_told_with_what_it_read_and_wrote(endpoint: Endpoint, manifest: Path) -> None:
    it = sink(manifest, {URL: endpoint.url, API_KEY: "key-of-the-team"})
    it.add(ORDERS)
    it.close()
    start, complete = endpoint.received
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert complete["job"]["namespace"] == "dbt/analytics/prod" and complete["job"]["name"] == "model.shop.orders"
    where = "postgres://db.example.com:5433"
    assert [(d["namespace"], d["name"]) for d in complete["inputs"]] == [(where, "raw.shop.orders")]
    assert [(d["namespace"], d["name"]) for d in complete["outputs"]] == [(where, "analytics.prod.orders")]
    assert complete["run"]["facets"]["parent"]["job"]["name"] == "run.build"
    assert endpoint.keys == {"Bearer key-of-the-team"}


def test_a_node_that_failed_says_why(endpoint: Endpoint, manifest: Path) -> None:
    it = sink(manifest, {URL: endpoint.url})
    it.add(NodeResult(**{**vars(ORDERS), "status": "error", "message": "no such column"}))
    it.close()
    assert endpoint.received[1]["eventType"] == "FAIL"
    assert endpoint.received[1]["run"]["facets"]["errorMessage"]["message"] == "no such column"


def test_every_attempt_is_a_run_of_its_own(endpoint: Endpoint, manifest: Path) -> None:
    for command in (0, 1):
        it = sink(manifest, {URL: endpoint.url})
        it.add(NodeResult(**{**vars(ORDERS), "command": command}))
        it.close()
    assert len({event["run"]["runId"] for event in endpoint.received}) == 2


@pytest.mark.parametrize("changes", [{"status": "skipped"}, {"resource_type": "operation"}])
def test_what_did_not_run_is_not_told(endpoint: Endpoint, manifest: Path, changes: dict[str, str]) -> None:
    it = sink(manifest, {URL: endpoint.url})
    it.add(NodeResult(**{**vars(ORDERS), **changes}))
    it.close()
    assert endpoint.received == []


def test_an_endpoint_that_is_away_is_left_alone(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        it = sink(manifest, {URL: f"http://127.0.0.1:{closed.getsockname()[1]}"})
        for _ in range(20):
            it.add(ORDERS)
        it.close()
    messages = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert messages == ["a lineage event could not be sent"] * 2 + ["the lineage endpoint does not answer: no more events"]


def test_an_endpoint_that_hangs_is_not_waited_for(endpoint: Endpoint, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.hold.clear()
    it = sink(manifest, {URL: endpoint.url})
    it.add(ORDERS)
    it.close(seconds=0.05)
    assert "dropped" in capsys.readouterr().out
    endpoint.hold.set()
    it.close()


@pytest.mark.parametrize("environment", [{}, {URL: ""}, {URL: "no address"}])
def test_without_a_usable_endpoint_nothing_is_sent(manifest: Path, environment: dict[str, str]) -> None:
    it = sink(manifest, environment)
    it.add(ORDERS)
    it.close()


def test_a_manifest_that_is_not_there_costs_the_event_alone(endpoint: Endpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    it = sink(tmp_path / "none.json", {URL: endpoint.url})
    it.add(ORDERS)
    it.close()
    assert endpoint.received == [] and "could not be sent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("warehouse", "namespace"),
    [
        (Warehouse("snowflake", {"account": "acme-eu"}, {}), "snowflake://acme-eu"),
        (Warehouse("bigquery", {"project": "p"}, {}), "bigquery"),
        (Warehouse("athena", {}, {}), "awsathena://athena.eu-central-1.amazonaws.com"),
        (Warehouse("redshift", {"host": "h"}, {}), "redshift://h:5439"),
        (POSTGRES, "postgres://db.example.com:5433"),
        (Warehouse("duckdb", {"path": "/tmp/w.duckdb"}, {}), "duckdb:///tmp/w.duckdb"),
    ],
)
def test_datasets_are_named_as_the_standard_names_them(warehouse: Warehouse, namespace: str) -> None:
    assert dataset_namespace(warehouse, "eu-central-1") == namespace
