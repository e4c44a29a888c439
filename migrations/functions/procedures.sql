-- Procedures that are the same in every implementation. Those of quipu_writer set what their caller could use
-- to change the meaning of their text: where names are looked up, and what a backslash means. The
-- implementation's 05_procedures.sql is applied after them and defines insert_event_batch; it may replace
-- another one, with the same signature.

-- One event that one relay showed. It is offered unverified: it waits in event_offers until a service has
-- checked its id and signature, and only then appears in `events`. Returns whether it was accepted; false
-- when it is stored already. For external programs (role quipu_writer). At most 100,000 offers wait, with at
-- most 1 GiB in total.
CREATE OR REPLACE FUNCTION insert_event(
    id bytea, pubkey bytea, created_at bigint, kind integer, tags jsonb, content text, sig bytea, relay_url text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET standard_conforming_strings = on AS $$
DECLARE wrong text; waiting bigint; relay integer;
BEGIN
    wrong := CASE
        WHEN octet_length(id) IS DISTINCT FROM 32 THEN format('id: %s bytes, expected 32', octet_length(id))
        WHEN octet_length(pubkey) IS DISTINCT FROM 32 THEN format('pubkey: %s bytes, expected 32', octet_length(pubkey))
        WHEN octet_length(sig) IS DISTINCT FROM 64 THEN format('sig: %s bytes, expected 64', octet_length(sig))
        WHEN created_at IS NULL OR created_at < 0 THEN format('created_at: %s, expected unix seconds from 0', created_at)
        WHEN kind IS NULL OR kind NOT BETWEEN 0 AND 65535 THEN format('kind: %s, expected 0 to 65535', kind)
        WHEN jsonb_typeof(tags) IS DISTINCT FROM 'array' THEN format('tags: %s, expected an array', jsonb_typeof(tags))
        WHEN content IS NULL THEN 'content: NULL, expected text'
        WHEN octet_length(content) + octet_length(tags::text) > 4194304 THEN
            format('content and tags: %s bytes, at most 4194304', octet_length(content) + octet_length(tags::text)) END;
    IF wrong IS NOT NULL THEN RAISE EXCEPTION '%', wrong USING ERRCODE = 'invalid_parameter_value'; END IF;
    relay := (insert_relay(relay_url))[1];
    IF EXISTS (SELECT FROM events e WHERE e.created_at = insert_event.created_at AND e.id = insert_event.id) THEN RETURN false; END IF;
    SELECT max(number) - min(number) INTO waiting FROM event_offers;
    IF waiting >= 100000 THEN
        RAISE EXCEPTION 'event_offers: % events wait to be verified, at most 100000', waiting
            USING ERRCODE = 'configuration_limit_exceeded', HINT = 'a running archive verifies them; try again later';
    END IF;
    IF pg_total_relation_size('event_offers') > 1073741824 THEN
        RAISE EXCEPTION 'event_offers: % bytes wait to be verified, at most 1073741824', pg_total_relation_size('event_offers')
            USING ERRCODE = 'configuration_limit_exceeded', HINT = 'a running archive verifies them; try again later';
    END IF;
    INSERT INTO event_offers (relay, bytes, event)
    SELECT relay, octet_length(o.event::text), o.event
    FROM (SELECT jsonb_build_object('id', encode(id, 'hex'), 'pubkey', encode(pubkey, 'hex'), 'created_at', created_at, 'kind', kind,
                                    'tags', tags, 'content', content, 'sig', encode(sig, 'hex')) AS event) o;
    RETURN true;
END $$;

-- Adds relays. Returns their numbers in the order given; known relays keep their numbers. A relay of another
-- source gets source `operator` when the operator names it, and is then no longer refused. Candidates among the
-- URLs are removed: a URL is either a relay or a candidate. A relay that the operator adds or names is dialled before
-- all other relays.
--   urls must be canonical; networks: clearnet, tor, i2p, loki; sources: operator, seed, validator or
--     insert_relay;
--   added: whether this call added the relay
CREATE OR REPLACE FUNCTION insert_relay_batch(
    command uuid, urls text[], networks text[], sources text[], OUT numbers integer[], OUT added boolean[])
LANGUAGE plpgsql AS $$
DECLARE fresh_urls text[]; asked integer[]; last integer;
BEGIN
    -- Most calls name known relays and change nothing, so they take no lock.
    IF EXISTS (SELECT FROM unnest(urls, sources) AS o (url, source) LEFT JOIN relays r ON r.url = o.url
               WHERE r.url IS NULL OR (quipu_is_named(o.source) AND NOT quipu_is_named(r.source)))
       OR EXISTS (SELECT FROM candidates c WHERE c.url = ANY (urls)) THEN
        PERFORM quipu_lock_candidates();
        -- Under the lock, and without a sequence: transactions that roll back would use up its 31 bits.
        SELECT coalesce(max(number), 0) INTO last FROM relays;
        WITH offered AS (
            SELECT DISTINCT ON (o.url) o.url, o.network, o.source, o.place
            FROM unnest(urls, networks, sources) WITH ORDINALITY AS o (url, network, source, place)
            ORDER BY o.url, o.place),
        fresh AS (
            INSERT INTO relays (number, url, network, inserted_at, source)
            SELECT last + row_number() OVER (ORDER BY o.url), o.url, o.network, clock_timestamp(), o.source FROM offered o
            WHERE NOT EXISTS (SELECT FROM relays r WHERE r.url = o.url) ORDER BY o.url
            ON CONFLICT (url) DO NOTHING RETURNING number, url, network, inserted_at),
        renamed AS (
            UPDATE relays r SET source = o.source, refused_reason = NULL FROM offered o
            WHERE r.url = o.url AND quipu_is_named(o.source) AND NOT quipu_is_named(r.source) RETURNING r.number, r.url),
        logged AS (
            INSERT INTO relay_log (recorded_at, batch, slot, relay, kind, url, network, detail)
            SELECT f.inserted_at, command, (o.place - 1)::integer, f.number, 'added', f.url, f.network, jsonb_build_object('source', o.source)
            FROM fresh f JOIN offered o ON o.url = f.url
            UNION ALL
            SELECT clock_timestamp(), command, (o.place - 1)::integer, n.number, 'named', NULL, NULL, jsonb_build_object('source', o.source)
            FROM renamed n JOIN offered o ON o.url = n.url
            ORDER BY 3 RETURNING relay, url, detail)
        SELECT array_agg(l.url) FILTER (WHERE l.url IS NOT NULL),
               array_agg(l.relay) FILTER (WHERE quipu_is_named(l.detail ->> 'source'))
        INTO fresh_urls, asked FROM logged l;
        PERFORM quipu_ask_for(asked);
        DELETE FROM candidates c WHERE c.url = ANY (urls);
        DELETE FROM candidate_tries t WHERE t.url = ANY (urls);
    END IF;
    SELECT array_agg(r.number ORDER BY o.place), array_agg(r.url = ANY (coalesce(fresh_urls, '{}')) ORDER BY o.place) INTO numbers, added
    FROM unnest(urls) WITH ORDINALITY AS o (url, place) JOIN relays r ON r.url = o.url;
END $$;

-- Adds one relay, whose URL must be canonical. For external programs (role quipu_writer); at most 10,000 new
-- relays in 24 hours. In REPEATABLE READ or SERIALIZABLE a transaction would not see what others committed after
-- its first statement, and would write against it: a candidate that is also a relay, a number that is taken.
CREATE OR REPLACE FUNCTION insert_relay(url text) RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'transaction_isolation: %, expected read committed', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state', HINT = 'BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, or no transaction at all';
    END IF;
    IF quipu_is_canonical_relay_url(url) IS NOT TRUE THEN
        RAISE EXCEPTION 'url: % is not a canonical relay address', quote_nullable(left(url, 200)) USING ERRCODE = 'invalid_parameter_value',
            HINT = 'expected ws:// or wss:// and at most 512 bytes, scheme and host in lower case, no default port, credentials, fragment, '
                   'dot segments or slash at the end; `quipu relays add` takes every spelling and international names';
    END IF;
    IF NOT EXISTS (SELECT FROM relays r WHERE r.url = insert_relay.url)
       AND (SELECT count(*) FROM relays r WHERE r.source = 'insert_relay' AND r.inserted_at > now() - interval '24 hours') >= 10000 THEN
        RAISE EXCEPTION 'url: 10000 relays were made known by insert_relay within 24 hours, at most 10000'
            USING ERRCODE = 'configuration_limit_exceeded', HINT = 'try again later, or use `quipu relays add`';
    END IF;
    RETURN (SELECT numbers FROM insert_relay_batch(gen_random_uuid(), ARRAY[url], ARRAY[CASE
        WHEN url ~ '^wss?://[^/:]+[.]onion([:/]|$)' THEN 'tor' WHEN url ~ '^wss?://[^/:]+[.]i2p([:/]|$)' THEN 'i2p'
        WHEN url ~ '^wss?://[^/:]+[.]loki([:/]|$)' THEN 'loki' ELSE 'clearnet' END], ARRAY['insert_relay']));
END $$;

-- Stores snapshots of relays as one batch.
--   command        id of this group commit, stored as relay_metadata.batch. A second call with the same id is
--                  refused by the unique index relay_metadata_batch, so a batch is stored once
--   generated_ats  unix seconds
--   nip11s         information documents, or NULL; each distinct document is stored once, under the SHA-256
--                  of its canonical text
--   nip66s         results of checks, or NULL: openable, readable, writable, further checks by name, and
--                  values that differ each time (rtt_open, rtt_read, rtt_write, dns_ttl). These values go
--                  into the snapshot's row, so that an unchanged result is stored only once
-- Any JSON is accepted. A document or result that is not an object counts as NULL. Without a boolean,
-- openable and readable count as false, and writable as not tested. Times that are not whole numbers from 0
-- to 2147483647 count as absent.
CREATE OR REPLACE FUNCTION insert_relay_metadata_batch(
    command uuid, relay_urls text[], generated_ats bigint[], nip11s jsonb[], nip66s jsonb[])
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    -- A field of another type does not fit its column and stays among the extra fields.
    texts constant text[] := ARRAY['name', 'description', 'banner', 'icon', 'pubkey', 'contact', 'software', 'version',
                                   'privacy_policy', 'terms_of_service'];
    times constant text[] := ARRAY['rtt_open', 'rtt_read', 'rtt_write', 'dns_ttl'];
    made integer;
BEGIN
    INSERT INTO nip11 (id, name, description, banner, icon, pubkey, contact, supported_nips, software, version,
                       privacy_policy, terms_of_service, limitation, extra_fields)
    SELECT sha256(convert_to(o.d::text, 'UTF8')), t.f ->> 'name', t.f ->> 'description', t.f ->> 'banner', t.f ->> 'icon', t.f ->> 'pubkey',
           t.f ->> 'contact', t.f -> 'supported_nips', t.f ->> 'software', t.f ->> 'version', t.f ->> 'privacy_policy',
           t.f ->> 'terms_of_service', t.f -> 'limitation', o.d - ARRAY(SELECT jsonb_object_keys(t.f))
    FROM (SELECT DISTINCT d FROM unnest(nip11s) d WHERE jsonb_typeof(d) = 'object') o
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(o.d) e
        WHERE jsonb_typeof(e.value) = CASE WHEN e.key = ANY (texts) THEN 'string' WHEN e.key = 'supported_nips' THEN 'array'
                                           WHEN e.key = 'limitation' THEN 'object' END) AS t (f)
    ORDER BY 1
    ON CONFLICT DO NOTHING;
    INSERT INTO nip66 (id, openable, readable, writable, detail)
    SELECT sha256(convert_to(o.d::text, 'UTF8')), coalesce(quipu_stated_boolean(o.d -> 'openable'), false),
           coalesce(quipu_stated_boolean(o.d -> 'readable'), false), quipu_stated_boolean(o.d -> 'writable'),
           o.d - ARRAY['openable', 'readable', 'writable']
    FROM (SELECT DISTINCT d - times AS d FROM unnest(nip66s) d WHERE jsonb_typeof(d) = 'object') o ORDER BY 1
    ON CONFLICT DO NOTHING;
    INSERT INTO relay_metadata (batch, slot, relay_url, generated_at, nip11_id, nip66_id, rtt_open, rtt_read, rtt_write, dns_ttl)
    SELECT command, m.place - 1, m.url, m.generated_at,
           CASE WHEN jsonb_typeof(m.nip11) = 'object' THEN sha256(convert_to(m.nip11::text, 'UTF8')) END,
           CASE WHEN jsonb_typeof(m.nip66) = 'object' THEN sha256(convert_to((m.nip66 - times)::text, 'UTF8')) END,
           quipu_stated_integer(m.nip66 -> 'rtt_open', 0, 2147483647), quipu_stated_integer(m.nip66 -> 'rtt_read', 0, 2147483647),
           quipu_stated_integer(m.nip66 -> 'rtt_write', 0, 2147483647), quipu_stated_integer(m.nip66 -> 'dns_ttl', 0, 2147483647)
    FROM unnest(relay_urls, generated_ats, nip11s, nip66s) WITH ORDINALITY AS m (url, generated_at, nip11, nip66, place)
    ORDER BY m.place;
    GET DIAGNOSTICS made = ROW_COUNT;
    RETURN made;
