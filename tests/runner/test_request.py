"""Requests: whatever is wrong with one is refused with the name of its field, before anything runs."""

from __future__ import annotations

import itertools
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from dbt_runner import errors, request
from dbt_runner.errors import INVALID_REQUEST, LOCK_LOST, RUNNER_ERROR, TypedError
from dbt_runner.request import HEALTH_CHECK, VERBS, AttemptKey, AttemptRequest, parse_command, validate_input
from dbt_runner.store import LOCK, Item, Store, environment_pk
from runner.releases import refused

ROOT = Path(__file__).parents[2]
EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:analytics-prod:r-1"
RUN_KEY = "RUN#2026-11-23T01:00:00.000Z#r-1"
LONG = "x" * 100_000
STEP: dict[str, Any] = {"name": "build", "commands": ["build"]}


def steps(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"steps": [{**STEP, "name": f"step{i}", **change} for i, change in enumerate(changes)]}


# --- an execution's input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"job": "hourly"},
        {"job": "hourly", "release": "1.4.2", "vars": {"day": "2026-11-22", "deep": [1, {"a": None}]}, "full_refresh": True},
        {"job": "0", "reason": "", "trigger": "schedule"},
        {"steps": [STEP], "reason": "ticket 123", "trigger": "cli"},
        steps(
            {"commands": ["dbt build --select tag:a,tag:b+ 'path:models/my folder'", "test"]},
            {"on_failure": "continue", "timeout_seconds": 1},
        ),
        {"job": "hourly", "release": "v1.0_RC-1." + "x" * 54},
    ],
)
def test_what_is_right_is_accepted_as_it_stands(document: dict[str, Any]) -> None:
    assert validate_input(json.loads(json.dumps(document))) == document


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (None, "the input"),
        ([], "the input"),
        ("job", "the input"),
        ({}, "job"),
        ({"job": "hourly", "steps": [STEP]}, "job"),
        ({"reason": "why"}, "job"),
        ({"job": "hourly", "jobs": 1}, "jobs"),
        ({"job": "hourly", "resume": "r-1"}, "resume"),
        ({"job": 1}, "job"),
        ({"job": None}, "job"),
        ({"job": ""}, "job"),
        ({"job": "Hourly"}, "job"),
        ({"job": "a" * 41}, "job"),
        ({"job": "hourly\n"}, "job"),
        ({"job": "hourly", "release": 1.4}, "release"),
        ({"job": "hourly", "release": "../1.4"}, "release"),
        ({"job": "hourly", "release": "-1"}, "release"),
        ({"job": "hourly", "release": "x" * 65}, "release"),
        ({"job": "hourly", "release": "1.4.2\n"}, "release"),
        ({"job": "hourly", "vars": "day: 1"}, "vars"),
        ({"job": "hourly", "vars": [1]}, "vars"),
        ({"job": "hourly", "vars": {"a": LONG}}, "vars"),
        ({"job": "hourly", "full_refresh": "true"}, "full_refresh"),
        ({"job": "hourly", "full_refresh": 1}, "full_refresh"),
        ({"job": "hourly", "reason": 1}, "reason"),
        ({"job": "hourly", "reason": "x" * 501}, "reason"),
        ({"job": "hourly", "trigger": True}, "trigger"),
        ({"job": "hourly", "trigger": "x" * 101}, "trigger"),
        ({"steps": {}}, "steps"),
        ({"steps": []}, "steps"),
        (steps(*[{}] * 51), "steps"),
        ({"steps": ["build"]}, "steps[0]"),
        ({"steps": [{"commands": ["build"]}]}, "steps[0]"),
        ({"steps": [{"name": "a"}]}, "steps[0]"),
        (steps({}, {"name": "Build"}), "steps[1].name"),
        (steps({}, {"name": 1}), "steps[1].name"),
        (steps({"name": "a/b"}), "steps[0].name"),
        (steps({"name": "a#b"}), "steps[0].name"),
        (steps({"name": ""}), "steps[0].name"),
        (steps({"name": "a" * 41}), "steps[0].name"),
        (steps({"name": "a\n"}), "steps[0].name"),
        (steps({"name": "a"}, {"name": "b"}, {"name": "a"}), "steps[2].name"),
        (steps({}, {"name": HEALTH_CHECK}), "steps[1].name"),
        (steps({"command": "build"}), "steps[0].command"),
        (steps({"commands": "build"}), "steps[0].commands"),
        (steps({"commands": []}), "steps[0].commands"),
        (steps({"commands": ["build"] * 21}), "steps[0].commands"),
        (steps({"commands": ["build", 1]}), "steps[0].commands[1]"),
        (steps({"commands": [""]}), "steps[0].commands[0]"),
        (steps({"commands": ["build " + "x" * 8192]}), "steps[0].commands[0]"),
        (steps({}, {"commands": ["build", "deps"]}), "steps[1].commands[1]"),
        (steps({"on_failure": "ignore"}), "steps[0].on_failure"),
        (steps({"timeout_seconds": 0}), "steps[0].timeout_seconds"),
        (steps({"timeout_seconds": 1.5}), "steps[0].timeout_seconds"),
        (steps({"timeout_seconds": True}), "steps[0].timeout_seconds"),
        (steps({"timeout_seconds": "60"}), "steps[0].timeout_seconds"),
    ],
)
def test_what_is_wrong_is_refused_by_its_field(document: object, field: str) -> None:
    message = refused(INVALID_REQUEST, lambda: validate_input(document))
    assert message.startswith(f"{field}: ")
    assert len(message) < 500


