//! The schema of BigBrotr 6.6.9, as far as the benches need it. Its package contains no schema.

/// The tables of events: 16 hash partitions by id; indexes on (time, id), (kind, time), (key, time), (key,
/// kind, time) and tag values; content and tags compressed with lz4; tag values never NULL.
pub(crate) const EVENTS: &str = "
    CREATE TABLE event (
        id bytea PRIMARY KEY, pubkey bytea NOT NULL, created_at bigint NOT NULL, kind integer NOT NULL, tags jsonb NOT NULL,
        tagvalues text[] NOT NULL, content text NOT NULL, sig bytea NOT NULL) PARTITION BY HASH (id);
    ALTER TABLE event ALTER COLUMN content SET COMPRESSION lz4, ALTER COLUMN tags SET COMPRESSION lz4;
    DO $$ BEGIN
        FOR n IN 0..15 LOOP
            EXECUTE format('CREATE TABLE event_%s PARTITION OF event FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n);
        END LOOP;
    END $$;
    CREATE INDEX ON event (created_at DESC, id DESC);
    CREATE INDEX ON event (kind, created_at DESC);
    CREATE INDEX ON event (pubkey, created_at DESC);
    CREATE INDEX ON event (pubkey, kind, created_at DESC);
    CREATE INDEX ON event USING gin (tagvalues);";

/// Further tables that its synchronizer needs: relays, sightings in 16 hash partitions by event id, the state
/// of services, and the two functions that it calls.
pub(crate) const SYNCHRONIZER: &str = "
    CREATE TABLE relay (url text PRIMARY KEY, network text NOT NULL, discovered_at bigint NOT NULL);
    CREATE TABLE event_relay (
        event_id bytea NOT NULL REFERENCES event ON DELETE CASCADE, relay_url text NOT NULL REFERENCES relay ON DELETE CASCADE,
        seen_at bigint NOT NULL, PRIMARY KEY (event_id, relay_url)) PARTITION BY HASH (event_id);
    DO $$ BEGIN
        FOR n IN 0..15 LOOP
            EXECUTE format(
                'CREATE TABLE event_relay_%s PARTITION OF event_relay FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n);
        END LOOP;
    END $$;
    CREATE INDEX ON event_relay (seen_at DESC);
    CREATE INDEX ON event_relay (relay_url, seen_at, event_id);
    CREATE TABLE service_state (
        service_name text, state_type text, state_key text, state_value jsonb NOT NULL,
        PRIMARY KEY (service_name, state_type, state_key));

    CREATE FUNCTION event_relay_insert_cascade(
        ids bytea[], pubkeys bytea[], created_ats bigint[], kinds integer[], tags jsonb[], contents text[], sigs bytea[],
        urls text[], networks text[], discovered_ats bigint[], seen_ats bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
    DECLARE
        fresh integer;
    BEGIN
        INSERT INTO relay SELECT * FROM unnest(urls, networks, discovered_ats) ON CONFLICT DO NOTHING;
        INSERT INTO event
        SELECT id, pubkey, created_at, kind, o.tags,
               (SELECT coalesce(array_agg((t ->> 0) || ':' || (t ->> 1)), '{}')
                FROM jsonb_array_elements(o.tags) t WHERE length(t ->> 0) = 1),
               content, sig
        FROM unnest(ids, pubkeys, created_ats, kinds, tags, contents, sigs)
             AS o (id, pubkey, created_at, kind, tags, content, sig)
        ON CONFLICT DO NOTHING;
        INSERT INTO event_relay
        SELECT DISTINCT ON (id, url) id, url, seen_at FROM unnest(ids, urls, seen_ats) AS o (id, url, seen_at)
        ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS fresh = ROW_COUNT;
        RETURN fresh;
    END $$;

    CREATE FUNCTION service_state_upsert(services text[], types text[], keys text[], \"values\" jsonb[]) RETURNS integer
    LANGUAGE plpgsql AS $$
    DECLARE
        changed integer;
    BEGIN
        INSERT INTO service_state
        SELECT DISTINCT ON (service, type, key) service, type, key, value
        FROM unnest(services, types, keys, \"values\") AS o (service, type, key, value)
        ON CONFLICT (service_name, state_type, state_key) DO UPDATE SET state_value = excluded.state_value;
        GET DIAGNOSTICS changed = ROW_COUNT;
        RETURN changed;
    END $$;";
