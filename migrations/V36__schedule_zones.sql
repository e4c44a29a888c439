-- Schedules have a time zone.

ALTER TABLE job_schedules ADD COLUMN timezone text;
COMMENT ON COLUMN job_schedules.cron IS 'times in the time zone, as a cron expression of five or six fields';
COMMENT ON COLUMN job_schedules.timezone IS 'IANA name of the time zone; NULL for UTC';

-- Each part has an index by position with its condition, so a page of the newest entries reads little.
CREATE OR REPLACE VIEW job_audit AS
SELECT position, recorded_at, actor, 'job_' || kind AS action, job::text AS subject,
       jsonb_strip_nulls(jsonb_build_object('type', type, 'was', was, 'status', status, 'priority', priority, 'why', left(why, 200))) AS detail
FROM job_log WHERE kind IN ('cancelled', 'reprioritized', 'retried')
UNION ALL
SELECT position, recorded_at, actor, 'worker_' || kind, worker, jsonb_strip_nulls(jsonb_build_object('type', type, 'status', status, 'name', name))
FROM job_worker_log WHERE kind NOT IN ('registered', 'unregistered', 'lost', 'returned')
UNION ALL
SELECT position, recorded_at, actor, CASE WHEN worker IS NULL THEN 'token_' ELSE 'secret_' END || kind, coalesce(worker, name),
       jsonb_strip_nulls(jsonb_build_object('is_admin', is_admin, 'scopes', scopes, 'expires_at', expires_at))
FROM job_credentials
UNION ALL
SELECT position, recorded_at, actor, 'schedule_' || kind, name,
       jsonb_strip_nulls(jsonb_build_object('cron', cron, 'timezone', timezone, 'type', type))
FROM job_schedules
UNION ALL
SELECT position, recorded_at, actor, 'user_' || kind, label,
       jsonb_strip_nulls(jsonb_build_object('session', session, 'issuer', issuer, 'subject', subject, 'is_admin', is_admin, 'groups', groups))
FROM job_user_log;
