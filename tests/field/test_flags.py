"""dbt's flags: what the audit needs does not depend on them, and the page of operations says which of them a project decides."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import identity
from dbt_runner.store import Store
from field.situations import project
from runner.attempts import Run, publish

# One process imports dbt for all of them.
pytestmark = pytest.mark.xdist_group("field")

_DOCS = Path(__file__).parents[2] / "docs" / "operations.md"

# Flags of dbt_project.yml with a value that is not dbt's own. The runner sets these, whatever the project says.
SET_BY_THE_RUNNER: Mapping[str, Any] = {
    "debug": True,
    "log_format": "json",
    "log_format_file": "json",
    "log_level": "debug",
    "log_level_file": "error",
    "send_anonymous_usage_stats": True,
    "use_colors": True,
    "use_colors_file": True,
    "write_json": False,
}
# These are the project's choice.
CHOSEN: Mapping[str, Any] = {
    "cache_selected_only": True,
    "fail_fast": True,
    "indirect_selection": "cautious",
    "partial_parse": False,
    "populate_cache": False,
    "printer_width": 10,
    "static_parser": False,
    "use_experimental_parser": True,
    "version_check": False,
    # Excludes warn_error, which tests/field/situations.py has.
    "warn_error_options": {"silence": ["LogTestResult", "JinjaLogWarning", "NoNodesForSelectionCriteria"]},
}
_OTHERS = frozenset({"warn_error"})
# Variables of the environment. Of a flag that the runner sets, the variable is without effect; of a place, dbt does not see it.
PLACES = ("artifact_state_path", "defer_state", "partial_parse_file_diff", "partial_parse_file_path", "record_timing_info", "state")
ALSO_SET = ("log_path", "profile", "profiles_dir", "project_dir", "target", "target_path")
VARIABLES: Mapping[str, str] = {
    **dict.fromkeys((*PLACES, *ALSO_SET), "/nowhere"),
    # With it, dbt would read no file of the project and succeed.
    "partial_parse_file_diff": "false",
    "write_json": "false",
    "debug": "true",
    "log_level": "error",
    "log_level_file": "error",
    "log_format": "json",
    "log_format_file": "json",
    "use_colors": "true",
    "use_colors_file": "true",
    "quiet": "true",
    "print": "false",
    "printer_width": "1",
    "log_cache_events": "true",
    "log_file_max_bytes": "1",
    "macro_debugging": "true",
    "partial_parse": "false",
    "populate_cache": "false",
    "cache_selected_only": "true",
    "static_parser": "false",
    "use_fast_test_edges": "true",
    "show_resource_report": "true",
    "version_check": "false",
    "fail_fast": "true",
    "indirect_selection": "cautious",
    "store_failures": "true",
}
# Variables that change what is built, as the same words of a command do: the platform team's choice, which Terraform and CONFIG show.
CHANGE_THE_BUILD = frozenset(
    {
        *("defer", "empty", "event_time_start", "event_time_end", "exclude_resource_types", "export_saved_queries", "favor_state"),
        *(
            "full_refresh",
            "include_saved_query",
            "introspect",
            "single_threaded",
            "resource_types",
            "sample",
            "warn_error",
            "warn_error_options",
            "use_experimental_parser",
        ),
    }
)
# Of commands that the runner does not run, of older names, and of dbt's own services.
_ELSEWHERE = frozenset(
    {
        *("clean_project_files_only", "host", "sqlparse", "send_anonymous_usage_stats", "upload_to_artifacts_ingest_api"),
        *("deprecated_defer", "deprecated_favor_state", "deprecated_print", "deprecated_state"),
    }
)
_FILES: Mapping[str, str] = {
    "models/good.sql": "{% do log('\\x1b[31mred', info=true) %} select 1 as id",
    "models/later.sql": "select * from {{ ref('good') }}",
    "models/wrong.sql": "{{ config(meta={'owner': 'the tiny team'}) }} select no_such_column from {{ ref('later') }}",
    "models/m.yml": (
        "models: [{name: good, columns: [{name: id, data_tests: ["
        "not_null, {accepted_values: {arguments: {values: [2]}, config: {severity: warn}}}]}]}]"
    ),
}
_STATUSES = {"good": "success", "later": "success", "wrong": "error", "not_null_good_id": "pass", "accepted_values_good_id__2": "warn"}


@pytest.mark.usefixtures("warm_worker")
@pytest.mark.parametrize(
    "flags, variables",
    [
        pytest.param({**SET_BY_THE_RUNNER, **CHOSEN}, {}, id="of the project"),
        pytest.param({}, VARIABLES, id="of the environment", marks=pytest.mark.slow),
    ],
)
def test_the_audit_is_whole_whatever_dbts_flags_say(
    store: Store,
    environment: dict[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    flags: Mapping[str, Any],
    variables: Mapping[str, str],
) -> None:
    environment["warehouse"]["settings"] = {"path": str(tmp_path / "warehouse.duckdb"), "threads": 1}
    run = Run(store, environment)
    run.environment.update({f"DBT_ENGINE_{name.upper()}": value for name, value in variables.items()})
    publish(store, tmp_path / "project", project(_FILES, f"flags: {json.dumps(flags)}\n" if flags else ""))
    run.attempt()
    outcome, log = run.outcome(), capfd.readouterr().out
    assert {item["name"]: item["status"] for item in run.nodes().values()} == _STATUSES, str(outcome)
    assert [(failure["unique_id"], failure.get("owner")) for failure in outcome["failures"]] == [("model.tiny.wrong", "the tiny team")]
    assert "no_such_column" in outcome["failures"][0]["message"] and outcome["error"] == "Dbt.ModelError"
    names = {artifact["key"].rsplit("/", 1)[-1] for artifact in outcome["artifacts"]}
    assert {"manifest.json", "run_results.json", "dbt.log"} <= names and "unpublished" not in outcome
    lines = [json.loads(line) for line in log.splitlines()]
    assert any("red" in line["message"] and "\x1b" not in line["message"] for line in lines), "the log has what the project says"
    assert any("no_such_column" in line["message"] for line in lines), "the log has what dbt says"


@pytest.mark.parametrize("prefix", ["DBT_", "DBT_ENGINE_"])
def test_dbt_does_not_see_variables_that_would_lead_it_elsewhere(prefix: str, tmp_path: Path) -> None:
    own = {f"{prefix}{name.upper()}": "/nowhere" for name in (*PLACES, "target")}
    assert own.keys() & identity.worker_environment(own, tmp_path).keys() == {f"{prefix}TARGET"}


def test_each_flag_of_dbt_is_known() -> None:
    """A new dbt may bring a flag that takes something from the audit."""
    import dbt.cli.main
    from dbt.contracts.project import ProjectFlags

    of_project = {name for name in ProjectFlags().__dict__ if name not in ProjectFlags().project_only_flags}
    # Behaviour changes of dbt's own: a project says which dbt it was written for.
    of_project = {name for name in of_project if not name.startswith(("require_", "_"))}
    assert of_project == SET_BY_THE_RUNNER.keys() | CHOSEN.keys() | _OTHERS

    def of(command: Any) -> set[str]:
        own = {option.name for option in command.params if option.envvar}
        return own.union(*(of(one) for one in getattr(command, "commands", {}).values()))

    known = (VARIABLES.keys() - {"artifact_state_path", "record_timing_info"}) | CHANGE_THE_BUILD | _ELSEWHERE
    assert of(dbt.cli.main.cli) == known


def test_each_flag_is_documented() -> None:
    section = _DOCS.read_text().split("## dbt's flags")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("| ")]
    for column, names in (
        ("the runner", {*SET_BY_THE_RUNNER, *ALSO_SET}),
        ("the runner, per run", set(PLACES)),
        ("the project", {*CHOSEN, *_OTHERS}),
        ("the platform team", CHANGE_THE_BUILD - CHOSEN.keys() - _OTHERS),
    ):
        row = next(row for row in rows if f"| {column} |" in row)
        assert {name for name in names if f"`{name}`" not in row} == set(), column
