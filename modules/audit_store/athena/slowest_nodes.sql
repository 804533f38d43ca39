-- The 50 slowest nodes of the last 7 days, and how they have changed against the 28 days before
WITH timed AS (
  SELECT
    env,
    unique_id,
    avg(CASE WHEN "date" >= date_format(current_date - INTERVAL '7' DAY, '%Y-%m-%d') THEN seconds END) AS now_seconds,
    avg(CASE WHEN "date" < date_format(current_date - INTERVAL '7' DAY, '%Y-%m-%d') THEN seconds END) AS before_seconds,
    count(*) AS results
  FROM nodes
  WHERE "date" >= date_format(current_date - INTERVAL '35' DAY, '%Y-%m-%d') AND status IN ('success', 'pass', 'warn', 'fail')
  GROUP BY env, unique_id
)
SELECT
  env,
  unique_id,
  round(now_seconds, 1) AS now_seconds,
  round(before_seconds, 1) AS before_seconds,
  round(100 * (now_seconds - before_seconds) / before_seconds, 0) AS change_percent,
  results
FROM timed
WHERE now_seconds IS NOT NULL
ORDER BY timed.now_seconds DESC
LIMIT 50
