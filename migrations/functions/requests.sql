-- What authors ask for: deletion (NIP-09), expiration (NIP-40), vanishing (NIP-62).

-- A hash, because `d` values have no size limit and index entries have one.
CREATE OR REPLACE FUNCTION quipu_address(kind integer, pubkey bytea, tags jsonb) RETURNS bytea LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
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
COMMENT ON FUNCTION quipu_address(integer, bytea, jsonb) IS 'SHA-256 of the address (kind:pubkey:d) of a replaceable event; NULL for other kinds';

-- Events are named by id, whenever they were signed; addresses are those of the request's author, and mean versions up
-- to the request's created_at.
CREATE OR REPLACE FUNCTION quipu_deletion_targets(pubkey bytea, tags jsonb) RETURNS TABLE (target bytea, by_address boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT decode(t ->> 1, 'hex'), false FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'e' AND t ->> 1 ~ '^[0-9a-f]{64}$'
    UNION
    SELECT sha256(convert_to(t ->> 1, 'UTF8')), true FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'a' AND t ->> 1 ~ ('^[0-9]{1,5}:' || encode(pubkey, 'hex') || ':')
$$;
COMMENT ON FUNCTION quipu_deletion_targets(bytea, jsonb) IS 'targets of a deletion request (NIP-09): ids, and addresses of its author''s own events';

-- The first `expiration` tag decides. A value that is not a number means no expiration.
CREATE OR REPLACE FUNCTION quipu_expires_at(tags jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT CASE WHEN f.value ~ '^[0-9]{1,18}$' THEN f.value::bigint END
    FROM (SELECT t ->> 1 AS value FROM jsonb_array_elements(tags) WITH ORDINALITY AS x (t, n)
          WHERE t ->> 0 = 'expiration' ORDER BY n LIMIT 1) f);
COMMENT ON FUNCTION quipu_expires_at(jsonb) IS 'unix second from which an event counts as expired (NIP-40); NULL when it does not expire';

-- One spelling for a relay's address in a `relay` tag and in a setting: lower case, no default port, no final dot or slash.
CREATE OR REPLACE FUNCTION quipu_relay_key(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN url = 'ALL_RELAYS' THEN url ELSE
        regexp_replace(regexp_replace(regexp_replace(rtrim(lower(btrim(url)), '/'),
            '^(wss://[^/?]+):443(?=[/?]|$)', '\1'), '^(ws://[^/?]+):80(?=[/?]|$)', '\1'), '^(wss?://[^/?:]+)\.(?=[:/?]|$)', '\1') END;
COMMENT ON FUNCTION quipu_relay_key(text) IS 'a relay URL in the form used to compare it with requests to vanish';

CREATE OR REPLACE FUNCTION quipu_vanish_relays(tags jsonb) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN (
    SELECT coalesce(array_agg(DISTINCT quipu_relay_key(t ->> 1)), '{}') FROM jsonb_array_elements(tags) t
    WHERE t ->> 0 = 'relay' AND t ->> 1 IS NOT NULL);
COMMENT ON FUNCTION quipu_vanish_relays(jsonb) IS 'relays that a request to vanish (NIP-62) names';

-- Whether a request to vanish that names `relays` covers a server with the URLs `own_urls`: it names all relays, or
-- one of these URLs.
CREATE OR REPLACE FUNCTION quipu_reaches(relays text[], own_urls text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    'ALL_RELAYS' = ANY (relays) OR relays && ARRAY(SELECT quipu_relay_key(u) FROM unnest(own_urls) u);
COMMENT ON FUNCTION quipu_reaches(text[], text[]) IS 'whether a request to vanish covers one of this archive''s own URLs';

CREATE OR REPLACE FUNCTION quipu_record_vanishing(
    first bigint, stored bigint[], ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL OR 62 <> ALL (kinds) THEN RETURN; END IF;
    INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch)
    SELECT o.id, o.pubkey, o.created_at, quipu_vanish_relays(o.tags::jsonb), first
    FROM unnest(ids, pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (id, pubkey, created_at, kind, tags, place)
    JOIN unnest(stored) AS s (number) ON quipu_event_slot(s.number) - first = o.place - 1
    WHERE o.kind = 62 ORDER BY o.id
    ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION quipu_record_vanishing(bigint, bigint[], bytea[], bytea[], bigint[], integer[], text[]) IS 'records the requests to vanish among stored events';
REVOKE ALL ON FUNCTION quipu_record_vanishing(bigint, bigint[], bytea[], bytea[], bigint[], integer[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_record_vanishing(bigint, bigint[], bytea[], bytea[], bigint[], integer[], text[]) TO quipu;

CREATE OR REPLACE FUNCTION quipu_record_requests(
    first bigint, stored bigint[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF stored IS NULL THEN RETURN; END IF;
    WITH asking AS MATERIALIZED (
        -- Few events have such requests, so the text is searched before it is parsed. JSON may also write a
        -- letter as a backslash, u and four digits.
        SELECT s.number, o.pubkey, o.created_at, o.kind, o.tags::jsonb AS tags
        FROM unnest(pubkeys, created_ats, kinds, tags) WITH ORDINALITY AS o (pubkey, created_at, kind, tags, place)
        JOIN unnest(stored) AS s (number) ON quipu_event_slot(s.number) - first = o.place - 1
        WHERE o.kind = 5 OR strpos(o.tags, '"expiration"') > 0 OR strpos(o.tags, chr(92) || 'u00') > 0),
    named AS (
        INSERT INTO deletions (target, request, created_at, pubkey, by_address)
        SELECT t.target, a.number, a.created_at, a.pubkey, t.by_address
        FROM asking a CROSS JOIN LATERAL quipu_deletion_targets(a.pubkey, a.tags) t WHERE a.kind = 5 ORDER BY 1, 2)
    INSERT INTO expirations (event, expires_at)
    SELECT a.number, quipu_expires_at(a.tags) FROM asking a WHERE quipu_expires_at(a.tags) IS NOT NULL ORDER BY 1;
END $$;
COMMENT ON FUNCTION quipu_record_requests(bigint, bigint[], bytea[], bigint[], integer[], text[]) IS 'records the deletion requests and expirations among stored events';
REVOKE ALL ON FUNCTION quipu_record_requests(bigint, bigint[], bytea[], bigint[], integer[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_record_requests(bigint, bigint[], bytea[], bigint[], integer[], text[]) TO quipu;

-- The events that a server with the URLs `own_urls` may show to the public at the unix second `now_s`. Requests
-- themselves are shown: deleting a request has no effect. Events that are stored without their tags are not shown,
-- because their requests are unknown. Each test is one index lookup per event.
CREATE OR REPLACE FUNCTION public_events(now_s bigint, own_urls text[] DEFAULT '{}') RETURNS SETOF events LANGUAGE sql STABLE PARALLEL SAFE AS $$
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
