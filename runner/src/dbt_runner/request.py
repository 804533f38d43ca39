"""What was asked: the execution's input and one attempt's request, validated before anything runs."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from dbt_runner import admission, callers, config, variables
from dbt_runner.errors import INVALID_REQUEST, LOCK_LOST, RELEASE_NOT_FOUND, RUNNER_ERROR, TypedError
from dbt_runner.store import LOCK, Item, Store, environment_pk, run_pk, step_sk

if TYPE_CHECKING:
    from jsonschema import ValidationError

HEALTH_CHECK = "health_check"

# Commands that build or read the warehouse by the release. What is left out would change the release (deps, clean, init),
# ask the user something (init) or answer from another run's files (retry, clone).
VERBS: tuple[tuple[str, ...], ...] = (
    ("build",),
    ("compile",),
    ("docs", "generate"),
    ("list",),
    ("ls",),
    ("parse",),
    ("run",),
    ("run-operation",),
    ("seed",),
    ("show",),
    ("snapshot",),
    ("source", "freshness"),
    ("test",),
)
# Commands whose results say what became of a node in the warehouse. The others also announce nodes, but only compiled them.
EXECUTING_VERBS = frozenset({("build",), ("run",), ("run-operation",), ("seed",), ("snapshot",), ("source", "freshness"), ("test",)})
FULL_REFRESH_VERBS = frozenset({("build",), ("compile",), ("run",), ("seed",)})

# The runner decides where the project, the profile and the artifacts are; vars have a field of their own.
_OWNED_FLAGS = frozenset(
    {
        "--project-dir",
        "--profiles-dir",
        "--profile",
        "--target",
        "-t",
        "--target-path",
        "--log-path",
        "--vars",
        "--deprecated-state",
        "-o",
        "--partial-parse-file-path",
        # Without the comparison dbt reads no file of the project.
        "--partial-parse-file-diff",
        "--no-partial-parse-file-diff",
        "--record-timing-info",
        "-r",
        "--log-format",
        "--log-format-file",
        "--log-level",
        "--log-level-file",
        "--help",
        "-h",
        "--version",
        "-V",
        "-v",
    }
)
# Flags that are a path for one command only; elsewhere --output is a format.
_OWNED_FLAGS_OF_VERB: Mapping[tuple[str, ...], frozenset[str]] = {("source", "freshness"): frozenset({"--output"})}
# Short flags without a value: another one may follow in the same word, such as -xtprod.
_SHORT_SWITCHES = frozenset("dfqx")
_HINTS = {"--vars": "use the field vars", **dict.fromkeys(("--help", "-h", "--version", "-V", "-v"), "with it dbt runs nothing")}
# Flags that take the folder of another release's manifest; the runner alone knows where that is.
_STATE_FLAGS = ("--state", "--defer-state")
STATE = "{state}"
# What a run that defers as a whole defers in: the others select no nodes.
_NOT_DEFERRED = frozenset({("parse",), ("run-operation",)})
CURRENT = "current"
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Command:
    """One dbt command: its words as dbt gets them, without a shell in between."""

    text: str
    words: tuple[str, ...]
    verb: tuple[str, ...]

    @property
    def names_state(self) -> bool:
        """Whether it says itself what it compares with another release, or takes from it."""
        return bool(_state_places(self.words))

    def with_state(self, folder: str) -> tuple[str, ...]:
        """Its words, with the folder of another release's manifest. Where they name none, all that it does not select is deferred."""
        if places := _state_places(self.words):
            return tuple(word.replace(STATE, folder) if place in places else word for place, word in enumerate(self.words))
        return self.words if self.verb in _NOT_DEFERRED else (*self.words, "--state", folder, "--defer", "--favor-state")


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        timeout_seconds: bounds an attempt of it.
        on_timeout: what follows when it outgrows Lambda: "fail", or "fargate" to do the rest there.
    """

    name: str
    commands: tuple[Command, ...]
    on_failure: str
    timeout_seconds: int
    on_timeout: str = "fail"


@dataclass(frozen=True)
class AttemptKey:
    """Where an attempt stands in the books. It is known before the request is, so that a refused request is recorded too.

    Attributes:
        position: the step's place in the run, from 1; 0 is the health check.
        name: the step's name; `health_check` for the health check.
    """

    environment: str
    run_id: str
    position: int
    name: str
    attempt: int

    @property
    def pk(self) -> str:
        return run_pk(self.environment, self.run_id)

    @property
    def outcome_sk(self) -> str:
        return step_sk(self.position, self.name, self.attempt)


@dataclass(frozen=True)
class AttemptRequest:
    """Everything that one attempt of a step needs to know.

    Attributes:
        execution: the execution's ARN, which must own the environment's lock.
        release: the version to run.
        artifacts: the prefix of the run's artifacts in the bucket.
        project: the dbt project of the environment when the run began, of which its releases have to be; None where nothing was promoted.
        resumes: the ids of the runs of which this one does the rest, the latest first; mostly none.
        resumed_releases: for each of these the version that it ran; empty where all had this run's.
        step: None for the health check.
        job: None where the run is no job's.
        defer_to: the version of the release whose manifest the commands may compare with and defer to; None where none does.
        schema_suffix: what the names of the schemas that this run writes to end in; None for the environment's own.
    """

    key: AttemptKey
    config: config.EnvironmentConfig
    execution: str
    release: str
    artifacts: str
    resumes: Sequence[str]
    step: Step | None
    vars: Mapping[str, Any]
    full_refresh: bool
    job: str | None = None
    defer_to: str | None = None
    schema_suffix: str | None = None
    project: str | None = None
    resumed_releases: Sequence[str] = ()

    @property
    def is_on_another_release(self) -> bool:
        """Whether one of the runs that this one resumes had another release."""
        return any(version != self.release for version in self.resumed_releases)


def parse_command(text: str, field: str) -> Command:
    """Splits a command as a shell would, and refuses what the runner does not run.

    Args:
        text: such as `build --select tag:hourly`.
        field: where it stands in the request, for the message.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the field.
    """
    if _CONTROL_CHARACTERS.search(text):
        raise _invalid(field, "must not contain control characters or line breaks")
    try:
        words = tuple(shlex.split(text))
    except ValueError as exc:
        raise _invalid(field, f"cannot be split into words ({exc}): check its quotes") from exc
    if words[:1] == ("dbt",):
        words = words[1:]
    verb = next((verb for verb in VERBS if words[: len(verb)] == verb), None)
    if verb is None:
        known = ", ".join(" ".join(verb) for verb in VERBS)
        raise _invalid(field, f"must start with a dbt command ({known}), not with {' '.join(words[:1]) or 'nothing'!r}")
    owned = _OWNED_FLAGS | _OWNED_FLAGS_OF_VERB.get(verb, frozenset())
    for flag in (flag for word in words for flag in _flags(word)):
        if flag in owned:
            raise _invalid(field, f"must not contain {flag}: {_HINTS.get(flag, 'the runner sets it')}")
    if len(_state_places(words)) < sum(word.partition("=")[0] in _STATE_FLAGS for word in words):
        raise _invalid(field, f"must give {STATE} to {' and '.join(_STATE_FLAGS)}: the folder with the manifest of the other release")
    return Command(text, words, verb)


def validate_input(document: object) -> Mapping[str, Any]:
    """Checks an execution's input by the schema and its commands, and returns it.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the field.
    """
    import jsonschema

    validator = jsonschema.Draft202012Validator(_schema())
    error = jsonschema.exceptions.best_match(validator.iter_errors(document))
    if error is not None:
        raise _schema_error(error)
    assert isinstance(document, Mapping)  # the schema says so
    variables.of_input(document.get("vars", {}))
    names = [step["name"] for step in document.get("steps", [])]
    for position, name in enumerate(names):
        if name == HEALTH_CHECK:
            raise _invalid(f"steps[{position}].name", f"{HEALTH_CHECK} is the name of the health check")
        if name in names[:position]:
            raise _invalid(f"steps[{position}].name", f"{name} is the name of another step")
    if "schema_suffix" in document and "defer_to" not in document:
        raise _invalid("schema_suffix", "goes with defer_to: what is not built into these schemas is taken from that release's")
    _commands(document)
    return document


def check_caller(environment: config.EnvironmentConfig, document: Mapping[str, Any]) -> None:
    """Holds a valid input against what the environment's callers may ask for.

    Raises:
        TypedError: Dbt.InvalidRequest, naming the field.
    """
    callers.check_overrides(environment, document)
    callers.check_commands(environment, _commands(document))


def locate(store: Store, environment: str, run_key: str, position: int, attempt: int) -> tuple[AttemptKey, Item]:
    """Finds the run item that the state machine wrote, and this attempt's place in the books.

    Raises:
        TypedError: Dbt.RunnerError when there is no such run or no such step.
    """
    item = store.get(environment_pk(environment), run_key)
    if item is None:
        raise TypedError(RUNNER_ERROR, f"table {store.table} has no run {run_key} in environment {environment}")
    name = HEALTH_CHECK
    if position:
        try:
            name = str(_plan(item)["steps"][position - 1]["name"])
        except (ValueError, LookupError, TypeError) as exc:
            raise TypedError(RUNNER_ERROR, f"run {item['run_id']} has no step {position}") from exc
    return AttemptKey(environment, item["run_id"], position, name, attempt), item


def load(store: Store, key: AttemptKey, item: Item) -> AttemptRequest:
    """Reads an attempt's request from its run's item.

    All steps are checked, not only this one: a command that is refused is refused before the first one ran.

    Raises:
        TypedError: Dbt.RunnerError (no such environment), Dbt.InvalidRequest.
    """
    plan = _plan(item)
    validate_input({name: value for name, value in plan.items() if name not in ("job", "resume", "job_vars")})
    steps = [_step(step) for step in plan["steps"]]
    environment = config.load(store, key.environment)
    # The steps of a job are the deployment's, and so is what the state machine writes out of it. The caller's vars stand apart.
    asked = {"vars": plan["vars"]} if variables.of_input(plan.get("vars", {})) else {}
    if plan.get("job") is None:
        callers.check_commands(environment, _commands(plan))
        # The state machine writes out full_refresh always, and defer_to where a command names {state}.
        asked |= {name: value for name, value in plan.items() if value and name not in ("vars", "defer_to")}
    if plan.get("resume") is None:
        callers.check_overrides(environment, asked)
    admission.check_name(environment, item["release"], "release")
    defer_to = _defer_to(plan, steps, key.environment)
    if defer_to is not None:
        admission.check_name(environment, defer_to, "defer_to")
    resumes, resumed_releases = _resumed(item)
    for version in resumed_releases:
        admission.check_name(environment, version, "resume")
    return AttemptRequest(
        key=key,
        config=environment,
        execution=item["execution"],
        release=item["release"],
        artifacts=item["artifacts"],
        resumes=resumes,
        step=steps[key.position - 1] if key.position else None,
        vars=variables.of_record(plan),
        full_refresh=plan.get("full_refresh", False),
        job=item.get("job"),
        defer_to=defer_to,
        schema_suffix=check_suffix(environment, plan.get("schema_suffix")),
        project=item.get("project"),
        resumed_releases=resumed_releases,
    )


def check_lock(store: Store, request: AttemptRequest) -> str | None:
    """Makes sure that this attempt's run still owns the environment.

    Returns:
        Since when (ISO 8601); None where the lock does not say.

    Raises:
        TypedError: Dbt.LockLost.
    """
    item = store.get(environment_pk(request.key.environment), LOCK)
    owner = item["owner"] if item else None
    if owner != request.execution:
        held_by = f"run {item['run_id']} holds it" if item else "nobody holds it"
        raise TypedError(
            LOCK_LOST,
            f"run {request.key.run_id} does not hold the lock of environment {request.key.environment} ({held_by}); nothing was executed",
        )
    return item.get("since") if item else None


def _plan(item: Item) -> Any:
    """The request as the state machine wrote it out. A control character in it is refused where it stands, however it is written."""
    return json.loads(item["request"], strict=False)


def _resumed(item: Item) -> tuple[list[str], list[str]]:
    """The runs that a run resumes, the latest first, and their releases: all the run's own in a record that does not say."""
    try:
        runs: list[str] = json.loads(item.get("resumes", "[]"))
        releases: list[str] = json.loads(item["resumed_releases"]) if "resumed_releases" in item else [item["release"]] * len(runs)
        if len(runs) != len(releases) or not all(isinstance(each, str) for each in (*runs, *releases)):
            raise ValueError("not a release for each run")
    except (ValueError, TypeError, RecursionError) as exc:
        raise TypedError(RUNNER_ERROR, f"the record of run {item['run_id']} does not say which runs it resumes: start a new run") from exc
    return runs, releases


