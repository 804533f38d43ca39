"""A pull request's check, without a run: what its end means, how it is told, and that its release stays its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from dbt_runner import checkout, ci, ci_report, promotion, publish, release, runs
from dbt_runner import cli as command_line
from dbt_runner import store as stores
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST, TypedError
from dbt_runner.run_records import RunDetail
from dbt_runner.store import Store, environment_pk
from runner.releases import ALICE, candidate, refused, write
from runner.report_runs import CONFIG, node, run_of

NASTY = 'Database Error\n  \x1b[31mcolumn "a" | `b` <b>_\x00\ud800*'


def detail(*nodes: Any, status: str = "SUCCEEDED", **attributes: Any) -> RunDetail:
    run = run_of(status, release="ci-1", defer_to="1.4.2", schema_suffix="pr_7", **attributes)
    return RunDetail(run, (), nodes)


def broken() -> ci.Check:
    nodes = (
        node("orders"),
        node("a", "test", "fail", message=NASTY),
        node("b", status="error", message="it broke"),
        node("c", status="skipped"),
    )
    return ci.judged("prod", "ci-1", detail(*nodes, status="FAILED", error="Dbt.ModelError", cause="ci: it broke"))


@pytest.mark.parametrize(
    ("status", "error", "passed", "exit_code"),
    [
        ("SUCCEEDED", None, True, 0),
        ("FAILED", "Dbt.NothingSelected", True, 0),
        ("FAILED", "Dbt.TestFailure", False, 11),
        ("FAILED", "Dbt.Unheard", False, 1),
        ("ABORTED", None, False, 1),
        ("SKIPPED", None, False, 34),
    ],
)
def test_a_runs_end_is_a_checks_end(status: str, error: str | None, passed: bool, exit_code: int) -> None:
    check = ci.judged("prod", "ci-1", detail(status=status, error=error))
    assert (check.passed, check.exit_code) == (passed, exit_code)
    assert ElementTree.fromstring(ci_report.junit(check)).get("errors") == ("0" if passed else "1")


def test_junit_has_a_case_for_each_node_whatever_a_warehouse_says() -> None:
    suites = ElementTree.fromstring(ci_report.junit(broken()))
    suite = suites[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "model.shop.orders": [],
        "test.shop.a": ["failure"],
        "model.shop.b": ["error"],
        "model.shop.c": ["skipped"],
    }
    said = suite.find(".//failure")
    assert said is not None and said.text == 'Database Error\n  column "a" | `b` <b>_\ufffd*'
    assert {p.get("name"): p.get("value") for p in suite.iter("property")} == {
        "release": "ci-1",
        "compared with": "1.4.2",
        "schemas": "..._pr_7",
        "run": "hourly-1",
    }


def test_the_summary_is_a_few_lines_in_which_nothing_is_taken_for_markdown() -> None:
    text = ci_report.markdown(broken())
    assert text.startswith("### dbt: Dbt.ModelError\n\n- release: `ci-1`\n- compared with: `1.4.2`\n- schemas: `..._pr_7`\n")
    assert "- nodes: 1 error, 1 fail, 1 skipped, 1 success\n" in text
    # Words of others are code, which is text to every Markdown, and ends at a backtick only.
    assert r"""| `test.shop.a` | fail | `Database Error column "a" \| 'b' <b>_""" in text
    nothing = ci_report.markdown(ci.judged("prod", "ci-1", detail(status="FAILED", error="Dbt.NothingSelected")))
    assert nothing.startswith("### dbt: no node differs from what prod runs\n")
    assert ci_report.markdown(ci.judged("prod", "ci-1", detail(node("a")))).startswith("### dbt: 1 node built beside prod\n")


def test_a_long_list_of_failures_is_cut() -> None:
    nodes = [node(f"m{number}", status="error", message="it broke") for number in range(25)]
    text = ci_report.markdown(ci.judged("prod", "ci-1", detail(*nodes, status="FAILED", error="Dbt.ModelError")))
    assert text.count("it broke") == 20 and "and 5 more" in text


@pytest.mark.parametrize(("busy", "patience", "waits", "status"), [(2, 60, 2, "SUCCEEDED"), (9, 40, 3, "SKIPPED"), (9, 0, 0, "SKIPPED")])
def test_a_held_environment_is_tried_again_until_patience_ends(
    monkeypatch: pytest.MonkeyPatch, busy: int, patience: float, waits: int, status: str
) -> None:
    statuses = iter(["SKIPPED"] * busy + ["SUCCEEDED"])
    clock = [0.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    def last(details: Iterator[RunDetail]) -> RunDetail:
        *_, end = details
        return end

    monkeypatch.setattr(runs, "start_run", lambda *_: run_of("STARTING"))
    monkeypatch.setattr(runs, "follow", lambda *_, **__: iter([detail(status="STARTING"), detail(status=next(statuses))]))
    done = ci.run(
        None,  # type: ignore[arg-type]  # nothing here reads the store
        None,  # type: ignore[arg-type]  # nor asks Step Functions
        CONFIG,
        ci.request("ci-1", ci.COMMANDS, "current", "pr_7"),
        watch=last,
        say=lambda _: None,
        patience_seconds=patience,
        sleep=sleep,
        clock=lambda: clock[0],
    )
    assert (done.run.status, len(slept)) == (status, waits)


# --- its release -----------------------------------------------------------------------------------------------------


def test_the_same_tree_is_the_same_release_and_nobodys_to_promote(
    store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = []
    monkeypatch.setattr(checkout, "read", lambda *_: checkout.Git("0" * 40, None, True))
    for place, sql in (("a", "select 1 as id"), ("b", "select 1 as id"), ("c", "select 2 as id")):
        project = write(tmp_path / place, {"dbt_project.yml": "name: shop", "models/a.sql": sql})
        (tmp_path / f"work-{place}").mkdir()
        versions.append(publish.pack(project, release.CI, "duckdb", tmp_path / f"work-{place}", lambda _: None).version)
    assert versions[0] == versions[1] != versions[2]
    assert all(release.is_ci(version) for version in versions)
    made = candidate(tmp_path / "packed")
    release.commit(store, replace(made, version=release.ci_version(made.bundle)))
    message = refused(INVALID_REQUEST, lambda: promotion.promote(store, "prod", release.ci_version(made.bundle), by=ALICE, reason=None))
    assert "is a pull request's tree" in message
    assert promotion.current(store, "prod") is None


def test_nobody_takes_the_version_of_a_pull_request(tmp_path: Path) -> None:
    message = refused(INVALID_REQUEST, lambda: publish.pack(tmp_path, "ci-1234", "duckdb", tmp_path, lambda _: None))
    assert "made by dbt-runner ci" in message


# --- the command -----------------------------------------------------------------------------------------------------


def takes_pull_requests(store: Store, environment: dict[str, Any]) -> None:
    environment["slim_ci"] = {"state_target": None, "schema_suffixes": "pr_[0-9]+"}
    store.put({"pk": environment_pk("prod"), "sk": stores.CONFIG, "config": json.dumps(environment)})


def test_where_slim_ci_is_not_set_nothing_is_published(
    store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "publish", lambda *_, **__: pytest.fail("something was published"))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(command_line.cli, ["ci", "-e", "prod", "--table", store.table, "--schema-suffix", "pr_7"])
    assert done.exit_code == INVALID_REQUEST.exit_code and "slim_ci of the environment says which one does" in done.output


def test_a_tree_that_does_not_parse_is_reported_like_any_other_failure(
    store: Store, environment: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypedError(COMPILATION_ERROR, "the project was not published, it does not parse: a | b")

    monkeypatch.setattr(publish, "publish", fail)
    takes_pull_requests(store, environment)
    monkeypatch.setenv("DBT_RUNNER_TABLE", store.table)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "step.md").write_text("before\n")
    done = CliRunner().invoke(command_line.cli, ["ci", "-e", "prod", "--schema-suffix", "pr_7", "--json"])
    assert done.exit_code == COMPILATION_ERROR.exit_code
    said = json.loads(done.stdout)
    assert (said["passed"], said["error"], said["run"]) == (False, "Dbt.CompilationError", None)
    summary = (tmp_path / "target" / "dbt-ci.md").read_text()
    assert summary == "### dbt: Dbt.CompilationError\n\n\n`the project was not published, it does not parse: a | b`\n"
    assert (tmp_path / "step.md").read_text() == "before\n" + summary
    assert ElementTree.parse(tmp_path / "target" / "dbt-ci.xml").getroot().get("errors") == "1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--schema-suffix", "PR-7"], "schema_suffix: "),
        (["--schema-suffix", "pr_7", "--vars", "[]"], "--vars: must be a JSON object"),
        (["--schema-suffix", "pr_7", "-c", "clean"], "steps[0].commands[0]: "),
    ],
)
def test_what_can_be_refused_is_refused_before_anything_is_published(
    store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setattr(publish, "publish", lambda *_, **__: pytest.fail("something was published"))
    done = CliRunner().invoke(command_line.cli, ["ci", "-e", "prod", "--table", store.table, *arguments])
    assert isinstance(done.exception, TypedError) and done.exception.message.startswith(says)
