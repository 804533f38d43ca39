-- Hours since each node last succeeded, of the nodes that ran in the last 90 days, pull requests left out; never where it did not
SELECT
  env,
  unique_id,
  max(CASE WHEN status IN ('success', 'pass', 'warn') THEN ended_at END) AS last_success,
  round(
    date_diff(
      'second',
      max(CASE WHEN status IN ('success', 'pass', 'warn') THEN from_iso8601_timestamp(ended_at) END),
      current_timestamp
    ) / 3600.0,
    1
  ) AS hours,
  max_by(status, started_at) AS last_status
FROM nodes
WHERE "date" >= date_format(current_date - INTERVAL '90' DAY, '%Y-%m-%d') AND release NOT LIKE 'ci-%'
GROUP BY env, unique_id
ORDER BY last_success NULLS FIRST, unique_id
