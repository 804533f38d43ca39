"""JSONata: moto parses it and leaves its evaluation out."""

from __future__ import annotations

import hashlib
import json
import random
import uuid
from typing import Any

import jsonata
from jsonata.utils import Utils
from moto.stepfunctions.parser.api import EvaluationFailedEventDetails, HistoryEventType
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.string.string_expression import StringJSONata, StringVariableSample
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []

_NULL = Utils.NULL_VALUE
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


class QueryError(Exception):
    """An expression that cannot be parsed, fails, or has no value. The message is the reason."""


def _range(first: float, last: float, step: float) -> list[float]:
    if step == 0:
        raise QueryError("the step of $range must not be 0")
    count = int((last - first) // step) + 1
    return [first + position * step for position in range(max(count, 0))]


def _partition(items: list[Any], size: int) -> list[list[Any]]:
    if size < 1:
        raise QueryError("the size of $partition must be at least 1")
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def _hash(value: str, algorithm: str) -> str:
    return hashlib.new(_HASHES[algorithm], value.encode()).hexdigest()


def _random(seed: float | None = None) -> float:
    return random.random() if seed is None else random.Random(seed).random()


def _refuse_eval(expression: str) -> None:
    raise QueryError("$eval is not available in Step Functions; use $parse for JSON text")


def evaluate(expression: str, variables: dict[str, Any]) -> Any:
    """The value of a JSONata expression as plain JSON data.

    `variables` are bound without their `$`. The functions are JSONata's own with those that Step Functions adds
    (`$parse`, `$uuid`, `$hash`, `$range`, `$partition`, `$random` with a seed) and without `$eval`.
    Raises QueryError.
    """
    try:
        result = _run(expression, variables)
        if result is None:
            raise QueryError("returned nothing (undefined).")
        return json.loads(json.dumps(result, allow_nan=False, default=_without_null))
    except QueryError:
        raise
    except Exception as exc:  # the library raises its own, Python's and RecursionError alike
        raise QueryError(f"threw an error during evaluation: {exc}") from exc


def _run(expression: str, variables: dict[str, Any]) -> Any:
    compiled = jsonata.Jsonata(expression)
    # None is the library's word for undefined; null has an object of its own.
    compiled.set_output_convert_nulls(False)
    for name, value in variables.items():
        compiled.assign(name, _with_null(value))
    compiled.register_lambda("parse", lambda text: _with_null(json.loads(text)))
    compiled.register_lambda("uuid", lambda: str(uuid.uuid4()))
    compiled.register_lambda("hash", _hash)
    compiled.register_lambda("range", _range)
    compiled.register_lambda("partition", _partition)
    compiled.register_lambda("random", _random)
    compiled.register_lambda("eval", _refuse_eval)
    return compiled.evaluate(None)


def _with_null(value: Any) -> Any:
    if value is None:
        return _NULL
    if isinstance(value, dict):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return value


def _without_null(value: Any) -> None:
    if value is not _NULL:
        raise QueryError("returned an unsupported result type.")


@patch("stepfunctions-jsonata.evaluation", PATCHES)
def evaluation(patch: Patch) -> None:
    """moto has no JSONata interpreter, and would paste variables into the expression without escaping them.

    AWS evaluates with the variables bound; an expression that fails or has no value raises States.QueryEvaluationError.
    """

    def evaluate_expression(self: Any, env: Any) -> None:
        scope = env.variable_store
        variables = {**scope._outer_scope, **scope._inner_scope, "states": env.states._states_data}
        try:
            env.stack.append(evaluate(self.expression, variables))
        except QueryError as exc:
            details = EvaluationFailedEventDetails(
                error=StatesErrorNameType.StatesQueryEvaluationError.to_name(),
                cause=f"The JSONata expression '{self.expression}' {exc}",
            )
            failure = FailureEventException(
                FailureEvent(
                    env=env,
                    error_name=StatesErrorName(typ=StatesErrorNameType.StatesQueryEvaluationError),
                    event_type=HistoryEventType.EvaluationFailed,
                    event_details=EventDetails(evaluationFailedEventDetails=details),
                )
            )
            env.event_manager.add_event(
                context=env.event_history_context,
                event_type=HistoryEventType.EvaluationFailed,
                event_details=EventDetails(evaluationFailedEventDetails=failure.get_evaluation_failed_event_details()),
            )
            raise failure from exc

    patch.set(StringJSONata, "_eval_body", evaluate_expression)
    patch.set(StringVariableSample, "_eval_body", evaluate_expression)
