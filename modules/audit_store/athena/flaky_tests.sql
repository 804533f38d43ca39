-- Tests whose result changed to and fro within one release, in the last 30 days
WITH results AS (
  SELECT
    env,
    unique_id,
    release,
    status,
    lag(status) OVER (PARTITION BY env, unique_id, release ORDER BY started_at) AS previous
  FROM nodes
  WHERE "date" >= date_format(current_date - INTERVAL '30' DAY, '%Y-%m-%d')
    AND resource_type IN ('test', 'unit_test')
    AND status IN ('pass', 'fail', 'error')
)
SELECT
  env,
  unique_id,
  release,
  count_if(status <> previous) AS changes,
  count_if(status <> 'pass') AS failures,
  count(*) AS results
FROM results
GROUP BY env, unique_id, release
HAVING count_if(status <> previous) >= 2
ORDER BY changes DESC, failures DESC
