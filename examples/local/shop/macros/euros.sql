{#- An amount of money, with the same precision in every warehouse. -#}
{% macro euros(amount) -%}
cast({{ amount }} as numeric(12, 2))
{%- endmacro %}


{#- The same, from whole cents. -#}
{% macro cents_to_euros(cents) -%}
{{ euros(cents ~ ' / 100.0') }}
{%- endmacro %}
