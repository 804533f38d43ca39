"""dbt projects that hypothesis makes up: names, configs, versions, hooks, tests, seeds, snapshots, packages, and faults in all of them.

A project is made of parts, each of which can be a project or a package of one. What a part holds has its prefix in its name, so that
parts do not meet in the warehouse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

ROOT = "tiny"
_BROKEN = "select no_such_column from (select 1 as id)"
# Letters that file systems, YAML and dbt may treat in different ways. dbt's own names are of the same characters.
_SUFFIXES = ("", "_übung", "_表", "_UPPER", "_1", "_a" * 60)
_META: Sequence[Any] = (
    {},
    {"by": {1: "a"}},
    {"by": {True: 1}, "x": None},
    {"owner": "<b>'\"`</b>"},
    {"deep": {"deeper": [{"n": 1.5}]}},
    {"t": "‮\U0001f600"},
)
# What a model's file ends in, by what becomes of it.
_BODIES: Mapping[str, str] = {
    "success": "select 1 as id, 'a' as name{sources}",
    "sql error": "select no_such_column{sources}",
    "compilation error": (
        "{{% if execute %}}{{{{ exceptions.raise_compiler_error('no way: \\U0001f600') }}}}{{% endif %}} select 1 as id{sources}"
    ),
    "warning": "{{% do exceptions.warn('careful') %}} select 1 as id, 'a' as name{sources}",
    "variable": "select {{{{ var('{prefix}_number', 7) }}}} as id, '{{{{ var('of_all', 'x') }}}}' as name{sources}",
    "no rows": "select 1 as id, 'a' as name{sources} where false",
    "null": "select cast(null as integer) as id, 'a' as name{sources}",
    "comment": "-- '\"`;\n/* {{# a comment #}} */ select 1 as id, 'a' as name{sources}",
}
_MOSTLY_WELL = st.sampled_from(["success"] * 8 + [name for name in _BODIES if name != "success"])
_TESTS: Sequence[Any] = (
    "not_null",
    "unique",
    {"accepted_values": {"arguments": {"values": [1]}}},
    {"accepted_values": {"arguments": {"values": [2]}}},
    {"accepted_values": {"arguments": {"values": [2]}, "config": {"severity": "warn"}}},
    {"accepted_values": {"arguments": {"values": list(range(100, 300))}, "config": {"severity": "warn", "error_if": ">1"}}},
    {"not_null": {"config": {"where": "no_such_column = 1"}}},
    {"not_null": {"config": {"store_failures": True, "limit": 1}}},
    {"unique": {"config": {"enabled": False}}},
)
_HOOKS = (
    "select 1",
    "select 1",
    "select 1",
    "select no_such_column",
    "{% if execute %}{{ exceptions.raise_compiler_error('hook') }}{% endif %}",
)
_SEEDS: Mapping[str, str] = {
    "success": "id,name\n1,a\n2,b\n",
    "windows": "\ufeffid,name\r\n1,a\r\n",
    "ragged": "id,name\n1,a\n2,b,c\n",
    "wrong type": "id,name\nx,a\n",
    "no rows": "id,name\n",
}
# Without fail_fast: a thread of dbt may start another node before dbt has seen the failure, which then calls it skipped although it ran.
# So what a project comes to differs from run to run. tests/field/situations.py has it.
_FLAGS: Sequence[Mapping[str, Any]] = (
    *({},) * 6,
    {"warn_error": True},
    {"warn_error_options": {"error": ["LogTestResult"]}},
    {"warn_error_options": {"silence": ["JinjaLogWarning"]}},
    {"skip_nodes_if_on_run_start_fails": True},
    {"indirect_selection": "cautious"},
    {"write_json": False, "use_colors": True, "log_format": "json", "log_level": "debug", "debug": True},
    {"partial_parse": False, "static_parser": False, "cache_selected_only": True},
)
_ARGUMENTS: Sequence[Sequence[str]] = (
    *((),) * 8,
    ("--full-refresh",),
    ("--select", "tag:even"),
    ("--exclude", "tag:even"),
    ("--select", "tag:even+", "--indirect-selection", "buildable"),
    ("--resource-type", "model"),
    ("--exclude-resource-type", "unit_test"),
    ("--select", "tag:none"),
    ("--store-failures",),
    ("--empty",),
    ("--warn-error",),
    ("--select", "config.materialized:table", "--warn-error-options", '{"error": ["NoNodesForSelectionCriteria"]}'),
)


@dataclass(frozen=True)
class Generated:
    """A project, and how it is built.

    Attributes:
        arguments: what follows `build`.
        vars: of the run.
    """

    files: Mapping[str, str | bytes]
    arguments: Sequence[str] = ()
    vars: Mapping[str, Any] = field(default_factory=dict)


@st.composite
def parts(draw: st.DrawFn, prefix: str, *, most_models: int, hooks: bool) -> dict[str, str]:
    """The files of a part, below its own folder.

    Args:
        hooks: whether its hooks before a run may fail, after which dbt may skip all nodes of all parts.
    """
    files: dict[str, str] = {}
    properties: dict[str, list[Any]] = {"models": [], "seeds": [], "snapshots": [], "unit_tests": [], "exposures": [], "groups": []}
    # What others may refer to.
    known: list[str] = []
    for index in range(draw(st.integers(0, 2))):
        name, kind = f"{prefix}_seed{index}", draw(st.sampled_from(["success", "success", *_SEEDS]))
        files[f"seeds/{name}.csv"] = _SEEDS[kind]
        config = {"column_types": {"id": "integer"}} if kind == "wrong type" else {}
        properties["seeds"].append({"name": name, "config": config, "columns": draw(_columns())})
        known.append(f"ref('{name}')")
    for index in range(draw(st.integers(1, most_models))):
        known += draw(_models(f"{prefix}_m{index}{draw(st.sampled_from(_SUFFIXES))}", index, prefix, known, files, properties))
    if bool(known) and draw(st.booleans()):
        _snapshot(draw(st.sampled_from(["id", "id", "no_such_column"])), draw(st.sampled_from(known)), prefix, properties)
    for index in range(draw(st.integers(0, 2))):
        query = draw(st.sampled_from(["select 1 where false", "select 1", "select no_such_column"]))
        severity = draw(st.sampled_from(["error", "warn"]))
        source = f" from {{{{ {draw(st.sampled_from(known))} }}}}" if bool(known) and draw(st.booleans()) else ""
        files[f"tests/{prefix}_singular{index}.sql"] = f"{{{{ config(severity='{severity}') }}}} with x as ({query}) select * from x" + (
            f" where exists (select 1{source})" if source else ""
        )
    if draw(st.booleans()):
        properties["groups"].append({"name": f"{prefix}_group", "owner": {"name": "‮<i>", "email": "a@example.com"}})
    if bool(known) and draw(st.booleans()):
        properties["exposures"].append(
            {"name": f"{prefix}_board", "type": "dashboard", "owner": {"name": "a"}, "depends_on": [draw(st.sampled_from(known))]}
        )
    files["models/properties.yml"] = _yaml({key: value for key, value in properties.items() if value})
    project: dict[str, Any] = {"name": prefix, "version": "1.0", "profile": "of_a_developer"}
    for moment, wanted in (("on-run-start", st.sampled_from(_HOOKS if hooks else _HOOKS[:1])), ("on-run-end", st.sampled_from(_HOOKS))):
        if draw(st.integers(0, 3)) == 0:
            project[moment] = draw(st.lists(wanted, min_size=1, max_size=2))
    files["dbt_project.yml"] = _yaml(project)
    return files


@st.composite
def projects(draw: st.DrawFn) -> Generated:
    """A project with or without a package."""
    files = dict(draw(parts(ROOT, most_models=6, hooks=True)))
    if draw(st.integers(0, 2)) == 0:
        _add_package(files, "other", draw(parts("other", most_models=3, hooks=True)))
    flags = draw(st.sampled_from(_FLAGS))
    if flags:
        files["dbt_project.yml"] += f"flags: {json.dumps(flags)}\n"
    choices: list[dict[str, Any]] = [{}, {"of_all": "übung\U0001f600"}, {"tiny_number": 0.00001, "of_all": "it's"}]
    return Generated(files, draw(st.sampled_from(_ARGUMENTS)), draw(st.sampled_from(choices)))


@st.composite
def merged(draw: st.DrawFn, number: int) -> Generated:
    """That many parts as packages of one project, which costs as much as one of them with as many nodes."""
    files: dict[str, str] = {"dbt_project.yml": f"name: {ROOT}\nversion: '1.0'\nprofile: of_a_developer\n"}
    for index in range(number):
        prefix = f"p{index:02d}"
        _add_package(files, prefix, draw(parts(prefix, most_models=2, hooks=False)))
    return Generated(files, vars={"of_all": "übung\U0001f600"})


def examples(wanted: st.SearchStrategy[Generated], seeds: Iterable[int]) -> list[Generated]:
    """What a strategy makes of each seed, always the same."""
    return [_example(wanted, number) for number in seeds]


def _example(wanted: st.SearchStrategy[Generated], number: int) -> Generated:
    found: list[Generated] = []

    # The first example is the smallest one, whatever the seed.
    @seed(number)
    @settings(max_examples=2, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(wanted)
    def collect(one: Generated) -> None:
        found.append(one)

    collect()
    return found[-1]


@st.composite
def _columns(draw: st.DrawFn) -> list[Any]:
    tests = draw(st.lists(st.sampled_from(_TESTS), max_size=2, unique_by=_kind))
    return [{"name": "id", "data_tests": tests}] if tests else []


def _kind(test: Any) -> str:
    """dbt gives two tests of a column the same name where they differ in their configs alone."""
    return test if isinstance(test, str) else str(next(iter(test)))


@st.composite
def _models(
    draw: st.DrawFn, name: str, index: int, prefix: str, known: Sequence[str], files: dict[str, str], properties: dict[str, list[Any]]
) -> list[str]:
    """Adds a model; returns how others may refer to it."""
    upstream = draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
    sources = "".join(f"{',' if place else ' from'} {{{{ {ref} }}}} as t{place}" for place, ref in enumerate(upstream))
    kind = draw(_MOSTLY_WELL)
    body = _BODIES[kind].format(sources=sources, prefix=prefix)
    config: dict[str, Any] = {
        "materialized": draw(st.sampled_from(["view", "view", "table", "incremental", "ephemeral"])),
        "meta": draw(st.sampled_from(_META)),
        "tags": ["even"] if index % 2 == 0 else [],
    }
    if draw(st.integers(0, 5)) == 0:
        config[draw(st.sampled_from(["pre-hook", "post-hook"]))] = draw(st.sampled_from(_HOOKS))
    model: dict[str, Any] = {"name": name, "config": config, "columns": draw(_columns())}
    properties["models"].append(model)
    special = draw(st.sampled_from([""] * 6 + ["disabled", "versioned", "python", "contract", "unit test"]))
    if special == "disabled":
        files[f"models/{name}.sql"] = body
        config["enabled"] = False
        return []
    if special == "versioned":
        model["versions"] = [{"v": 1}, {"v": 2}]
        files[f"models/{name}_v1.sql"], files[f"models/{name}_v2.sql"] = body, "select 1 as id, 'a' as name"
        return [f"ref('{name}')", f"ref('{name}', v=1)"]
    if special == "python":
        config["materialized"] = "table"
        raised = "    raise ValueError('no rate')\n" if kind != "success" else ""
        files[f"models/{name}.py"] = f"def model(dbt, session):\n{raised}    return session.sql(\"select 1 as id, 'a' as name\")\n"
        return [f"ref('{name}')"]
    if special == "contract":
        config.update(materialized="table", contract={"enforced": True})
        model["columns"] = [{"name": "id", "data_type": "integer"}]
    if special == "unit test" and config["materialized"] != "ephemeral":
        given_rows = [{"input": ref, "rows": []} for ref in upstream]
        expected = [{"id": 1}] if not upstream else []
        properties["unit_tests"].append({"name": f"{name}_unit", "model": name, "given": given_rows, "expect": {"rows": expected}})
    files[f"models/{name}.sql"] = body
    return [f"ref('{name}')"]


def _snapshot(key: str, relation: str, prefix: str, properties: dict[str, list[Any]]) -> None:
    config = {"unique_key": key, "strategy": "check", "check_cols": "all"}
    properties["snapshots"].append({"name": f"{prefix}_snapshot", "relation": relation, "config": config})


def _add_package(files: dict[str, str], name: str, part: Mapping[str, str]) -> None:
    """As `dbt deps` leaves a local package: where it lies, and where it is installed."""
    files["packages.yml"] = files.get("packages.yml", "packages:\n") + f"  - local: packages/{name}\n"
    for path, text in part.items():
        files[f"packages/{name}/{path}"] = files[f"dbt_packages/{name}/{path}"] = text


def _yaml(document: Any) -> str:
    import yaml

    return str(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
