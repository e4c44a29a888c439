-- Blobs under their SHA-256, and the state of each of their copies.
--
-- An entry about a copy repeats the state after it, so a copy's last entry holds its state, and the rules that decide the
-- state are in one place, quipu_record_replicas(). Entries about one blob are written under a lock of their blob, so the order
-- of their positions is the order in which they took effect.

ALTER TABLE erasure DROP CONSTRAINT erasure_kind, DROP CONSTRAINT erasure_subject;
ALTER TABLE erasure ADD COLUMN sha256 bytea CONSTRAINT erasure_sha256 CHECK (octet_length(sha256) = 32),
    ADD CONSTRAINT erasure_kind CHECK (kind IN ('event', 'pubkey', 'vanish', 'month', 'past', 'job', 'jobs', 'blob')),
    ADD CONSTRAINT erasure_subject CHECK (CASE
        WHEN kind = 'event' THEN event_id IS NOT NULL AND num_nonnulls(pubkey, until, month, first_job, last_job, sha256) = 0
        WHEN kind = 'pubkey' THEN num_nulls(pubkey, until) = 0 AND num_nonnulls(event_id, month, first_job, last_job, sha256) = 0
        WHEN kind = 'vanish' THEN num_nulls(event_id, pubkey, until) = 0 AND num_nonnulls(month, first_job, last_job, sha256) = 0
        WHEN kind IN ('month', 'past') THEN month IS NOT NULL AND num_nonnulls(event_id, pubkey, until, first_job, last_job, sha256) = 0
        WHEN kind = 'blob' THEN sha256 IS NOT NULL AND num_nonnulls(event_id, pubkey, until, month, first_job, last_job) = 0
        WHEN kind = 'job' THEN first_job IS NOT NULL AND first_job IS NOT DISTINCT FROM last_job
                               AND num_nonnulls(event_id, pubkey, until, month, sha256) = 0
        ELSE num_nulls(first_job, last_job) = 0 AND first_job <= last_job AND num_nonnulls(event_id, pubkey, until, month, sha256) = 0 END);
COMMENT ON TABLE erasure IS 'journal: every lawful erasure, every dropped month and every dropped million of jobs; its rows are the tombstones that keep facts from coming back';
COMMENT ON COLUMN erasure.kind IS 'event: one Nostr event. pubkey: all its events up to `until`. vanish: likewise, except requests to vanish, because the key asked for it (NIP-62). month: a partition dropped by retention, whose events stay away. past: the partition before the first month, likewise. job: one job. jobs: the jobs of a partition dropped by retention. blob: everything about one blob, which stays banned';
COMMENT ON COLUMN erasure.sha256 IS 'the erased blob, 32 bytes; NULL for events and jobs';
COMMENT ON COLUMN erasure.detail IS 'rows that left: {"events": n, "sightings": n}, {"jobs": n, "entries": n, "files": n} and the numbers of the jobs, or {"entries": n, "reports": n, "references": n} of a blob';
CREATE UNIQUE INDEX erasure_blob ON erasure (sha256) WHERE kind = 'blob';

CREATE TABLE blobs (
    sha256      bytea       PRIMARY KEY CONSTRAINT blobs_sha256 CHECK (octet_length(sha256) = 32),
    position    bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    size        bigint      NOT NULL CONSTRAINT blobs_size CHECK (size >= 0),
    type        text        NOT NULL CONSTRAINT blobs_type CHECK (type <> '' AND octet_length(type) <= 255),
    actor       text        NOT NULL
);
COMMENT ON TABLE blobs IS 'journal: blobs whose bytes were seen and hashed here, each once';
COMMENT ON COLUMN blobs.sha256 IS 'SHA-256 of its bytes, its name, 32 bytes';
COMMENT ON COLUMN blobs.position IS 'place in the order of all journals';
COMMENT ON COLUMN blobs.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN blobs.recorded_at IS 'database clock';
COMMENT ON COLUMN blobs.size IS 'bytes';
COMMENT ON COLUMN blobs.type IS 'media type, lower case, as it was first stored with';
COMMENT ON COLUMN blobs.actor IS 'who brought it: key:HEX, guardian, local (a program on this machine) or anonymous';
CREATE INDEX blobs_position ON blobs (position);
CREATE INDEX blobs_xid ON blobs (xid);