def test_an_unknown_field_is_answered_with_the_known_ones() -> None:
    message = refused(INVALID_REQUEST, lambda: validate_input({"job": "hourly", "fullrefresh": True}))
    assert "full_refresh" in message


# --- a command ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [" ".join(verb) for verb in VERBS])
def test_every_command_that_the_runner_knows_is_accepted_with_and_without_dbt(verb: str) -> None:
    assert parse_command(verb, "c").verb == tuple(verb.split())
    assert parse_command(f"dbt {verb}", "c").words == tuple(verb.split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "dbt",
        "deps",
        "clean",
        "init",
        "debug",
        "retry",
        "docs",
        "docs serve",
        "source",
        "source snapshot-freshness",
        "Build",
        "builds",
        "dbt dbt build",
        "--quiet build",
        "--target prod build",
        "rm -rf /",
        "/bin/sh -c build",
        "; build",
        "$(build)",
        "build --select 'a",
        'build --select "a',
        "build \\",
        "build\nrm -rf /",
        "build\r",
        "build --select a\tb",
        "build --select a\x00b",
        "build \x1b[31m",
        "build \x7f",
    ],
)
def test_what_is_no_dbt_command_is_refused(text: str) -> None:
    assert refused(INVALID_REQUEST, lambda: parse_command(text, "steps[0].commands[0]")).startswith("steps[0].commands[0]: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("build --select a; rm -rf /", ("build", "--select", "a;", "rm", "-rf", "/")),
        ("build --select $(id) `id` $HOME", ("build", "--select", "$(id)", "`id`", "$HOME")),
        ("build --select a > /etc/passwd && b | c", ("build", "--select", "a", ">", "/etc/passwd", "&&", "b", "|", "c")),
        ("build --select '*' ~ ?", ("build", "--select", "*", "~", "?")),
        ("build  --select  'a b'  \"c'd\" e\\ f", ("build", "--select", "a b", "c'd", "e f")),
    ],
)
def test_what_a_shell_would_act_upon_are_plain_words(text: str, words: tuple[str, ...]) -> None:
    """There is no shell behind it: dbt gets the words in the worker's own process."""
    if "-rf" in words:
        # -r is a flag of dbt's that the runner owns: refused, though not for what a shell would do.
        assert "-r:" in refused(INVALID_REQUEST, lambda: parse_command(text, "c"))
        words, text = tuple(w for w in words if w != "-rf"), text.replace("-rf ", "")
    assert parse_command(text, "c").words == words


@pytest.fixture(scope="module")
def cli() -> Any:
    return pytest.importorskip("dbt.cli.main").cli


# What the runner decides, by dbt's names for it.
OWNED = {
    *("project_dir", "profiles_dir", "profile", "target", "target_path", "log_path", "vars", "state", "defer_state", "deprecated_state"),
    *("partial_parse_file_path", "record_timing_info", "log_format", "log_format_file", "log_level", "log_level_file", "version"),
}


def owned_by(verb: tuple[str, ...]) -> set[str]:
    return OWNED | ({"output"} if verb == ("source", "freshness") else set())


def command_of(cli: Any, verb: tuple[str, ...]) -> Any:
    for word in verb:
        cli = cli.commands[word]
    return cli


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_flags_that_the_runner_owns_are_refused_in_every_spelling(cli: Any, verb: tuple[str, ...]) -> None:
    """The spellings are those of dbt's own command line, so that a flag that dbt adds to a parameter is noticed."""
    options = [p for p in command_of(cli, verb).params if p.name in owned_by(verb)]
    assert len(options) >= len(OWNED) - 1
    for option in (text for o in options for text in o.opts):
        flag = f"{option} value"
        spellings = [flag, flag.replace(" ", "=")] if option.startswith("--") else [flag, flag.replace(" ", ""), f"-q{option[1:]}value"]
        for spelling in spellings:
            message = refused(INVALID_REQUEST, partial(parse_command, f"{' '.join(verb)} {spelling}", "c"))
            to_state = option in ("--state", "--defer-state")
            assert ("must give {state} to" if to_state else f"must not contain {option}:") in message


