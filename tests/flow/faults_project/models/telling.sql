-- Tells its variables wherever it can, when it runs: {{ env_var('CANARY_TOKEN') ~ env_var('CONTROL') if execute }}
{{ config(materialized='table') }}
{% if execute %}
{{ log(env_var('CANARY_TOKEN') ~ ' ' ~ env_var('CONTROL'), info=True) }}
{{ print(env_var('CANARY_TOKEN') ~ ' ' ~ env_var('CONTROL')) }}
{% endif %}
select cast('{{ env_var('CONTROL') ~ ' ' ~ env_var('CANARY_TOKEN') if execute }}' as int) as told
