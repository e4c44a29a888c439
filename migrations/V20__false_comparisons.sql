-- Relays that claimed in a comparison (NIP-77) to hold events that they did not show are read page by page from then on. Each visit looks
-- that up.
CREATE INDEX relay_log_false_comparison ON relay_log (relay, recorded_at)
    WHERE kind = 'observed' AND detail ->> 'what' = 'false_comparison';
