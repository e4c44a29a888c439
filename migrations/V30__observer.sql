-- Views with the figures that metrics, the console and the command line show, so that each figure has one
-- query; and what these views need.

-- A metric counts the relays whose certificate ends soon. The column also covers existing rows, and no query
-- over many relays parses documents. The function's current text is in functions/relays.sql.
ALTER TABLE nip66 ADD COLUMN certificate_until bigint GENERATED ALWAYS AS
    (quipu_stated_integer(detail -> 'tls' -> 'not_after', 0, 253402300799)) STORED;
COMMENT ON COLUMN nip66.certificate_until IS 'last second in which the TLS certificate is valid, unix seconds; NULL when the relay showed none';

CREATE OR REPLACE VIEW relay_metadata_latest AS
SELECT r.url AS relay_url, r.network, m.generated_at,
       m.nip11_id IS NOT NULL AS nip11_success, m.nip66_id IS NOT NULL AS nip66_success,
       n11.name, n11.description, n11.banner, n11.icon, n11.pubkey, n11.contact, n11.supported_nips, n11.software,
       n11.version, n11.privacy_policy, n11.terms_of_service, n11.limitation, n11.extra_fields,
       n66.openable, n66.readable, n66.writable,
       coalesce(m.rtt_open, n66.rtt_open) AS rtt_open, coalesce(m.rtt_read, n66.rtt_read) AS rtt_read,
       coalesce(m.rtt_write, n66.rtt_write) AS rtt_write,
       n66.detail,
       n11.max_limit, n11.auth_required, n11.payment_required, n11.restricted_writes, n11.negentropy, n66.auth,
       n66.certificate_until
FROM relays r
CROSS JOIN LATERAL (SELECT * FROM relay_metadata m WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) m
LEFT JOIN nip11 n11 ON n11.id = m.nip11_id
LEFT JOIN nip66 n66 ON n66.id = m.nip66_id;
COMMENT ON VIEW relay_metadata_latest IS 'the newest snapshot of each relay, by one index lookup per relay; max_limit to negentropy are parsed from the document, certificate_until from the check; detail has further checks by name and reasons of failures';

-- The cause of a gap is a word to count by; the reason is a text for people.
COMMENT ON COLUMN sync_log.detail IS 'asked_at: earliest request for the window, unix seconds. Of a gap also cause (crowded_second, withheld, oversized_message, contradictory, unusable or late_events; absent in rows from before V30) and reason, a text';
CREATE OR REPLACE VIEW known_gaps AS
SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until, g.detail ->> 'reason' AS reason, g.recorded_at,
       coalesce(g.detail ->> 'cause', 'other') AS cause
FROM sync_log g
JOIN relays r ON r.number = g.relay
CROSS JOIN LATERAL (
    SELECT unnest(int8multirange(int8range(g.since, g.until, '[]')) - coalesce((
        SELECT range_agg(int8range(s.since, s.until, '[]')) FROM sync_log s
        WHERE s.relay = g.relay AND s.position > g.position AND s.since <= g.until AND s.until >= g.since), '{}')) AS "window") w
WHERE g.outcome = 'gap';
COMMENT ON VIEW known_gaps IS 'windows in which a relay holds more than it gives, with the cause as a word and the reason as a text; seconds that were settled again later are left out';

ALTER TABLE relay_visits ADD COLUMN open_since bigint;
COMMENT ON COLUMN relay_visits.open_since IS 'created_at of the oldest second that no window settles, unix seconds, as the newest session found it; NULL when that session read everything up to caught_up_at';

-- The newest result of `quipu verify`, for the metrics.
CREATE TABLE verification (
    scope     text             PRIMARY KEY,
    ended_at  timestamptz      NOT NULL,
    seconds   double precision NOT NULL,
    problems  integer          NOT NULL
);
COMMENT ON TABLE verification IS 'working: the newest result of quipu verify, by what it covered';
COMMENT ON COLUMN verification.scope IS 'tables, or events: with the signatures of all events';
COMMENT ON COLUMN verification.ended_at IS 'when it ended, database clock';
COMMENT ON COLUMN verification.seconds IS 'how long it took, seconds';
COMMENT ON COLUMN verification.problems IS 'number of problems that it found';
SELECT quipu_make_changeable('verification');

CREATE VIEW relay_states AS
SELECT r.network,
       CASE WHEN r.retired_at IS NOT NULL THEN 'retired' WHEN r.refused_reason IS NOT NULL THEN 'refused' ELSE 'active' END AS state,
       CASE m.readable WHEN true THEN 'yes' WHEN false THEN 'no' ELSE 'unchecked' END AS readable,
       count(*) AS relays
FROM relays r LEFT JOIN relay_metadata_latest m ON m.relay_url = r.url
GROUP BY 1, 2, 3;
COMMENT ON VIEW relay_states IS 'number of known relays by network, by state (active, retired, or refused: never dialled) and by whether the latest check could read them (yes, no, unchecked)';

CREATE VIEW candidate_states AS
SELECT c.network,
       CASE WHEN coalesce(t.tries, 0) = 0 THEN 'untried' WHEN t.next_try_at <= now() THEN 'due' ELSE 'waiting' END AS state,
       count(*) AS candidates
FROM candidates c LEFT JOIN candidate_tries t ON t.url = c.url
GROUP BY 1, 2;
COMMENT ON VIEW candidate_states IS 'number of candidates by network and state: untried, due (failed before) or waiting (failed, and the next try lies ahead)';

