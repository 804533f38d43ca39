-- Minutes of work in one thread, after fast is there.
{{ config(pre_hook="set threads = 1") }}
select count(*) as n
from range(10000000) as a, range(100000) as b, {{ ref('fast') }} as f
where (a.range * b.range + f.id) % 7 = 3
