-- Messages: devices that were not seen for 30 days are deleted, even when no other device of their recipient
-- registers. Every proven key leaves a row for its device, so without a limit the table would grow with every
-- generated key.

CREATE INDEX message_positions_seen ON message_positions (seen_at);

-- Deletes up to `most` devices that were not seen for 30 days, and returns their number. Rows that are locked
-- are left for the next call. statement_timestamp() lets the index serve the condition; clock_timestamp() is
-- volatile and would not.
CREATE FUNCTION quipu_forget_message_devices(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE forgotten integer;
BEGIN
    DELETE FROM message_positions WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM message_positions p WHERE p.seen_at < statement_timestamp() - interval '30 days'
        ORDER BY p.seen_at LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION quipu_forget_message_devices(integer) IS 'deletes devices that were not seen for 30 days; returns their number';
REVOKE ALL ON FUNCTION quipu_forget_message_devices(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_forget_message_devices(integer) TO quipu;
