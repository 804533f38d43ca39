"""Stands for the Docker SDK in ministack's ECS: each container is a local process of the runner."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbt_runner.local.image_process import TASK_ENTRY_POINT, WORKING_DIRECTORY, on_this_machine

from . import errors as errors

_INHERITED = ("PATH", "LANG", "LC_ALL", "SSL_CERT_FILE")
_TASK_LABEL = "com.amazonaws.ecs.task-arn"
_containers: dict[str, Container] = {}


class Container:
    """A process in a session of its own, with the environment of its container definition and little else."""

    def __init__(self, image: Any, options: dict[str, Any]) -> None:
        self.id = uuid.uuid4().hex * 2
        self.image, self.labels, self.name = image, options.get("labels") or {}, options.get("name")
        self.attrs: dict[str, Any] = {"NetworkSettings": {"Networks": {}, "IPAddress": ""}, "State": {}}
        self.folder = tempfile.mkdtemp(prefix="dbt-task-")
        self.log = Path(os.environ["SECOND_AWS_HOME"], "logs", self.labels.get(_TASK_LABEL, self.id).rsplit("/", 1)[-1] + ".log")
        given = {
            name: str(value).replace("host.docker.internal", "127.0.0.1") for name, value in (options.get("environment") or {}).items()
        }
        # Credentials come from the endpoint of the task, by no variable.
        common = {name: value for name, value in json.loads(os.environ["SECOND_AWS_ENVIRON"]).items() if "ACCESS_KEY" not in name}
        environ = {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "PYTHONUNBUFFERED": "1",
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            **common,
            "HOME": self.folder,
            "TMPDIR": self.folder,
            **given,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                on_this_machine([*TASK_ENTRY_POINT, *(options.get("command") or [])]),
                env=environ,
                cwd=WORKING_DIRECTORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _containers[self.id] = self

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    def reload(self) -> None:
        pass

    def wait(self, **_: Any) -> dict[str, int]:
        code = self.process.wait()
        return {"StatusCode": 128 - code if code < 0 else code}

    def stop(self, timeout: float = 10) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                self.process.wait()

    def kill(self, **_: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def remove(self, **_: Any) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        _containers.pop(self.id, None)

    def logs(self, stream: bool = False, **_: Any) -> bytes | Iterator[bytes]:
        return self._follow() if stream else self.log.read_bytes()[-2000:]

    def _follow(self) -> Iterator[bytes]:
        with self.log.open("rb") as file:
            while True:
                if line := file.readline():
                    yield line
                elif self.process.poll() is not None:
                    yield from file
                    return
                else:
                    time.sleep(0.1)


class _Containers:
    def get(self, key: str) -> Container:
        for container in list(_containers.values()):
            if key and (container.id.startswith(key) or container.name == key):
                return container
        raise errors.NotFound(key)

    def run(self, image: Any, **options: Any) -> Container:
        return Container(image, options)

    def list(self, **_: Any) -> list[Container]:
        return []

    def prune(self, **_: Any) -> dict[str, Any]:
        return {}


class _Images:
    def get(self, image: str) -> object:
        return object()

    def pull(self, image: str, **_: Any) -> object:
        return object()


class DockerClient:
    containers, images = _Containers(), _Images()
    volumes = networks = api = None

    def ping(self) -> bool:
        return True

    def close(self) -> None:
        pass


@atexit.register
def _end_all() -> None:
    """Nothing outlives the server."""
    for container in list(_containers.values()):
        container.remove()


def from_env(**_: Any) -> DockerClient:
    return DockerClient()
