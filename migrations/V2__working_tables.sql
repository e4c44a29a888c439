-- Working tables: may be truncated at any time at the cost of repeated work, never of a fact.

CREATE SEQUENCE lease_token AS bigint;
CREATE TABLE lease (
    name       text        PRIMARY KEY,
    holder     uuid        NOT NULL,
    token      bigint      NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE lease IS 'working: who may do a piece of divided work, until when';
COMMENT ON COLUMN lease.name IS 'the work, as <service>/<subject>';
COMMENT ON COLUMN lease.holder IS 'the process that holds it, a random UUID drawn at its start';
COMMENT ON COLUMN lease.token IS 'fence: grows with every change of holder, from a sequence that no truncation resets';
COMMENT ON COLUMN lease.expires_at IS 'database clock; from then on anybody may take it';
SELECT quipu_make_changeable('lease');
GRANT USAGE ON SEQUENCE lease_token TO quipu;

CREATE SEQUENCE tick_number AS bigint;
CREATE TABLE tick (
    number            bigint      PRIMARY KEY DEFAULT nextval('tick_number'),
    taken_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    snapshot          pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    last_position     bigint      NOT NULL,
    system_identifier bigint      NOT NULL
);
COMMENT ON TABLE tick IS 'working: snapshots that cut the journals into batches for readers';
COMMENT ON COLUMN tick.number IS 'grows; part of a live stream''s event id';
COMMENT ON COLUMN tick.taken_at IS 'database clock';
COMMENT ON COLUMN tick.snapshot IS 'which transactions had committed; a batch is what this snapshot sees and the last one''s did not';
COMMENT ON COLUMN tick.last_position IS 'last position drawn when the tick was taken, for display and lag only';
COMMENT ON COLUMN tick.system_identifier IS 'the cluster that drew the transaction ids; another cluster means a logical restore';
SELECT quipu_make_changeable('tick');
GRANT USAGE ON SEQUENCE tick_number TO quipu;

-- Takes a tick if something was written since the last one. The lock keeps numbers and snapshots in one order even
-- while two tickers overlap; each statement below sees the world anew, so the last position is read before the snapshot is taken.
-- A transaction may draw its position before its id, so that neither sign below shows it: hence the look at ids once a second.
CREATE FUNCTION quipu_take_tick(cluster bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE drawn bigint; last tick%ROWTYPE; taken bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('quipu/tick', 0));
    SELECT last_value INTO drawn FROM journal_position;
    SELECT * INTO last FROM tick ORDER BY number DESC LIMIT 1;
    INSERT INTO tick (last_position, system_identifier)
    SELECT drawn, cluster
    WHERE last.number IS NULL OR drawn > last.last_position
       OR EXISTS (SELECT FROM pg_snapshot_xip(last.snapshot) x WHERE pg_visible_in_snapshot(x, pg_current_snapshot()))
       OR (last.taken_at < clock_timestamp() - interval '1 second'
           AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint > pg_snapshot_xmax(last.snapshot)::text::bigint + 1)
    RETURNING number INTO taken;
    RETURN taken;
END $$;

CREATE TABLE checkpoint (
    projection text        PRIMARY KEY,
    tick       bigint      NOT NULL,
    snapshot   pg_snapshot NOT NULL,
    updated_at timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE checkpoint IS 'working: how far each ticking projection has read; a missing row means rebuild';
COMMENT ON COLUMN checkpoint.projection IS 'name in the registry';
COMMENT ON COLUMN checkpoint.tick IS 'number of the tick last applied';
COMMENT ON COLUMN checkpoint.snapshot IS 'its snapshot, so that old ticks may go';
COMMENT ON COLUMN checkpoint.updated_at IS 'database clock';
SELECT quipu_make_changeable('checkpoint');