def check_suffix(environment: config.EnvironmentConfig, suffix: str | None) -> str | None:
    """The schema suffix, if the environment allows it.

    Raises:
        TypedError: Dbt.InvalidRequest.
    """
    allowed = environment.schema_suffixes
    if suffix is not None and allowed is not None and not re.fullmatch(allowed, suffix):
        raise _invalid("schema_suffix", f"environment {environment.environment} takes only what matches {allowed}, not {suffix}")
    return suffix


def _defer_to(plan: Mapping[str, Any], steps: Sequence[Step], environment: str) -> str | None:
    """The release to compare with: the state machine wrote its version, where one was current when the run began."""
    version = plan.get("defer_to")
    if version == CURRENT or (version is None and any(command.names_state for step in steps for command in step.commands)):
        raise TypedError(
            RELEASE_NOT_FOUND,
            f"environment {environment} had no current release to compare with: promote one (dbt-runner release promote), "
            "or name a version in defer_to",
        )
    return version


def _commands(document: Mapping[str, Any]) -> dict[str, Command]:
    """The commands of a request's steps, by their field."""
    fields = {
        f"steps[{position}].commands[{number}]": text
        for position, step in enumerate(document.get("steps", []))
        for number, text in enumerate(step["commands"])
    }
    return {field: parse_command(text, field) for field, text in fields.items()}


