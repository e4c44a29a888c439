-- Analysts (quipu_reader) and the console read the view of all journals. For messages and tokens it shows
-- only that an entry exists, not whom or what it concerns. quipu_messages_reader reads the full entries in
-- message_log and message_tokens.

CREATE OR REPLACE VIEW journal AS
SELECT position, xid, recorded_at, 'archive' AS room, 'ingested' AS kind, batch::text AS subject,
       jsonb_build_object('source', source, 'offered', offered, 'stored', stored, 'sighted', sighted, 'refused', refused) AS detail
FROM ingest_log
UNION ALL
SELECT l.position, l.xid, l.recorded_at, 'archive', 'relay_' || l.kind, coalesce(l.url, r.url, l.relay::text), l.detail
FROM relay_log l LEFT JOIN relays r ON r.number = l.relay
UNION ALL
SELECT s.position, s.xid, s.recorded_at, 'archive', 'window_' || s.outcome, coalesce(r.url, s.relay::text),
       s.detail || jsonb_build_object('since', s.since, 'until', s.until, 'events', s.events, 'requests', s.requests)
FROM sync_log s LEFT JOIN relays r ON r.number = s.relay
UNION ALL
SELECT position, xid, recorded_at, 'archive', 'relay_checked', relay_url,
       jsonb_build_object('generated_at', generated_at, 'nip11', nip11_id IS NOT NULL, 'nip66', nip66_id IS NOT NULL)
FROM relay_metadata
UNION ALL
SELECT position, xid, recorded_at, 'store', 'erased_' || kind,
       coalesce(encode(event_id, 'hex'), encode(pubkey, 'hex'), month::text), detail || jsonb_build_object('reason', reason)
FROM erasure
UNION ALL
SELECT position, xid, recorded_at, 'store', 'implementation_applied', name, jsonb_build_object('sha256', encode(procedures_sha256, 'hex'))
FROM implementation_log
UNION ALL
SELECT position, xid, recorded_at, 'messages', 'message_' || kind, NULL::text, '{}'::jsonb
FROM message_log
UNION ALL
SELECT position, xid, recorded_at, 'messages', 'token_' || kind, NULL::text, '{}'::jsonb
FROM message_tokens;
COMMENT ON VIEW journal IS 'every entry of every journal: position, time, room, kind, subject and details; of messages and tokens only that an entry exists';
