"""AWS with outages: an HTTP proxy in front of moto's server that answers as DynamoDB and S3 do when they throttle or fail."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

# What they answer in turn: status and error code.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
_DYNAMODB = ((400, "ProvisionedThroughputExceededException"), (400, "ThrottlingException"), (500, "InternalServerError"))
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_S3 = ((503, "SlowDown"), (500, "InternalError"), (503, "ServiceUnavailable"))
_PER_CONNECTION = frozenset({"connection", "transfer-encoding", "content-length", "expect", "keep-alive"})


class BrokenAws:
    """The proxy.

    Attributes:
        refused: how many requests of each operation met an outage: `DynamoDB.PutItem`, `S3.PUT`.
    """

    def __init__(self, endpoint: str) -> None:
        self.refused: Counter[str] = Counter()
        self._behind = urlsplit(endpoint)
        self._broken: frozenset[str] = frozenset()
        self._numbers = itertools.count()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[BrokenAws]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def breaks(self, *what: str) -> None:
        """From now on these fail: services (`DynamoDB`, `S3`) or single operations; none when nothing is named."""
        self._broken = frozenset(what)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        target = headers.get("x-amz-target", "")
        service = "DynamoDB" if target.startswith("DynamoDB") else "S3"
        operation = f"{service}.{target.rpartition('.')[2] or method}"
        if self._broken & {service, operation}:
            self.refused[operation] += 1
            return _failure(service, next(self._numbers))
        connection = http.client.HTTPConnection(str(self._behind.hostname), self._behind.port, timeout=60)
        try:
            connection.request(method, path, body, {k: v for k, v in headers.items() if k not in _PER_CONNECTION})
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _PER_CONNECTION}
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        aws = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                status, answered, body = aws.answer(self.command, self.path, headers, self._body(headers))
                self.send_response_only(status)
                for name, value in answered.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

            def _body(self, headers: dict[str, str]) -> bytes:
                if headers.get("transfer-encoding", "").lower() != "chunked":
                    return self.rfile.read(int(headers.get("content-length", "0")))
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _failure(service: str, number: int) -> tuple[int, dict[str, str], bytes]:
    if service == "DynamoDB":
        status, code = _DYNAMODB[number % len(_DYNAMODB)]
        body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "an outage of the test"})
        return status, {"Content-Type": "application/x-amz-json-1.0"}, body.encode()
    status, code = _S3[number % len(_S3)]
    return (
        status,
        {"Content-Type": "application/xml"},
        f"<Error><Code>{code}</Code><Message>an outage of the test</Message></Error>".encode(),
    )
