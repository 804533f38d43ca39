-- What each run of the last 30 days was: its release with digests, who had promoted that, nodes and result; narrow it to a run_id
WITH promoted AS (
  SELECT
    runs.env,
    runs.run_id,
    max_by(promotions.promoted_by, promotions.promoted_at) AS promoted_by,
    max(promotions.promoted_at) AS promoted_at
  FROM runs
  JOIN promotions
    ON promotions.env = runs.env AND promotions.version = runs.release AND promotions.promoted_at <= runs.started_at
  GROUP BY runs.env, runs.run_id
),
releases AS (
  SELECT env, run_id, max(release_digest) AS release_digest, max(manifest_digest) AS manifest_digest, max(git_commit) AS git_commit
  FROM attempts
  GROUP BY env, run_id
)
SELECT
  runs.env,
  runs.run_id,
  runs.job,
  runs.trigger,
  runs.reason,
  runs.release,
  promoted.promoted_by,
  promoted.promoted_at,
  releases.release_digest,
  releases.manifest_digest,
  releases.git_commit,
  runs.started_at,
  runs.ended_at,
  runs.status,
  runs.error,
  nodes.step,
  nodes.unique_id,
  nodes.attempt,
  nodes.status AS node_status,
  nodes.started_at AS node_started_at,
  nodes.seconds
FROM runs
LEFT JOIN promoted ON promoted.env = runs.env AND promoted.run_id = runs.run_id
LEFT JOIN releases ON releases.env = runs.env AND releases.run_id = runs.run_id
LEFT JOIN nodes ON nodes.env = runs.env AND nodes.run_id = runs.run_id AND nodes."date" = runs."date"
WHERE runs."date" >= date_format(current_date - INTERVAL '30' DAY, '%Y-%m-%d')
ORDER BY runs.started_at DESC, nodes.started_at, nodes.unique_id
