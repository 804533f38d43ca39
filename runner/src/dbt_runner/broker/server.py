"""The loopback endpoint from which the worker's drivers fetch what they log in with.

For AWS it speaks the container-credentials protocol, which every SDK knows:
https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from dbt_runner.errors import WAREHOUSE_UNAVAILABLE, TypedError

# What one path answers: a JSON object.
Answer = Callable[[], Mapping[str, str]]

_SECONDS_FOR_A_REQUEST = 5.0
_AT_ONCE = 32


class LoopbackServer:
    """Serves JSON objects on 127.0.0.1, at a port of the system's choice, to whoever knows the bearer.

    It has no log: a request's line and headers are nobody's business, and what it answers even less.

    Args:
        answers: by path. An answer may raise a TypedError, of which the asker gets kind and message.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.bearer = secrets.token_urlsafe(32)
        self._server = _Server(answers, self.bearer)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="broker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A worker that keeps a connection open must not keep the supervisor from ending.
    block_on_close = False
    request_queue_size = _AT_ONCE

    def __init__(self, answers: Mapping[str, Answer], bearer: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.bearer = bearer
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each request, but not for any number of them: what comes beyond is closed, and SDKs try again."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Quiet: the base class prints a traceback, with whatever was at hand."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SECONDS_FOR_A_REQUEST
    server_version, sys_version = "dbt-runner", ""

    def do_GET(self) -> None:
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), self.server.bearer.encode()):
            self._send(HTTPStatus.FORBIDDEN, {"code": "Forbidden", "message": "the Authorization header is not this run's"})
        elif self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"code": "TooLarge", "message": "a request has no body here"})
        elif self.path not in self.server.answers:
            self._send(HTTPStatus.NOT_FOUND, {"code": "NotFound", "message": "there is no such credential"})
        else:
            try:
                body = self.server.answers[self.path]()
            except TypedError as exc:
                status = HTTPStatus.SERVICE_UNAVAILABLE if exc.kind is WAREHOUSE_UNAVAILABLE else HTTPStatus.FORBIDDEN
                self._send(status, {"code": exc.kind.name, "message": exc.message})
            else:
                self._send(HTTPStatus.OK, body)

    def _send(self, status: HTTPStatus, body: Mapping[str, str]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged, see LoopbackServer."""

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