def _step(raw: Mapping[str, Any]) -> Step:
    commands: Sequence[str] = raw["commands"]
    return Step(
        name=raw["name"],
        commands=tuple(parse_command(text, f"steps.{raw['name']}.commands[{i}]") for i, text in enumerate(commands)),
        on_failure=raw["on_failure"],
        timeout_seconds=raw["timeout_seconds"],
        on_timeout=raw.get("on_timeout") or "fail",
    )


def _state_places(words: Sequence[str]) -> list[int]:
    """Which words hold STATE for a flag that takes it."""
    whole = {f"{flag}={STATE}" for flag in _STATE_FLAGS}
    return [place for place, word in enumerate(words) if word in whole or (word == STATE and words[place - 1] in _STATE_FLAGS)]


def _flags(word: str) -> Iterator[str]:
    """The flags in a word: a long one, or short ones in a row up to the first that takes a value. dbt knows no abbreviations."""
    if word.startswith("--"):
        yield word.split("=", 1)[0]
    elif word.startswith("-"):
        for letter in word[1:]:
            yield f"-{letter}"
            if letter not in _SHORT_SWITCHES:
                return


def _invalid(field: str, problem: str) -> TypedError:
    return TypedError(INVALID_REQUEST, f"{field}: {problem}")


def _schema_error(error: ValidationError) -> TypedError:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = error.schema["properties"] if isinstance(error.schema, Mapping) else {}
        unknown = sorted(set(error.instance) - set(known))
        # A caller's own text: as it is where it is a name, or else as JSON writes it.
        first = unknown[0] if re.fullmatch(r"\w{1,80}", unknown[0]) else json.dumps(unknown[0][:80])
        name = f"{field}.{first}" if field else first
        return _invalid(name, f"unknown field; known are {', '.join(known)}")
    if error.validator == "oneOf":
        if not field and isinstance(error.instance, Mapping) and "resume" in error.instance:
            return _invalid(
                "resume",
                "leave out job, steps, vars, full_refresh, defer_to and schema_suffix, which are those of the run that it resumes; "
                f"release may only be {CURRENT}",
            )
        return _invalid(field or "job", "give one of job, steps and resume")
    # The mask comes later and takes an ellipsis for a cut, next to which a part of a secret is masked, too.
    return _invalid(field or "the input", error.message if len(error.message) <= 300 else f"{error.message[:299]}…")


@functools.cache
def _schema() -> Mapping[str, Any]:
    schema: Mapping[str, Any] = json.loads(resources.files("dbt_runner").joinpath("request.schema.json").read_text())
    return schema
