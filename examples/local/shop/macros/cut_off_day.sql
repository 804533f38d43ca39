{#- The variable cut_off_day as a date; what it means is told in models/docs.md. -#}
{% macro cut_off_day() -%}
cast('{{ var("cut_off_day") }}' as date)
{%- endmacro %}
