-- Only the operator can allow private addresses; refused relays are recorded with their reason; a retired
-- relay can be restored; the operator's relays are dialled first; candidates are limited per registrable
-- domain.

-- quipu_find_candidates has new arguments.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 25';

CREATE OR REPLACE FUNCTION quipu_is_named(source text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(source = 'operator', false);
COMMENT ON FUNCTION quipu_is_named(text) IS 'whether a relay of this source (relays.source) may have a private address: only a relay that this operator named';

ALTER TABLE relays ADD COLUMN refused_reason text;
COMMENT ON COLUMN relays.source IS 'who added it: operator, seed, validator or insert_relay. Only a relay of source operator may have a private address; a relay of another source gets source operator when the operator names it';
COMMENT ON COLUMN relays.retired_at IS 'when it was retired, or NULL while it is crawled; a restored relay is not retired';
COMMENT ON COLUMN relays.refused_reason IS 'why it is never dialled: private_address; NULL for a relay that may be dialled, such as each relay that the operator named';

ALTER TABLE relay_log
    DROP CONSTRAINT relay_log_kind,
    ADD CONSTRAINT relay_log_kind CHECK (kind IN ('added', 'named', 'retired', 'restored', 'refused', 'observed', 'found', 'dropped'));
COMMENT ON COLUMN relay_log.kind IS 'added: the relay is known from now on. named: the operator names a relay that another source added. retired: no longer crawled. restored: crawled again after it was retired. refused: never dialled, unless the operator names it. observed: an observation of a session with it (detail.what). found: an event or list names a URL that is not a known relay. dropped: Quipu gave up such a candidate';

DROP INDEX relay_log_batch, relay_log_retired;
CREATE UNIQUE INDEX relay_log_batch ON relay_log (batch) WHERE kind IN ('retired', 'restored', 'refused', 'observed') AND slot = 0;
CREATE INDEX relay_log_states ON relay_log (relay, position) WHERE kind IN ('retired', 'restored', 'refused');

-- The state of one relay by the journal: when it was retired, and why it is refused if its source may not
-- have a private address.
CREATE FUNCTION quipu_relay_state(relay integer, source text, OUT retired_at timestamptz, OUT refused_reason text)
LANGUAGE sql STABLE AS $$
    SELECT (SELECT min(l.recorded_at) FROM relay_log l
            WHERE l.relay = quipu_relay_state.relay AND l.kind = 'retired'
              AND l.position > coalesce((SELECT max(p.position) FROM relay_log p
                                         WHERE p.relay = quipu_relay_state.relay AND p.kind = 'restored'), 0)),
           CASE WHEN NOT quipu_is_named(quipu_relay_state.source)
                THEN (SELECT l.detail ->> 'reason' FROM relay_log l
                      WHERE l.relay = quipu_relay_state.relay AND l.kind = 'refused' ORDER BY l.position DESC LIMIT 1) END
$$;
GRANT EXECUTE ON FUNCTION quipu_relay_state(integer, text) TO quipu;

-- Appends the entries of a batch that are not additions, and updates `relays`. Changes of state hold the lock
-- of candidates and relays, so that for each relay the order of positions is the order of commits.
CREATE OR REPLACE FUNCTION quipu_record_relay_facts(batch uuid, slots integer[], relays integer[], kinds text[], details jsonb[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE changed integer[];
BEGIN
    SELECT array_agg(DISTINCT o.relay) INTO changed FROM unnest(relays, kinds) AS o (relay, kind) WHERE o.kind <> 'observed';
    IF changed IS NOT NULL THEN
        PERFORM quipu_lock_candidates();
    END IF;
    INSERT INTO relay_log (batch, slot, relay, kind, detail)
    SELECT quipu_record_relay_facts.batch, (row_number() OVER (ORDER BY o.slot) - 1)::integer, o.relay, o.kind, o.detail
    FROM unnest(slots, relays, kinds, details) AS o (slot, relay, kind, detail)
    -- A refusal is not recorded twice, nor for a relay that the operator has named.
    WHERE o.kind <> 'refused'
       OR EXISTS (SELECT FROM relays r WHERE r.number = o.relay AND r.refused_reason IS NULL AND NOT quipu_is_named(r.source));
    IF changed IS NOT NULL THEN
        UPDATE relays r SET retired_at = s.retired_at, refused_reason = s.refused_reason
        FROM (SELECT k.number, (quipu_relay_state(k.number, k.source)).* FROM relays k WHERE k.number = ANY (changed)) s
        WHERE r.number = s.number;
        PERFORM quipu_ask_for(ARRAY(SELECT o.relay FROM unnest(relays, kinds) AS o (relay, kind) WHERE o.kind = 'restored'));
    END IF;
END $$;

CREATE TABLE relay_visits (
    relay        integer     PRIMARY KEY,
    asked_at     timestamptz,
    began_at     timestamptz,
    caught_up_at timestamptz,
    outcome      text
) WITH (fillfactor = 50);
COMMENT ON TABLE relay_visits IS 'working: the operator''s requests to dial a relay first, and the outcome of the newest session with each relay';
COMMENT ON COLUMN relay_visits.relay IS 'relays.number';
COMMENT ON COLUMN relay_visits.asked_at IS 'when the operator last added or restored it, database clock; until a session begins after that, it is dialled before other relays';
COMMENT ON COLUMN relay_visits.began_at IS 'when the newest session began, database clock';
COMMENT ON COLUMN relay_visits.caught_up_at IS 'when every open window was last read to its end since asked_at, database clock';
COMMENT ON COLUMN relay_visits.outcome IS 'how the newest session ended: ok, stopped or the reason of a failure; NULL while a session runs';
CREATE INDEX relay_visits_asked ON relay_visits (asked_at) WHERE began_at IS NULL OR began_at < asked_at;
SELECT quipu_make_changeable('relay_visits');

-- Records that the operator waits for these relays.
CREATE FUNCTION quipu_ask_for(relays integer[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO relay_visits (relay, asked_at)
    SELECT DISTINCT r, clock_timestamp() FROM unnest(relays) r ORDER BY r
    ON CONFLICT (relay) DO UPDATE SET asked_at = excluded.asked_at, caught_up_at = NULL, outcome = NULL
$$;
GRANT EXECUTE ON FUNCTION quipu_ask_for(integer[]) TO quipu;

-- The domain of a candidate that was stored before this migration: the last two labels of its host, or the
-- host itself if it is an address. It may be wider than the registrable domain (co.uk), never narrower.
CREATE FUNCTION quipu_wide_domain(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN quipu_relay_host(url) ~ '^(\[|[0-9.]*$)' THEN quipu_relay_host(url)
         ELSE substring(quipu_relay_host(url) FROM '(?:[^.]*\.)?[^.]*$') END;
COMMENT ON FUNCTION quipu_wide_domain(text) IS 'the last two labels of a canonical URL''s host, or the host if it is an address';
GRANT EXECUTE ON FUNCTION quipu_wide_domain(text) TO PUBLIC;

ALTER TABLE candidates ADD COLUMN domain text;
UPDATE candidates SET domain = quipu_wide_domain(url);
ALTER TABLE candidates ALTER COLUMN domain SET NOT NULL;
COMMENT ON COLUMN candidates.domain IS 'the registrable domain of its host by the public suffix list; the /24 or /48 network of an address; the host of a hidden service';
DROP INDEX candidates_host;
CREATE INDEX candidates_domain ON candidates (domain);
CREATE INDEX relay_log_found_domain ON relay_log ((detail ->> 'domain'), recorded_at) WHERE kind = 'found';
COMMENT ON COLUMN relay_log.detail IS 'further fields; added, named: {"source": …}, retired, restored, refused: {"reason": …}, observed: {"what": …, …}, found: {"source": "event" or "list", "domain": …, …}, dropped: {"reason": …, "tries": …}';

DROP FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer);

-- Records new URLs that events or lists name, within the limits.
--   urls             canonical and distinct
--   details          {"domain": …, …}: the domain is the one that candidates.domain describes
--   waiting_max      waiting candidates of one network; domain_max: waiting candidates of one domain;
--                    day_max: candidates of one network found within a day; domain_day_max: candidates of one
--                    domain found within a day. Networks are counted separately, so that candidates of a
--                    disabled network do not exclude others
-- Returns the outcome of each: new, known (a relay or a candidate already), dropped (given up within the last
-- 30 days), domain_full or full.
CREATE FUNCTION quipu_find_candidates(
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
COMMENT ON FUNCTION quipu_relay_state(integer, text) IS 'state of a relay by relay_log: when it was retired, and why it is refused if this source may not have a private address';
COMMENT ON FUNCTION quipu_ask_for(integer[]) IS 'records that the operator waits for these relays, so that they are dialled before other relays';
COMMENT ON FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer, integer) IS 'records new URLs that may be relays, within the limits; returns the outcome of each';
