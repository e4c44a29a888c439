-- Messages: limits on what one client can make grow. Devices are registered before they acknowledge, and
-- their number per wayfarer is limited. The number of tokens issued for proofs is limited per wayfarer. A
-- challenge can be answered once, and no process has to remember it.

-- Devices.
ALTER TABLE message_positions ADD COLUMN seen_at timestamptz NOT NULL DEFAULT clock_timestamp();
COMMENT ON COLUMN message_positions.seen_at IS 'when the device last sent a hello or requested messages, accurate to a day';
COMMENT ON TABLE message_positions IS 'working: the devices of each recipient, and the position from which each continues to read; without its row a device is registered again and skips everything that it has acknowledged before';

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

-- Tokens.
ALTER TABLE message_tokens ADD COLUMN challenge_sha256 bytea
    CONSTRAINT message_tokens_challenge_sha256 CHECK (octet_length(challenge_sha256) = 32);
COMMENT ON COLUMN message_tokens.challenge_sha256 IS 'SHA-256 of the answered challenge, which can be used once, when the token was created for a proof; NULL when the operator created it';
CREATE UNIQUE INDEX message_tokens_challenge ON message_tokens (challenge_sha256) WHERE challenge_sha256 IS NOT NULL;