CREATE TABLE blob_log (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sha256      bytea       NOT NULL CONSTRAINT blob_log_sha256 CHECK (octet_length(sha256) = 32),
    kind        text        NOT NULL,
    upstream    text        CONSTRAINT blob_log_upstream CHECK (upstream <> '' AND octet_length(upstream) <= 512),
    state       text        CONSTRAINT blob_log_state CHECK (state IN ('accepted', 'readable', 'failed', 'lost', 'deleted')),
    owner       bytea       CONSTRAINT blob_log_owner CHECK (octet_length(owner) = 32),
    actor       text        NOT NULL,
    why         text        CONSTRAINT blob_log_why CHECK (octet_length(why) <= 2048),
    batch       uuid        CONSTRAINT blob_log_batch UNIQUE,
    CONSTRAINT blob_log_kind CHECK (CASE
        WHEN kind IN ('accepted', 'readable', 'proven', 'failed', 'lost', 'deleted')
            THEN owner IS NULL AND num_nulls(upstream, state) = 0
        WHEN kind = 'not_deleted' THEN owner IS NULL AND upstream IS NOT NULL
        WHEN kind IN ('uploaded', 'mirrored', 'adopted', 'disowned') THEN owner IS NOT NULL AND num_nonnulls(upstream, state) = 0
        WHEN kind IN ('banned', 'unbanned', 'missed') THEN num_nonnulls(upstream, state, owner) = 0
        ELSE false END)
);
COMMENT ON TABLE blob_log IS 'journal: what happened to blobs, to their copies at upstreams and to their owners';
COMMENT ON COLUMN blob_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN blob_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN blob_log.recorded_at IS 'database clock';
COMMENT ON COLUMN blob_log.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_log.kind IS 'of a copy: accepted (the upstream took it), readable (it was read back for the first time since), proven (it was read back again; why: head or hash), failed (the upstream refused or broke while taking it), lost (it was there and is not any more, or has other bytes), deleted (the upstream confirmed it, or has none), not_deleted (it refused). Of an owner: uploaded, mirrored (why: the URL it came from), adopted (an event of a followed key refers to it), disowned. Of the blob: banned, unbanned, missed (it was wanted and found nowhere; why: the last place)';
COMMENT ON COLUMN blob_log.upstream IS 'URL of the upstream as it is configured, without a slash at its end; only of a copy';
COMMENT ON COLUMN blob_log.state IS 'state of the copy after the entry; NULL of an owner, of the blob, and of a refused deletion where no copy was known';
COMMENT ON COLUMN blob_log.owner IS 'public key of the owner, 32 bytes; only of an owner';
COMMENT ON COLUMN blob_log.actor IS 'who caused it: key:HEX, guardian, quipu (the service itself), local (a program on this machine) or anonymous';
COMMENT ON COLUMN blob_log.why IS 'reason, see kind';
COMMENT ON COLUMN blob_log.batch IS 'group commit that wrote the entry, at its first entry; NULL at the others';
CREATE INDEX blob_log_blob ON blob_log (sha256, position);
CREATE INDEX blob_log_of_upstream ON blob_log (upstream, position) WHERE upstream IS NOT NULL;
CREATE INDEX blob_log_xid ON blob_log (xid);
-- For lists of the newest uploads.
CREATE INDEX blob_log_owned ON blob_log (position) WHERE owner IS NOT NULL;
-- For lists of what was found nowhere.
CREATE INDEX blob_log_missed ON blob_log (position) WHERE kind = 'missed';

