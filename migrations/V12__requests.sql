-- What events ask for: deletion (NIP-09), expiration (NIP-40), vanishing (NIP-62). The archive keeps what it has; whatever serves the
-- public reads public_events(), which leaves out what was asked to be left out. Vanishing may also be honoured by erasure.

-- The address of a replaceable or addressable event, as a hash: `d` values have no limit, index entries have one. NULL for other kinds.
CREATE FUNCTION quipu_address(kind integer, pubkey bytea, tags jsonb) RETURNS bytea LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE d text := '';
BEGIN
    IF kind BETWEEN 30000 AND 39999 THEN
        SELECT coalesce(t ->> 1, '') INTO d FROM jsonb_array_elements(tags) WITH ORDINALITY AS x (t, n)
        WHERE t ->> 0 = 'd' ORDER BY n LIMIT 1;
    ELSIF kind NOT IN (0, 3) AND kind NOT BETWEEN 10000 AND 19999 THEN
        RETURN NULL;
    END IF;
    RETURN sha256(convert_to(kind || ':' || encode(pubkey, 'hex') || ':' || coalesce(d, ''), 'UTF8'));
END $$;

-- What a kind 5 event names: events by id, whenever they were signed; addresses of its own author, up to its own time.
CREATE FUNCTION quipu_deletion_targets(pubkey bytea, tags jsonb) RETURNS TABLE (target bytea, by_address boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT decode(t ->> 1, 'hex'), false FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'e' AND t ->> 1 ~ '^[0-9a-f]{64}$'
    UNION
    SELECT sha256(convert_to(t ->> 1, 'UTF8')), true FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'a' AND t ->> 1 ~ ('^[0-9]{1,5}:' || encode(pubkey, 'hex') || ':')
$$;

-- From when on an event counts as expired. The first tag decides; what is no number is no expiration.
CREATE FUNCTION quipu_expires_at(tags jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT CASE WHEN f.value ~ '^[0-9]{1,18}$' THEN f.value::bigint END
    FROM (SELECT t ->> 1 AS value FROM jsonb_array_elements(tags) WITH ORDINALITY AS x (t, n)
          WHERE t ->> 0 = 'expiration' ORDER BY n LIMIT 1) f);

-- One spelling for a relay's address in a `relay` tag and in a setting: small letters, no default port, no final dot or slash.
CREATE FUNCTION quipu_relay_key(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN url = 'ALL_RELAYS' THEN url ELSE
        regexp_replace(regexp_replace(regexp_replace(rtrim(lower(btrim(url)), '/'),
            '^(wss://[^/?]+):443(?=[/?]|$)', '\1'), '^(ws://[^/?]+):80(?=[/?]|$)', '\1'), '^(wss?://[^/?:]+)\.(?=[:/?]|$)', '\1') END;

-- Whom a vanish request is addressed to.
CREATE FUNCTION quipu_vanish_relays(tags jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT coalesce(array_agg(DISTINCT quipu_relay_key(t ->> 1)), '{}') FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'relay' AND t ->> 1 IS NOT NULL);

-- A request that reaches us: it names all relays, or one of ours.
CREATE FUNCTION quipu_reaches(relays text[], own_urls text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    'ALL_RELAYS' = ANY (relays) OR relays && ARRAY(SELECT quipu_relay_key(u) FROM unnest(own_urls) u);
GRANT EXECUTE ON FUNCTION quipu_address(integer, bytea, jsonb), quipu_deletion_targets(bytea, jsonb), quipu_expires_at(jsonb),
    quipu_relay_key(text), quipu_vanish_relays(jsonb), quipu_reaches(text[], text[]) TO PUBLIC;

CREATE TABLE deletions (
    target     bytea   NOT NULL,
    request    bigint  NOT NULL,
    created_at bigint  NOT NULL,
    pubkey     bytea   NOT NULL,
    by_address boolean NOT NULL,
    PRIMARY KEY (target, request)
);
COMMENT ON TABLE deletions IS 'projection of events, kept in the same commit: what kind 5 events ask to delete (NIP-09), whether or not it is there; only its author''s events are meant';
COMMENT ON COLUMN deletions.target IS '32 bytes: an event''s id, or quipu_address() of an `a` tag';
COMMENT ON COLUMN deletions.request IS 'events.number of the kind 5 event';
COMMENT ON COLUMN deletions.created_at IS 'its created_at, unix seconds; by address, versions up to it are meant';
COMMENT ON COLUMN deletions.pubkey IS 'its author, 32 bytes';
COMMENT ON COLUMN deletions.by_address IS 'whether target is an address';
SELECT quipu_make_changeable('deletions');

CREATE VIEW deletion_requests AS
SELECT d.target, d.by_address, r.id AS request_id, d.pubkey, d.created_at
FROM deletions d JOIN events r ON r.created_at = d.created_at AND r.number = d.request;
COMMENT ON VIEW deletion_requests IS 'who asked to delete what (NIP-09); it counts only against events of the same pubkey. target is an event''s id, or the hash of an address';
GRANT SELECT ON deletion_requests TO quipu, quipu_reader;

CREATE TABLE expirations (
    event      bigint PRIMARY KEY,
    expires_at bigint NOT NULL
);
COMMENT ON TABLE expirations IS 'projection of events, kept in the same commit: those that ask to expire (NIP-40)';
COMMENT ON COLUMN expirations.event IS 'events.number';
COMMENT ON COLUMN expirations.expires_at IS 'expired from this second on, unix seconds';
SELECT quipu_make_changeable('expirations');

CREATE TABLE vanish_requests (
    request    bytea   PRIMARY KEY CONSTRAINT vanish_requests_request CHECK (octet_length(request) = 32),
    pubkey     bytea   NOT NULL CONSTRAINT vanish_requests_pubkey CHECK (octet_length(pubkey) = 32),
    created_at bigint  NOT NULL,
    relays     text[]  NOT NULL,
    batch      integer NOT NULL
);
COMMENT ON TABLE vanish_requests IS 'journal: verified requests to vanish (NIP-62), whether or not they are honoured by erasure; erasure says which were. Kept apart from events, so that no month that is dropped takes one along, and for implementations that store no tags';
COMMENT ON COLUMN vanish_requests.request IS 'id of the kind 62 event, 32 bytes';
COMMENT ON COLUMN vanish_requests.pubkey IS 'who vanishes, 32 bytes';
COMMENT ON COLUMN vanish_requests.created_at IS 'everything up to it is meant, unix seconds, inclusive';
COMMENT ON COLUMN vanish_requests.relays IS 'its relay tags, by quipu_relay_key; ALL_RELAYS as it is';
COMMENT ON COLUMN vanish_requests.batch IS 'ingest_log.batch in which it came';
CREATE INDEX vanish_requests_pubkey_key ON vanish_requests (pubkey);
SELECT quipu_make_journal('vanish_requests');

-- What may be shown to the public at the second `now_s` by a server that is reached at `own_urls`: nothing expired, nothing its author
-- deleted, nothing of a key that vanished. A request itself stays (a deletion of a request has no effect). Events that are stored without
-- their tags are not shown: nobody could say what they ask for. Each test is one index probe an event.
CREATE FUNCTION public_events(now_s bigint, own_urls text[] DEFAULT '{}') RETURNS SETOF events LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT e.* FROM events e
    WHERE e.tags IS NOT NULL
      AND coalesce((SELECT x.expires_at FROM expirations x WHERE x.event = e.number) > now_s, true)
      AND (e.kind IN (5, 62) OR NOT EXISTS (
            SELECT FROM deletions d WHERE d.target = ANY (ARRAY[e.id, quipu_address(e.kind, e.pubkey, e.tags)])
            AND d.pubkey = e.pubkey AND (NOT d.by_address OR e.created_at <= d.created_at)))
      AND (e.kind = 62 OR NOT EXISTS (
            SELECT FROM vanish_requests v WHERE v.pubkey = e.pubkey AND e.created_at <= v.created_at
            AND quipu_reaches(v.relays, own_urls)))
$$;
COMMENT ON FUNCTION public_events(bigint, text[]) IS 'events that may be served to the public: not expired (NIP-40), not deleted by their author (NIP-09), not of a key that vanished here (NIP-62)';
GRANT EXECUTE ON FUNCTION public_events(bigint, text[]) TO PUBLIC;

-- Erasure by request: the request's id is its identity, so it is carried out once. The request itself stays as the evidence.
ALTER TABLE erasure DROP CONSTRAINT erasure_kind, DROP CONSTRAINT erasure_subject;
ALTER TABLE erasure ADD CONSTRAINT erasure_kind CHECK (kind IN ('event', 'pubkey', 'vanish', 'month', 'past')),
    ADD CONSTRAINT erasure_subject CHECK (
        (kind = 'event'  AND event_id IS NOT NULL AND pubkey IS NULL AND until IS NULL AND month IS NULL) OR
        (kind = 'pubkey' AND event_id IS NULL AND pubkey IS NOT NULL AND until IS NOT NULL AND month IS NULL) OR
        (kind = 'vanish' AND event_id IS NOT NULL AND pubkey IS NOT NULL AND until IS NOT NULL AND month IS NULL) OR
        (kind IN ('month', 'past') AND event_id IS NULL AND pubkey IS NULL AND until IS NULL AND month IS NOT NULL));
CREATE UNIQUE INDEX erasure_vanish ON erasure (event_id) WHERE kind = 'vanish';
CREATE INDEX erasure_vanish_key ON erasure (pubkey) WHERE kind = 'vanish';
COMMENT ON COLUMN erasure.kind IS 'event: one Nostr event. pubkey: all its events up to `until`. vanish: likewise, except requests to vanish, because the key asked for it (NIP-62). month: a partition dropped by retention, whose events stay away. past: the partition before the first month, likewise';
COMMENT ON COLUMN erasure.month IS 'first day of the dropped month; where kind is past, of the first month kept';
COMMENT ON COLUMN erasure.event_id IS '32-byte Nostr event id; of the request, where kind is vanish';

-- Whether one erasure means one event.
CREATE FUNCTION quipu_covers(x erasure, id bytea, pubkey bytea, created_at bigint, event_kind integer) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE x.kind WHEN 'event' THEN x.event_id = id
                WHEN 'pubkey' THEN x.pubkey = pubkey AND created_at <= x.until
                WHEN 'vanish' THEN x.pubkey = pubkey AND created_at <= x.until AND event_kind <> 62
                ELSE false END;
GRANT EXECUTE ON FUNCTION quipu_covers(erasure, bytea, bytea, bigint, integer) TO PUBLIC;

-- created_at of the first second of a number's month, and of the month after it; the last month has no end.
CREATE FUNCTION quipu_number_since(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    extract(epoch FROM make_timestamp(1970 + (number >> 45)::integer / 12, 1 + (number >> 45)::integer % 12, 1, 0, 0, 0))::bigint;
CREATE FUNCTION quipu_number_until(number bigint) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN number >> 45 >= quipu_month_number(9223372036854775807) THEN 9223372036854775807
         ELSE quipu_number_since(number + (1::bigint << 45)) - 1 END;
GRANT EXECUTE ON FUNCTION quipu_number_since(bigint), quipu_number_until(bigint) TO PUBLIC;

-- A row may leave these two tables only in the transaction that wrote its erasure. A sighting's event is looked up in its month
-- alone: what an erasure costs grows with what it takes.
CREATE OR REPLACE FUNCTION quipu_refuse_unrecorded_delete() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE mine erasure[]; uncovered boolean := false; left_event bigint;
BEGIN
    mine := ARRAY(SELECT x FROM erasure x WHERE x.xid = pg_current_xact_id() AND x.kind NOT IN ('month', 'past'));
    IF cardinality(mine) > 0 AND TG_ARGV[0] = 'events' THEN
        SELECT EXISTS (SELECT FROM gone g WHERE NOT EXISTS (
            SELECT FROM unnest(mine) x WHERE quipu_covers(x, g.id, g.pubkey, g.created_at, g.kind))) INTO uncovered;
    ELSIF cardinality(mine) > 0 THEN
        -- Sightings go while their event is still there to say whose they are.
        FOR left_event IN SELECT DISTINCT g.event FROM gone g LOOP
            PERFORM FROM events v, unnest(mine) x
            WHERE v.number = left_event AND v.created_at BETWEEN quipu_number_since(left_event) AND quipu_number_until(left_event)
              AND quipu_covers(x, v.id, v.pubkey, v.created_at, v.kind);
            uncovered := uncovered OR NOT FOUND;
        END LOOP;
    END IF;
    IF cardinality(mine) = 0 OR uncovered THEN
        RAISE EXCEPTION 'journal % only grows: DELETE is refused', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'single facts leave by `quipu erase`, which records each of them in the same transaction';
    END IF;
    RETURN NULL;
END $$;

-- What every batch of events begins with: its bound, and the lock that erasures hold alone, so that what they remove cannot slip in
-- beside them. Returns the places (from 0) of events that an erasure keeps away.
CREATE FUNCTION quipu_open_batch(ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[]) RETURNS integer[]
LANGUAGE plpgsql AS $$
BEGIN
    -- The place of an event in its batch has 14 bits of its number.
    IF cardinality(ids) > 16384 THEN
        RAISE EXCEPTION 'a batch holds at most 16384 events, not %', cardinality(ids) USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('quipu/erasure', 0));
    IF NOT EXISTS (SELECT FROM erasure) THEN RETURN '{}'; END IF;
    RETURN ARRAY(
        WITH offered AS MATERIALIZED (
            SELECT o.id, o.pubkey, o.created_at, o.kind, (o.place - 1)::integer AS place
            FROM unnest(ids, pubkeys, created_ats, kinds) WITH ORDINALITY AS o (id, pubkey, created_at, kind, place))
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'event' AND x.event_id = o.id
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'pubkey' AND x.pubkey = o.pubkey
        WHERE quipu_covers(x, o.id, o.pubkey, o.created_at, o.kind)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'vanish' AND x.pubkey = o.pubkey
        WHERE quipu_covers(x, o.id, o.pubkey, o.created_at, o.kind)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'month' AND o.created_at >= quipu_month_start(x.month)
           AND o.created_at < quipu_month_start((x.month + interval '1 month')::date)
        UNION
        SELECT o.place FROM offered o JOIN erasure x ON x.kind = 'past' AND o.created_at < quipu_month_start(x.month));
END $$;

-- Keeps requests to vanish. Every implementation calls it, for the events that its batch stored (their numbers); tags as JSON text.
CREATE FUNCTION quipu_record_vanishing(stored bigint[], ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL OR 62 <> ALL (kinds) THEN RETURN; END IF;
    INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch)
    SELECT o.id, o.pubkey, o.created_at, quipu_vanish_relays(o.tags::jsonb), quipu_event_batch(s.number)
    FROM unnest(ids, pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (id, pubkey, created_at, kind, tags, place)
    JOIN unnest(stored) AS s (number) ON s.number & 16383 = o.place - 1
    WHERE o.kind = 62 ORDER BY o.id
    ON CONFLICT DO NOTHING;
END $$;

-- Keeps deletions and expirations. Called by implementations that store tags, for the events that its batch stored.
CREATE FUNCTION quipu_record_requests(stored bigint[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL THEN RETURN; END IF;
    WITH asking AS MATERIALIZED (
        -- A look at the text first: few events ask for anything. JSON may also write a letter as \u0065.
        SELECT s.number, o.pubkey, o.created_at, o.kind, o.tags::jsonb AS tags
        FROM unnest(pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (pubkey, created_at, kind, tags, place)
        JOIN unnest(stored) AS s (number) ON s.number & 16383 = o.place - 1
        WHERE o.kind = 5 OR strpos(o.tags, '"expiration"') > 0 OR strpos(o.tags, '\u00') > 0),
    named AS (
        INSERT INTO deletions (target, request, created_at, pubkey, by_address)
        SELECT t.target, a.number, a.created_at, a.pubkey, t.by_address
        FROM asking a CROSS JOIN LATERAL quipu_deletion_targets(a.pubkey, a.tags) t WHERE a.kind = 5 ORDER BY 1, 2)
    INSERT INTO expirations (event, expires_at)
    SELECT a.number, quipu_expires_at(a.tags) FROM asking a WHERE quipu_expires_at(a.tags) IS NOT NULL ORDER BY 1;
END $$;

-- What every batch of events ends with: sightings, the relays' progress, and the batch's entry in ingest_log.
--   this                            number of the batch
--   stored_ids, stored_numbers      the events that were new
--   oldest, newest                  their least and greatest created_at
--   the rest                        as insert_event_batch got it
-- Returns the number of new sightings.
CREATE FUNCTION quipu_close_batch(
    this integer, command uuid, source text, refused jsonb, offered integer, kinds integer[],
    stored_ids bytea[], stored_numbers bigint[], oldest bigint, newest bigint,
    seen_created_ats bigint[], seen_ids bytea[], seen_relays integer[])
RETURNS integer
-- Plans are made for the months at hand, not for all of them.
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    sighted integer := 0;
    seen_min bigint; seen_max bigint;
    relay_list integer[]; relay_counts integer[]; kind_list integer[]; kind_counts integer[];
BEGIN
    -- A statement of its own, so that it also sees events that another transaction has just committed.
    IF cardinality(seen_ids) > 0 THEN
        SELECT min(c), max(c) INTO seen_min, seen_max FROM unnest(seen_created_ats) c;
        WITH found AS MATERIALIZED (
            -- Events of this batch are looked up in it, others by index.
            SELECT f.number, s.relay, s.created_at
            FROM unnest(seen_created_ats, seen_ids, seen_relays) AS s (created_at, id, relay)
            JOIN unnest(stored_ids, stored_numbers) AS f (id, number) ON f.id = s.id
            UNION ALL
            SELECT e.number, s.relay, s.created_at
            FROM unnest(seen_created_ats, seen_ids, seen_relays) AS s (created_at, id, relay)
            JOIN events e ON e.created_at = s.created_at AND e.id = s.id AND e.created_at BETWEEN seen_min AND seen_max
            WHERE s.id <> ALL (coalesce(stored_ids, '{}'))),
        shown AS (
            INSERT INTO sightings (event, relay, batch)
            SELECT f.number, f.relay, this FROM found f ORDER BY f.number, f.relay
            ON CONFLICT DO NOTHING
            RETURNING event, relay),
        by_relay AS (
            SELECT s.relay, count(*)::integer AS n, min(e.created_at) AS low, max(e.created_at) AS high
            FROM shown s JOIN found e ON e.number = s.event AND e.relay = s.relay GROUP BY s.relay),
        progress AS (
            INSERT INTO relay_progress (relay, last_created_at) SELECT b.relay, b.high FROM by_relay b ORDER BY b.relay
            ON CONFLICT (relay) DO UPDATE SET last_created_at = excluded.last_created_at
            WHERE relay_progress.last_created_at < excluded.last_created_at)
        SELECT coalesce(sum(b.n), 0)::integer, array_agg(b.relay ORDER BY b.relay), array_agg(b.n ORDER BY b.relay),
               least(oldest, min(b.low)), greatest(newest, max(b.high))
        INTO sighted, relay_list, relay_counts, oldest, newest FROM by_relay b;
    END IF;

    -- Nothing new is no fact; refusals are.
    IF stored_numbers IS NULL AND sighted = 0 AND refused = '{}' THEN RETURN 0; END IF;

    SELECT array_agg(k.kind ORDER BY k.kind), array_agg(k.n ORDER BY k.kind) INTO kind_list, kind_counts
    FROM (SELECT kinds[(n & 16383) + 1] AS kind, count(*)::integer AS n FROM unnest(stored_numbers) n GROUP BY 1) k;
    INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts,
                            created_at_min, created_at_max, refused)
    VALUES (this, command, source, offered, coalesce(cardinality(stored_numbers), 0), sighted,
            coalesce(kind_list, '{}'), coalesce(kind_counts, '{}'), coalesce(relay_list, '{}'), coalesce(relay_counts, '{}'),
            oldest, newest, refused);
    RETURN sighted;
END $$;

-- What is stored already.
INSERT INTO deletions (target, request, created_at, pubkey, by_address)
SELECT t.target, e.number, e.created_at, e.pubkey, t.by_address
FROM events e CROSS JOIN LATERAL quipu_deletion_targets(e.pubkey, e.tags) t WHERE e.kind = 5 AND e.tags IS NOT NULL;
INSERT INTO expirations (event, expires_at)
SELECT e.number, quipu_expires_at(e.tags) FROM events e WHERE e.tags @> '[["expiration"]]' AND quipu_expires_at(e.tags) IS NOT NULL;
INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch)
SELECT e.id, e.pubkey, e.created_at, quipu_vanish_relays(e.tags), quipu_event_batch(e.number)
FROM events e WHERE e.kind = 62;
