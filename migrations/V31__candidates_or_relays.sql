-- A URL is either a candidate or a relay. Programs that called insert_relay in REPEATABLE READ could leave both.
DELETE FROM candidates c USING relays r WHERE r.url = c.url;
DELETE FROM candidate_tries t USING relays r WHERE r.url = t.url;
