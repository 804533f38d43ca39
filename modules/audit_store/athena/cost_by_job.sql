-- Fargate hours by job and month, a minute at least for each task; 1 vCPU and 4 GB where a task's size is not known
SELECT
  env,
  substr("date", 1, 7) AS month,
  coalesce(job, '(steps)') AS job,
  count(DISTINCT run_id) AS runs,
  count(*) AS tasks,
  round(sum(greatest(60, seconds + 30) / 3600 * coalesce(cpu, 1024) / 1024), 3) AS vcpu_hours,
  round(sum(greatest(60, seconds + 30) / 3600 * coalesce(memory_mib, 4096) / 1024), 3) AS gb_hours
FROM attempts
WHERE compute = 'fargate' AND "date" >= date_format(current_date - INTERVAL '365' DAY, '%Y-%m-%d')
GROUP BY env, substr("date", 1, 7), coalesce(job, '(steps)')
ORDER BY month DESC, vcpu_hours DESC
