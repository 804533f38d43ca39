"""Lambda: functions of an image that really run."""

from __future__ import annotations

from typing import Any, Protocol

from moto.awslambda.models import LambdaFunction

from dbt_runner.local.lambda_sandbox import Answer, Function
from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


class FunctionRunner(Protocol):
    """What runs moto's functions."""

    def invoke(self, function: Function, event: bytes) -> Answer:
        """Answers an invocation; called while Invoke is answered, and waits."""


class Functions:
    """Where Invoke finds the runner."""

    def __init__(self) -> None:
        self.runner: FunctionRunner | None = None


functions = Functions()


@patch("lambda.functions-run", PATCHES)
def functions_run(patch: Patch) -> None:
    """moto runs functions in Docker, and those of an image not at all.

    On Lambda a version runs with its own configuration, and an answer that is an error is marked as one.
    """
    original = LambdaFunction.invoke

    def invoke(self: Any, body: Any, request_headers: Any, response_headers: Any) -> Any:
        if functions.runner is None:
            return original(self, body, request_headers, response_headers)
        function = Function(
            arn=self.function_arn,
            name=self.function_name,
            version=str(self.version),
            timeout_seconds=float(self.timeout),
            memory=int(self.memory_size),
            environ=dict(self.environment_vars),
            command=(*self.image_config.entry_point, *self.image_config.cmd),
            working_directory=self.image_config.working_directory or "/",
        )
        event = body if isinstance(body, bytes) else str(body or "{}").encode()
        answer = functions.runner.invoke(function, event)
        response_headers["X-Amz-Executed-Version"] = function.version
        if answer.failed:
            response_headers["X-Amz-Function-Error"] = "Unhandled"
        return answer.payload

    patch.set(LambdaFunction, "invoke", invoke)
