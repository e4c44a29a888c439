-- Blobs: what is stored, where its copies are, who owns it.

-- Records what happened to copies of one blob, in this order, and keeps blob_replicas and blob_copies. The caller holds the
-- lock of the blob, and the blob is known.
--   results   [{"upstream": URL, "kind": as in blob_log, "why": reason or null}, …]
--   batch_id  for the first entry; NULL if the batch has one already
-- Returns the number of entries.
CREATE OR REPLACE FUNCTION quipu_record_replicas(hash bytea, results jsonb, by_actor text, batch_id uuid) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    r jsonb; here text; happened text; reason text; was text; now_is text; at timestamptz; written integer := 0; gained integer := 0;
BEGIN
    FOR r IN SELECT e.result FROM jsonb_array_elements(results) WITH ORDINALITY AS e (result, nth) ORDER BY e.nth LOOP
        here := r ->> 'upstream';
        happened := r ->> 'kind';
        reason := r ->> 'why';
        was := (SELECT p.state FROM blob_replicas p WHERE p.sha256 = hash AND p.upstream = here);
        now_is := CASE happened
            -- An upload to an upstream that has the blob already says nothing new about the copy.
            WHEN 'accepted' THEN CASE WHEN was = 'readable' THEN was ELSE 'accepted' END
            WHEN 'readable' THEN 'readable'
            WHEN 'proven' THEN 'readable'
            -- An attempt that failed takes away no copy that was there before.
            WHEN 'failed' THEN CASE WHEN was IN ('accepted', 'readable') THEN was ELSE 'failed' END
            -- The check of a copy that was deleted meanwhile.
            WHEN 'lost' THEN CASE WHEN was = 'deleted' THEN was ELSE 'lost' END
            WHEN 'deleted' THEN 'deleted'
            ELSE was END;
        INSERT INTO blob_log (sha256, kind, upstream, state, actor, why, batch)
        VALUES (hash, happened, here, now_is, by_actor, reason, CASE WHEN written = 0 THEN batch_id END) RETURNING recorded_at INTO at;
        written := written + 1;
        IF now_is IS DISTINCT FROM was THEN
            INSERT INTO blob_replicas AS p (sha256, upstream, state, since, why) VALUES (hash, here, now_is, at, reason)
            ON CONFLICT (sha256, upstream) DO UPDATE SET state = excluded.state, since = excluded.since, why = excluded.why;
            gained := gained + (now_is IN ('accepted', 'readable'))::integer - coalesce((was IN ('accepted', 'readable'))::integer, 0);
        END IF;
    END LOOP;
    IF gained <> 0 THEN
        UPDATE blob_copies c SET copies = c.copies + gained WHERE c.sha256 = hash;
    END IF;
    RETURN written;
