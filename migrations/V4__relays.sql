-- Relays: their journal and the rows that name them.

CREATE SEQUENCE relay_number AS integer;
CREATE TABLE relay_log (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    batch       uuid        NOT NULL,
    slot        integer     NOT NULL,
    relay       integer     NOT NULL,
    kind        text        NOT NULL CONSTRAINT relay_log_kind CHECK (kind IN ('added', 'retired', 'observed')),
    url         text        CONSTRAINT relay_log_url CHECK ((url IS NOT NULL) = (kind = 'added')),
    network     text        CONSTRAINT relay_log_network CHECK ((network IS NOT NULL) = (kind = 'added')),
    detail      jsonb       NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE relay_log IS 'journal: what happened to each relay we know of';
COMMENT ON COLUMN relay_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN relay_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN relay_log.recorded_at IS 'database clock';
COMMENT ON COLUMN relay_log.batch IS 'the group commit that wrote the row, looked up before it is ever sent again';
COMMENT ON COLUMN relay_log.slot IS 'place in its batch, from 0: among the additions, or among all other commands';
COMMENT ON COLUMN relay_log.relay IS 'relays.number';
COMMENT ON COLUMN relay_log.kind IS 'added: known from here on. retired: no longer crawled. observed: something a session with it showed (detail.what)';
COMMENT ON COLUMN relay_log.url IS 'canonical URL, on added rows';
COMMENT ON COLUMN relay_log.network IS 'clearnet, tor, i2p or loki, on added rows';
COMMENT ON COLUMN relay_log.detail IS 'the rest of the fact; added: {"source": …}, observed: {"what": …, …}';
-- A batch cannot be committed twice: its additions by their places, the rest by its first row. One index entry a batch
-- instead of one a row is a third of an append's cost.
CREATE UNIQUE INDEX relay_log_added ON relay_log (batch, slot) WHERE kind = 'added';
CREATE UNIQUE INDEX relay_log_batch ON relay_log (batch) WHERE kind <> 'added' AND slot = 0;
CREATE INDEX relay_log_retired ON relay_log (relay) WHERE kind = 'retired';
CREATE INDEX relay_log_xid ON relay_log (xid);
SELECT quipu_make_journal('relay_log');

-- Appends everything of a batch that is not an addition. A function keeps its plan from call to call, which statements sent
-- through a transaction pooler cannot: 45 microseconds a commit.
CREATE FUNCTION quipu_record_relay_facts(batch uuid, slots integer[], relays integer[], kinds text[], details jsonb[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO relay_log (batch, slot, relay, kind, detail)
    SELECT quipu_record_relay_facts.batch, o.slot, o.relay, o.kind, o.detail
    FROM unnest(slots, relays, kinds, details) AS o (slot, relay, kind, detail);
END $$;
GRANT USAGE ON SEQUENCE relay_number TO quipu;

CREATE TABLE relays (
    number      integer     PRIMARY KEY,
    url         text        NOT NULL CONSTRAINT relays_url UNIQUE,
    network     text        NOT NULL,
    inserted_at timestamptz NOT NULL,
    retired_at  timestamptz
);
COMMENT ON TABLE relays IS 'projection of relay_log, kept in the same commit: the relays we know';
COMMENT ON COLUMN relays.number IS 'our short name for it, in sightings and logs';
COMMENT ON COLUMN relays.url IS 'canonical URL: one relay is one row';
COMMENT ON COLUMN relays.network IS 'clearnet, tor, i2p or loki';
COMMENT ON COLUMN relays.inserted_at IS 'when it was added, database clock';
COMMENT ON COLUMN relays.retired_at IS 'when it was retired, or NULL while it is crawled';
SELECT quipu_make_changeable('relays');

CREATE TABLE nip11 (
    id               bytea   PRIMARY KEY CONSTRAINT nip11_id CHECK (octet_length(id) = 32),
    name             text,
    description      text,
    banner           text,
    icon             text,
    pubkey           text,
    contact          text,
    supported_nips   jsonb,
    software         text,
    version          text,
    privacy_policy   text,
    terms_of_service text,
    limitation       jsonb,
    extra_fields     jsonb
);
COMMENT ON TABLE nip11 IS 'journal: relay information documents (NIP-11), each stored once';
COMMENT ON COLUMN nip11.id IS 'SHA-256 of the canonical JSON of the document, 32 bytes';
COMMENT ON COLUMN nip11.name IS 'the document''s `name`, as the relay gave it; NULL in this and the following where the field is absent';
COMMENT ON COLUMN nip11.description IS 'its `description`, plain text';
COMMENT ON COLUMN nip11.banner IS 'its `banner`, URL of a picture';
COMMENT ON COLUMN nip11.icon IS 'its `icon`, URL of a picture';
COMMENT ON COLUMN nip11.pubkey IS 'its `pubkey`, the administrator, as text: 64 hex digits where the relay is well-behaved';
COMMENT ON COLUMN nip11.contact IS 'its `contact`, a URI for reaching the administrator';
COMMENT ON COLUMN nip11.supported_nips IS 'its `supported_nips`, as the relay lists them';
COMMENT ON COLUMN nip11.software IS 'its `software`, URL of the project';
COMMENT ON COLUMN nip11.version IS 'its `version`, of the software';
COMMENT ON COLUMN nip11.privacy_policy IS 'its `privacy_policy`, URL';
COMMENT ON COLUMN nip11.terms_of_service IS 'its `terms_of_service`, URL';
COMMENT ON COLUMN nip11.limitation IS 'its `limitation`, as the relay states it';
COMMENT ON COLUMN nip11.extra_fields IS 'every field without a column of its own, and fields of an unexpected type';
SELECT quipu_make_journal('nip11');

CREATE TABLE nip66 (
    id        bytea   PRIMARY KEY CONSTRAINT nip66_id CHECK (octet_length(id) = 32),
    openable  boolean NOT NULL,
    readable  boolean NOT NULL,
    writable  boolean NOT NULL,
    rtt_open  integer,
    rtt_read  integer,
    rtt_write integer,
    detail    jsonb   NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE nip66 IS 'journal: results of relay checks (NIP-66), each distinct result stored once';
COMMENT ON COLUMN nip66.id IS 'SHA-256 of the canonical JSON of the result, 32 bytes';
COMMENT ON COLUMN nip66.openable IS 'whether a WebSocket could be opened';
COMMENT ON COLUMN nip66.readable IS 'whether a REQ was answered';
COMMENT ON COLUMN nip66.writable IS 'whether an event was accepted';
COMMENT ON COLUMN nip66.rtt_open IS 'milliseconds, NULL when the check failed';
COMMENT ON COLUMN nip66.rtt_read IS 'milliseconds, NULL when the check failed';
COMMENT ON COLUMN nip66.rtt_write IS 'milliseconds, NULL when the check failed or was not made';
COMMENT ON COLUMN nip66.detail IS 'further checks by name, and reasons of failures';
SELECT quipu_make_journal('nip66');

CREATE TABLE relay_metadata (
    position     bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    relay_url    text        NOT NULL,
    generated_at bigint      NOT NULL,
    nip11_id     bytea       REFERENCES nip11 (id),
    nip66_id     bytea       REFERENCES nip66 (id)
);
COMMENT ON TABLE relay_metadata IS 'journal: snapshots of a relay''s information document and check results';
COMMENT ON COLUMN relay_metadata.position IS 'place in the order of all journals';
COMMENT ON COLUMN relay_metadata.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN relay_metadata.recorded_at IS 'database clock';
COMMENT ON COLUMN relay_metadata.relay_url IS 'relays.url';
COMMENT ON COLUMN relay_metadata.generated_at IS 'when the checks were made, unix seconds';
COMMENT ON COLUMN relay_metadata.nip11_id IS 'the document, NULL when none could be had';
COMMENT ON COLUMN relay_metadata.nip66_id IS 'the check results, NULL when none were made';
CREATE INDEX relay_metadata_relay ON relay_metadata (relay_url, generated_at DESC);
CREATE INDEX relay_metadata_xid ON relay_metadata (xid);
SELECT quipu_make_journal('relay_metadata');

CREATE VIEW relay_metadata_latest AS
SELECT r.url AS relay_url, r.network, m.generated_at,
       m.nip11_id IS NOT NULL AS nip11_success, m.nip66_id IS NOT NULL AS nip66_success,
       n11.name, n11.description, n11.banner, n11.icon, n11.pubkey, n11.contact, n11.supported_nips, n11.software,
       n11.version, n11.privacy_policy, n11.terms_of_service, n11.limitation, n11.extra_fields,
       n66.openable, n66.readable, n66.writable, n66.rtt_open, n66.rtt_read, n66.rtt_write
FROM relays r
CROSS JOIN LATERAL (SELECT * FROM relay_metadata m WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) m
LEFT JOIN nip11 n11 ON n11.id = m.nip11_id
LEFT JOIN nip66 n66 ON n66.id = m.nip66_id;
COMMENT ON VIEW relay_metadata_latest IS 'the newest snapshot of each relay, one index probe a relay';

CREATE VIEW readable_relays AS
SELECT relay_url, network, rtt_read, rtt_open, writable, generated_at
FROM relay_metadata_latest WHERE readable ORDER BY rtt_read NULLS LAST, relay_url;
COMMENT ON VIEW readable_relays IS 'relays whose newest snapshot says they can be read, quickest first';
GRANT SELECT ON relay_metadata_latest, readable_relays TO quipu, quipu_reader;

COMMENT ON COLUMN nip11.name IS 'as the document says, likewise the columns below; NULL when it does not say or has another type';
COMMENT ON COLUMN nip11.description IS 'what the relay says it is for';
COMMENT ON COLUMN nip11.banner IS 'URL of a wide picture';
COMMENT ON COLUMN nip11.icon IS 'URL of a square picture';
COMMENT ON COLUMN nip11.pubkey IS 'its operator''s Nostr key, hex as written';
COMMENT ON COLUMN nip11.contact IS 'another way to reach the operator, a URI';
COMMENT ON COLUMN nip11.supported_nips IS 'array of the numbers of the protocol parts it supports';
COMMENT ON COLUMN nip11.software IS 'URL of its software';
COMMENT ON COLUMN nip11.version IS 'version of its software';
COMMENT ON COLUMN nip11.privacy_policy IS 'URL of that text';
COMMENT ON COLUMN nip11.terms_of_service IS 'URL of that text';
COMMENT ON COLUMN nip11.limitation IS 'object of the limits it sets to clients';
COMMENT ON COLUMN nip66.openable IS 'whether a connection could be opened';
COMMENT ON COLUMN nip66.readable IS 'whether it answered a question';
COMMENT ON COLUMN nip66.writable IS 'whether it took an event';
