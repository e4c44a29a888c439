-- Analytics of the archive, projected from ingest_log by ticks.

CREATE TABLE kind_totals (
    kind   integer PRIMARY KEY,
    events bigint  NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE kind_totals IS 'projection of ingest_log by ticks: events ever stored, by kind';
COMMENT ON COLUMN kind_totals.kind IS 'Nostr kind';
COMMENT ON COLUMN kind_totals.events IS 'events stored';
SELECT quipu_make_changeable('kind_totals');

CREATE TABLE relay_totals (
    relay     integer PRIMARY KEY,
    sightings bigint  NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE relay_totals IS 'projection of ingest_log by ticks: sightings ever recorded, by relay';
COMMENT ON COLUMN relay_totals.relay IS 'relays.number';
COMMENT ON COLUMN relay_totals.sightings IS 'distinct events it has shown';
SELECT quipu_make_changeable('relay_totals');

CREATE TABLE minute_totals (
    minute    timestamptz PRIMARY KEY,
    offered   bigint NOT NULL,
    stored    bigint NOT NULL,
    sightings bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE minute_totals IS 'projection of ingest_log by ticks: the archive''s growth, by minute of commit';
COMMENT ON COLUMN minute_totals.minute IS 'start of the minute, database clock';
COMMENT ON COLUMN minute_totals.offered IS 'verified events offered in batches that changed something';
COMMENT ON COLUMN minute_totals.stored IS 'events stored';
COMMENT ON COLUMN minute_totals.sightings IS 'sightings recorded';
SELECT quipu_make_changeable('minute_totals');
