-- Values that third parties state are parsed when they are stored, into typed columns with limits; a value of
-- another type or out of range becomes NULL. The document itself is stored unchanged. Queries over many
-- relays read these columns and need no casts: one document with "max_limit": -1e19 made the query over all
-- relays fail. The generated columns need the two functions; their current text is in functions/relays.sql.

CREATE FUNCTION quipu_stated_integer(value jsonb, low bigint, high bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE WHEN value::numeric BETWEEN low AND high AND value::numeric = trunc(value::numeric) THEN value::numeric::bigint END
    END;

CREATE FUNCTION quipu_stated_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value) WHEN 'boolean' THEN value::boolean END;

-- Generated columns also cover existing rows, and an implementation's procedure cannot forget them.
ALTER TABLE nip11
    ADD COLUMN max_limit integer GENERATED ALWAYS AS
        (quipu_stated_integer(limitation -> 'max_limit', 1, 2147483647)::integer) STORED,
    ADD COLUMN auth_required boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'auth_required')) STORED,
    ADD COLUMN payment_required boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'payment_required')) STORED,
    ADD COLUMN restricted_writes boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'restricted_writes')) STORED,
    ADD COLUMN negentropy boolean GENERATED ALWAYS AS (supported_nips @> '77') STORED;
COMMENT ON COLUMN nip11.max_limit IS 'maximum number of events per filter that the relay states, from 1 to 2147483647; NULL when it states none or the value is out of range';
COMMENT ON COLUMN nip11.auth_required IS 'whether the relay states that it requires authentication (NIP-42); NULL when it does not';
COMMENT ON COLUMN nip11.payment_required IS 'whether the relay states that it requires payment; NULL when it states neither';
COMMENT ON COLUMN nip11.restricted_writes IS 'whether the relay states that it restricts writing; NULL when it states neither';
COMMENT ON COLUMN nip11.negentropy IS 'whether the relay lists NIP-77 (negentropy) as supported; NULL when it lists no NIPs';

-- A check that was not made has no result, so writable may be NULL.
ALTER TABLE nip66
    ALTER COLUMN writable DROP NOT NULL,
    ADD COLUMN auth text GENERATED ALWAYS AS
        (CASE WHEN detail ->> 'auth' IN ('not_required', 'accepted', 'refused') THEN detail ->> 'auth' END) STORED;
COMMENT ON COLUMN nip66.writable IS 'whether an event was accepted and could be read back; NULL when not tested. Rows from before V21 have false when not tested';
COMMENT ON COLUMN nip66.auth IS 'whether reading requires authentication (NIP-42): not_required, accepted or refused; NULL when unknown';
COMMENT ON COLUMN nip66.rtt_open IS 'milliseconds; NULL in rows since V10, because one result is shared by many snapshots: see relay_metadata.rtt_open';
COMMENT ON COLUMN nip66.rtt_read IS 'milliseconds; NULL in rows since V10: see relay_metadata.rtt_read';
COMMENT ON COLUMN nip66.rtt_write IS 'milliseconds; NULL in rows since V10: see relay_metadata.rtt_write';

CREATE OR REPLACE VIEW relay_metadata_latest AS
SELECT r.url AS relay_url, r.network, m.generated_at,
       m.nip11_id IS NOT NULL AS nip11_success, m.nip66_id IS NOT NULL AS nip66_success,
       n11.name, n11.description, n11.banner, n11.icon, n11.pubkey, n11.contact, n11.supported_nips, n11.software,
       n11.version, n11.privacy_policy, n11.terms_of_service, n11.limitation, n11.extra_fields,
       n66.openable, n66.readable, n66.writable,
       coalesce(m.rtt_open, n66.rtt_open) AS rtt_open, coalesce(m.rtt_read, n66.rtt_read) AS rtt_read,
       coalesce(m.rtt_write, n66.rtt_write) AS rtt_write,
       n66.detail,
       n11.max_limit, n11.auth_required, n11.payment_required, n11.restricted_writes, n11.negentropy, n66.auth
FROM relays r
CROSS JOIN LATERAL (SELECT * FROM relay_metadata m WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) m
LEFT JOIN nip11 n11 ON n11.id = m.nip11_id
LEFT JOIN nip66 n66 ON n66.id = m.nip66_id;
COMMENT ON VIEW relay_metadata_latest IS 'the newest snapshot of each relay, by one index lookup per relay; max_limit to negentropy are parsed from the document; detail has further checks by name and reasons of failures';
