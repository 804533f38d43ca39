"""Situations from the field, each as a small project with the right result, named as its user would call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROJECT = """
name: tiny
version: "1.0"
profile: of_a_developer
"""
GOOD = {"models/good.sql": "select 1 as id"}
BROKEN = {"models/broken.sql": "select no_such_column from {{ ref('good') }}"}


def project(files: Mapping[str, str | bytes], settings: str = "") -> dict[str, str | bytes]:
    return {"dbt_project.yml": PROJECT + settings, **files}


@dataclass(frozen=True)
class Situation:
    """A project, what is run of it, and what has to come out.

    Attributes:
        error: the typed error; None where the step succeeds.
        statuses: by the node's name; of those that are named, each has to be as it says.
        says: what the outcome's message contains.
        silent: what it does not contain.
        full_refresh: of the run.
        daily: whether it belongs to the default run; the others are run by `make field`.
    """

    name: str
    files: Mapping[str, str | bytes]
    commands: Sequence[str] = ("build",)
    error: str | None = None
    statuses: Mapping[str, str] = field(default_factory=dict)
    says: Sequence[str] = ()
    silent: Sequence[str] = ("Traceback",)
    vars: Mapping[str, Any] = field(default_factory=dict)
    full_refresh: bool = False
    daily: bool = False


_SCHEMA_OF_GOOD = """
models:
  - name: good
    columns:
      - name: id
        data_tests: [{tests}]
"""

# What has to go well, in one project: a run of it costs as much as a run of one of them.
ALL_AT_ONCE: Mapping[str, str | bytes] = project(
    {
        "seeds/with_a_byte_order_mark.csv": "\ufeffid,name\r\n1,a\r\n2,b\r\n",
        "models/windows_line_ends.sql": "select\r\n  id\r\nfrom {{ ref('with_a_byte_order_mark') }}\r\n",
        "models/übung_表.sql": "select 1 as id",
        "models/UPPER_case.sql": "select 1 as id",
        "models/a.model.with.dots.sql": "select 1 as id",
        "models/ephemeral_one.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
        "models/of_an_ephemeral.sql": "select * from {{ ref('ephemeral_one') }}",
        "models/disabled_one.sql": "{{ config(enabled=false) }} select nothing from nowhere",
        "models/versioned_v1.sql": "select 1 as id",
        "models/versioned_v2.sql": "select 2 as id",
        "models/incremental_one.sql": "{{ config(materialized='incremental') }} select 1 as id",
        "models/no_rows.sql": "select 1 as id where false",
        "models/of_python.py": "def model(dbt, session):\n    dbt.config(materialized='table')\n    return session.sql('select 1 as id')\n",
        "models/with_hooks.sql": "{{ config(pre_hook='select 1', post_hook=['select 2', 'select 3']) }} select 1 as id",
        "models/with_a_contract.sql": "select cast(1 as integer) as id",
        "models/with_meta.sql": "select 'country_300' as id",
        "models/with_a_hundred_warnings.sql": (
            "{% for i in range(100) %}{% do exceptions.warn('warning ' ~ i) %}{% endfor %} select 1 as id"
        ),
        "models/with_variables.sql": (
            "select {{ var('small') }} as small, '{{ var('emoji') }}' as emoji, {{ var('long') }} as long,"
            " '{{ var('nothing') }}' as nothing"
        ),
        "models/by_time.sql": (
            "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened_at', batch_size='day',"
            " begin=var('begin')) }}"
            " select timestamp '2026-11-29' as happened_at"
        ),
        "snapshots/s.yml": (
            "snapshots:\n  - {name: over_time, relation: \"ref('versioned', v=1)\","
            " config: {unique_key: id, strategy: check, check_cols: all}}"
        ),
        "models/docs.md": "{% docs long %} Ünïcode \U0001f600 " + "words " * 2000 + "{% enddocs %}",
        "tests/singular.sql": "-- what it says: ' \" `\nselect 1 where false",
        "models/models.yml": """