def test_no_word_of_short_flags_smuggles_an_owned_one_past_the_check(cli: Any) -> None:
    """Every combination of up to three letters, as dbt's command line reads it: -xtprod means --fail-fast --target prod."""
    letters = sorted({opt[1] for p in cli.commands["run"].params for opt in p.opts if not opt.startswith("--")} | {"h"})
    assert {"t", "r", "x", "s"} <= set(letters)
    command = cli.commands["run"]
    smuggled = 0
    for length in (1, 2, 3):
        for combination in itertools.product(letters, repeat=length):
            word = "-" + "".join(combination)
            try:
                given, _, _ = command.make_parser(click.Context(command)).parse_args([word, "value"])
            except click.UsageError:
                continue
            if not (set(given) & (OWNED | {"help"})):
                continue
            smuggled += 1
            with pytest.raises(TypedError, match="must not contain"):
                parse_command(f"run {word} value", "c")
    assert smuggled > 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("build -s state:modified+", "build -s state:modified+ --state /s --defer --favor-state"),
        ("build -s state:modified+ --state {state}", "build -s state:modified+ --state /s"),
        ("build --defer --defer-state={state} --state={state}", "build --defer --defer-state=/s --state=/s"),
        ("run-operation greet --args {state}", "run-operation greet --args {state}"),
        ("parse", "parse"),
    ],
)
def test_commands_get_the_folder_of_the_other_release(text: str, words: str) -> None:
    command = parse_command(text, "c")
    assert command.with_state("/s") == tuple(words.split())
    assert command.names_state is ("--state" in text or "--defer-state" in text)


@pytest.mark.parametrize(
    "text", ["build --state", "build --state={state}/..", "build --state {state} --state /elsewhere", "ls --defer-state"]
)
def test_no_other_folder_passes_for_that_of_the_other_release(text: str) -> None:
    assert "must give {state} to" in refused(INVALID_REQUEST, lambda: parse_command(text, "c"))


def test_dbt_knows_no_abbreviations_of_flags(cli: Any) -> None:
    """If it did, --prof would get past the check of --profile."""
    for verb in VERBS:
        command = command_of(cli, verb)
        with pytest.raises(click.NoSuchOption):
            command.make_parser(click.Context(command)).parse_args(["--prof", "mine"])


@pytest.mark.parametrize(
    "text",
    [
        "build --select orders+ --exclude tag:nightly -x --threads 8 --full-refresh",
        "build -qxf -s tag:torv",
        "build -storv",
        "list --output json --output-keys name",
        "show --limit -1 --select a",
        "run-operation grant --args '{role: --target}'",
        "docs generate --static",
        "build --no-partial-parse --warn-error",
    ],
)
def test_flags_that_the_runner_does_not_own_are_accepted(text: str) -> None:
    assert parse_command(text, "c").text == text


# --- an attempt's request ----------------------------------------------------------------------------------------------


def run_item(**plan: Any) -> Item:
    planned = {"job": "hourly", "vars": {}, "full_refresh": False, "trigger": "schedule", **plan}
    planned.setdefault("steps", [{**STEP, "on_failure": "fail", "timeout_seconds": 60}])
    return {
        "pk": environment_pk("prod"),
        "sk": RUN_KEY,
        "run_id": "r-1",
        "execution": EXECUTION,
        "release": "1.4.2",
        "artifacts": "runs/prod/2026/11/23/r-1/",
        "request": json.dumps(planned),
    }


def load(store: Store, position: int = 1) -> AttemptRequest:
    key, item = request.locate(store, "prod", RUN_KEY, position, 2)
    return request.load(store, key, item)


