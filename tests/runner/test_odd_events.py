"""Results and texts that dbt cannot serialise as an event: each node has its result, its name and its reason all the same. Real dbt."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dbt_runner import outcome
from dbt_runner.errors import MODEL_ERROR
from dbt_runner.request import parse_command
from runner import projects, warm
from runner.projects import Ended, Supervised

PROJECT: Mapping[str, str] = {
    "dbt_project.yml": projects.PROJECT,
    "models/plain.sql": "select 1 as id",
    "models/tested.sql": "select 1 as id",
    "models/by_number.sql": "select 2 as id",
    "models/by_truth.sql": "{{ config(materialized='table') }} select no_such_column from {{ ref('plain') }}",
    "models/after_by_truth.sql": "select * from {{ ref('by_truth') }}",
    "models/half_a_pair.sql": "{% if execute %}{{ exceptions.raise_compiler_error('\\ud83d half a pair') }}{% endif %} select 1 as id",
    "models/half_a_pair_in_a_log.sql": "{{ log('\\udfff in a log', info=True) }}{{ print('\\udfff in a print') }} select 1 as id",
    "models/models.yml": """
models:
  - { name: by_number, config: { meta: { codes: { 1: one } } } }
  - { name: by_truth, config: { meta: { codes: { true: yes } } } }
  - name: tested
    columns:
      - name: id
        data_tests:
          - not_null: { config: { fail_calc: "count(*) + 3000000000", error_if: ">= 0", warn_if: ">= 0" } }
          - unique:
              config: { fail_calc: "count(*) + 3000000000", error_if: "> 4000000000", warn_if: ">= 0", meta: { codes: { 7: seven } } }
""",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    work = tmp_path_factory.mktemp("odd")
    projects.write(work / "project", PROJECT)
    with Supervised(work, ["build"], popen=warm.supervised) as supervised:
        return supervised.end()


def test_every_node_has_its_result_and_none_is_without_a_name(ended: Ended) -> None:
    statuses = {unique_id.split(".")[2]: status for unique_id, status in ended.statuses.items()}
    assert statuses == {
        "plain": "success",
        "tested": "success",
        "by_number": "success",
        "by_truth": "error",
        "after_by_truth": "skipped",
        "half_a_pair": "error",
        "half_a_pair_in_a_log": "success",
        "not_null_tested_id": "fail",
        "unique_tested_id": "warn",
    }
    assert not ended.report.left_out


def test_a_count_beyond_32_bits_is_recorded(ended: Ended) -> None:
    tests = [node.failures for node in ended.report.nodes.values() if node.resource_type == "test"]
    assert tests == [3_000_000_000, 3_000_000_000]


def test_an_exception_is_its_nodes_also_where_the_event_names_none(ended: Ended) -> None:
    failed = {node.name: node.failure for node in ended.report.nodes.values() if node.status == "error"}
    by_truth, half = failed["by_truth"], failed["half_a_pair"]
    assert by_truth is not None and any("BinderException" in link.names for link in by_truth.chain)
    assert half is not None and half.type == "CompilationError" and "\ufffd half a pair" in half.message


def test_the_outcome_names_the_node_and_no_text_is_unfit(ended: Ended) -> None:
    found = outcome.classify(ended.report, [parse_command("build", "commands")], "duckdb")
    assert found.error is MODEL_ERROR
    assert found.counts == {"success": 4, "error": 2, "skipped": 1, "fail": 1, "warn": 1}
    assert any("in a log" in message for message in ended.messages)


def test_what_dbt_cannot_serialise_is_said_once_and_not_for_each_event(ended: Ended) -> None:
    assert sum("cannot serialise" in message for message in ended.messages) == 1
    assert all(len(message) < 2000 for message in ended.messages)
