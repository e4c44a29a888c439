-- Messages: devices that were not seen for 30 days are deleted, even when no other device of their recipient
-- registers. Every proven key leaves a row for its device, so without a limit the table would grow with every
-- generated key.

CREATE INDEX message_positions_seen ON message_positions (seen_at);
