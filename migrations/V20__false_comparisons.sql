-- Finds relays that claimed in a comparison (NIP-77) to hold events that they then did not send. Quipu reads
-- such relays page by page. Each visit runs this lookup.
CREATE INDEX relay_log_false_comparison ON relay_log (relay, recorded_at)
    WHERE kind = 'observed' AND detail ->> 'what' = 'false_comparison';
