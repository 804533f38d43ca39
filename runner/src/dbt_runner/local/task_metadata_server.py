"""The task metadata endpoint of the embedded ECS: what a container can ask the host about its own task.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html
"""

from __future__ import annotations

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dbt_runner.store import now
from dbt_runner.task_metadata import VARIABLE


class TaskMetadataServer:
    """Serves the metadata of the tasks that are there, on 127.0.0.1, from a thread of its own until it is closed."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Any]] = {}
        self._server = _Server(self._tasks)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, kwargs={"poll_interval": 0.2}, name="task-metadata", daemon=True)
        self._thread.start()

    def add(self, task: Any, image: str) -> dict[str, str]:
        """Knows a task from now on; returns the variables by which its container finds the endpoint.

        Args:
            task: moto's.
            image: as its definition names it.
        """
        path = f"/v4/{task.id}"
        self._tasks[path] = {"Name": "dbt", "Image": image}
        names = {"Cluster": task.cluster_arn, "TaskARN": task.task_arn, "LaunchType": "FARGATE"}
        self._tasks[f"{path}/task"] = {**names, "PullStartedAt": now()}
        return {VARIABLE: f"http://127.0.0.1:{self._server.server_port}{path}"}

    def remove(self, task: Any) -> None:
        """Forgets a task."""
        for path in (f"/v4/{task.id}", f"/v4/{task.id}/task"):
            self._tasks.pop(path, None)

    def close(self) -> None:
        """Ends the server; nobody is answered any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, documents: dict[str, dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents = documents


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        document = self.server.documents.get(self.path)
        self.send_response(HTTPStatus.OK if document else HTTPStatus.NOT_FOUND)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Without a line on stderr for each request."""
