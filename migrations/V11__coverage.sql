-- What is proven of each relay's time line, and what is known to be missing, for people.

-- What a later look found to be a gap is proven no more.
CREATE VIEW proven_windows AS
SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until
FROM relays r
CROSS JOIN LATERAL (
    SELECT unnest(range_agg(p.proven)) AS "window"
    FROM sync_log s
    CROSS JOIN LATERAL (
        SELECT unnest(int8multirange(int8range(s.since, s.until, '[]')) - coalesce((
            SELECT range_agg(int8range(g.since, g.until, '[]')) FROM sync_log g
            WHERE g.relay = s.relay AND g.outcome = 'gap' AND g.position > s.position
              AND g.since <= s.until AND g.until >= s.since), '{}')) AS proven) p
    WHERE s.relay = r.number AND s.outcome = 'complete') w;
COMMENT ON VIEW proven_windows IS 'windows of each relay''s time line that are archived completely: since and until in unix seconds of created_at, inclusive; neighbours are one';

-- A gap ends where the same seconds were settled again later, as complete or as a gap of its own.
CREATE VIEW known_gaps AS
SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until, g.detail ->> 'reason' AS reason, g.recorded_at
FROM sync_log g
JOIN relays r ON r.number = g.relay
CROSS JOIN LATERAL (
    SELECT unnest(int8multirange(int8range(g.since, g.until, '[]')) - coalesce((
        SELECT range_agg(int8range(s.since, s.until, '[]')) FROM sync_log s
        WHERE s.relay = g.relay AND s.position > g.position AND s.since <= g.until AND s.until >= g.since), '{}')) AS "window") w
WHERE g.outcome = 'gap';
COMMENT ON VIEW known_gaps IS 'what is known to be missing: windows in which a relay holds more than it gives, with the reason; seconds that were settled again later are left out';
GRANT SELECT ON proven_windows, known_gaps TO quipu, quipu_reader;

CREATE INDEX sync_log_gap ON sync_log (relay) WHERE outcome = 'gap';
