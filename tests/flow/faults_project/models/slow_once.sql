-- Minutes of work, unless the file that the run's vars name is there.
{{ config(pre_hook="set threads = 1", post_hook="insert into executions values ('slow_once', '{{ var('flag', '') }}')") }}
{% set there = run_query("select count(*) from glob('" ~ var('flag', '/nowhere') ~ "')").columns[0].values()[0] if execute else 0 %}
{% if there %}
select 1 as n from {{ ref('fast') }}
{% else %}
select count(*) as n
from range(10000000) as a, range(100000) as b, {{ ref('fast') }} as f
where (a.range * b.range + f.id) % 7 = 3
{% endif %}
