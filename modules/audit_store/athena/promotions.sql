-- Who made which release current where, when and why, the newest first
SELECT env, promoted_at, version, previous, promoted_by, reason
FROM promotions
ORDER BY promoted_at DESC
