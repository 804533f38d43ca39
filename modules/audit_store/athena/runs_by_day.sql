-- Runs and failures by day and job, of the last 30 days
SELECT
  env,
  "date",
  coalesce(job, '(steps)') AS job,
  count(*) AS runs,
  count_if(status = 'SUCCEEDED') AS succeeded,
  count_if(status IN ('FAILED', 'ABORTED', 'TIMED_OUT')) AS failed,
  round(avg(date_diff('second', from_iso8601_timestamp(started_at), from_iso8601_timestamp(ended_at))), 1) AS average_seconds
FROM runs
WHERE "date" >= date_format(current_date - INTERVAL '30' DAY, '%Y-%m-%d')
GROUP BY env, "date", coalesce(job, '(steps)')
ORDER BY "date" DESC, env, job
