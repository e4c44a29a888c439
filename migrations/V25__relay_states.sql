-- Only the operator can allow private addresses; refused relays are recorded with their reason; a retired
-- relay can be restored; the operator's relays are dialled first; candidates are limited per registrable
-- domain.

-- quipu_find_candidates has new arguments.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 25';

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

-- The domain of a candidate that was stored before this migration: the last two labels of its host, or the
-- host itself if it is an address (current text: functions/relays.sql). It may be wider than the registrable domain (co.uk), never narrower.
CREATE FUNCTION quipu_wide_domain(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN quipu_relay_host(url) ~ '^(\[|[0-9.]*$)' THEN quipu_relay_host(url)
         ELSE substring(quipu_relay_host(url) FROM '(?:[^.]*\.)?[^.]*$') END;

ALTER TABLE candidates ADD COLUMN domain text;
UPDATE candidates SET domain = quipu_wide_domain(url);
ALTER TABLE candidates ALTER COLUMN domain SET NOT NULL;
COMMENT ON COLUMN candidates.domain IS 'the registrable domain of its host by the public suffix list; the /24 or /48 network of an address; the host of a hidden service';
DROP INDEX candidates_host;
CREATE INDEX candidates_domain ON candidates (domain);
CREATE INDEX relay_log_found_domain ON relay_log ((detail ->> 'domain'), recorded_at) WHERE kind = 'found';
COMMENT ON COLUMN relay_log.detail IS 'further fields; added, named: {"source": …}, retired, restored, refused: {"reason": …}, observed: {"what": …, …}, found: {"source": "event" or "list", "domain": …, …}, dropped: {"reason": …, "tries": …}';

DROP FUNCTION quipu_find_candidates(uuid, integer[], text[], text[], jsonb[], integer, integer, integer);