groups: [{name: sales, owner: {name: '<script>alert(1)</script>', email: 'a@example.com'}}]
models:
  - name: versioned
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
  - name: with_a_contract
    config: {contract: {enforced: true}}
    columns: [{name: id, data_type: integer, constraints: [{type: not_null}]}]
  - name: with_meta
    description: "{{ doc('long') }}"
    config:
      group: sales
      meta: {"1": 1, "true": yes, x: 1.5, owner: {name: ["<b>", "\\u202e", {deep: 1}]}, long: LONG}
    columns:
      - name: id
        data_tests:
          - accepted_values: {arguments: {values: COUNTRIES}, config: {severity: warn}}
          - not_null: {config: {store_failures: true}}
exposures:
  - {name: board, type: dashboard, owner: {name: "\\u202egnp.exe"}, depends_on: [ref('with_meta')]}
""".replace("LONG", "x" * 20_000).replace("COUNTRIES", str([f"country_{i:03d}" for i in range(249)])),
    },
    settings='on-run-start: ["select 1"]\non-run-end: ["select 1", "{{ log(results | length, info=true) }}"]\n'
    + "flags: {write_json: false, use_colors: true, log_format: json, log_level: debug}\n",
)
ALL_VARS: Mapping[str, Any] = {
    "small": 0.00001, "emoji": "\U0001f600 it''s", "long": 12345678901234567, "nothing": None, "begin": "2026-11-28",
}  # fmt: skip

SITUATIONS: Sequence[Situation] = (
    Situation(
        "a model whose SQL is wrong",
        project({**GOOD, **BROKEN, "models/after.sql": "select * from {{ ref('broken') }}"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "broken": "error", "after": "skipped"},
        says=("1 of 3 nodes failed", "model.tiny.broken", "no_such_column"),
    ),
    Situation(
        "a test that fails and blocks a model",
        project(
            {
                **GOOD,
                "models/b.sql": "select * from {{ ref('good') }}",
                "models/c.sql": "select * from {{ ref('b') }}",
                "models/m.yml": _SCHEMA_OF_GOOD.format(tests="{accepted_values: {arguments: {values: [2]}}}"),
            }
        ),
        error="Dbt.TestFailure",
        statuses={"good": "success", "b": "skipped", "c": "skipped"},
        says=("1 of 1 tests failed",),
        daily=True,
    ),
    Situation(
        "a test that cannot be run",
        project({**GOOD, "tests/wrong.sql": "select nothing from {{ ref('good') }}", "tests/fails.sql": "select 1"}),
        error="Dbt.TestFailure",
        statuses={"wrong": "error", "fails": "fail"},
        says=("2 of 2 tests failed (1 of them could not be run)",),
    ),
    Situation(
        "a unit test that fails",
        project(
            {
                **GOOD,
                "models/b.sql": "select id from {{ ref('good') }}",
                "models/m.yml": (
                    "unit_tests: [{name: wrong, model: b, given: [{input: ref('good'), rows: [{id: 2}]}], expect: {rows: [{id: 3}]}}]"
                ),
            }
        ),
        error="Dbt.TestFailure",
        statuses={"good": "success", "wrong": "fail", "b": "skipped"},
    ),
    Situation(
        "a hook before the run that fails",
        # As plain dbt does; the flag in the next one is what makes it skip the rest.
        project(GOOD, 'on-run-start: ["select no_such_column"]'),
        error="Dbt.ModelError",
        statuses={"good": "success"},
        says=("tiny-on-run-start-0", "no_such_column"),
    ),
    Situation(
        "a hook before the run that fails, after which nothing is to run",
        project(GOOD, 'on-run-start: ["select no_such_column"]\nflags: {skip_nodes_if_on_run_start_fails: true}\n'),
        error="Dbt.ModelError",
        statuses={"good": "skipped"},
        says=("tiny-on-run-start-0", "no_such_column"),
    ),
    Situation(
        "a hook after the run that fails, after a model that failed",
        project(
            {**GOOD, **BROKEN, "models/after.sql": "select * from {{ ref('broken') }}"},
            "on-run-end: [select 1, \"{% if execute %}{{ exceptions.raise_compiler_error('no grants') }}{% endif %}\"]",
        ),
        error="Dbt.ModelError",
        statuses={"broken": "error", "after": "skipped", "tiny-on-run-end-0": "success"},
        says=("of 4 nodes failed", "model.tiny.broken", "then 'build'", "no grants"),
        daily=True,
    ),
    Situation(
        "a hook after the run that fails alone",
        project(GOOD, 'on-run-end: ["select no_such_column"]'),
        error="Dbt.ModelError",
        statuses={"good": "success"},
        says=("tiny-on-run-end-0",),
    ),
    Situation(
        "warn_error",
        project({"models/good.sql": "{% do exceptions.warn('careful') %} select 1 as id"}, "flags: {warn_error: true}"),
        error="Dbt.CompilationError",
        says=("careful",),
    ),
    Situation(
        "fail_fast",
        project({**GOOD, **BROKEN, "models/m.sql": "select * from {{ ref('broken') }}"}),
        commands=("build --fail-fast",),
        error="Dbt.ModelError",
        statuses={"broken": "error"},
        says=("model.tiny.broken",),
    ),
    Situation(
        "a lone surrogate in an error",
        project({"models/good.sql": "{{ exceptions.raise_compiler_error('broken \\ud83d half') }}"}),
        error="Dbt.CompilationError",
        says=("broken \ufffd half",),
        daily=True,
    ),
    Situation(
        "an error of a megabyte",
        project({**GOOD, "models/long.sql": "{% if execute %}{{ exceptions.raise_compiler_error('x' * 1000000) }}{% endif %}"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "long": "error"},
    ),
    Situation(
        "show --inline of a table that is not there",
        project(GOOD),
        commands=("show --inline 'select * from missing_table'",),
        error="Dbt.ModelError",
        says=("missing_table does not exist",),
        silent=("Traceback", "bug"),
    ),
    Situation(
        "a missing table beside stale sources",
        project(
            {
                "models/m.yml": """
