-- The monitor's snapshots: a batch of them has an identity, and what differs from check to check stands beside the result.

-- A result of checks (nip66) is stored once under the hash of its content. Round-trip times and the rest of a cache's time to
-- live are new every time: inside that content they made every result a new one. They belong to the snapshot.
-- nip66 keeps its public columns, and what older rows hold in them is still shown; new rows leave them NULL.
ALTER TABLE relay_metadata
    ADD COLUMN batch     uuid,
    ADD COLUMN slot      integer,
    ADD COLUMN rtt_open  integer,
    ADD COLUMN rtt_read  integer,
    ADD COLUMN rtt_write integer,
    ADD COLUMN dns_ttl   integer;
COMMENT ON COLUMN relay_metadata.batch IS 'the group commit that wrote the row, looked up before it is ever sent again; NULL before V10';
COMMENT ON COLUMN relay_metadata.slot IS 'place of the snapshot in its batch, from 0; NULL before V10';
COMMENT ON COLUMN relay_metadata.rtt_open IS 'milliseconds until the WebSocket was open, NULL when it was not';
COMMENT ON COLUMN relay_metadata.rtt_read IS 'milliseconds until a REQ was answered, NULL when it was not';
COMMENT ON COLUMN relay_metadata.rtt_write IS 'milliseconds until an event was accepted, NULL when it was not or the check was not made';
COMMENT ON COLUMN relay_metadata.dns_ttl IS 'seconds for which the answer to the name was still to be kept, NULL where no name was asked for';
COMMENT ON COLUMN nip66.id IS 'SHA-256 of the canonical JSON of the result without times, 32 bytes';
COMMENT ON COLUMN nip66.rtt_open IS 'milliseconds; rows since V10 have it in relay_metadata, where it differs from snapshot to snapshot';
COMMENT ON COLUMN nip66.rtt_read IS 'milliseconds; rows since V10 have it in relay_metadata';
COMMENT ON COLUMN nip66.rtt_write IS 'milliseconds; rows since V10 have it in relay_metadata';
-- A batch cannot be committed twice: one index entry a batch is enough for that.
CREATE UNIQUE INDEX relay_metadata_batch ON relay_metadata (batch) WHERE slot = 0;

-- The procedure now takes the identity first; the one without it would stay beside it.
DROP FUNCTION IF EXISTS insert_relay_metadata_batch(text[], bigint[], jsonb[], jsonb[]);

CREATE OR REPLACE VIEW relay_metadata_latest AS
SELECT r.url AS relay_url, r.network, m.generated_at,
       m.nip11_id IS NOT NULL AS nip11_success, m.nip66_id IS NOT NULL AS nip66_success,
       n11.name, n11.description, n11.banner, n11.icon, n11.pubkey, n11.contact, n11.supported_nips, n11.software,
       n11.version, n11.privacy_policy, n11.terms_of_service, n11.limitation, n11.extra_fields,
       n66.openable, n66.readable, n66.writable,
       coalesce(m.rtt_open, n66.rtt_open) AS rtt_open, coalesce(m.rtt_read, n66.rtt_read) AS rtt_read,
       coalesce(m.rtt_write, n66.rtt_write) AS rtt_write,
       n66.detail
FROM relays r
CROSS JOIN LATERAL (SELECT * FROM relay_metadata m WHERE m.relay_url = r.url ORDER BY m.generated_at DESC, m.position DESC LIMIT 1) m
LEFT JOIN nip11 n11 ON n11.id = m.nip11_id
LEFT JOIN nip66 n66 ON n66.id = m.nip66_id;
COMMENT ON VIEW relay_metadata_latest IS 'the newest snapshot of each relay, one index probe a relay; detail holds further checks by name, and reasons of failures';
