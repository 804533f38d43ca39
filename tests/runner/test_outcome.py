"""What an attempt came to: one typed error by evidence, and a message for whoever has to act."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dbt_runner import errors, outcome
from dbt_runner.errors import (
    ACCESS_DENIED,
    COMPILATION_ERROR,
    INTERRUPTED,
    INVALID_REQUEST,
    MODEL_ERROR,
    NOTHING_SELECTED,
    OUT_OF_MEMORY,
    RUNNER_ERROR,
    STALE_SOURCE,
    TEST_FAILURE,
    TIMEOUT,
    WAREHOUSE_UNAVAILABLE,
    ErrorKind,
    TypedError,
)
from dbt_runner.events import CommandResult, Failure, NodeResult, StepReport
from dbt_runner.evidence import describe
from dbt_runner.outcome import Outcome, classify, classify_probe, from_error, without_credential
from dbt_runner.request import parse_command

COMMANDS = [parse_command("build --select tag:hourly", "c"), parse_command("source freshness", "c")]


def node(
    status: str, name: str = "a", resource_type: str = "model", *, command: int = 0, message: str = "", failure: Failure | None = None
) -> NodeResult:
    return NodeResult(command, f"{resource_type}.shop.{name}", resource_type, name, status, message=message, failure=failure)


def ended(success: bool, *, index: int = 0, selected: int | None = 1, exception: Failure | None = None) -> CommandResult:
    return CommandResult(index, success, 1.0, selected, exception)


def report(*commands: CommandResult, nodes: Sequence[NodeResult] = (), **fields: Any) -> StepReport:
    """A worker that came to its end, unless `fields` say otherwise."""
    return StepReport(list(commands), {n.unique_id: n for n in nodes}, **{"finished": True, "returncode": 0, **fields})


def failure(name: str, *bases: str, message: str = "Runtime Error\n  it went wrong") -> Failure:
    return Failure(name, (name, *bases), message)


def after(name: str, cause: Failure) -> Failure:
    """An exception that an adapter raised from another one."""
    return replace(failure(name, "DbtRuntimeError"), causes=(cause,))


LOCKED = failure("IOException", "OperationalError", message="IO Error: Could not set lock on file: held by PID 7")
REFUSED = failure("SSLCertVerificationError", "OSError")


def kind_of(found: StepReport, commands: int = 1) -> ErrorKind | None:
    return classify(found, COMMANDS[:commands], "duckdb").error


# --- every row -------------------------------------------------------------------------------------------------------


OK = ended(True)
BAD = ended(False)


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (report(OK, nodes=[node("success"), node("pass", "t", "test"), node("warn", "u", "test")]), None),
        (report(ended(True, selected=None)), None),
        (report(OK, nodes=[node("skipped"), node("no-op", "b")]), None),
        (report(BAD, nodes=[node("error")]), MODEL_ERROR),
        (report(BAD, nodes=[node("partial success")]), MODEL_ERROR),
        # A test that could not be run is no model of anyone's.
        (report(BAD, nodes=[node("error", "t", "test")]), TEST_FAILURE),
        (report(BAD, nodes=[node("error", "t", "unit_test"), node("pass", "u", "test")]), TEST_FAILURE),
        (report(BAD, nodes=[node("error", "hook", "operation")]), MODEL_ERROR),
        (report(BAD, nodes=[node("runtime error", "s", "source")]), MODEL_ERROR),
        (report(BAD, nodes=[node("fail", "t", "test")]), TEST_FAILURE),
        (report(BAD, nodes=[node("fail", "t", "unit_test")]), TEST_FAILURE),
        (report(BAD, nodes=[node("fail", "t", "test"), node("error")]), MODEL_ERROR),
        (report(BAD, nodes=[node("error", "s", "source"), node("pass", "q", "source")]), STALE_SOURCE),
        (report(BAD, nodes=[node("error", "s", "source"), node("runtime error", "q", "source")]), STALE_SOURCE),
        (report(BAD, nodes=[node("error", "s", "source"), node("fail", "t", "test")]), TEST_FAILURE),
        (report(ended(True, selected=0)), NOTHING_SELECTED),
        (report(BAD), RUNNER_ERROR),
        (report(ended(False, exception=failure("SomethingElse"))), RUNNER_ERROR),
        (report(ended(False, exception=failure("KeyboardInterrupt"))), INTERRUPTED),
        (report(ended(False, exception=failure("MemoryError"))), OUT_OF_MEMORY),
        (report(ended(False, exception=failure("DbtUsageException"))), INVALID_REQUEST),
        (report(ended(False, exception=failure("InvalidSelectorError", "DbtRuntimeError"))), INVALID_REQUEST),
        (report(ended(False, exception=failure("FailedToConnectError", "DbtDatabaseError", "DbtRuntimeError"))), ACCESS_DENIED),
        (report(ended(False, exception=LOCKED)), WAREHOUSE_UNAVAILABLE),
        (report(ended(False, exception=after("DbtRuntimeError", LOCKED))), WAREHOUSE_UNAVAILABLE),
        # What was in hand when somebody stopped it is no reason of the warehouse's.
        (report(ended(False, exception=after("KeyboardInterrupt", LOCKED))), INTERRUPTED),
        (report(ended(False, exception=after("CompilationError", LOCKED))), COMPILATION_ERROR),
        (report(BAD, nodes=[node("error", failure=LOCKED)]), WAREHOUSE_UNAVAILABLE),
        (report(BAD, nodes=[node("error", failure=LOCKED), node("error", "b", failure=REFUSED)]), ACCESS_DENIED),
        # Another attempt would not help the others.
        (report(BAD, nodes=[node("error", failure=LOCKED), node("error", "b")]), MODEL_ERROR),
        (report(BAD, nodes=[node("error", failure=LOCKED), node("fail", "t", "test")]), MODEL_ERROR),
        (report(BAD, nodes=[node("error", failure=failure("DbtDatabaseError"))]), MODEL_ERROR),
        (report(BAD, nodes=[node("runtime error", "s", "source", failure=LOCKED)]), WAREHOUSE_UNAVAILABLE),
        (report(ended(False, exception=failure("YamlLoadError", "ParsingError", "DbtRuntimeError"))), COMPILATION_ERROR),
        (report(ended(False, exception=failure("DbtProjectError", "DbtConfigError", "DbtRuntimeError"))), COMPILATION_ERROR),
        (report(ended(False, exception=failure("DbtRuntimeError"))), COMPILATION_ERROR),
        (report(ended(False, exception=failure("DbtDatabaseError", "DbtRuntimeError"))), MODEL_ERROR),
        # A hook that fails after the nodes is not the first cause.
        (report(ended(False, exception=failure("CompilationError")), nodes=[node("error")]), MODEL_ERROR),
        (report(ended(False, exception=failure("CompilationError")), nodes=[node("fail", "t", "test")]), TEST_FAILURE),
        (report(ended(False, exception=failure("SomethingElse")), nodes=[node("error", "q", "sql_operation")]), MODEL_ERROR),
        (report(ended(False, exception=failure("CompilationError")), nodes=[node("success")]), COMPILATION_ERROR),
        (report(ended(False, exception=failure("KeyboardInterrupt")), nodes=[node("error")]), INTERRUPTED),
        (report(BAD, nodes=[node("fail", "t", "test"), node("error", "hook", "operation")]), TEST_FAILURE),
        # A SIGKILL is no evidence of memory.
        (report(finished=False, returncode=-signal.SIGKILL), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL, peak_memory_mib=176, memory_limit_mib=4096, oom_kills=0), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL, peak_memory_mib=176, memory_limit_mib=4096, oom_kills=1), OUT_OF_MEMORY),
        (report(finished=False, returncode=-signal.SIGKILL, peak_memory_mib=3900, memory_limit_mib=4096), OUT_OF_MEMORY),
        (report(finished=False, returncode=-signal.SIGSEGV), RUNNER_ERROR),
        (report(finished=False, returncode=1), RUNNER_ERROR),
        (report(finished=False, returncode=0), RUNNER_ERROR),
        (report(OK, finished=False, returncode=0), RUNNER_ERROR),
        (report(finished=False, returncode=130, interrupted=True), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL, interrupted=True, killed=True), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL, timed_out=True, killed=True), TIMEOUT),
        (report(ended(False, exception=failure("KeyboardInterrupt")), timed_out=True, returncode=1), TIMEOUT),
    ],
)
def test_every_ending_has_its_error(found: StepReport, kind: ErrorKind | None) -> None:
    result = classify(found, COMMANDS[:1], "duckdb")
    assert result.error is kind
    assert result.exit_code == (kind.exit_code if kind else 0)
    assert bool(result.message) is bool(result.why) is (kind is not None), "an error says what to do and what was seen"


def test_only_the_command_that_failed_counts() -> None:
    late = ended(False, index=1)
    found = report(OK, late, nodes=[node("error", command=0), node("error", "s", "source", command=1)])
    assert kind_of(found, 2) is STALE_SOURCE


def test_a_command_that_selects_nothing_is_found_wherever_it_stands() -> None:
    found = report(ended(True, selected=0), ended(True, index=1))
    result = classify(found, COMMANDS, "duckdb")
    assert result.error is NOTHING_SELECTED
    assert "build --select tag:hourly" in result.message


def test_a_failure_wins_over_an_empty_selection_before_it() -> None:
    found = report(ended(True, selected=0), ended(False, index=1), nodes=[node("error", "s", "source", command=1)])
    assert kind_of(found, 2) is STALE_SOURCE


# --- precedence --------------------------------------------------------------------------------------------------------


def test_timeout_wins_over_interruption_and_both_over_death() -> None:
    dead: dict[str, Any] = {"finished": False, "returncode": -signal.SIGKILL, "oom_kills": 1}
    assert kind_of(report(**dead)) is OUT_OF_MEMORY
    assert kind_of(report(**dead, interrupted=True)) is INTERRUPTED
    assert kind_of(report(**dead, interrupted=True, timed_out=True)) is TIMEOUT


@pytest.mark.parametrize("late", [{"interrupted": True}, {"timed_out": True}])
def test_a_success_wins_over_a_late_signal(late: dict[str, Any]) -> None:
    assert kind_of(report(OK, **late)) is None
    assert kind_of(report(OK, ended(True, index=1), **late), 2) is None


def test_a_success_of_the_first_commands_only_is_no_success() -> None:
    assert kind_of(report(OK, interrupted=True), 2) is INTERRUPTED
    assert kind_of(report(OK, finished=False, returncode=-signal.SIGKILL, oom_kills=1), 2) is OUT_OF_MEMORY


# --- the health check --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (report(OK), None),
        (report(ended(False, exception=after("FailedToConnectError", LOCKED))), WAREHOUSE_UNAVAILABLE),
        # Unknown is not tried again.
        (report(ended(False, exception=failure("FailedToConnectError", "DbtDatabaseError"))), ACCESS_DENIED),
        (report(ended(False, exception=failure("DbtDatabaseError", "DbtRuntimeError"))), ACCESS_DENIED),
        (report(ended(False, exception=failure("DbtRuntimeError"))), ACCESS_DENIED),
        (report(ended(False, exception=failure("SomeDriverError"))), ACCESS_DENIED),
        (report(ended(False, exception=failure("DbtProfileError", "DbtConfigError", "DbtRuntimeError"))), COMPILATION_ERROR),
        (report(finished=False, returncode=1, timed_out=True), WAREHOUSE_UNAVAILABLE),
        (report(finished=False, returncode=1, interrupted=True), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL), INTERRUPTED),
        (report(finished=False, returncode=-signal.SIGKILL, oom_kills=2), OUT_OF_MEMORY),
        (report(finished=False, returncode=1), RUNNER_ERROR),
    ],
)
def test_a_health_check_that_fails_says_why(found: StepReport, kind: ErrorKind | None) -> None:
    result = classify_probe(found, "duckdb")
    assert result.error is kind
    assert bool(result.message) is bool(result.why) is (kind is not None)


# --- messages ----------------------------------------------------------------------------------------------------------


def test_a_message_names_the_first_nodes_and_stays_short() -> None:
    names = [f"model_{i}" for i in range(30)]
    bad = [node("error", name, message=f'Database Error in model {name}\n  relation "x" does not exist\n' + "z" * 5000) for name in names]
    result = classify(report(BAD, nodes=[*bad, node("success", "fine")]), COMMANDS[:1], "duckdb")
    assert result.message.startswith("30 of 31 nodes failed: model.shop.model_0: ")
    assert 'relation "x" does not exist' in result.message
    assert result.message.endswith("; and 27 more")
    assert "model_3" not in result.message
    assert len(result.message) < 1500
    assert [n.unique_id for n in result.failures] == [f"model.shop.{name}" for name in names[: outcome.MAX_FAILURES]]
    assert result.counts == {"error": 30, "success": 1}
    assert result.why == "status 'error' of model.shop.model_0"


def test_tests_are_counted_among_tests_and_mixed_ones_among_all_nodes() -> None:
    others = [node("success", "m"), node("pass", "p", "test")]
    only_tests = classify(report(BAD, nodes=[node("fail", "t", "test"), *others]), COMMANDS[:1], "duckdb")
    assert only_tests.message.startswith("1 of 2 tests failed: test.shop.t: fail")
    mixed = classify(report(BAD, nodes=[node("error", "t", "test"), node("error"), *others]), COMMANDS[:1], "duckdb")
    assert mixed.message.startswith("2 of 4 nodes failed (1 model, 1 test): model.shop.a: error; test.shop.t: error")


def test_tests_that_failed_and_those_that_could_not_be_run_are_one_number() -> None:
    tests = [*(node("fail", f"f{i}", "test") for i in range(8)), *(node("error", f"e{i}", "test") for i in range(5))]
    passed = [node("pass", f"p{i}", "unit_test") for i in range(15)]
    found = classify(report(BAD, nodes=[*tests, *passed, node("success")]), COMMANDS[:1], "duckdb")
    assert found.message.startswith("13 of 28 tests failed (5 of them could not be run): ")
    assert found.error is TEST_FAILURE and found.counts == {"fail": 8, "error": 5, "pass": 15, "success": 1}


def test_a_stale_source_hides_no_missing_table() -> None:
    sources = [node("error", "late", "source"), node("pass", "fresh", "source"), node("error", "later", "source")]
    missing = node("runtime error", "gone", "source", message="Runtime Error in source gone\n  Catalog Error: no such table")
    found = classify(report(BAD, nodes=[*sources, missing]), COMMANDS[:1], "duckdb")
    assert found.error is STALE_SOURCE
    assert found.message.startswith("3 of 4 sources failed: ") and "Catalog Error: no such table" in found.message


def test_failed_nodes_come_first_and_then_what_ended_the_command() -> None:
    hook = failure("CompilationError", message="Compilation Error in operation tiny-on-run-end-0\n  no grants")
    found = classify(
        report(ended(False, exception=hook), nodes=[node("error", "s", "seed", message="no such file")]), COMMANDS[:1], "duckdb"
    )
    assert found.error is MODEL_ERROR
    assert found.message == (
        "1 of 1 nodes failed: seed.shop.s: no such file; "
        "then 'build --select tag:hourly': Compilation Error in operation tiny-on-run-end-0 no grants"
    )
    # The exception of `show` is the node's own.
    own = failure("DbtRuntimeError", message="Runtime Error in sql_operation q\n  Catalog Error: no table x")
    shown = report(ended(False, exception=own), nodes=[node("error", "q", "sql_operation", message=own.message)])
    assert classify(shown, COMMANDS[:1], "duckdb").message == (
        "1 of 1 nodes failed: sql_operation.shop.q: Runtime Error in sql_operation q Catalog Error: no table x"
    )


@pytest.mark.parametrize("more", ["", "\n  and its rates are, too"])
def test_of_a_python_model_the_exception_is_told_and_the_projects_nearest_frame(more: str) -> None:
    message = f"""Runtime Error in model py (models/py.py)
  Python model failed:
  Traceback (most recent call last):
    File "/opt/dbt-runner/lib/python3.12/site-packages/dbt/adapters/duckdb/environments/__init__.py", line 286, in run_python_job
      df = module.model(dbt, con)
           ^^^^^^^^^^^^^^^^^^^^^^
    File "/tmp/tmpm1batzuc.py", line 3, in model
      rate = rates()
    File "/tmp/tmpm1batzuc.py", line 6, in rates
      raise ValueError("the year 2026 is missing")
    File "/opt/dbt-runner/lib/python3.12/site-packages/pandas/core.py", line 9, in check
  ValueError: the year 2026 is missing{more}
  """
    found = classify(report(BAD, nodes=[node("error", "py", message=message)]), COMMANDS[:1], "duckdb")
    said = "ValueError: the year 2026 is missing" + more.replace("\n  ", " ")
    assert found.message == f"1 of 1 nodes failed: model.shop.py: {said} (line 6, in rates)"


def test_an_exception_is_told_with_its_command_and_its_classes() -> None:
    raised = failure("YamlLoadError", "ParsingError", message="Parsing Error\n  at models/x.yml\n" + "y" * 5000)
    result = classify(report(ended(False, exception=raised)), COMMANDS[:1], "duckdb")
    assert result.message.startswith("'build --select tag:hourly': Parsing Error at models/x.yml")
    assert len(result.message) < 700
    assert result.why == "exception YamlLoadError (YamlLoadError < ParsingError)"


@pytest.mark.parametrize("fields", [{"timed_out": True}, {"interrupted": True}, {}])
def test_an_ending_in_mid_run_says_how_far_it_came(fields: dict[str, bool]) -> None:
    dead: dict[str, Any] = {"finished": False, "returncode": -signal.SIGKILL, **fields}
    some = classify(report(nodes=[node("success"), node("error", "b")], **dead), COMMANDS[:1], "duckdb")
    assert "2 nodes had finished" in some.message
    assert some.counts == {"success": 1, "error": 1}
    assert [n.name for n in some.failures] == ["b"]
    assert "no node had finished" in classify(report(**dead), COMMANDS[:1], "duckdb").message


def test_a_death_shows_its_evidence() -> None:
    result = classify(report(finished=False, returncode=-signal.SIGKILL, peak_memory_mib=4011), COMMANDS[:1], "duckdb")
    assert "4011 MiB" in result.message
    assert "return code -9" in result.why


def test_an_error_of_the_runner_itself_keeps_the_nodes() -> None:
    result = from_error(TypedError(ACCESS_DENIED, "ask the platform team", "STS said no"), report(BAD, nodes=[node("error")]))
    assert (result.error, result.message, result.why) == (ACCESS_DENIED, "ask the platform team", "STS said no")
    assert result.counts == {"error": 1}
    assert [n.name for n in result.failures] == ["a"]
    assert from_error(TypedError(ACCESS_DENIED, "m")).counts == {}


# --- dbt's own classes -------------------------------------------------------------------------------------------------

# Python's; the others are dbt's.
NOT_DBTS = {
    "KeyboardInterrupt": "builtins",
    "MemoryError": "builtins",
    "UnicodeDecodeError": "builtins",
    "WouldReplace": "dbt_runner.dbt_hooks",
}


@pytest.mark.parametrize("name", [name for name, _ in outcome._EXCEPTIONS])
def test_every_exception_of_the_table_is_a_class_that_exists(name: str) -> None:
    """A class that dbt renames would otherwise be classified as an error of the runner from then on."""
    modules = ["dbt_common.exceptions", "dbt.exceptions", "dbt.cli.exceptions", "dbt.adapters.exceptions"]
    modules = [NOT_DBTS[name]] if name in NOT_DBTS else modules
    found = [getattr(importlib.import_module(module), name, None) for module in modules]
    classes = [cls for cls in found if isinstance(cls, type) and issubclass(cls, BaseException)]
    assert classes, f"none of {modules} has {name}"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: _of("dbt.adapters.exceptions", "FailedToConnectError")("refused"), ACCESS_DENIED),
        (lambda: _of("dbt_common.exceptions", "DbtDatabaseError")("syntax"), MODEL_ERROR),
        (lambda: _of("dbt_common.exceptions", "EventCompilationError")("x", None), COMPILATION_ERROR),
        (lambda: _of("dbt.exceptions", "YamlParseDictError")("a.yml", "models", {}, "no name"), COMPILATION_ERROR),
        (lambda: _of("dbt.exceptions", "DbtProfileError")("x"), COMPILATION_ERROR),
        (lambda: _of("dbt.exceptions", "UninstalledPackagesFoundError")(1, 0, "packages.yml", "dbt_packages"), COMPILATION_ERROR),
        (lambda: _of("dbt.exceptions", "InvalidSelectorError")("x"), INVALID_REQUEST),
        (lambda: _of("dbt.exceptions", "AliasError")("x"), COMPILATION_ERROR),
        (lambda: _of("dbt.cli.exceptions", "DbtUsageException")("x"), INVALID_REQUEST),
        (KeyboardInterrupt, INTERRUPTED),
        (lambda: _of("dbt_common.exceptions", "DbtInternalError")("a bug"), RUNNER_ERROR),
        (lambda: ValueError("a bug"), RUNNER_ERROR),
    ],
)
def test_real_exceptions_are_known_by_their_classes(make: Any, kind: ErrorKind) -> None:
    assert kind_of(report(ended(False, exception=describe(make())))) is kind


def _of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def test_every_error_is_in_the_table_once() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, ErrorKind)]
    assert sorted(errors.ERRORS) == sorted(kind.name for kind in kinds)


# --- when the worker got no credential -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ACCESS_DENIED, WAREHOUSE_UNAVAILABLE])
def test_a_refusal_of_the_driver_is_what_kept_the_broker_from_serving(kind: ErrorKind) -> None:
    ended = Outcome(ACCESS_DENIED, "no credentials", "NoCredentialsError", {"error": 1})
    told = without_credential(ended, TypedError(kind, "STS said no", "AssumeRole"))
    assert told == Outcome(kind, "STS said no; then no credentials", "AssumeRole; NoCredentialsError", {"error": 1})


@pytest.mark.parametrize("error", [None, MODEL_ERROR, INTERRUPTED])
def test_any_other_end_has_nothing_to_do_with_the_broker(error: ErrorKind | None) -> None:
    ended = Outcome(error, "it went wrong")
    assert without_credential(ended, TypedError(WAREHOUSE_UNAVAILABLE, "STS is away")) is ended
    assert without_credential(replace(ended, error=ACCESS_DENIED), None) == replace(ended, error=ACCESS_DENIED)
