{{ config(post_hook=[
    "create table if not exists executions (node varchar, flag varchar)",
    "insert into executions values ('fast', '{{ var('flag', '') }}')"
]) }}
{% if execute %}{{ log(env_var('CANARY_TOKEN') ~ ' ' ~ env_var('CONTROL'), info=True) }}{% endif %}
select 1 as id
