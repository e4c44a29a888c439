-- Messages: devices that were not seen for 30 days are forgotten, also those of a recipient that no further device asks for. Every
-- proven key leaves a row for its device, so that without an end the table would grow with every key that is made.

CREATE INDEX message_positions_seen ON message_positions (seen_at);

-- Forgets up to `most` devices that were not seen for 30 days, and returns how many. Rows that are in use are left for the next call.
-- The bound is read off the index, which clock_timestamp(), being volatile, would not allow.
CREATE FUNCTION quipu_forget_message_devices(most integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE forgotten integer;
BEGIN
    DELETE FROM message_positions WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM message_positions p WHERE p.seen_at < statement_timestamp() - interval '30 days'
        ORDER BY p.seen_at LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;
COMMENT ON FUNCTION quipu_forget_message_devices(integer) IS 'Forgets devices of recipients that were not seen for 30 days; returns how many';
REVOKE ALL ON FUNCTION quipu_forget_message_devices(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_forget_message_devices(integer) TO quipu;
