-- Relays and candidates: their URLs, states and journal entries, and the values that they state.

CREATE OR REPLACE FUNCTION quipu_is_named(source text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(source = 'operator', false);
COMMENT ON FUNCTION quipu_is_named(text) IS 'whether a relay of this source (relays.source) may have a private address: only a relay that this operator named';

CREATE OR REPLACE FUNCTION quipu_relay_host(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    substring(url FROM '^wss?://(\[[^\]]*\]|[^:/?]*)');
COMMENT ON FUNCTION quipu_relay_host(text) IS 'host of a relay''s URL';

-- The domain of a candidate whose journal entry states none (it was written before V25): the last
-- two labels of its host, or the host itself if it is an address. It may be wider than the registrable domain
-- (co.uk), never narrower.
CREATE OR REPLACE FUNCTION quipu_wide_domain(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN quipu_relay_host(url) ~ '^(\[|[0-9.]*$)' THEN quipu_relay_host(url)
         ELSE substring(quipu_relay_host(url) FROM '(?:[^.]*\.)?[^.]*$') END;
COMMENT ON FUNCTION quipu_wide_domain(text) IS 'the last two labels of a canonical URL''s host, or the host if it is an address';

-- Whether a text is a relay's URL in Quipu's canonical form (base/relay_url/mod.rs). Accepts less than `quipu
-- relays add`, which converts every spelling into this form: no international names, no `%2e`.
CREATE OR REPLACE FUNCTION quipu_is_canonical_relay_url(url text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET standard_conforming_strings = on AS $$
DECLARE
    part text[] := regexp_match(url, '^(wss?)://([a-z0-9._-]+|[[][0-9a-f:.]+[]])(:[1-9][0-9]{0,4})?((?:/[!$%&()*+,.0-9:;=@A-Z_a-z~-]+)*)([?][!$%&()*+,./0-9:;=?@A-Z_a-z~-]+)?$');
    host text := part[2];
BEGIN
    IF part IS NULL OR octet_length(url) > 512 OR length(host) > 253 THEN RETURN false; END IF;
    IF ltrim(part[3], ':')::integer > 65535 OR (part[1], part[3]) IN (('ws', ':80'), ('wss', ':443')) THEN RETURN false; END IF;
    -- Every client resolves such segments.
    IF part[4] ~ '/[.]{1,2}(/|$)' OR part[4] ~* '%2e' THEN RETURN false; END IF;
    IF host LIKE '[%' THEN
        BEGIN
            RETURN host(btrim(host, '[]')::inet) = btrim(host, '[]');
        EXCEPTION WHEN invalid_text_representation THEN RETURN false;
        END;
    END IF;
    -- If the last label is a number, the whole host is an IPv4 address.
    IF host ~ '(^|[.])(0x[0-9a-f]*|[0-9]+)$' THEN
        RETURN host ~ '^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])([.]|$)){4}$' AND host !~ '[.]$';
    END IF;
    IF host ~ '(^|[.])(xn--|[.]|$)' OR host ~ '[^.]{64}' THEN RETURN false; END IF;
    RETURN host !~ '(^|[.])onion$' OR host ~ '(^|[.])[a-z2-7]{54}[aiqy]d[.]onion$';
END $$;
COMMENT ON FUNCTION quipu_is_canonical_relay_url(text) IS 'whether a text is a relay''s URL in canonical form';

CREATE OR REPLACE FUNCTION quipu_stated_integer(value jsonb, low bigint, high bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE WHEN value::numeric BETWEEN low AND high AND value::numeric = trunc(value::numeric) THEN value::numeric::bigint END
    END;
COMMENT ON FUNCTION quipu_stated_integer(jsonb, bigint, bigint) IS 'the JSON value as an integer if it is a whole number from low to high; NULL for any other JSON';

CREATE OR REPLACE FUNCTION quipu_stated_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value) WHEN 'boolean' THEN value::boolean END;
COMMENT ON FUNCTION quipu_stated_boolean(jsonb) IS 'the JSON value as a boolean if it is one; NULL for any other JSON';

-- The state of one relay by the journal: when it was retired, and why it is refused if its source may not
-- have a private address.
CREATE OR REPLACE FUNCTION quipu_relay_state(relay integer, source text, OUT retired_at timestamptz, OUT refused_reason text)
LANGUAGE sql STABLE AS $$
    SELECT (SELECT min(l.recorded_at) FROM relay_log l
            WHERE l.relay = quipu_relay_state.relay AND l.kind = 'retired'
              AND l.position > coalesce((SELECT max(p.position) FROM relay_log p
                                         WHERE p.relay = quipu_relay_state.relay AND p.kind = 'restored'), 0)),
           CASE WHEN NOT quipu_is_named(quipu_relay_state.source)
                THEN (SELECT l.detail ->> 'reason' FROM relay_log l
                      WHERE l.relay = quipu_relay_state.relay AND l.kind = 'refused' ORDER BY l.position DESC LIMIT 1) END
$$;
COMMENT ON FUNCTION quipu_relay_state(integer, text) IS 'state of a relay by relay_log: when it was retired, and why it is refused if this source may not have a private address';

-- Records that the operator waits for these relays.
CREATE OR REPLACE FUNCTION quipu_ask_for(relays integer[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO relay_visits (relay, asked_at)
    SELECT DISTINCT r, clock_timestamp() FROM unnest(relays) r ORDER BY r
    ON CONFLICT (relay) DO UPDATE SET asked_at = excluded.asked_at, caught_up_at = NULL, outcome = NULL
$$;
COMMENT ON FUNCTION quipu_ask_for(integer[]) IS 'records that the operator waits for these relays, so that they are dialled before other relays';
REVOKE ALL ON FUNCTION quipu_ask_for(integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_ask_for(integer[]) TO quipu;

-- Appends the entries of a batch that are not additions, and updates `relays`. Changes of state hold the lock
-- of candidates and relays, so that for each relay the order of positions is the order of commits.
CREATE OR REPLACE FUNCTION quipu_record_relay_facts(batch uuid, slots integer[], relays integer[], kinds text[], details jsonb[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE changed integer[];
BEGIN
    -- Nearly all batches, so they are kept cheap: observations change nothing else.
    IF 'observed' = ALL (kinds) THEN
        INSERT INTO relay_log (batch, slot, relay, kind, detail)
        SELECT quipu_record_relay_facts.batch, o.slot, o.relay, o.kind, o.detail
        FROM unnest(slots, relays, kinds, details) AS o (slot, relay, kind, detail);
        RETURN;
    END IF;
    PERFORM quipu_lock_candidates();
    changed := ARRAY(SELECT DISTINCT o.relay FROM unnest(relays, kinds) AS o (relay, kind) WHERE o.kind <> 'observed');
    INSERT INTO relay_log (batch, slot, relay, kind, detail)
    SELECT quipu_record_relay_facts.batch, (row_number() OVER (ORDER BY o.slot) - 1)::integer, o.relay, o.kind, o.detail
    FROM unnest(slots, relays, kinds, details) AS o (slot, relay, kind, detail)
    -- A refusal is not recorded twice, nor for a relay that the operator has named.
    WHERE o.kind <> 'refused'
       OR EXISTS (SELECT FROM relays r WHERE r.number = o.relay AND r.refused_reason IS NULL AND NOT quipu_is_named(r.source));
    UPDATE relays r SET retired_at = s.retired_at, refused_reason = s.refused_reason
    FROM (SELECT k.number, (quipu_relay_state(k.number, k.source)).* FROM relays k WHERE k.number = ANY (changed)) s
    WHERE r.number = s.number;
    PERFORM quipu_ask_for(ARRAY(SELECT o.relay FROM unnest(relays, kinds) AS o (relay, kind) WHERE o.kind = 'restored'));
END $$;
COMMENT ON FUNCTION quipu_record_relay_facts(uuid, integer[], integer[], text[], jsonb[]) IS 'appends facts about known relays to relay_log and updates relays';
REVOKE ALL ON FUNCTION quipu_record_relay_facts(uuid, integer[], integer[], text[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_record_relay_facts(uuid, integer[], integer[], text[], jsonb[]) TO quipu;

-- One transaction at a time changes which URLs are candidates or relays. For each URL the order of positions is then
-- the order of commits, and a replay of relay_log gives the same candidates.
CREATE OR REPLACE FUNCTION quipu_lock_candidates() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('quipu/candidates', 0))
$$;
COMMENT ON FUNCTION quipu_lock_candidates() IS 'takes the lock under which one transaction at a time changes candidates, so that a replay gives the same rows';
REVOKE ALL ON FUNCTION quipu_lock_candidates() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_lock_candidates() TO quipu;

-- Records new URLs that events or lists name, within the limits.
--   urls             canonical and distinct
--   details          {"domain": …, …}: the domain is the one that candidates.domain describes
--   waiting_max      waiting candidates of one network; domain_max: waiting candidates of one domain;
--                    day_max: candidates of one network found within a day; domain_day_max: candidates of one
--                    domain found within a day. Networks are counted separately, so that candidates of a
--                    disabled network do not exclude others
-- Returns the outcome of each: new, known (a relay or a candidate already), dropped (given up within the last
-- 30 days), domain_full or full.
CREATE OR REPLACE FUNCTION quipu_find_candidates(
    batch uuid, slots integer[], urls text[], networks text[], details jsonb[],
    waiting_max integer, domain_max integer, day_max integer, domain_day_max integer, OUT outcomes text[])
LANGUAGE plpgsql AS $$
DECLARE at timestamptz;
BEGIN
    PERFORM quipu_lock_candidates();
    at := clock_timestamp();
    WITH rooms AS MATERIALIZED (
        SELECT n.network, least(
            waiting_max - (SELECT count(*) FROM candidates c WHERE c.network = n.network),
            day_max - (SELECT count(*) FROM relay_log l
                       WHERE l.kind = 'found' AND l.network = n.network AND l.recorded_at > at - interval '1 day')) AS room
        FROM (SELECT DISTINCT n AS network FROM unnest(networks) n) n),
    domains AS MATERIALIZED (
        SELECT n.domain, least(
            domain_max - (SELECT count(*) FROM candidates c WHERE c.domain = n.domain),
            domain_day_max - (SELECT count(*) FROM relay_log l
                              WHERE l.kind = 'found' AND l.detail ->> 'domain' = n.domain
                                AND l.recorded_at > at - interval '1 day')) AS room
        FROM (SELECT DISTINCT d ->> 'domain' AS domain FROM unnest(details) d) n),
    offered AS (
        SELECT o.slot, o.url, o.network, o.detail, o.detail ->> 'domain' AS domain,
               CASE WHEN EXISTS (SELECT FROM relays r WHERE r.url = o.url) OR EXISTS (SELECT FROM candidates c WHERE c.url = o.url)
                    THEN 'known'
                    WHEN EXISTS (SELECT FROM relay_log l WHERE l.kind = 'dropped' AND l.url = o.url AND l.recorded_at > at - interval '30 days')
                    THEN 'dropped' END AS refused
        FROM unnest(slots, urls, networks, details) AS o (slot, url, network, detail)),
    of_domains AS (
        SELECT o.slot, o.url, o.network, o.detail, o.domain,
               CASE WHEN o.refused IS NOT NULL THEN o.refused
                    WHEN row_number() OVER (PARTITION BY o.domain, o.refused IS NULL ORDER BY o.slot) > d.room
                    THEN 'domain_full' END AS refused
        FROM offered o JOIN domains d ON d.domain = o.domain),
    judged AS MATERIALIZED (
        SELECT o.slot, o.url, o.network, o.detail, o.domain,
               CASE WHEN o.refused IS NOT NULL THEN o.refused
                    WHEN row_number() OVER (PARTITION BY o.network, o.refused IS NULL ORDER BY o.slot) > r.room THEN 'full'
                    ELSE 'new' END AS outcome
        FROM of_domains o JOIN rooms r ON r.network = o.network),
    waiting AS (
        INSERT INTO candidates (url, network, found_at, source, domain)
        SELECT j.url, j.network, at, j.detail ->> 'source', j.domain FROM judged j WHERE j.outcome = 'new' ORDER BY j.url),
    logged AS (
        INSERT INTO relay_log (recorded_at, batch, slot, kind, url, network, detail)
        SELECT at, quipu_find_candidates.batch, j.slot, 'found', j.url, j.network, j.detail
        FROM judged j WHERE j.outcome = 'new' ORDER BY j.slot)
    SELECT array_agg(j.outcome ORDER BY j.slot) INTO outcomes FROM judged j;
END $$;
COMMENT ON FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer, integer) IS 'records new URLs that may be relays, within the limits; returns the outcome of each';
REVOKE ALL ON FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer, integer) TO quipu;

-- URLs that are not candidates any more are skipped.
CREATE OR REPLACE FUNCTION quipu_drop_candidates(batch uuid, slots integer[], urls text[], details jsonb[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM quipu_lock_candidates();
    WITH gone AS (
        DELETE FROM candidates c USING unnest(slots, urls, details) AS o (slot, url, detail)
        WHERE c.url = o.url RETURNING o.slot, c.url, o.detail),
    tried AS (DELETE FROM candidate_tries t WHERE t.url = ANY (urls))
    INSERT INTO relay_log (batch, slot, kind, url, detail)
    SELECT quipu_drop_candidates.batch, g.slot, 'dropped', g.url, g.detail FROM gone g ORDER BY g.slot;
END $$;
COMMENT ON FUNCTION quipu_drop_candidates(uuid, integer[], text[], jsonb[]) IS 'drops candidates and records the reasons';
REVOKE ALL ON FUNCTION quipu_drop_candidates(uuid, integer[], text[], jsonb[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_drop_candidates(uuid, integer[], text[], jsonb[]) TO quipu;