END $$;
COMMENT ON FUNCTION quipu_record_replicas(bytea, jsonb, text, uuid) IS 'appends what happened to copies of one blob, and keeps their states; returns the number of entries';
REVOKE ALL ON FUNCTION quipu_record_replicas(bytea, jsonb, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_record_replicas(bytea, jsonb, text, uuid) TO quipu;

-- Appends one batch of commands about blobs. The same batch may be sent again: it is stored once and gets the same answers,
-- apart from bans and limits, which are looked up again.
--   commands  an array of objects; hashes, keys and ids are hexadecimal digits. do:
--     store     sha256, size, type, actor, results (as above); with an owner: owner, how (uploaded, mirrored, adopted), origin,
--               bytes_max, blobs_max
--     replicas  sha256, results, actor
--     disown    sha256, owner, actor
--     ban       sha256, why, actor; unban: sha256, actor; missed: sha256, why
--     report    event_id, reporter, content, event, blobs: [{"sha256", "kind"}, …]
--     follow    pubkey, is_on, actor
--     want      wanted: [{"sha256", "owner", "event_id", "url"}, …]
-- Returns a row per command: its place from 0, and the outcome.
--   stored (flag: the blob was unknown or has a new owner; number: when it got its owner, unix seconds), disowned (flag: it had
--   this owner; number: owners that are left), banned (of a store; why), over_bytes, over_blobs (number: the limit), recorded
CREATE OR REPLACE FUNCTION quipu_append_blobs(batch_id uuid, commands jsonb)
RETURNS TABLE (place integer, outcome text, flag boolean, number bigint, why text) LANGUAGE plpgsql AS $$
DECLARE
    c jsonb; nth bigint; hash bytea; key bytea; marker uuid := batch_id; done xid8; at timestamptz;
    ban blob_bans%ROWTYPE; used blob_usage%ROWTYPE; length bigint; is_new boolean; got bigint;
BEGIN
    -- Locks held until the commit and taken in one order. Entries about one blob, and changes of what one key owns, come one
    -- after the other.
    PERFORM pg_advisory_xact_lock(k.key)
    FROM (SELECT DISTINCT hashtextextended(v.name, 0) AS key
          FROM jsonb_array_elements(commands) AS e (command)
          CROSS JOIN LATERAL (VALUES ('quipu/blob/' || (e.command ->> 'sha256')), ('quipu/blob_owner/' || (e.command ->> 'owner'))) AS v (name)
          WHERE v.name IS NOT NULL ORDER BY 1) k;
    -- Under these locks an earlier attempt of this batch is either committed or gone.
    SELECT l.xid INTO done FROM blob_log l WHERE l.batch = batch_id;

    FOR c, nth IN SELECT e.command, e.nth FROM jsonb_array_elements(commands) WITH ORDINALITY AS e (command, nth) ORDER BY e.nth LOOP
        place := (nth - 1)::integer;
        outcome := 'recorded';
        flag := NULL;
        number := NULL;
        why := NULL;
        hash := decode(c ->> 'sha256', 'hex');
        key := decode(c ->> 'owner', 'hex');
        CASE c ->> 'do'
        WHEN 'store' THEN
            SELECT * INTO ban FROM blob_bans b WHERE b.sha256 = hash;
            is_new := false;
            IF ban.is_erased IS TRUE THEN
                outcome := 'banned';
                why := ban.why;
                RETURN NEXT;
                CONTINUE;
            END IF;
            IF done IS NULL THEN
                INSERT INTO blobs (sha256, size, type, actor) VALUES (hash, (c ->> 'size')::bigint, c ->> 'type', c ->> 'actor')
                ON CONFLICT (sha256) DO NOTHING;
                is_new := FOUND;
                IF is_new THEN
                    INSERT INTO blob_copies (sha256, size, owners, copies) VALUES (hash, (c ->> 'size')::bigint, 0, 0);
                END IF;
            ELSE
                is_new := EXISTS (SELECT FROM blobs b WHERE b.sha256 = hash AND b.xid = done);
            END IF;
            length := (SELECT b.size FROM blobs b WHERE b.sha256 = hash);
            outcome := 'stored';
            IF key IS NOT NULL THEN
                got := (SELECT o.uploaded FROM blob_owners o WHERE o.owner = key AND o.sha256 = hash);
                IF got IS NULL THEN
                    SELECT * INTO used FROM blob_usage u WHERE u.owner = key;
                    IF ban.sha256 IS NOT NULL THEN
                        outcome := 'banned';
                        why := ban.why;
                    ELSIF coalesce(used.bytes, 0) + length > (c ->> 'bytes_max')::bigint THEN
                        outcome := 'over_bytes';
                        number := (c ->> 'bytes_max')::bigint;
                    ELSIF coalesce(used.blobs, 0) + 1 > (c ->> 'blobs_max')::bigint THEN
                        outcome := 'over_blobs';
                        number := (c ->> 'blobs_max')::bigint;
                    ELSIF done IS NULL THEN
                        INSERT INTO blob_log (sha256, kind, owner, actor, why, batch)
                        VALUES (hash, c ->> 'how', key, c ->> 'actor', c ->> 'origin', marker) RETURNING recorded_at INTO at;
                        marker := NULL;
                        got := extract(epoch FROM date_trunc('second', at))::bigint;
                        INSERT INTO blob_owners (owner, sha256, uploaded) VALUES (key, hash, got);
                        INSERT INTO blob_usage AS u (owner, blobs, bytes) VALUES (key, 1, length)
                        ON CONFLICT (owner) DO UPDATE SET blobs = u.blobs + 1, bytes = u.bytes + excluded.bytes;
                        UPDATE blob_copies p SET owners = p.owners + 1 WHERE p.sha256 = hash;
                        is_new := true;
                    END IF;
                ELSIF done IS NOT NULL THEN
                    is_new := is_new OR EXISTS (SELECT FROM blob_log l WHERE l.xid = done AND l.sha256 = hash AND l.owner = key);
                END IF;
                IF outcome = 'stored' THEN
                    number := got;
                END IF;
            ELSIF ban.sha256 IS NOT NULL THEN
                outcome := 'banned';
                why := ban.why;
            END IF;
            IF outcome = 'stored' THEN
                flag := is_new;
                number := coalesce(number, (SELECT extract(epoch FROM date_trunc('second', b.recorded_at))::bigint FROM blobs b WHERE b.sha256 = hash));
            END IF;
            -- Of a blob that is refused as well: its copies are there until they are deleted.
            IF done IS NULL AND quipu_record_replicas(hash, c -> 'results', c ->> 'actor', marker) > 0 THEN
                marker := NULL;
            END IF;
        WHEN 'replicas' THEN
            IF done IS NULL AND EXISTS (SELECT FROM blobs b WHERE b.sha256 = hash)
               AND quipu_record_replicas(hash, c -> 'results', c ->> 'actor', marker) > 0 THEN
                marker := NULL;
            END IF;
        WHEN 'disown' THEN
            outcome := 'disowned';
            IF done IS NULL THEN
                DELETE FROM blob_owners o WHERE o.owner = key AND o.sha256 = hash;
                flag := FOUND;
                IF flag THEN
                    INSERT INTO blob_log (sha256, kind, owner, actor, batch) VALUES (hash, 'disowned', key, c ->> 'actor', marker);
                    marker := NULL;
                    length := (SELECT b.size FROM blobs b WHERE b.sha256 = hash);
                    UPDATE blob_usage u SET blobs = u.blobs - 1, bytes = u.bytes - length WHERE u.owner = key;
                    DELETE FROM blob_usage u WHERE u.owner = key AND u.blobs = 0;
                    UPDATE blob_copies p SET owners = p.owners - 1 WHERE p.sha256 = hash;
                END IF;
            ELSE
                flag := EXISTS (SELECT FROM blob_log l WHERE l.xid = done AND l.sha256 = hash AND l.owner = key AND l.kind = 'disowned');
            END IF;
            number := coalesce((SELECT p.owners FROM blob_copies p WHERE p.sha256 = hash), 0);
        WHEN 'ban' THEN
            IF done IS NULL AND NOT EXISTS (SELECT FROM blob_bans b WHERE b.sha256 = hash AND b.is_erased) THEN
                INSERT INTO blob_log (sha256, kind, actor, why, batch) VALUES (hash, 'banned', c ->> 'actor', c ->> 'why', marker)
                RETURNING recorded_at INTO at;
                marker := NULL;
                INSERT INTO blob_bans (sha256, why, since, is_erased) VALUES (hash, c ->> 'why', at, false)
                ON CONFLICT (sha256) DO UPDATE SET why = excluded.why, since = excluded.since;
            END IF;
        WHEN 'unban' THEN
            IF done IS NULL THEN
                DELETE FROM blob_bans b WHERE b.sha256 = hash AND NOT b.is_erased;
                IF FOUND THEN
                    INSERT INTO blob_log (sha256, kind, actor, batch) VALUES (hash, 'unbanned', c ->> 'actor', marker);
                    marker := NULL;
                END IF;
            END IF;
        WHEN 'missed' THEN
            IF done IS NULL AND NOT EXISTS (SELECT FROM blob_bans b WHERE b.sha256 = hash AND b.is_erased) THEN
                INSERT INTO blob_log (sha256, kind, actor, why, batch) VALUES (hash, 'missed', 'guardian', c ->> 'why', marker);
                marker := NULL;
            END IF;
        WHEN 'report' THEN
            INSERT INTO blob_reports (event_id, reporter, sha256, kind, content, event)
            SELECT decode(c ->> 'event_id', 'hex'), decode(c ->> 'reporter', 'hex'), decode(r.sha256, 'hex'), r.kind, c ->> 'content', c ->> 'event'
            FROM jsonb_to_recordset(c -> 'blobs') AS r (sha256 text, kind text)
            -- Tombstones of erased blobs stay alone.
            WHERE NOT EXISTS (SELECT FROM blob_bans b WHERE b.sha256 = decode(r.sha256, 'hex') AND b.is_erased)
            ORDER BY r.sha256 ON CONFLICT DO NOTHING;
        WHEN 'follow' THEN
            key := decode(c ->> 'pubkey', 'hex');
            -- A repeated command changes nothing.
            INSERT INTO blob_follows (pubkey, is_on, actor) SELECT key, (c ->> 'is_on')::boolean, c ->> 'actor'
            WHERE (c ->> 'is_on')::boolean IS DISTINCT FROM
                  coalesce((SELECT f.is_on FROM blob_follows f WHERE f.pubkey = key ORDER BY f.position DESC LIMIT 1), false);
        WHEN 'want' THEN
            INSERT INTO blob_wanted (sha256, owner, event_id, url)
            SELECT DISTINCT ON (r.sha256, r.owner, coalesce(r.url, ''))
                   decode(r.sha256, 'hex'), decode(r.owner, 'hex'), decode(r.event_id, 'hex'), r.url
            FROM jsonb_to_recordset(c -> 'wanted') AS r (sha256 text, owner text, event_id text, url text)
            WHERE NOT EXISTS (SELECT FROM blob_bans b WHERE b.sha256 = decode(r.sha256, 'hex') AND b.is_erased)
            -- Two batches that share keys wait for each other's entries. With one order they cannot deadlock.
            ORDER BY r.sha256, r.owner, coalesce(r.url, '') ON CONFLICT DO NOTHING;
        END CASE;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION quipu_append_blobs(uuid, jsonb) IS 'appends one batch of commands about blobs; returns the outcome of each';
REVOKE ALL ON FUNCTION quipu_append_blobs(uuid, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quipu_append_blobs(uuid, jsonb) TO quipu;