sources:
  - name: raw
    schema: main
    config: {loaded_at_field: loaded_at, freshness: {error_after: {count: 1, period: day}}}
    tables: [{name: late}, {name: later}, {name: missing}, {name: fresh}]
""",
                "macros/load.sql": """
{% macro load() %}
{% for name, days in {'late': 2, 'later': 3, 'fresh': 0}.items() %}
{% do run_query("create table " ~ name ~ " as select current_timestamp - interval " ~ days ~ " day as loaded_at") %}
{% endfor %}{% do adapter.commit() %}{% endmacro %}
""",
            }
        ),
        commands=("run-operation load", "source freshness"),
        error="Dbt.StaleSource",
        statuses={"late": "error", "missing": "runtime error", "fresh": "pass"},
        says=("3 of 4 sources failed", "source.tiny.raw.missing"),
    ),
    Situation(
        "freshness of a table without rows",
        project(
            {
                "models/m.yml": """
sources:
  - name: raw
    schema: main
    config: {loaded_at_field: loaded_at, freshness: {error_after: {count: 1, period: day}}}
    tables: [{name: empty}]
""",
                "macros/load.sql": (
                    '{% macro load() %}{% do run_query("create table empty (loaded_at timestamp)") %}'
                    "{% do adapter.commit() %}{% endmacro %}"
                ),
            }
        ),
        commands=("run-operation load", "source freshness"),
        error="Dbt.StaleSource",
        says=("source.tiny.raw.empty",),
    ),
    Situation(
        "a contract that is broken",
        project(
            {
                "models/good.sql": "select 1 as other",
                "models/m.yml": ("models: [{name: good, config: {contract: {enforced: true}}, columns: [{name: id, data_type: integer}]}]"),
            }
        ),
        error="Dbt.ModelError",
        says=("model.tiny.good", "contract"),
    ),
    Situation(
        "a Python model that raises",
        project(
            {
                "models/py.py": (
                    "def rates():\n    raise ValueError('no rate for 2026')\n\n\n"
                    "def model(dbt, session):\n    dbt.config(materialized='table')\n    rate = rates()\n    return rate\n"
                )
            }
        ),
        error="Dbt.ModelError",
        says=("ValueError: no rate for 2026 (line 2, in rates)",),
    ),
    Situation(
        "a Python model that ends the process",
        project(
            {
                **GOOD,
                "models/py.py": (
                    "import sys\n\n\ndef model(dbt, session):\n    dbt.config(materialized='table')\n    sys.exit('enough')\n"
                    "    return session.sql('select 1')\n"
                ),
            }
        ),
        error="Dbt.ModelError",
        statuses={"good": "success", "py": "error"},
        says=("model.tiny.py", "SystemExit"),
    ),
    Situation(
        "a selector that is not there",
        project(GOOD),
        commands=("build --selector hourly",),
        error="Dbt.CompilationError",
        says=("hourly",),
    ),
    Situation("a selection of nothing", project(GOOD), commands=("build --select tag:none",), error="Dbt.NothingSelected"),
    Situation(
        "a variable that is missing",
        project({"models/good.sql": "select {{ var('day') }} as id"}),
        error="Dbt.ModelError",
        says=("day",),
    ),
    Situation(
        "an environment variable that is missing",
        project({"models/good.sql": "select '{{ env_var('NOT_SET_HERE') }}' as id"}),
        error="Dbt.CompilationError",
        says=("NOT_SET_HERE",),
    ),
    Situation(
        "two models of one name",
        project({"models/a/good.sql": "select 1", "models/b/good.sql": "select 2"}),
        error="Dbt.CompilationError",
        says=("good",),
    ),
    Situation(
        "models that depend on each other in a circle",
        project({"models/a.sql": "select * from {{ ref('b') }}", "models/b.sql": "select * from {{ ref('a') }}"}),
        error="Dbt.CompilationError",
        says=("cycle",),
        silent=("Traceback", "bug"),
    ),
    Situation(
        "a YAML file that is broken",
        project({**GOOD, "models/m.yml": "models: [{name: good"}),
        error="Dbt.CompilationError",
        says=("m.yml",),
    ),
    Situation(
        "a YAML file in Latin-1",
        project({**GOOD, "models/m.yml": "models: [{name: good, description: \u00fcbung}]".encode("latin-1")}),
        error="Dbt.CompilationError",
        says=("models/m.yml",),
    ),
    Situation(
        "a model in Latin-1",
        project({**GOOD, "models/old.sql": "select '\u00fcbung' as id".encode("latin-1")}),
        error="Dbt.CompilationError",
        says=("models/old.sql",),
    ),
    Situation(
        "a seed with too many fields in a row",
        project({"seeds/broken.csv": "id,name\n1,a\n2,b,c\n"}),
        error="Dbt.ModelError",
        says=("seed.tiny.broken",),
    ),
    Situation(
        "a macro that is not there",
        project(GOOD),
        commands=("run-operation no_such_macro",),
        error="Dbt.CompilationError",
        says=("no_such_macro",),
    ),
    Situation(
        "a batch of a microbatch model that fails",
        project(
            {
                "models/events.sql": (
                    "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='happened_at', batch_size='day',"
                    " begin='2026-11-25') }}"
                    " select case when timestamp '{{ model.batch.event_time_start }}' = timestamp '2026-11-26'"
                    " then error('bad day') else 1 end as id, timestamp '{{ model.batch.event_time_start }}' as at"
                )
            }
        ),
        commands=("build --event-time-start 2026-11-25 --event-time-end 2026-11-28",),
        error="Dbt.ModelError",
        statuses={"events": "partial success"},
        says=("model.tiny.events",),
    ),
    Situation(
        "a snapshot of a column that is not there",
        project(
            {
                **GOOD,
                "snapshots/s.yml": (
                    "snapshots: [{name: s, relation: ref('good'), config: {unique_key: id, strategy: timestamp, updated_at: gone}}]"
                ),
            }
        ),
        error="Dbt.ModelError",
        statuses={"s": "error"},
        says=("gone",),
    ),
    Situation(
        "a project that requires another dbt",
        project(GOOD, 'require-dbt-version: [">=1.0.0", "<1.5.0"]'),
        error="Dbt.CompilationError",
        says=("version of dbt is not supported", "1.5.0"),
    ),
    Situation(
        "a project that requires another dbt, and says not to look",
        project(GOOD, 'require-dbt-version: [">=1.0.0", "<1.5.0"]\nflags: {version_check: false}\n'),
        statuses={"good": "success"},
    ),
    Situation(
        "a package that is not installed",
        project({**GOOD, "packages.yml": "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]"}),
        error="Dbt.CompilationError",
        says=("1 package(s) specified", "dbt deps"),
    ),
    Situation(
        "a ref to a model that is not there",
        project({"models/a.sql": "select * from {{ ref('no_such_model') }}"}),
        error="Dbt.CompilationError",
        says=("no_such_model",),
    ),
    Situation(
        "a ref to a model that is disabled",
        project({"models/off.sql": "{{ config(enabled=false) }} select 1", "models/a.sql": "select * from {{ ref('off') }}"}),
        error="Dbt.CompilationError",
        says=("disabled",),
    ),
    Situation(
        "a source that is not declared",
        project({"models/a.sql": "select * from {{ source('raw', 'orders') }}"}),
        error="Dbt.CompilationError",
        says=("raw.orders",),
    ),
    Situation(
        "a table of a source that is not in the warehouse",
        project(
            {
                "models/a.sql": "select * from {{ source('raw', 'orders') }}",
                "models/m.yml": (
                    "sources: [{name: raw, schema: gone, tables: [{name: orders, columns: [{name: id, data_tests: [not_null]}]}]}]"
                ),
            }
        ),
        error="Dbt.TestFailure",
        statuses={"a": "skipped", "source_not_null_raw_orders_id": "error"},
        says=("1 of 1 tests failed (1 of them could not be run)", "does not exist"),
    ),
    Situation(
        "warn_error for tests that warn",
        project(
            {
                **GOOD,
                "models/m.yml": _SCHEMA_OF_GOOD.format(
                    tests="{accepted_values: {arguments: {values: [2]}, config: {severity: warn}}}",
                ),
            },
            "flags: {warn_error_options: {error: [LogTestResult]}}",
        ),
        error="Dbt.TestFailure",
        statuses={"good": "success"},
    ),
    Situation(
        "fail_fast of the project",
        project({**GOOD, **BROKEN, "models/c.sql": "select * from {{ ref('broken') }}"}, "flags: {fail_fast: true}"),
        error="Dbt.ModelError",
        statuses={"broken": "error"},
        says=("no_such_column",),
    ),
    Situation(
        "a seed whose values are not of its type",
        project(
            {"seeds/prices.csv": "id,price\n1,cheap\n", "seeds/s.yml": "seeds: [{name: prices, config: {column_types: {price: integer}}}]"}
        ),
        error="Dbt.ModelError",
        statuses={"prices": "error"},
        says=("seed.tiny.prices", "CSV Error on Line: 2"),
    ),
    Situation(
        "a seed without rows",
        project({"seeds/empty.csv": "id,name\n"}),
        statuses={"empty": "success"},
    ),
    Situation(
        "failures that are stored",
        project({**GOOD, "models/m.yml": _SCHEMA_OF_GOOD.format(tests="{accepted_values: {arguments: {values: [2]}}}")}),
        commands=("build --store-failures",),
        error="Dbt.TestFailure",
        statuses={"good": "success", "accepted_values_good_id__2": "fail"},
    ),
    Situation(
        "a Python model with a mistake in its syntax",
        project({**GOOD, "models/py.py": "def model(dbt, session):\n    return (\n"}),
        error="Dbt.CompilationError",
        says=("py.py",),
    ),
    Situation(
        "a Python model that imports what is not there",
        project({"models/py.py": "import no_such_package\n\n\ndef model(dbt, session):\n    return session.sql('select 1 as id')\n"}),
        error="Dbt.ModelError",
        statuses={"py": "error"},
        says=("ModuleNotFoundError: No module named 'no_such_package'",),
    ),
    Situation(
        "a Python model that prints and raises what acts on a terminal",
        project(
            {
                "models/py.py": (
                    "def model(dbt, session):\n    print('\\x1b[2J\\x07')\n"
                    "    raise RuntimeError('\\x1b]0;title\\x07 \\u202egnp.exe \\ud83d')\n"
                    "    return None\n"
                )
            }
        ),
        error="Dbt.ModelError",
        says=("RuntimeError",),
        silent=("Traceback", "\x1b", "\x07", "\ud83d"),
    ),
    Situation(
        "an event that dbt cannot serialise, of a model that fails",
        project({**GOOD, "models/broken.sql": "{{ config(meta={'by': {1: 'a', true: 2}}) }} select no_such_column from {{ ref('good') }}"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "broken": "error"},
        says=("1 of 2 nodes failed: model.tiny.broken", "no_such_column"),
    ),
    Situation(
        "more failing rows than an int32 holds",
        project(
            {
                "tests/many.sql": "{{ config(fail_calc='max(n)') }} select 3000000000::bigint as n",
                "models/good.sql": "select 1 as id",
            }
        ),
        error="Dbt.TestFailure",
        statuses={"many": "fail", "good": "success"},
        says=("1 of 1 tests failed", "3000000000"),
    ),
    Situation(
        "an id of a test that is longer than any key",
        project(
            {
                **GOOD,
                "models/m.yml": _SCHEMA_OF_GOOD.format(
                    tests="{accepted_values: {arguments: {values: " + str([f"country_{i:03d}_ü" for i in range(249)]) + "}}}"
                ),
            }
        ),
        error="Dbt.TestFailure",
        statuses={"good": "success"},
        says=("1 of 1 tests failed",),
    ),
    Situation(
        "an owner who is hostile, of a model that fails",
        project(
            {
                **GOOD,
                "models/broken.sql": (
                    "{{ config(meta={'owner': '<script>alert(1)</script>\u202e\x1b[2J' ~ 'x' * 5000}) }} select no_such_column"
                ),
            }
        ),
        error="Dbt.ModelError",
        statuses={"broken": "error"},
        silent=("Traceback", "<script>"),
    ),
    Situation(
        "a hook of a model that fails",
        project({**GOOD, "models/a.sql": "{{ config(post_hook='grant select on {{ this }} to nobody_there') }} select 1 as id"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "a": "error"},
        says=("model.tiny.a",),
    ),
    Situation(
        "a test that warns",
        project(
            {
                **GOOD,
                "models/m.yml": _SCHEMA_OF_GOOD.format(tests="{accepted_values: {arguments: {values: [2]}, config: {severity: warn}}}"),
            }
        ),
        statuses={"good": "success", "accepted_values_good_id__2": "warn"},
    ),
    Situation(
        "nothing but disabled models",
        project({"models/off.sql": "{{ config(enabled=false) }} select 1"}),
        error="Dbt.NothingSelected",
        says=("selected no node",),
    ),
    Situation(
        "a selection by a method that dbt does not have",
        project(GOOD),
        commands=("build --select nonsense:good",),
        error="Dbt.InvalidRequest",
        says=("nonsense",),
    ),
    Situation(
        "a comparison with a release, of a run that has none",
        project(GOOD),
        commands=("build --select state:modified",),
        error="Dbt.CompilationError",
        says=("state",),
    ),
    Situation(
        "an incremental model whose columns have changed, with full refresh",
        project(
            {
                "models/a.sql": (
                    "{{ config(materialized='incremental', on_schema_change='fail') }}"
                    " select 1 as id {% if var('more', false) %}, 2 as more{% endif %}"
                )
            }
        ),
        commands=("run", "build"),
        full_refresh=True,
        vars={"more": True},
        statuses={"a": "success"},
    ),
    Situation(
        "an incremental model whose columns have changed",
        project(
            {
                "models/a.sql": (
                    "{{ config(materialized='incremental', on_schema_change='fail') }}"
                    " select 1 as id {% if is_incremental() %}, 2 as more{% endif %}"
                )
            }
        ),
        commands=("run", "build"),
        error="Dbt.ModelError",
        statuses={"a": "error"},
        says=("out of sync",),
    ),
    Situation(
        "a semantic model without a time spine",
        project(
            {
                **GOOD,
                "models/m.yml": (
                    "semantic_models: [{name: goods, model: ref('good'), defaults: {agg_time_dimension: day},"
                    " entities: [{name: good, type: primary, expr: id}],"
                    " dimensions: [{name: day, type: time, type_params: {time_granularity: day}}],"
                    " measures: [{name: n, agg: count, expr: id}]}]"
                ),
            }
        ),
        error="Dbt.CompilationError",
        says=("time spine",),
    ),
    Situation(
        "a materialization that the adapter does not have",
        project({"models/a.sql": "{{ config(materialized='no_such_materialization') }} select 1 as id"}),
        error="Dbt.ModelError",
        says=("no_such_materialization",),
    ),
    Situation(
        "a macro that never stops calling itself",
        project({**GOOD, "macros/m.sql": "{% macro again() %}{{ again() }}{% endmacro %}", "models/a.sql": "select {{ again() }}"}),
        error="Dbt.CompilationError",
        silent=("Traceback", "bug"),
    ),
    Situation(
        "division by zero in Jinja",
        project({**GOOD, "models/a.sql": "{% if execute %}{{ 1 / 0 }}{% endif %} select 1 as id"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "a": "error"},
        says=("division by zero",),
    ),
    Situation(
        "an exposure of a model that failed",
        project(
            {**BROKEN, **GOOD, "models/m.yml": "exposures: [{name: board, type: dashboard, owner: {name: a}, depends_on: [ref('broken')]}]"}
        ),
        error="Dbt.ModelError",
        statuses={"broken": "error", "good": "success"},
        says=("1 of ",),
    ),
    Situation(
        "ten thousand warnings",
        project({"models/loud.sql": "{% for i in range(10000) %}{% do exceptions.warn('warning ' ~ i) %}{% endfor %} select 1 as id"}),
        statuses={"loud": "success"},
    ),
    Situation(
        "a file of the project that is empty",
        project({**GOOD, "models/m.yml": "", "macros/empty.sql": "", "models/docs.md": ""}),
        statuses={"good": "success"},
    ),
    Situation(
        "a model of two statements",
        project({**GOOD, "models/two.sql": "select 1 as id; select 2 as id"}),
        error="Dbt.ModelError",
        statuses={"good": "success", "two": "error"},
    ),
)

# Two models that wait for each other's lock, once: the sequence remembers that both have come as far as their first one.
DEADLOCK: Mapping[str, str | bytes] = project(
    {
        "models/left.sql": "{{ config(materialized='table') }} select {{ target.schema }}.meet(1, 2) as id",
        "models/right.sql": "{{ config(materialized='table') }} select {{ target.schema }}.meet(2, 1) as id",
        "macros/meet.sql": """
{% macro meet() %}
create sequence if not exists {{ target.schema }}.arrived;
create or replace function {{ target.schema }}.meet(mine bigint, other bigint) returns integer as $$
begin
  perform pg_advisory_xact_lock(mine);
  perform nextval('{{ target.schema }}.arrived');
  while (select last_value from {{ target.schema }}.arrived) < 2 loop perform pg_sleep(0.01); end loop;
  perform pg_advisory_xact_lock(other);
  return 1;
end $$ language plpgsql volatile;
{% endmacro %}
""",
    },
    'on-run-start: ["{{ meet() }}"]\n',
)
