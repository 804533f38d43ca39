"""The pipe's encoding: one JSON object a line, by a schema with bounds.

The worker encodes, the supervisor decodes and trusts nothing of it: a line is a message of exactly these fields, types and ranges, or
it is refused. Bounds that need to know earlier messages are dbt_runner.intake's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from dbt_runner.events import (
    MAX_BATCH_MESSAGES,
    MAX_BATCHES,
    Batch,
    CommandResult,
    CommandStarted,
    Failure,
    Finished,
    LogLine,
    Message,
    NodeResult,
    Parsed,
    ParseNotHeld,
    Secret,
    Warned,
)
from dbt_runner.texts import fit, without_middle

# Bytes of a line. The longest message that the worker sends is shorter, because it shortens what is longer than the limits below.
MAX_LINE = 2 << 20
# Characters of texts on the pipe: a message or an exception, one of its causes, anything else. The supervisor keeps much less of each,
# after masking, so that no cut of the worker's can lie in what is kept.
MAX_TEXT, MAX_CAUSE, MAX_SHORT = 65_536, 8_192, 1_000
# Of a batch's message: a hundred of them are on one line.
MAX_BATCH_TEXT = 1_000
# Of a unique_id, which is never cut: it is a key. dbt writes every argument of a test into it. An item of the table holds 400 KB.
MAX_ID, MAX_ID_BYTES = 100_000, 300_000
MAX_BASES, MAX_CODES, MAX_CAUSES, MAX_REASONS = 20, 10, 10, 50
# Characters of a class or a code.
MAX_WORD = 200
MAX_COMMANDS = 1_000
MAX_SECONDS = 1e8
# A DynamoDB number has 38 digits; this is what fits into any database's row count.
MAX_COUNT = (1 << 63) - 1
UNKNOWN = "unknown"
_WORD = re.compile(r"[a-z][a-z0-9_ -]{0,31}")
_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_LEVELS = frozenset({"info", "warning", "error"})
# Texts that are not short; None for what is never cut.
_LENGTHS = {"message": MAX_TEXT, "text": MAX_CAUSE, "unique_id": None}


def encode(message: Message) -> str:
    """One line, without its line break, of text that fits into UTF-8; texts that are too long lose their middle."""
    fields: dict[str, Any] = {"type": type(message).__name__}
    if isinstance(message, Secret):
        # As it is, surrogates of an undecodable byte included: the mask looks for exactly this.
        return json.dumps({**fields, "value": message.value[:MAX_TEXT]}, separators=(",", ":"))
    for name, value in vars(message).items():
        if isinstance(value, str):
            value = _shortened(value, _LENGTHS.get(name, MAX_SHORT))
        elif isinstance(value, Failure):
            value = _failure_fields(value)
        elif name == "batches":
            value = [{**vars(batch), "message": _shortened(batch.message, MAX_BATCH_TEXT)} for batch in value[:MAX_BATCHES]]
        elif name == "reasons":
            value = [_shortened(str(reason), MAX_CAUSE) for reason in value[:MAX_REASONS]]
        fields[name] = value
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _shortened(text: str, most: int | None) -> str:
    # Cut first, so that a text of any length costs no more than one of the limit's.
    return fit(text if most is None else without_middle(text, most))


def _failure_fields(failure: Failure) -> dict[str, Any]:
    fields = asdict(failure)
    for link, most in ((fields, MAX_TEXT), *((cause, MAX_CAUSE) for cause in fields["causes"][:MAX_CAUSES])):
        link["message"] = _shortened(link["message"], most)
        link["type"] = _shortened(link["type"], MAX_WORD)
        link["bases"] = [_shortened(base, MAX_WORD) for base in link["bases"][:MAX_BASES]]
        link["codes"] = {_shortened(kind, MAX_WORD): _shortened(code, MAX_WORD) for kind, code in list(link["codes"].items())[:MAX_CODES]}
    fields["causes"] = [{**cause, "causes": ()} for cause in fields["causes"][:MAX_CAUSES]]
    return fields


def decode(line: bytes | str) -> Message:
    """The message of one line.

    Texts are as long as they came: they are cut when they have been masked (events.masked).

    Raises:
        ValueError: the line is not a message of this protocol. The text of the exception holds nothing of the line: it may be a secret.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"a line of {len(line)} bytes, more than {MAX_LINE}")
    try:
        fields = _JSON.decode(line if isinstance(line, str) else line.decode())
        message = _READERS[fields.pop("type")](fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Also not as a cause: an exception of the parser holds the whole line.
        raise ValueError(f"not a message of the worker: {len(line)} bytes") from None
    if fields:
        raise ValueError(f"not a message of the worker: {len(line)} bytes, {len(fields)} fields too many")
    return message


def _refuse_constant(_: str) -> float:
    raise ValueError("NaN and Infinity are no JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)

Fields = dict[str, Any]


def _text(value: object, most: int = MAX_LINE) -> str:
    if type(value) is not str or len(value) > most:
        raise ValueError
    return fit(value)


def _short(value: object) -> str:
    return _text(value)[:MAX_SHORT]


def _whole(value: object, most: int = MAX_COUNT) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError
    return value


def _whole_or_none(value: object) -> int | None:
    return None if value is None else _whole(value)


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _seconds(value: object) -> float:
    # A comparison with NaN is false. Rounding leaves nothing that DynamoDB's numbers are too coarse for.
    if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:  # type: ignore[operator]
        raise ValueError
    return round(float(value), 3)  # type: ignore[arg-type]


def _word(value: object) -> str:
    """A word of dbt's, such as a status; what does not look like one is unknown."""
    text = _text(value)
    return text if _WORD.fullmatch(text) else UNKNOWN


def _moment(value: object) -> str:
    """A time as the store writes it, or an empty text."""
    text = _text(value)
    if len(text) == 24 and text[-1] == "Z":
        try:
            datetime.fromisoformat(text)
        except ValueError:
            return ""
        return text
    return ""


def _identity(value: object) -> str:
    text = _text(value, MAX_ID)
    if not text or (len(text) * 4 > MAX_ID_BYTES and len(text.encode()) > MAX_ID_BYTES):
        raise ValueError
    return text


def _list(value: object, most: int) -> list[Any]:
    if type(value) is not list or len(value) > most:
        raise ValueError
    return value


def _failure(value: object, *, of_cause: bool = False) -> Failure | None:
    if value is None:
        return None
    if type(value) is not dict or len(value) > 5:
        raise ValueError
    codes: Mapping[str, object] = value.get("codes", {})
    if type(codes) is not dict or len(codes) > MAX_CODES:
        raise ValueError
    causes = [_failure(cause, of_cause=True) for cause in _list(value.get("causes", []), 0 if of_cause else MAX_CAUSES)]
    failure = Failure(
        _short(value["type"]),
        tuple(_short(base) for base in _list(value["bases"], MAX_BASES)),
        _text(value["message"]),
        {_short(kind): _text(code) for kind, code in codes.items()},
        tuple(cause for cause in causes if cause is not None),
    )
    if value.keys() - _OF_FAILURE:
        raise ValueError
    return failure


_OF_FAILURE = frozenset({"type", "bases", "message", "codes", "causes"})


def _batches(value: object) -> tuple[Batch, ...]:
    given = _list(value, MAX_BATCHES)
    batches = tuple(_batch(dict(fields)) for fields in given if type(fields) is dict)
    if len(batches) != len(given) or sum(bool(batch.message) for batch in batches) > MAX_BATCH_MESSAGES:
        raise ValueError
    return batches


def _batch(fields: Fields) -> Batch:
    take = fields.pop
    batch = Batch(
        starts_at=_moment(take("starts_at")),
        ends_at=_moment(take("ends_at")),
        status=_word(take("status")),
        message=_text(take("message", ""), MAX_BATCH_TEXT),
        seconds=_seconds(take("seconds", 0.0)),
    )
    if fields:
        raise ValueError
    return batch


def _node_result(fields: Fields) -> NodeResult:
    take = fields.pop
    return NodeResult(
        command=_whole(take("command"), MAX_COMMANDS),
        unique_id=_identity(take("unique_id")),
        resource_type=_word(take("resource_type")),
        name=_short(take("name")),
        status=_word(take("status")),
        message=_text(take("message", "")),
        started_at=_moment(take("started_at", "")),
        ended_at=_moment(take("ended_at", "")),
        seconds=_seconds(take("seconds", 0.0)),
        thread=_short(take("thread", "")),
        relation=_text(take("relation", "")),
        rows=_whole_or_none(take("rows", None)),
        failures=_whole_or_none(take("failures", None)),
        failure=_failure(take("failure", None)),
        batches=_batches(take("batches", [])),
        batches_total=_whole(take("batches_total", 0)),
    )


def _command_result(fields: Fields) -> CommandResult:
    take = fields.pop
    return CommandResult(
        index=_whole(take("index"), MAX_COMMANDS),
        success=_flag(take("success")),
        seconds=_seconds(take("seconds")),
        selected=_whole_or_none(take("selected", None)),
        exception=_failure(take("exception", None)),
    )


def _log_line(fields: Fields) -> LogLine:
    level = _text(fields.pop("level"))
    return LogLine(level if level in _LEVELS else "info", _text(fields.pop("message")), _text(fields.pop("node", ""), MAX_ID)[:MAX_SHORT])


def _warned(fields: Fields) -> Warned:
    command, event = _whole(fields.pop("command"), MAX_COMMANDS), _text(fields.pop("event"))
    kind = event if _EVENT.fullmatch(event) else UNKNOWN
    return Warned(command, kind, _text(fields.pop("text", "")), max(1, _whole(fields.pop("count", 1))))


_READERS: Mapping[str, Callable[[Fields], Message]] = {
    "NodeResult": _node_result,
    "CommandResult": _command_result,
    "CommandStarted": lambda fields: CommandStarted(_whole(fields.pop("index"), MAX_COMMANDS)),
    "Parsed": lambda fields: Parsed(
        _whole(fields.pop("index"), MAX_COMMANDS), [_text(reason) for reason in _list(fields.pop("reasons"), MAX_REASONS)]
    ),
    "ParseNotHeld": lambda fields: ParseNotHeld(_whole(fields.pop("index"), MAX_COMMANDS)),
    "LogLine": _log_line,
    "Warned": _warned,
    "Secret": lambda fields: Secret(_secret(fields.pop("value"))),
    "Finished": lambda _: Finished(),
}


def _secret(value: object) -> str:
    """As it is: a text that the worker printed may hold it in either form."""
    if type(value) is not str or len(value) > MAX_TEXT:
        raise ValueError
    return value