END $$;

-- Stores one snapshot of one relay, and adds the relay if it is unknown. For external programs (role
-- quipu_writer).
CREATE OR REPLACE FUNCTION insert_relay_metadata(relay_url text, generated_at bigint, nip11 jsonb, nip66 jsonb)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET standard_conforming_strings = on AS $$
BEGIN
    -- A snapshot with a future time would count as the newest one for ever.
    IF generated_at IS NULL OR generated_at NOT BETWEEN 0 AND extract(epoch FROM now())::bigint + 300 THEN
        RAISE EXCEPTION 'generated_at: %, expected unix seconds from 0 to now', generated_at USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(nip11::text) > 1048576 OR octet_length(nip66::text) > 1048576 THEN
        RAISE EXCEPTION 'nip11, nip66: % and % bytes, at most 1048576 each', octet_length(nip11::text), octet_length(nip66::text)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM insert_relay(relay_url);
    RETURN insert_relay_metadata_batch(gen_random_uuid(), ARRAY[relay_url], ARRAY[generated_at], ARRAY[nip11], ARRAY[nip66]);
END $$;

-- Counts the events of one month that no relay has sent (imported events, for example). Despite its name,
-- which the seed project defined, it deletes nothing: journals are append-only.
CREATE OR REPLACE FUNCTION delete_orphan_events(month date DEFAULT date_trunc('month', now())::date)
RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET standard_conforming_strings = on AS $$
    SELECT count(*) FROM events e
    WHERE e.created_at >= quipu_month_start(month) AND e.created_at < quipu_month_start((month + interval '1 month')::date)
      AND NOT EXISTS (SELECT FROM sightings s WHERE s.event = e.number)
