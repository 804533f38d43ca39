-- What each run of the last 30 days was: release, who had promoted it, its manifest's digest, nodes and result. Narrow it to a run_id
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
manifests AS (
  SELECT env, run_id, max(artifact.sha256) AS manifest_sha256
  FROM attempts
  CROSS JOIN UNNEST(artifacts) AS t (artifact)
  WHERE artifact.key LIKE '%/manifest.json'
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
  manifests.manifest_sha256,
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
LEFT JOIN manifests ON manifests.env = runs.env AND manifests.run_id = runs.run_id
LEFT JOIN nodes ON nodes.env = runs.env AND nodes.run_id = runs.run_id AND nodes."date" = runs."date"
WHERE runs."date" >= date_format(current_date - INTERVAL '30' DAY, '%Y-%m-%d')
ORDER BY runs.started_at DESC, nodes.started_at
