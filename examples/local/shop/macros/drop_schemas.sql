{#- Drops the schemas that the checks of a pull request have made: target.schema with its suffix, and the custom ones below that. -#}
{% macro drop_schemas(suffix) %}
{#- Anything else could be the ending of a schema that is no pull request's. -#}
{% if not modules.re.fullmatch('pr_[0-9]+', suffix) %}
  {% do exceptions.raise_compiler_error("suffix: pr_ and a number, not " ~ suffix) %}
{% endif %}
{% set base = (target.schema ~ '_' ~ suffix) | lower %}
{% set schemas = run_query("select schema_name from information_schema.schemata where lower(catalog_name) = lower('" ~ target.database ~ "')") %}
{% for name in schemas.columns[0].values() %}
  {% if name | lower == base or (name | lower).startswith(base ~ '_') %}
    {% do log("dropping schema " ~ name, info=True) %}
    {% do adapter.drop_schema(api.Relation.create(database=target.database, schema=name)) %}
  {% endif %}
{% endfor %}
{% endmacro %}