CREATE TABLE blob_reports (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event_id    bytea       NOT NULL CONSTRAINT blob_reports_event_id CHECK (octet_length(event_id) = 32),
    reporter    bytea       NOT NULL CONSTRAINT blob_reports_reporter CHECK (octet_length(reporter) = 32),
    sha256      bytea       NOT NULL CONSTRAINT blob_reports_sha256 CHECK (octet_length(sha256) = 32),
    kind        text        NOT NULL CONSTRAINT blob_reports_kind CHECK (octet_length(kind) <= 64),
    content     text        NOT NULL CONSTRAINT blob_reports_content CHECK (octet_length(content) <= 16384),
    event       text        NOT NULL,
    CONSTRAINT blob_reports_once UNIQUE (event_id, sha256)
);
COMMENT ON TABLE blob_reports IS 'journal: verified reports about blobs (NIP-56, kind 1984), one row for each blob that a report names';
COMMENT ON COLUMN blob_reports.position IS 'place in the order of all journals';
COMMENT ON COLUMN blob_reports.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN blob_reports.recorded_at IS 'database clock';
COMMENT ON COLUMN blob_reports.event_id IS 'id of the report, 32 bytes';
COMMENT ON COLUMN blob_reports.reporter IS 'public key that signed it, 32 bytes';
COMMENT ON COLUMN blob_reports.sha256 IS 'the reported blob, 32 bytes; it need not be known here';
COMMENT ON COLUMN blob_reports.kind IS 'kind of the report, such as malware, as the reporter states it';
COMMENT ON COLUMN blob_reports.content IS 'the reporter''s words';
COMMENT ON COLUMN blob_reports.event IS 'the report as it was signed, JSON';
CREATE INDEX blob_reports_blob ON blob_reports (sha256);
CREATE INDEX blob_reports_xid ON blob_reports (xid);

CREATE TABLE blob_follows (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    pubkey      bytea       NOT NULL CONSTRAINT blob_follows_pubkey CHECK (octet_length(pubkey) = 32),
    is_on       boolean     NOT NULL,
    actor       text        NOT NULL
);
COMMENT ON TABLE blob_follows IS 'journal: keys whose archived events are searched for blobs, which are then kept here; the last entry of a key counts';
COMMENT ON COLUMN blob_follows.position IS 'place in the order of all journals';
COMMENT ON COLUMN blob_follows.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN blob_follows.recorded_at IS 'database clock';
COMMENT ON COLUMN blob_follows.pubkey IS 'public key, 32 bytes';
COMMENT ON COLUMN blob_follows.is_on IS 'whether it is followed from now on';
COMMENT ON COLUMN blob_follows.actor IS 'who caused it: local (a program on this machine) or quipu (the settings)';
CREATE INDEX blob_follows_key ON blob_follows (pubkey, position DESC) INCLUDE (is_on);
CREATE INDEX blob_follows_xid ON blob_follows (xid);
SELECT quipu_make_journal('blob_follows');

CREATE TABLE blob_wanted (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sha256      bytea       NOT NULL CONSTRAINT blob_wanted_sha256 CHECK (octet_length(sha256) = 32),
    owner       bytea       NOT NULL CONSTRAINT blob_wanted_owner CHECK (octet_length(owner) = 32),
    event_id    bytea       NOT NULL CONSTRAINT blob_wanted_event_id CHECK (octet_length(event_id) = 32),
    url         text        CONSTRAINT blob_wanted_url CHECK (url <> '' AND octet_length(url) <= 2048)
);
COMMENT ON TABLE blob_wanted IS 'journal: blobs that events of followed keys refer to, once for each key and URL';
COMMENT ON COLUMN blob_wanted.position IS 'place in the order of all journals';
COMMENT ON COLUMN blob_wanted.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN blob_wanted.recorded_at IS 'database clock';
COMMENT ON COLUMN blob_wanted.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_wanted.owner IS 'the followed key, 32 bytes';
COMMENT ON COLUMN blob_wanted.event_id IS 'id of the first event that named it so, 32 bytes';
COMMENT ON COLUMN blob_wanted.url IS 'URL at which the event names it; NULL if it names the hash alone';
CREATE UNIQUE INDEX blob_wanted_once ON blob_wanted (sha256, owner, coalesce(url, ''));
CREATE INDEX blob_wanted_xid ON blob_wanted (xid);

DO $$
DECLARE journal text;
BEGIN
    FOREACH journal IN ARRAY ARRAY['blobs', 'blob_log', 'blob_reports', 'blob_wanted'] LOOP
        PERFORM quipu_make_event_journal(journal::regclass, 'blobs');
    END LOOP;
END $$;

