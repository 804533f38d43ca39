"""Lambda: a function of an image is a process of the runner behind Lambda's Runtime API, under its role's credentials."""

from __future__ import annotations

import atexit
import json
import os
import threading
from pathlib import Path
from typing import Any

from ministack.services import lambda_svc, stepfunctions

from second_aws.server.sessions import open_session

_idle: dict[str, list[Any]] = {}
_lock = threading.Lock()


def install() -> None:
    atexit.register(_close_all)
    stepfunctions._call_lambda = _invoke
    versions = lambda_svc._list_versions

    def qualified(name: str, query: Any) -> Any:
        # The provider reads a function's qualified ARN from here.
        status, headers, body = versions(name, query)
        answer = json.loads(body)
        for version in answer.get("Versions", []):
            version["FunctionArn"] = f"{':'.join(version['FunctionArn'].split(':')[:7])}:{version['Version']}"
        return (status, headers, json.dumps(answer).encode()) if status == 200 else (status, headers, body)

    lambda_svc._list_versions = qualified


def _invoke(reference: str, event: Any) -> Any:
    _, config, name = lambda_svc._get_func_record_for_ref(reference)
    if not config:
        raise stepfunctions._ExecutionError("Lambda.ResourceNotFoundException", reference)
    with _lock:
        idle = _idle.setdefault(reference, [])
        sandbox = idle.pop() if idle else None
    sandbox = sandbox or _open(reference, name, config)
    answer = sandbox.invoke(json.dumps(event).encode())
    with _lock:
        _idle[reference].append(sandbox)
    result = json.loads(answer.payload or b"null")
    if answer.failed:
        raise stepfunctions._ExecutionError(result.get("errorType", "Lambda.Unknown"), json.dumps(result))
    return result


def _close_all() -> None:
    """Nothing outlives the server."""
    with _lock:
        for sandboxes in _idle.values():
            for sandbox in sandboxes:
                sandbox.close()


def _open(reference: str, name: str, config: dict[str, Any]) -> Any:
    from dbt_runner.local.lambda_sandbox import Function, LambdaSandbox

    home = Path(os.environ["SECOND_AWS_HOME"])
    credentials = open_session(config["Role"], name)
    environ = {
        **json.loads(os.environ["SECOND_AWS_ENVIRON"]),
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["Token"],
        **config.get("Environment", {}).get("Variables", {}),
    }
    image = config.get("ImageConfigResponse", config).get("ImageConfig") or {}
    function = Function(
        reference,
        name,
        str(config.get("Version")),
        float(config["Timeout"]),
        int(config["MemorySize"]),
        environ,
        command=(*image["EntryPoint"], *image["Command"]),
        working_directory=image["WorkingDirectory"],
    )
    log = home / "logs" / f"lambda-{name}.log"

    def write(line: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    return LambdaSandbox(function, write, writable=[home])
