-- Relays that somebody named and nobody has looked at yet: found in events and lists, waiting until they prove to be relays.

-- Who made a relay known decides whether its address may be private.
ALTER TABLE relays ADD COLUMN source text;
COMMENT ON COLUMN relays.source IS 'who made it known: seed or operator (as is NULL, from before this was kept) may name a private address; whoever else cannot. A relay that was discovered becomes named when one of these two names it as well';
UPDATE relays r SET source = a.detail ->> 'source' FROM relay_log a WHERE a.relay = r.number AND a.kind = 'added';

-- Whether a source is somebody who may name private addresses.
CREATE FUNCTION quipu_is_named(source text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    source IS NULL OR source IN ('seed', 'operator');
GRANT EXECUTE ON FUNCTION quipu_is_named(text) TO PUBLIC;

-- A candidate has no number: it is no relay yet.
ALTER TABLE relay_log ALTER COLUMN relay DROP NOT NULL;
ALTER TABLE relay_log
    DROP CONSTRAINT relay_log_kind,
    DROP CONSTRAINT relay_log_url,
    DROP CONSTRAINT relay_log_network,
    ADD CONSTRAINT relay_log_kind CHECK (kind IN ('added', 'named', 'retired', 'observed', 'found', 'dropped')),
    ADD CONSTRAINT relay_log_relay CHECK ((relay IS NULL) = (kind IN ('found', 'dropped'))),
    ADD CONSTRAINT relay_log_url CHECK ((url IS NOT NULL) = (kind IN ('added', 'found', 'dropped'))),
    ADD CONSTRAINT relay_log_network CHECK ((network IS NOT NULL) = (kind IN ('added', 'found')));
COMMENT ON TABLE relay_log IS 'journal: what happened to each relay we know of, and to each URL that might be one';
COMMENT ON COLUMN relay_log.slot IS 'place in its batch, from 0: among the additions, among the candidates, or among all other commands';
COMMENT ON COLUMN relay_log.relay IS 'relays.number; NULL for a candidate (found, dropped)';
COMMENT ON COLUMN relay_log.kind IS 'added: known from here on. named: an operator or a seed names a relay that was discovered before. retired: no longer crawled. observed: something a session with it showed (detail.what). found: somebody names a URL that is no known relay. dropped: such a candidate was given up';
COMMENT ON COLUMN relay_log.url IS 'canonical URL, on added, found and dropped rows';
COMMENT ON COLUMN relay_log.network IS 'clearnet, tor, i2p or loki, on added and found rows';
COMMENT ON COLUMN relay_log.detail IS 'the rest of the fact; added, named: {"source": …}, observed: {"what": …, …}, found: {"source": "event" or "list", …}, dropped: {"reason": …, "tries": …}';

-- A batch cannot be committed twice. What stands in one statement's answer shares an index.
DROP INDEX relay_log_added, relay_log_batch;
CREATE UNIQUE INDEX relay_log_added ON relay_log (batch, slot) WHERE kind IN ('added', 'named');
CREATE UNIQUE INDEX relay_log_candidates ON relay_log (batch, slot) WHERE kind IN ('found', 'dropped');
CREATE UNIQUE INDEX relay_log_batch ON relay_log (batch) WHERE kind IN ('retired', 'observed') AND slot = 0;
CREATE INDEX relay_log_named ON relay_log (relay) WHERE kind = 'named';
CREATE INDEX relay_log_dropped ON relay_log (url, recorded_at) WHERE kind = 'dropped';
CREATE INDEX relay_log_found ON relay_log (recorded_at) WHERE kind = 'found';

-- The host of a canonical URL, for the bound of candidates a host.
CREATE FUNCTION quipu_relay_host(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    substring(url FROM '^wss?://(\[[^\]]*\]|[^:/?]*)');
GRANT EXECUTE ON FUNCTION quipu_relay_host(text) TO PUBLIC;

CREATE TABLE candidates (
    url      text        PRIMARY KEY,
    network  text        NOT NULL,
    found_at timestamptz NOT NULL,
    source   text        NOT NULL
);
COMMENT ON TABLE candidates IS 'projection of relay_log, kept in the same commit: URLs that somebody named and that are neither known relays nor given up';
COMMENT ON COLUMN candidates.url IS 'canonical URL';
COMMENT ON COLUMN candidates.network IS 'clearnet, tor, i2p or loki';
COMMENT ON COLUMN candidates.found_at IS 'when it was found, database clock';
COMMENT ON COLUMN candidates.source IS 'where: event or list';
CREATE INDEX candidates_host ON candidates (quipu_relay_host(url));
SELECT quipu_make_changeable('candidates');

CREATE TABLE candidate_tries (
    url         text        PRIMARY KEY,
    tries       integer     NOT NULL,
    next_try_at timestamptz NOT NULL,
    last_reason text        NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE candidate_tries IS 'working: how often a candidate has failed to prove a relay, and when it is tried again; a missing row means now';
COMMENT ON COLUMN candidate_tries.url IS 'candidates.url';
COMMENT ON COLUMN candidate_tries.tries IS 'how often it was tried in vain';
COMMENT ON COLUMN candidate_tries.next_try_at IS 'database clock; not before';
COMMENT ON COLUMN candidate_tries.last_reason IS 'why the last try failed, in one word';
SELECT quipu_make_changeable('candidate_tries');

CREATE TABLE list_fetches (
    url        text        PRIMARY KEY,
    fetched_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE list_fetches IS 'working: when each list of relays was last asked for, so that a restart does not ask again';
COMMENT ON COLUMN list_fetches.url IS 'where the list is, as configured';
COMMENT ON COLUMN list_fetches.fetched_at IS 'database clock, written before it is asked for';
SELECT quipu_make_changeable('list_fetches');

-- A reader that takes long over what lies between two ticks goes on where it stopped: the batches between two snapshots are
-- a closed set, so a place in it is enough.
CREATE TABLE reading (
    consumer   text        PRIMARY KEY,
    last       pg_snapshot,
    this       pg_snapshot NOT NULL,
    batch      integer     NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE reading IS 'working: how far each consumer of ingest_log has read, in steps; a missing row means from the start';
COMMENT ON COLUMN reading.consumer IS 'the service that reads';
COMMENT ON COLUMN reading.last IS 'what this snapshot sees was read before; NULL for nothing';
COMMENT ON COLUMN reading.this IS 'what this snapshot sees, and the last one did not, is being read';
COMMENT ON COLUMN reading.batch IS 'ingest_log.batch up to which that is done, ascending';
COMMENT ON COLUMN reading.updated_at IS 'database clock';
SELECT quipu_make_changeable('reading');

-- Whoever changes which URLs are candidates or relays does so alone, until its commit: so that the order of positions is the
-- order of commits for each URL, and a replay of relay_log gives the very same candidates.
CREATE FUNCTION quipu_lock_candidates() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('quipu/candidates', 0))
$$;

-- Records URLs that somebody named, as far as they are news and there is room for them.
--   urls               canonical, no one twice
--   waiting_max        most candidates that wait; host_max: of one host; day_max: most that are found within a day
-- Returns for each what became of it: new, known (a relay or a candidate already), dropped (given up within the last 30 days),
-- host_full or full.
CREATE FUNCTION quipu_find_candidates(
    batch uuid, slots integer[], urls text[], networks text[], details jsonb[],
    waiting_max integer, host_max integer, day_max integer, OUT outcomes text[])
LANGUAGE plpgsql AS $$
DECLARE at timestamptz; room bigint;
BEGIN
    PERFORM quipu_lock_candidates();
    at := clock_timestamp();
    SELECT least(waiting_max - (SELECT count(*) FROM candidates),
                 day_max - (SELECT count(*) FROM relay_log l WHERE l.kind = 'found' AND l.recorded_at > at - interval '1 day'))
    INTO room;
    WITH offered AS (
        SELECT o.slot, o.url, o.network, o.detail, quipu_relay_host(o.url) AS host,
               CASE WHEN EXISTS (SELECT FROM relays r WHERE r.url = o.url) OR EXISTS (SELECT FROM candidates c WHERE c.url = o.url)
                    THEN 'known'
                    WHEN EXISTS (SELECT FROM relay_log l WHERE l.kind = 'dropped' AND l.url = o.url AND l.recorded_at > at - interval '30 days')
                    THEN 'dropped' END AS refused
        FROM unnest(slots, urls, networks, details) AS o (slot, url, network, detail)),
    of_hosts AS (
        SELECT o.slot, o.url, o.network, o.detail,
               CASE WHEN o.refused IS NOT NULL THEN o.refused
                    WHEN row_number() OVER (PARTITION BY o.host, o.refused IS NULL ORDER BY o.slot)
                         + (SELECT count(*) FROM candidates c WHERE quipu_relay_host(c.url) = o.host) > host_max
                    THEN 'host_full' END AS refused
        FROM offered o),
    judged AS MATERIALIZED (
        SELECT o.slot, o.url, o.network, o.detail,
               CASE WHEN o.refused IS NOT NULL THEN o.refused
                    WHEN row_number() OVER (PARTITION BY o.refused IS NULL ORDER BY o.slot) > room THEN 'full'
                    ELSE 'new' END AS outcome
        FROM of_hosts o),
    waiting AS (
        INSERT INTO candidates (url, network, found_at, source)
        SELECT j.url, j.network, at, j.detail ->> 'source' FROM judged j WHERE j.outcome = 'new' ORDER BY j.url),
    logged AS (
        INSERT INTO relay_log (recorded_at, batch, slot, kind, url, network, detail)
        SELECT at, quipu_find_candidates.batch, j.slot, 'found', j.url, j.network, j.detail
        FROM judged j WHERE j.outcome = 'new' ORDER BY j.slot)
    SELECT array_agg(j.outcome ORDER BY j.slot) INTO outcomes FROM judged j;
END $$;

-- Gives candidates up. One that is none any more is passed over.
CREATE FUNCTION quipu_drop_candidates(batch uuid, slots integer[], urls text[], details jsonb[])
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
