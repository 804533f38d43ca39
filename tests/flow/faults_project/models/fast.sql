{{ config(post_hook=[
    "create table if not exists executions (node varchar, flag varchar)",
    "insert into executions values ('fast', '{{ var('flag', '') }}')"
]) }}
select 1 as id
