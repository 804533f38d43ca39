"""Step Functions: expressions in TimeoutSeconds, `s3:putObject`, and the names of the SDK's exceptions."""

from __future__ import annotations

import contextvars
import json
from collections.abc import Mapping
from typing import Any

from ministack import app
from ministack.services import stepfunctions

from second_aws.server.sessions import root_headers

execution: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("execution", default=None)
"""The execution whose Task state is being executed in this thread."""

_PUT_OBJECT = ":aws-sdk:s3:putObject"


def install() -> None:
    execute_task, integration = stepfunctions._execute_task, stepfunctions._invoke_aws_sdk_integration

    def with_timeout(state: dict[str, Any], raw_input: Any, run: dict[str, Any], context: dict[str, Any]) -> Any:
        # https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html: TimeoutSeconds takes an expression.
        if isinstance(state.get("TimeoutSeconds"), str):
            seconds = stepfunctions._jsonata_state_field(state, "TimeoutSeconds", "number", raw_input, context)
            state = {**state, "TimeoutSeconds": seconds}
        token = execution.set(run)
        try:
            return execute_task(state, raw_input, run, context)
        finally:
            execution.reset(token)

    def with_s3(resource: str, parameters: dict[str, Any]) -> Any:
        if resource.endswith(_PUT_OBJECT):
            return _put_object(parameters)
        try:
            return integration(resource, parameters)
        except stepfunctions._ExecutionError as exc:
            # AWS gives the exceptions of the SDK for Java, whose names end in Exception.
            if exc.error.startswith("Sfn.") and not exc.error.endswith("Exception"):
                raise stepfunctions._ExecutionError(f"{exc.error}Exception", exc.cause) from None
            raise

    stepfunctions._execute_task = with_timeout
    stepfunctions._invoke_aws_sdk_integration = with_s3


def _put_object(parameters: Mapping[str, Any]) -> dict[str, str]:
    body = parameters.get("Body", "")
    # A Body that is an object is written as JSON.
    content = (body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))).encode()
    headers = {
        **root_headers("s3"),
        "content-type": parameters.get("ContentType", "binary/octet-stream"),
        "content-length": str(len(content)),
    }
    path = f"/{parameters['Bucket']}/{parameters['Key']}"
    status, answer, text = app.call_service_handler_sync(app.SERVICE_HANDLERS["s3"], "PUT", path, headers, content, {})
    if status >= 400:
        raise stepfunctions._ExecutionError("S3.S3Exception", text.decode())
    found = {"ETag": answer.get("ETag"), "VersionId": answer.get("x-amz-version-id")}
    return {name: value for name, value in found.items() if value}