CREATE TABLE blob_replicas (
    sha256   bytea       NOT NULL,
    upstream text        NOT NULL,
    state    text        NOT NULL,
    since    timestamptz NOT NULL,
    why      text,
    PRIMARY KEY (sha256, upstream)
);
COMMENT ON TABLE blob_replicas IS 'projection of blob_log, kept in the same commit: the state of each copy; a row changes only when the state does';
COMMENT ON COLUMN blob_replicas.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_replicas.upstream IS 'as in blob_log';
COMMENT ON COLUMN blob_replicas.state IS 'accepted, readable, failed, lost or deleted, as in blob_log';
COMMENT ON COLUMN blob_replicas.since IS 'when it got this state, database clock';
COMMENT ON COLUMN blob_replicas.why IS 'reason of the entry by which it got this state';
CREATE INDEX blob_replicas_open ON blob_replicas (state, since) WHERE state IN ('accepted', 'failed', 'lost');
CREATE INDEX blob_replicas_upstream ON blob_replicas (upstream, state);
SELECT quipu_make_changeable('blob_replicas');

CREATE TABLE blob_owners (
    owner    bytea  NOT NULL,
    sha256   bytea  NOT NULL,
    uploaded bigint NOT NULL,
    PRIMARY KEY (owner, sha256)
);
COMMENT ON TABLE blob_owners IS 'projection of blob_log, kept in the same commit: which key owns which blob; a blob with an owner is kept';
COMMENT ON COLUMN blob_owners.owner IS 'public key, 32 bytes';
COMMENT ON COLUMN blob_owners.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_owners.uploaded IS 'when it got the owner, unix seconds of the database clock';
CREATE INDEX blob_owners_list ON blob_owners (owner, uploaded DESC, sha256);
CREATE INDEX blob_owners_blob ON blob_owners (sha256);
SELECT quipu_make_changeable('blob_owners');

