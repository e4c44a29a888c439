-- All journals as one list, for people and for the live stream.
CREATE VIEW journal AS
SELECT position, xid, recorded_at, 'archive' AS room, 'ingested' AS kind, batch::text AS subject,
       jsonb_build_object('source', source, 'offered', offered, 'stored', stored, 'sighted', sighted, 'refused', refused) AS detail
FROM ingest_log
UNION ALL
SELECT l.position, l.xid, l.recorded_at, 'archive', 'relay_' || l.kind, coalesce(l.url, r.url, l.relay::text), l.detail
FROM relay_log l LEFT JOIN relays r ON r.number = l.relay
UNION ALL
SELECT s.position, s.xid, s.recorded_at, 'archive', 'window_' || s.outcome, coalesce(r.url, s.relay::text),
       s.detail || jsonb_build_object('since', s.since, 'until', s.until, 'events', s.events, 'requests', s.requests)
FROM sync_log s LEFT JOIN relays r ON r.number = s.relay
UNION ALL
SELECT position, xid, recorded_at, 'archive', 'relay_checked', relay_url,
       jsonb_build_object('generated_at', generated_at, 'nip11', nip11_id IS NOT NULL, 'nip66', nip66_id IS NOT NULL)
FROM relay_metadata
UNION ALL
SELECT position, xid, recorded_at, 'store', 'erased_' || kind,
       coalesce(encode(event_id, 'hex'), encode(pubkey, 'hex'), month::text), detail || jsonb_build_object('reason', reason)
FROM erasure
UNION ALL
SELECT position, xid, recorded_at, 'store', 'implementation_applied', name, jsonb_build_object('sha256', encode(procedures_sha256, 'hex'))
FROM implementation_log;
COMMENT ON VIEW journal IS 'every entry of every journal: position, when, which room, what kind, about what, and the rest';
GRANT SELECT ON journal TO quipu, quipu_reader;

-- A tick's late commits are found by index. `xid IN (SELECT …)` cannot be pushed into the branches of the view that join, so that
-- one open transaction anywhere made every read of a batch look at all of sync_log (measured with 500,000 rows: 214 ms, now 0.2 ms).
-- A plain function call can be.
CREATE FUNCTION quipu_in_progress(seen pg_snapshot) RETURNS xid8[] LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    RETURN ARRAY(SELECT pg_snapshot_xip(seen));
END $$;
COMMENT ON FUNCTION quipu_in_progress(pg_snapshot) IS 'transactions that had not committed when the snapshot was taken, as an array that an index search can take';

-- What tick `this` sees of the journal and tick `last` did not; everything it sees when `last` is NULL.
-- Late commits fall into a later batch: nothing is lost, and nothing waits for a stranger's long transaction.
-- Rows up to the era's floor come from another cluster, whose transaction ids mean nothing here: they count as seen from the start.
CREATE FUNCTION ingest_log_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF ingest_log LANGUAGE sql STABLE AS $$
    SELECT * FROM ingest_log
    WHERE last IS NULL AND (position <= (SELECT max(floor) FROM era) OR pg_visible_in_snapshot(xid, this))
    UNION ALL
    SELECT * FROM ingest_log
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM ingest_log
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
CREATE FUNCTION journal_between(last pg_snapshot, this pg_snapshot) RETURNS SETOF journal LANGUAGE sql STABLE AS $$
    SELECT * FROM journal
    WHERE xid >= pg_snapshot_xmax(last) AND xid < pg_snapshot_xmax(this) AND pg_visible_in_snapshot(xid, this)
      AND position > (SELECT max(floor) FROM era)
    UNION ALL
    SELECT * FROM journal
    WHERE xid = ANY (quipu_in_progress(last)) AND pg_visible_in_snapshot(xid, this) AND position > (SELECT max(floor) FROM era)
$$;
