"""Which image runs: what ECS says it started, else what the deployment asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dbt_runner import image

STARTED, ASKED, IMAGE_ID = (f"sha256:{digit * 64}" for digit in "abc")
REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dbt-runner"


@pytest.fixture
def metadata() -> Iterator[Callable[[bytes], str]]:
    """A task metadata endpoint; called with the document that it serves, it says its address."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[-1])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def serve(body: bytes) -> str:
            bodies.append(body)
            return f"http://127.0.0.1:{server.server_port}/v4/id"

        yield serve
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("document", "asked", "found"),
    [
        ({"Image": f"{REPOSITORY}@{STARTED}", "ImageID": IMAGE_ID}, ASKED, STARTED),
        ({"Image": f"{REPOSITORY}:1.0", "ImageID": IMAGE_ID}, ASKED, ASKED),
        ({"Image": f"{REPOSITORY}:1.0", "ImageID": IMAGE_ID}, None, IMAGE_ID),
        ({"Image": f"{REPOSITORY}:1.0"}, None, None),
        (["no", "object"], ASKED, ASKED),
    ],
)
def test_the_digest_is_what_ecs_started_or_else_what_was_asked_for(
    metadata: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch, document: object, asked: str | None, found: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # never asked
    environment = {"ECS_CONTAINER_METADATA_URI_V4": metadata(json.dumps(document).encode())}
    if asked:
        environment["DBT_RUNNER_IMAGE"] = f"{REPOSITORY}@{asked}"
    assert image.digest(environment) == found


def test_an_endpoint_that_says_nothing_useful_is_done_without(metadata: Callable[[bytes], str]) -> None:
    asked = {"DBT_RUNNER_IMAGE": f"{REPOSITORY}@{ASKED}"}
    for uri in (metadata(b"not JSON"), "http://127.0.0.1:9/v4/id", "file:///etc/hostname", ""):
        assert image.digest({**asked, "ECS_CONTAINER_METADATA_URI_V4": uri}) == ASKED
    assert image.digest({}) is None