$$;

COMMENT ON FUNCTION insert_event(bytea, bytea, bigint, integer, jsonb, text, bytea, text) IS
    'offers one unverified event that a relay sent; a service verifies it and stores it in events if id and signature are right; returns whether it was accepted';
COMMENT ON FUNCTION insert_relay_batch(uuid, text[], text[], text[]) IS 'adds relays; does not check that the URLs are canonical, so only the service may call it';
COMMENT ON FUNCTION insert_relay(text) IS 'adds one relay; accepts only a canonical URL; returns its number as an array of one. Takes a lock until the transaction ends; a session that keeps its transaction open for more than ten seconds is ended';
COMMENT ON FUNCTION insert_relay_metadata_batch(uuid, text[], bigint[], jsonb[], jsonb[]) IS
    'stores snapshots of relays: information document (NIP-11) and results of checks (NIP-66); only the service may call it';
COMMENT ON FUNCTION insert_relay_metadata(text, bigint, jsonb, jsonb) IS
    'stores one snapshot of one relay, and adds the relay if it is unknown; generated_at in unix seconds; returns 1';
COMMENT ON FUNCTION delete_orphan_events(date) IS 'deletes nothing: counts the events of one month that no relay has sent';
REVOKE EXECUTE ON FUNCTION delete_orphan_events(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION delete_orphan_events(date) TO quipu;
GRANT EXECUTE ON FUNCTION insert_event(bytea, bytea, bigint, integer, jsonb, text, bytea, text), insert_relay(text),
    insert_relay_metadata(text, bigint, jsonb, jsonb), delete_orphan_events(date) TO quipu_writer;
