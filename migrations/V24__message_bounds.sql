-- Messages: limits on what one client can make grow. Devices are registered before they acknowledge, and
-- their number per wayfarer is limited. The number of tokens issued for proofs is limited per wayfarer. A
-- challenge can be answered once, and no process has to remember it.

-- Devices.
ALTER TABLE message_positions ADD COLUMN seen_at timestamptz NOT NULL DEFAULT clock_timestamp();
COMMENT ON COLUMN message_positions.seen_at IS 'when the device last sent a hello or requested messages, accurate to a day';
COMMENT ON TABLE message_positions IS 'working: the devices of each recipient, and the position from which each continues to read; without its row a device is registered again and skips everything that it has acknowledged before';

-- Registers a device of a recipient, or updates when it was seen. Returns its read position, or NULL when the
-- recipient has `most` other devices that were seen within 30 days. Deletes devices that were not.
CREATE FUNCTION quipu_show_message_device(of text, shown text, most integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE place bigint;
BEGIN
    -- Two devices that register at once are counted one after the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/device/' || of, 0));
    UPDATE message_positions SET seen_at = clock_timestamp() WHERE recipient = of AND device = shown RETURNING position INTO place;
    IF place IS NOT NULL THEN
        RETURN place;
    END IF;
    DELETE FROM message_positions WHERE recipient = of AND seen_at < clock_timestamp() - interval '30 days';
    IF (SELECT count(*) FROM message_positions WHERE recipient = of) >= most THEN
        RETURN NULL;
    END IF;
    INSERT INTO message_positions AS p (recipient, device, position) VALUES (of, shown, 0)
    ON CONFLICT (recipient, device) DO UPDATE SET seen_at = excluded.seen_at RETURNING p.position INTO place;
    RETURN place;
END $$;
COMMENT ON FUNCTION quipu_show_message_device(text, text, integer) IS 'registers a device of a recipient; returns its read position, NULL when the recipient has too many devices';
REVOKE ALL ON FUNCTION quipu_show_message_device(text, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_show_message_device(text, text, integer) TO quipu;

-- Challenges.
CREATE TABLE message_challenge_key (
    is_only boolean     PRIMARY KEY DEFAULT true CONSTRAINT message_challenge_key_only CHECK (is_only),
    key     bytea       NOT NULL CONSTRAINT message_challenge_key_key CHECK (octet_length(key) = 32),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE message_challenge_key IS 'working: the secret with which all processes make and check challenges; when it is missing, a new one is generated, and clients with an unanswered challenge need a new one';
COMMENT ON COLUMN message_challenge_key.is_only IS 'always true, so that there is only one row';
COMMENT ON COLUMN message_challenge_key.key IS 'HMAC-SHA-256 key, 32 random bytes; secret';
COMMENT ON COLUMN message_challenge_key.made_at IS 'database clock';
GRANT SELECT, INSERT, UPDATE, DELETE ON message_challenge_key TO quipu;

-- The stored key; stores `drawn` as the key if there is none.
CREATE FUNCTION quipu_message_challenge_key(drawn bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE known bytea;
BEGIN
    SELECT k.key INTO known FROM message_challenge_key k;
    IF known IS NULL THEN
        INSERT INTO message_challenge_key (key) VALUES (drawn) ON CONFLICT DO NOTHING;
        SELECT k.key INTO known FROM message_challenge_key k;
    END IF;
    RETURN known;
END $$;
COMMENT ON FUNCTION quipu_message_challenge_key(bytea) IS 'the secret with which challenges are made and checked; stores the argument if there is none';
REVOKE ALL ON FUNCTION quipu_message_challenge_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_message_challenge_key(bytea) TO quipu;

-- Tokens.
ALTER TABLE message_tokens ADD COLUMN challenge_sha256 bytea
    CONSTRAINT message_tokens_challenge_sha256 CHECK (octet_length(challenge_sha256) = 32);
COMMENT ON COLUMN message_tokens.challenge_sha256 IS 'SHA-256 of the answered challenge, which can be used once, when the token was created for a proof; NULL when the operator created it';
CREATE UNIQUE INDEX message_tokens_challenge ON message_tokens (challenge_sha256) WHERE challenge_sha256 IS NOT NULL;

-- Creates tokens; may be sent again. challenges: hash of the answered challenge, NULL for a token of the
-- operator; mosts: limit on a wayfarer's valid tokens for proofs. Returns a row per token: its place from 0,
-- and recorded, used (the challenge was answered before) or over (the wayfarer has reached the limit).
CREATE FUNCTION quipu_create_message_tokens(
    tokens bytea[], wayfarers text[], devices text[], labels text[], lives bigint[], challenges bytea[], mosts integer[])
RETURNS TABLE (place integer, status text) LANGUAGE plpgsql AS $$
BEGIN
    -- Locks taken in one order, so that simultaneous proofs of one wayfarer are counted one after the other.
    PERFORM pg_advisory_xact_lock(k.key)
    FROM (SELECT DISTINCT hashtextextended('quipu/token/' || o.wayfarer, 0) AS key
          FROM unnest(wayfarers, challenges) AS o (wayfarer, challenge) WHERE o.challenge IS NOT NULL ORDER BY 1) k;
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT o.*, row_number() OVER (PARTITION BY o.wayfarer, o.challenge IS NULL ORDER BY o.nth) + l.live > o.most AS is_over, l.is_there
        FROM unnest(tokens, wayfarers, devices, labels, lives, challenges, mosts)
             WITH ORDINALITY AS o (token, wayfarer, device, label, life, challenge, most, nth)
        CROSS JOIN LATERAL (
            SELECT (SELECT count(*) FROM message_tokens t
                    WHERE o.challenge IS NOT NULL AND t.wayfarer_id = o.wayfarer AND t.kind = 'created' AND t.challenge_sha256 IS NOT NULL
                      AND t.expires_at > clock_timestamp()
                      AND NOT EXISTS (SELECT FROM message_tokens r WHERE r.token_sha256 = t.token_sha256 AND r.kind = 'revoked')) AS live,
                   EXISTS (SELECT FROM message_tokens t WHERE t.token_sha256 = o.token AND t.kind = 'created') AS is_there) l),
    made AS (
        INSERT INTO message_tokens AS m (kind, token_sha256, wayfarer_id, device, label, expires_at, challenge_sha256)
        SELECT 'created', a.token, a.wayfarer, a.device, a.label, clock_timestamp() + make_interval(secs => a.life), a.challenge
        FROM asked a WHERE a.challenge IS NULL OR NOT a.is_over
        ORDER BY a.token
        ON CONFLICT DO NOTHING
        RETURNING m.token_sha256)
    SELECT (a.nth - 1)::integer,
           CASE WHEN a.is_there OR EXISTS (SELECT FROM made m WHERE m.token_sha256 = a.token) THEN 'recorded'
                WHEN a.challenge IS NOT NULL AND a.is_over THEN 'over' ELSE 'used' END
    FROM asked a;
END $$;
COMMENT ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) IS 'creates bearer tokens for messages; tokens for proofs within the limit and once per challenge';
REVOKE ALL ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_create_message_tokens(bytea[], text[], text[], text[], bigint[], bytea[], integer[]) TO quipu;