CREATE VIEW sync_backlog AS
SELECT b.network, b.unvisited_relays, b.open_relays, b.ages[1] AS median_s, b.ages[2] AS p90_s, b.ages[3] AS oldest_s
FROM (
    SELECT r.network, count(*) FILTER (WHERE o.since IS NULL) AS unvisited_relays, count(v.open_since) AS open_relays,
           percentile_disc(ARRAY[0.5, 0.9, 1]::double precision[]) WITHIN GROUP (
               ORDER BY CASE WHEN o.since IS NOT NULL
                             THEN greatest(extract(epoch FROM now())::double precision - o.since, 0) END) AS ages
    FROM relays r
    LEFT JOIN relay_visits v ON v.relay = r.number
    LEFT JOIN relay_metadata_latest m ON m.relay_url = r.url
    CROSS JOIN LATERAL (SELECT coalesce(v.open_since, extract(epoch FROM v.caught_up_at)::bigint) AS since) o
    WHERE r.retired_at IS NULL AND r.refused_reason IS NULL AND (m.relay_url IS NULL OR m.readable OR m.auth = 'refused')
    GROUP BY r.network) b;
COMMENT ON VIEW sync_backlog IS 'how far the archive is behind the relays that it crawls, by network: relays without a session so far, relays with windows left to read, and the age in seconds of the oldest second that no window settles, as median, 90th percentile and maximum over the relays with a session';

CREATE VIEW archive_totals AS
SELECT (SELECT coalesce(sum(events), 0)::bigint FROM kind_totals) - x.events AS events,
       s.sightings - x.sightings AS sightings, s.compared - x.compared AS sightings_compared,
       d.events AS events_last_day, d.sightings AS sightings_last_day,
       (SELECT count(*) FROM vanish_requests) AS vanish_requests, x.honoured AS vanish_honoured
FROM (SELECT coalesce(sum(sightings), 0)::bigint AS sightings, coalesce(sum(compared), 0)::bigint AS compared FROM relay_totals) s
CROSS JOIN (SELECT coalesce(sum(stored), 0)::bigint AS events, coalesce(sum(sightings), 0)::bigint AS sightings
            FROM minute_totals WHERE minute > now() - interval '1 day') d
CROSS JOIN (SELECT coalesce(sum((detail ->> 'events')::bigint), 0)::bigint AS events,
                   coalesce(sum((detail ->> 'sightings')::bigint), 0)::bigint AS sightings,
                   coalesce(sum((detail ->> 'compared')::bigint), 0)::bigint AS compared,
                   count(*) FILTER (WHERE kind = 'vanish') AS honoured FROM erasure) x;
COMMENT ON VIEW archive_totals IS 'one row: events and sightings in the archive (as of the projection, without those that were erased or dropped), what the last 24 hours added, and requests to vanish (NIP-62) received and carried out';

CREATE VIEW journal_sizes AS
SELECT j.relname::text AS journal,
       coalesce(sum(greatest(t.reltuples::double precision, pg_stat_get_live_tuples(t.oid), 0)) FILTER (WHERE t.relkind = 'r'), 0)::bigint AS rows,
       sum(pg_total_relation_size(t.oid))::bigint AS bytes
FROM pg_class j
LEFT JOIN LATERAL pg_partition_tree(j.oid) p ON true
JOIN pg_class t ON t.oid = coalesce(p.relid::oid, j.oid)
WHERE j.relnamespace = 'public'::regnamespace AND j.relkind IN ('r', 'p') AND NOT j.relispartition
  AND obj_description(j.oid, 'pg_class') LIKE 'journal%'
GROUP BY j.relname;
COMMENT ON VIEW journal_sizes IS 'each journal with PostgreSQL''s estimate of its rows, and its bytes on disk with indexes and TOAST, over all partitions';

CREATE VIEW archive_growth AS
SELECT g.days,
       g.events / g.days AS events_a_day, g.sightings / g.days AS sightings_a_day,
       (g.events * coalesce(e.bytes / nullif(t.events, 0)::double precision, 0)
        + g.sightings * coalesce(s.bytes / nullif(t.sightings, 0)::double precision, 0)) / g.days AS bytes_a_day
FROM (SELECT coalesce(sum(stored), 0)::double precision AS events, coalesce(sum(sightings), 0)::double precision AS sightings,
             greatest(extract(epoch FROM now() - min(minute)) / 86400, 1.0 / 1440)::double precision AS days
      FROM minute_totals WHERE minute > now() - interval '7 days') g
CROSS JOIN archive_totals t
CROSS JOIN (SELECT bytes FROM journal_sizes WHERE journal = 'events') e
CROSS JOIN (SELECT bytes FROM journal_sizes WHERE journal = 'sightings') s;
COMMENT ON VIEW archive_growth IS 'one row: events, sightings and bytes that a day adds, as the mean of the last seven days (or since the first event, if that is later), with rows at their current mean size; days is the length of that span, at least a minute';

CREATE VIEW projection_lag AS
SELECT c.projection, n.number AS newest_tick, c.tick AS projected_tick, b.batches,
       CASE WHEN b.batches = 0 THEN 0 ELSE n.number - c.tick END AS ticks,
       greatest(coalesce(extract(epoch FROM clock_timestamp() - b.oldest), 0), 0)::double precision AS seconds
FROM checkpoint c
CROSS JOIN (SELECT number, snapshot FROM tick ORDER BY number DESC LIMIT 1) n
CROSS JOIN LATERAL (
    SELECT count(*) AS batches, min(l.recorded_at) AS oldest
    FROM (SELECT i.recorded_at FROM ingest_log_between(c.snapshot, n.snapshot) i LIMIT 1000) l) b;
COMMENT ON VIEW projection_lag IS 'how far each projection is behind the journal: unread batches (counted up to 1,000), ticks, and the age in seconds of the oldest unread batch. A projection that is being built has no row';

GRANT SELECT ON relay_states, candidate_states, sync_backlog, archive_totals, journal_sizes, archive_growth, projection_lag
    TO quipu, quipu_reader;