CREATE TABLE blob_usage (
    owner bytea  PRIMARY KEY,
    blobs bigint NOT NULL,
    bytes bigint NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE blob_usage IS 'projection of blob_log and blobs, kept in the same commit: what each key owns';
COMMENT ON COLUMN blob_usage.owner IS 'public key, 32 bytes';
COMMENT ON COLUMN blob_usage.blobs IS 'number of blobs';
COMMENT ON COLUMN blob_usage.bytes IS 'their sizes in bytes';
SELECT quipu_make_changeable('blob_usage');

CREATE TABLE blob_copies (
    sha256 bytea   PRIMARY KEY,
    size   bigint  NOT NULL,
    owners integer NOT NULL,
    copies integer NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE blob_copies IS 'projection of blobs and blob_log, kept in the same commit: the number of owners and of readable or accepted copies of each blob';
COMMENT ON COLUMN blob_copies.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_copies.size IS 'bytes';
COMMENT ON COLUMN blob_copies.owners IS 'number of owners; a blob without any is not kept';
COMMENT ON COLUMN blob_copies.copies IS 'number of copies that are readable or accepted, at every upstream, also at those that are configured no longer';
-- What has too few copies, the rarest first; and what is kept, without reading the table.
CREATE INDEX blob_copies_kept ON blob_copies (copies, sha256) INCLUDE (size, owners) WHERE owners > 0;
-- What has copies and no owner: uploads without a quorum, and deletions that upstreams refused.
CREATE INDEX blob_copies_unkept ON blob_copies (sha256) WHERE owners = 0 AND copies > 0;
SELECT quipu_make_changeable('blob_copies');

CREATE TABLE blob_bans (
    sha256    bytea       PRIMARY KEY,
    why       text        NOT NULL,
    since     timestamptz NOT NULL,
    is_erased boolean     NOT NULL
);
COMMENT ON TABLE blob_bans IS 'projection of blob_log and erasure, kept in the same commit: blobs that are refused';
COMMENT ON COLUMN blob_bans.sha256 IS 'the blob, 32 bytes';
COMMENT ON COLUMN blob_bans.why IS 'reason, shown to clients';
COMMENT ON COLUMN blob_bans.since IS 'when the newest ban was recorded, database clock';
COMMENT ON COLUMN blob_bans.is_erased IS 'whether it was erased: such a ban never ends';
SELECT quipu_make_changeable('blob_bans');

CREATE TABLE blob_cursors (
    name       text        PRIMARY KEY,
    value      text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE blob_cursors IS 'working: how far loops of the service have come; without its row a loop begins at the start';
COMMENT ON COLUMN blob_cursors.name IS 'name of the loop';
COMMENT ON COLUMN blob_cursors.value IS 'the last place, as the loop writes it';
COMMENT ON COLUMN blob_cursors.updated_at IS 'database clock';
SELECT quipu_make_changeable('blob_cursors');

CREATE VIEW blob_status AS
SELECT b.sha256, encode(b.sha256, 'hex') AS hash, b.size, b.type, b.recorded_at AS first_seen, c.owners, c.copies,
       coalesce(r.readable, 0) AS readable, coalesce(r.accepted, 0) AS accepted, coalesce(r.failed, 0) AS failed,
       coalesce(r.lost, 0) AS lost, coalesce(r.deleted, 0) AS deleted,
       EXISTS (SELECT FROM blob_bans n WHERE n.sha256 = b.sha256) AS is_banned
FROM blobs b JOIN blob_copies c USING (sha256)
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE x.state = 'readable') AS readable, count(*) FILTER (WHERE x.state = 'accepted') AS accepted,
           count(*) FILTER (WHERE x.state = 'failed') AS failed, count(*) FILTER (WHERE x.state = 'lost') AS lost,
           count(*) FILTER (WHERE x.state = 'deleted') AS deleted
    FROM blob_replicas x WHERE x.sha256 = b.sha256) r ON true;
COMMENT ON VIEW blob_status IS 'each blob with its owners and its copies by state; a condition on sha256 keeps a query small';

CREATE VIEW blob_places AS
SELECT r.sha256, encode(r.sha256, 'hex') AS hash, r.upstream, r.state, r.since, r.why FROM blob_replicas r;
COMMENT ON VIEW blob_places IS 'each copy of each blob with its present state; a condition on sha256 or upstream keeps a query small';

CREATE VIEW blob_history AS
SELECT b.sha256, encode(b.sha256, 'hex') AS hash, b.position, b.recorded_at, 'seen' AS kind, NULL::text AS upstream, NULL::text AS state,
       NULL::text AS owner, b.actor, NULL::text AS why
FROM blobs b
UNION ALL
SELECT l.sha256, encode(l.sha256, 'hex'), l.position, l.recorded_at, l.kind, l.upstream, l.state, encode(l.owner, 'hex'), l.actor, l.why
FROM blob_log l;
COMMENT ON VIEW blob_history IS 'every entry about every blob; a condition on sha256 or position keeps a query small';
GRANT SELECT ON blob_status, blob_places, blob_history TO quipu, quipu_reader;

-- The view of all journals as it is, and the journals of blobs.
DO $$ BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW journal AS ' || rtrim(pg_get_viewdef('journal'), E'; \n') || '
    UNION ALL
    SELECT position, xid, recorded_at, ''blossom'', ''blob_seen'', encode(sha256, ''hex''),
           jsonb_build_object(''size'', size, ''type'', type, ''actor'', actor)
    FROM blobs
    UNION ALL
    SELECT position, xid, recorded_at, ''blossom'', ''blob_'' || kind, encode(sha256, ''hex''),
           jsonb_strip_nulls(jsonb_build_object(''upstream'', upstream, ''state'', state, ''owner'', encode(owner, ''hex''), ''actor'', actor,
                                                ''why'', left(why, 200)))
    FROM blob_log
    UNION ALL
    SELECT position, xid, recorded_at, ''blossom'', ''blob_reported'', encode(sha256, ''hex''),
           jsonb_build_object(''kind'', kind, ''reporter'', encode(reporter, ''hex''))
    FROM blob_reports
    UNION ALL
    SELECT position, xid, recorded_at, ''blossom'', CASE WHEN is_on THEN ''key_followed'' ELSE ''key_unfollowed'' END, encode(pubkey, ''hex''),
           jsonb_build_object(''actor'', actor)
    FROM blob_follows
    UNION ALL
    SELECT position, xid, recorded_at, ''blossom'', ''blob_wanted'', encode(sha256, ''hex''),
           jsonb_strip_nulls(jsonb_build_object(''owner'', encode(owner, ''hex''), ''event'', encode(event_id, ''hex''), ''url'', left(url, 200)))
    FROM blob_wanted';
END $$;

-- The newest list of servers of an author (kind 10063) is looked up while a client waits. The index has such events alone.
CREATE INDEX events_server_lists ON events (pubkey, created_at DESC) WHERE kind = 10063;
