-- Which windows of a relay's time line are proven complete, and how far each relay has come.

CREATE TABLE sync_log (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch       uuid        NOT NULL,
    slot        integer     NOT NULL,
    relay       integer     NOT NULL,
    outcome     text        NOT NULL CONSTRAINT sync_log_outcome CHECK (outcome IN ('complete', 'gap')),
    since       bigint      NOT NULL,
    until       bigint      NOT NULL,
    events      integer     NOT NULL,
    requests    integer     NOT NULL,
    detail      jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT sync_log_window CHECK (since <= until)
);
COMMENT ON TABLE sync_log IS 'journal: windows of a relay''s time line that were walked to the end; what is complete is decided by these rows alone';
COMMENT ON COLUMN sync_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN sync_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN sync_log.recorded_at IS 'database clock';
COMMENT ON COLUMN sync_log.batch IS 'the group commit that wrote the row, looked up before it is ever sent again';
COMMENT ON COLUMN sync_log.slot IS 'place of the command in its batch, from 0';
COMMENT ON COLUMN sync_log.relay IS 'relays.number';
COMMENT ON COLUMN sync_log.outcome IS 'complete: every event the relay had in the window is archived. gap: the relay holds more than it would give';
COMMENT ON COLUMN sync_log.since IS 'created_at of the window''s start, unix seconds, inclusive';
COMMENT ON COLUMN sync_log.until IS 'created_at of the window''s end, unix seconds, inclusive';
COMMENT ON COLUMN sync_log.events IS 'events received in the window, repeats across pages counted once';
COMMENT ON COLUMN sync_log.requests IS 'REQs it took';
COMMENT ON COLUMN sync_log.detail IS 'for a gap {"reason": …}';
-- A batch cannot be committed twice: one index entry a batch is enough for that.
CREATE UNIQUE INDEX sync_log_batch ON sync_log (batch) WHERE slot = 0;
CREATE INDEX sync_log_xid ON sync_log (xid);
CREATE INDEX sync_log_relay ON sync_log (relay, since, until);
SELECT quipu_make_journal('sync_log');

CREATE TABLE relay_progress (
    relay           integer PRIMARY KEY,
    last_created_at bigint  NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE relay_progress IS 'projection of sightings, kept in the same commit: the newest event each relay has shown';
COMMENT ON COLUMN relay_progress.relay IS 'relays.number';
COMMENT ON COLUMN relay_progress.last_created_at IS 'greatest created_at among its sightings, unix seconds, as signed (may lie in the future)';
SELECT quipu_make_changeable('relay_progress');

CREATE VIEW relay_last_event_timestamp AS
SELECT r.url AS relay_url, p.last_created_at AS last_event_timestamp
FROM relay_progress p JOIN relays r ON r.number = p.relay;
COMMENT ON VIEW relay_last_event_timestamp IS 'the greatest created_at each relay has shown; costs one row a relay. Defined as max(events.created_at) over events_relays, which `quipu verify` compares';
GRANT SELECT ON relay_last_event_timestamp TO quipu, quipu_reader;
