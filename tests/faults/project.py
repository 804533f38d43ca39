"""A dbt project of about sixty nodes that counts its own executions in the warehouse, by the nodes' own transactions."""

from __future__ import annotations

from collections.abc import Iterator

# Every execution leaves a row: of a model, a seed and a snapshot in the transaction that builds it, so that the row is there exactly
# when the result is; of a test and a unit test on its own, when it begins.
_PROJECT = """
name: kills
version: "1.0"
profile: of_a_developer
on-run-start: "create table if not exists executions (node varchar, moment varchar)"
models: { +post-hook: "{{ execution() }}" }
seeds: { +post-hook: "{{ execution() }}" }
snapshots: { +post-hook: "{{ execution() }}" }
"""
_MACROS = """
{% macro execution() %}
insert into executions values ('{{ model.unique_id }}', '{{ modules.datetime.datetime.now(modules.pytz.utc).isoformat() }}')
{% endmacro %}
{% macro count_execution() %}
{% if execute %}{% do run_query(execution()) %}{% do adapter.commit() %}{% endif %}
{% endmacro %}
{% macro count_unit_test() %}{% if model.resource_type == 'unit_test' %}{{ count_execution() }}{% endif %}{% endmacro %}
{% test filled(model, column_name) %}{{ count_execution() }} select * from {{ model }} where {{ column_name }} is null{% endtest %}
"""
_ROWS = 40


def nodes(files: dict[str, str]) -> int:
    """How many nodes of a project `build` executes: all but the ephemeral models, which only are part of others."""
    schema = files["models/models.yml"]
    models = sum(name.startswith("models/") and name.endswith(".sql") and "ephemeral" not in text for name, text in files.items())
    seeds = sum(name.endswith(".csv") for name in files)
    return (
        models + seeds + schema.count("data_tests:") + schema.count("- name: unit_") + files["snapshots/snapshots.yml"].count("relation:")
    )


def files(width: int) -> dict[str, str]:
    """The project's files: `width` chains of five models, each with its tests, over three seeds.

    What it builds depends on neither time nor chance. An incremental model that is built a second time adds only rows that it does not
    have, as one should.
    """
    return {
        "dbt_project.yml": _PROJECT,
        "macros/executions.sql": _MACROS,
        **{f"seeds/raw_{number}.csv": _seed(number) for number in range(3)},
        **{name: text for chain in range(width) for name, text in _chain(chain)},
        "models/models.yml": _schema(width),
        "snapshots/snapshots.yml": _snapshots(width),
    }


def _seed(number: int) -> str:
    days = "".join(f"{row},{row * (number + 2)},2024-01-{row % 28 + 1:02}\n" for row in range(_ROWS))
    return f"id,amount,day\n{days}"


def _chain(chain: int) -> Iterator[tuple[str, str]]:
    before, after = f"raw_{chain % 3}", f"table_{chain - 1}" if chain else "raw_0"
    yield f"models/view_{chain}.sql", f"select id, amount, day from {{{{ ref('{before}') }}}}"
    yield (
        f"models/inner_{chain}.sql",
        f"{{{{ config(materialized='ephemeral') }}}} select id, amount + {chain} as amount, day from {{{{ ref('view_{chain}') }}}}",
    )
    yield (
        f"models/table_{chain}.sql",
        f"{{{{ config(materialized='table') }}}} {{{{ count_unit_test() }}}} select * from {{{{ ref('inner_{chain}') }}}}",
    )
    yield (
        f"models/grown_{chain}.sql",
        f"""{{{{ config(materialized='incremental', incremental_strategy='append') }}}}
select id, amount, day from {{{{ ref('inner_{chain}') }}}}
{{% if is_incremental() %}} where id > (select max(id) from {{{{ this }}}}) {{% endif %}}""",
    )
    yield (
        f"models/joined_{chain}.sql",
        f"""{{{{ config(materialized='table') }}}}
select a.id, a.amount * b.amount as product from {{{{ ref('grown_{chain}') }}}} a join {{{{ ref('{after}') }}}} b using (id)""",
    )


def _schema(width: int) -> str:
    tested = [f"{kind}_{chain}" for chain in range(width) for kind in ("table", "grown")]
    models = "".join(f"  - {{ name: {name}, columns: [{{ name: id, data_tests: [filled] }}] }}\n" for name in tested)
    unit = "".join(
        f"""  - name: unit_{chain}
    model: table_{chain}
    given: [{{ input: ref('inner_{chain}'), format: sql, rows: select 1 as id }}]
    expect: {{ rows: [{{ id: 1 }}] }}
"""
        for chain in range(width)
    )
    return f"models:\n{models}unit_tests:\n{unit}"


def _snapshots(width: int) -> str:
    return "snapshots:\n" + "".join(
        f"  - {{ name: history_{chain}, relation: ref('table_{chain}'),"
        " config: { unique_key: id, strategy: timestamp, updated_at: day } }\n"
        for chain in range(width)
    )
