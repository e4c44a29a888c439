-- The records of what left, and of logical restores.

CREATE TABLE erasure (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text        NOT NULL CONSTRAINT erasure_kind CHECK (kind IN ('event', 'pubkey', 'month')),
    event_id    bytea       CONSTRAINT erasure_event_id CHECK (octet_length(event_id) = 32),
    pubkey      bytea       CONSTRAINT erasure_pubkey CHECK (octet_length(pubkey) = 32),
    until       bigint,
    month       date,
    reason      text        NOT NULL CONSTRAINT erasure_reason CHECK (reason <> ''),
    detail      jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT erasure_subject CHECK (
        (kind = 'event'  AND event_id IS NOT NULL AND pubkey IS NULL AND until IS NULL AND month IS NULL) OR
        (kind = 'pubkey' AND event_id IS NULL AND pubkey IS NOT NULL AND until IS NOT NULL AND month IS NULL) OR
        (kind = 'month'  AND event_id IS NULL AND pubkey IS NULL AND until IS NULL AND month IS NOT NULL))
);
COMMENT ON TABLE erasure IS 'journal: every lawful erasure and every dropped month; its rows are the tombstones that keep facts from coming back';
COMMENT ON COLUMN erasure.position IS 'place in the order of all journals';
COMMENT ON COLUMN erasure.xid IS 'transaction that wrote the row; the same one deleted the facts';
COMMENT ON COLUMN erasure.recorded_at IS 'database clock';
COMMENT ON COLUMN erasure.kind IS 'event: one Nostr event. pubkey: all its events up to `until`. month: a partition dropped by retention, whose events stay away';
COMMENT ON COLUMN erasure.event_id IS '32-byte Nostr event id';
COMMENT ON COLUMN erasure.pubkey IS '32-byte Nostr public key';
COMMENT ON COLUMN erasure.until IS 'created_at up to which the key''s events are gone and stay away, unix seconds, inclusive';
COMMENT ON COLUMN erasure.month IS 'first day of the dropped month';
COMMENT ON COLUMN erasure.reason IS 'why, in the operator''s words';
COMMENT ON COLUMN erasure.detail IS 'rows that left: {"events": n, "sightings": n}';
CREATE INDEX erasure_event ON erasure (event_id) WHERE kind = 'event';
CREATE INDEX erasure_key ON erasure (pubkey) WHERE kind = 'pubkey';
CREATE INDEX erasure_month ON erasure (month) WHERE kind = 'month';
CREATE INDEX erasure_xid ON erasure (xid);
SELECT quipu_make_journal('erasure');
-- Erasing is the owner's: the service can read tombstones, not write them.
REVOKE INSERT ON erasure FROM quipu;

CREATE TABLE era (
    number            integer     PRIMARY KEY,
    opened_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    system_identifier bigint      NOT NULL,
    floor             bigint      NOT NULL
);
COMMENT ON TABLE era IS 'journal: one row for each cluster this database has lived in; transaction ids compare only within one era';
COMMENT ON COLUMN era.number IS '1 for the first';
COMMENT ON COLUMN era.opened_at IS 'database clock';
COMMENT ON COLUMN era.system_identifier IS 'pg_control_system().system_identifier';
COMMENT ON COLUMN era.floor IS 'last position written before the era opened: rows up to it count as committed, whatever their xid';
SELECT quipu_make_journal('era');
REVOKE INSERT ON era FROM quipu;

CREATE TABLE implementation_log (
    position          bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid               xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    name              text        NOT NULL,
    procedures_sha256 bytea       NOT NULL
);
COMMENT ON TABLE implementation_log IS 'journal: which implementation''s procedures were applied, and when';
COMMENT ON COLUMN implementation_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN implementation_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN implementation_log.recorded_at IS 'database clock';
COMMENT ON COLUMN implementation_log.name IS 'folder name under implementations/';
COMMENT ON COLUMN implementation_log.procedures_sha256 IS 'SHA-256 of 05_procedures.sql as applied, 32 bytes';
CREATE INDEX implementation_log_xid ON implementation_log (xid);
SELECT quipu_make_journal('implementation_log');
REVOKE INSERT ON implementation_log FROM quipu;
