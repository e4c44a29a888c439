-- The newest message of a recipient, found at the end of his part of the index; and which binaries can write messages.

-- V14 changed the arguments of quipu_append_messages.
CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 14';

-- Position of the newest message a recipient was ever sent, NULL for none.
CREATE FUNCTION quipu_newest_message(of text) RETURNS bigint
-- As long as the statistics are those of an empty table, all he was ever sent looks like a few rows to be read and sorted.
LANGUAGE plpgsql STABLE SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT m.position FROM message_log m
            WHERE hashtextextended(m.recipient, 0) = hashtextextended(of, 0) AND m.recipient = of
            ORDER BY m.position DESC LIMIT 1);
END $$;
GRANT EXECUTE ON FUNCTION quipu_newest_message(text) TO quipu;

-- Where devices go on reading: moves each position up to the first message that is neither acknowledged nor expired.
CREATE OR REPLACE FUNCTION quipu_move_message_positions(recipients text[], devices text[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO message_positions AS p (recipient, device, position)
    SELECT d.recipient, d.device, coalesce(
        (SELECT l.position - 1 FROM message_log l
         WHERE hashtextextended(l.recipient, 0) = hashtextextended(d.recipient, 0) AND l.recipient = d.recipient
           AND l.position > coalesce(o.position, 0) AND l.expires_at > clock_timestamp()
           AND (SELECT a.position FROM message_log a
                WHERE a.message = l.position AND a.device = d.device AND a.kind = 'acknowledged' LIMIT 1) IS NULL
         ORDER BY l.position LIMIT 1),
        t.top)
    FROM (SELECT DISTINCT * FROM unnest(recipients, devices) AS d (recipient, device) ORDER BY 1, 2) d
    CROSS JOIN LATERAL quipu_newest_message(d.recipient) AS t (top)
    LEFT JOIN message_positions o USING (recipient, device)
    WHERE t.top IS NOT NULL
    ORDER BY d.recipient, d.device
    ON CONFLICT (recipient, device) DO UPDATE SET position = excluded.position WHERE p.position < excluded.position
$$;
