-- LilBrotr stores key, time and kind of each event, but neither tags nor content: for small machines.
-- Every implementation has insert_event_batch with this signature; the archive's append calls it. The other
-- procedures are in migrations/functions/procedures.sql.

CREATE INDEX IF NOT EXISTS events_pubkey ON events (pubkey, created_at);

-- Stores a batch of verified events and their sightings, as one entry of ingest_log. Skips events that are
-- stored already or excluded by an erasure.
--   command            id of this batch: a second call with the same id fails on ingest_log_command
--   source, refused    as in ingest_log
--   ids … raws         one element per event, at most 16384; tags are read only for vanish requests, contents
--                      and raws never
--   seen_…             one element per sighting of one of these events: its place (from 0) and relays.number
--   known_…            one element per sighting of an event that is stored already: events.number,
--                      created_at, relays.number, and whether it was learnt by comparing ids (NIP-77) instead
--                      of receiving the event
--   known_as_of        greatest erasure.position at the lookup of the known events; 0 for none
-- Returns the places (from 0) of the new events, the number of new sightings, and the last slot drawn (NULL
-- for none). A batch that changes nothing is not recorded.
CREATE OR REPLACE FUNCTION insert_event_batch(
    command uuid, source text, refused jsonb,
    ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags text[], contents text[], sigs bytea[], raws bytea[],
    seen_places integer[], seen_relays integer[],
    known_numbers bigint[], known_created_ats bigint[], known_relays integer[], known_compared boolean[], known_as_of bigint,
    OUT stored_places integer[], OUT sighted integer, OUT newest_slot bigint)
LANGUAGE plpgsql AS $$
DECLARE
    kept_away integer[] := quipu_open_batch(ids, pubkeys, created_ats, kinds);
    -- The slot of the first event. The slots of the other events follow in the order given.
    first bigint;
    month bigint;
    oldest bigint; newest bigint;
    numbers bigint[];
BEGIN
    -- A relay that sends only stored events adds only sightings.
    IF cardinality(ids) > cardinality(kept_away) THEN
        first := quipu_draw_slots(cardinality(ids));
        -- Most batches lie in one month, which is then computed once.
        SELECT CASE WHEN quipu_month_number(min(c)) = quipu_month_number(max(c)) THEN quipu_month_number(min(c)) END
        INTO month FROM unnest(created_ats) c;

        WITH fresh AS (
            INSERT INTO events (created_at, number, kind, id, pubkey, sig)
            SELECT o.created_at, (coalesce(month, quipu_month_number(o.created_at)) << 45) | (first + o.place - 1), o.kind, o.id, o.pubkey, o.sig
            FROM unnest(ids, pubkeys, created_ats, kinds, sigs) WITH ORDINALITY AS o (id, pubkey, created_at, kind, sig, place)
            WHERE o.place - 1 <> ALL (kept_away)
            ORDER BY o.created_at, o.id
            ON CONFLICT DO NOTHING
            RETURNING number, created_at)
        SELECT array_agg((quipu_event_slot(f.number) - first)::integer ORDER BY quipu_event_slot(f.number)),
               min(f.created_at), max(f.created_at), array_agg(f.number)
        INTO stored_places, oldest, newest, numbers FROM fresh f;
        newest_slot := first + cardinality(ids) - 1;

        -- Deletions and expirations need tags, which are not stored here; no event of this implementation is
        -- shown to the public.
        PERFORM quipu_record_vanishing(first, numbers, ids, pubkeys, created_ats, kinds, tags);
    END IF;
    sighted := quipu_close_batch(first, command, source, refused, ids, created_ats, kinds, numbers, oldest, newest,
                                 seen_places, seen_relays, known_numbers, known_created_ats, known_relays,
                                 known_compared, known_as_of);
END $$;
COMMENT ON FUNCTION insert_event_batch IS
    'stores a batch of events that the service has verified, with their sightings; does not check its arguments, so only the service may call it';