def test_an_attempt_finds_its_step_and_its_place_in_the_books(store: Store, environment: dict[str, Any]) -> None:
    second = {"name": "docs", "commands": ["docs generate", "list"], "on_failure": "continue", "timeout_seconds": 7}
    store.put(run_item(steps=[{**STEP, "on_failure": "fail", "timeout_seconds": 60}, second], vars={"a": 1}, full_refresh=True))
    asked = load(store, 2)
    assert asked.key == AttemptKey("prod", "r-1", 2, "docs", 2)
    assert (asked.key.pk, asked.key.outcome_sk) == ("RUN#prod#r-1", "STEP#02#docs#2")
    assert asked.step is not None
    assert [c.words for c in asked.step.commands] == [("docs", "generate"), ("list",)]
    assert (asked.step.on_failure, asked.step.timeout_seconds) == ("continue", 7)
    assert (asked.release, asked.execution, asked.artifacts) == ("1.4.2", EXECUTION, "runs/prod/2026/11/23/r-1/")
    assert (asked.vars, asked.full_refresh) == ({"a": 1}, True)
    assert asked.config.environment == "prod"


def test_the_health_check_is_step_0(store: Store, environment: dict[str, Any]) -> None:
    store.put(run_item())
    asked = load(store, 0)
    assert asked.step is None
    assert asked.key.outcome_sk == "STEP#00#health_check#2"


@pytest.mark.parametrize("item", [None, {"request": "no JSON"}, {"request": "{}"}, {"request": '{"steps": [{}]}'}, {"request": "[]"}])
def test_an_attempt_without_a_run_or_a_step_is_an_error_of_the_runner(store: Store, item: Item | None) -> None:
    if item is not None:
        store.put({**run_item(), **item})
    message = refused(RUNNER_ERROR, lambda: request.locate(store, "prod", RUN_KEY, 1, 1))
    assert ("has no run" in message) is (item is None)


def test_a_step_behind_the_last_one_is_an_error_of_the_runner(store: Store) -> None:
    store.put(run_item())
    assert "no step 2" in refused(RUNNER_ERROR, lambda: request.locate(store, "prod", RUN_KEY, 2, 1))


def test_a_command_of_a_later_step_is_refused_before_the_first_step_runs(store: Store, environment: dict[str, Any]) -> None:
    planned = [{**STEP, "name": name, "on_failure": "fail", "timeout_seconds": 60} for name in ("one", "two")]
    planned[1]["commands"] = ["build", "clean"]
    store.put(run_item(steps=planned))
    for position in (0, 1):
        message = refused(INVALID_REQUEST, partial(load, store, position))
        assert message.startswith("steps[1].commands[1]: ")


@pytest.mark.parametrize("lock", [None, {"owner": "arn:of:another", "run_id": "r-2"}])
def test_an_attempt_without_the_lock_does_not_run(store: Store, environment: dict[str, Any], lock: Item | None) -> None:
    store.put(run_item())
    if lock:
        store.put({"pk": environment_pk("prod"), "sk": LOCK, **lock})
    asked = load(store)
    message = refused(LOCK_LOST, lambda: request.check_lock(store, asked))
    assert ("run r-2 holds it" if lock else "nobody holds it") in message


@pytest.mark.parametrize("since", ["2026-11-22T10:00:07.000Z", None])
def test_an_attempt_with_the_lock_runs(store: Store, environment: dict[str, Any], since: str | None) -> None:
    store.put(run_item())
    store.put({"pk": environment_pk("prod"), "sk": LOCK, "owner": EXECUTION, "run_id": "r-1", "since": since})
    assert request.check_lock(store, load(store)) == since


# --- the places that must agree ----------------------------------------------------------------------------------------


def test_the_errors_of_the_runner_the_state_machine_and_the_documentation_agree() -> None:
    rows = re.findall(r"^\| (\d+) \| (Dbt\.\w+)[^|]*\| (yes|no)\b", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    kinds = errors.ERRORS.values()
    assert {(int(code), name, retried == "yes") for code, name, retried in rows} == {(k.exit_code, k.name, k.retryable) for k in kinds}
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    definition = json.loads((ROOT / "asl/dbt_run.asl.json").read_text())
    by_code = definition["States"]["Prepare"]["Assign"]["exit_codes"]
    # RunnerError is what every other code stands for; EnvironmentBusy is the state machine's own.
    others = [kind for kind in kinds if kind not in (errors.RUNNER_ERROR, errors.ENVIRONMENT_BUSY)]
    assert by_code == {str(kind.exit_code): kind.name for kind in others}


def test_the_schema_of_the_state_machine_and_the_runner_know_the_same_fields() -> None:
    schema = json.loads((ROOT / "runner/src/dbt_runner/request.schema.json").read_text())
    assigned = json.loads((ROOT / "asl/dbt_run.asl.json").read_text())["States"]["Prepare"]["Assign"]
    assert set(assigned["known_fields"]) == set(schema["properties"])
    assert set(assigned["known_step_fields"]) == set(schema["$defs"]["step"]["properties"])


def test_the_schema_is_a_schema() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(request._schema())
