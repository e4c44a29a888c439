-- What third parties state is parsed when it is stored: into typed columns, bounded, NULL where it has another type or is out of
-- range. The document itself stays as it was given. Queries over many relays read these columns and cast nothing: one document
-- with "max_limit": -1e19 made the query over all relays fail.

CREATE FUNCTION quipu_stated_integer(value jsonb, low bigint, high bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE WHEN value::numeric BETWEEN low AND high AND value::numeric = trunc(value::numeric) THEN value::numeric::bigint END
    END;
COMMENT ON FUNCTION quipu_stated_integer(jsonb, bigint, bigint) IS 'the JSON value as an integer, if it is a whole number from low to high; NULL otherwise, for any JSON';

CREATE FUNCTION quipu_stated_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value) WHEN 'boolean' THEN value::boolean END;
COMMENT ON FUNCTION quipu_stated_boolean(jsonb) IS 'the JSON value as a boolean, if it is one; NULL otherwise, for any JSON';
GRANT EXECUTE ON FUNCTION quipu_stated_integer(jsonb, bigint, bigint), quipu_stated_boolean(jsonb) TO PUBLIC;

-- Generated columns also parse what is already stored, and cannot be forgotten by an implementation's procedure.
ALTER TABLE nip11
    ADD COLUMN max_limit integer GENERATED ALWAYS AS
        (quipu_stated_integer(limitation -> 'max_limit', 1, 2147483647)::integer) STORED,
    ADD COLUMN auth_required boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'auth_required')) STORED,
    ADD COLUMN payment_required boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'payment_required')) STORED,
    ADD COLUMN restricted_writes boolean GENERATED ALWAYS AS (quipu_stated_boolean(limitation -> 'restricted_writes')) STORED,
    ADD COLUMN negentropy boolean GENERATED ALWAYS AS (supported_nips @> '77') STORED;
COMMENT ON COLUMN nip11.max_limit IS 'most events the relay says it returns for one filter, from 1 to 2147483647; NULL when it does not say or what it says is out of range';
COMMENT ON COLUMN nip11.auth_required IS 'whether the relay says that it requires authentication (NIP-42); NULL when it does not say';
COMMENT ON COLUMN nip11.payment_required IS 'whether the relay says that it requires payment; NULL when it does not say';
COMMENT ON COLUMN nip11.restricted_writes IS 'whether the relay says that it restricts who may write; NULL when it does not say';
COMMENT ON COLUMN nip11.negentropy IS 'whether the relay lists NIP-77 (negentropy) as supported; NULL when it lists nothing';

-- A check that was not made has no result.
ALTER TABLE nip66
    ALTER COLUMN writable DROP NOT NULL,
    ADD COLUMN auth text GENERATED ALWAYS AS
        (CASE WHEN detail ->> 'auth' IN ('not_required', 'accepted', 'refused') THEN detail ->> 'auth' END) STORED;
COMMENT ON COLUMN nip66.writable IS 'whether an event was accepted and could be read back; NULL when this was not tested. Rows from before V21 have false there';
COMMENT ON COLUMN nip66.auth IS 'whether reading needs a key (NIP-42): not_required, accepted or refused; NULL when this is not known';
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
COMMENT ON VIEW relay_metadata_latest IS 'the newest snapshot of each relay, one index probe a relay; max_limit to negentropy are parsed from the document, detail holds further checks by name, and reasons of failures';
