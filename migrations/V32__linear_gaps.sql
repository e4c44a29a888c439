-- The views of gaps and proofs compared each gap of a relay with all its other windows: 20,000 gaps of one relay took longer
-- than the 5 s that the metrics allow.

-- The newest window that contains a second decides about it. The ends of a relay's windows cut its time line into parts.
-- Where one window covers a part, that window decides. Where several do, each window marks the fewest blocks of 2^level parts
-- that it consists of (a segment tree), and of the windows that mark a block around the part the newest decides. n windows
-- take O(n log n) steps, however they overlap. Joins between the steps would let the planner compare all pairs, so they
-- are done by sorting.
CREATE OR REPLACE VIEW known_gaps AS
SELECT r.url AS relay_url, k.since, k.until, k.detail ->> 'reason' AS reason, k.recorded_at, coalesce(k.detail ->> 'cause', 'other') AS cause
FROM relays r
CROSS JOIN LATERAL (
    WITH gaps AS MATERIALIZED (
        SELECT range_agg(int8range(g.since, g.until, '[]')) AS seconds, min(g.position) AS first
        FROM sync_log g WHERE g.relay = r.number AND g.outcome = 'gap'),
    -- Both ends of each window that has a second in common with a gap and is not older than all gaps. `+ 0` keeps the planner
    -- from reading the windows of all relays through the primary key.
    ends AS MATERIALIZED (
        SELECT s.position, e.at, e.step, dense_rank() OVER (ORDER BY e.at) - 1 AS part
        FROM gaps, sync_log s, LATERAL (VALUES (s.since, 1), (s.until + 1, -1)) AS e (at, step)
        WHERE s.relay = r.number AND s.position + 0 >= gaps.first AND gaps.seconds && int8range(s.since, s.until, '[]')),
    -- windows: how many windows cover the part; only: the sum of their positions, so the position where it is one.
    parts AS MATERIALIZED (
        SELECT e.part, e.at AS since, lead(e.at) OVER by_time AS until,
               sum(sum(e.step)) OVER by_time AS windows, sum(sum(e.step * e.position)) OVER by_time AS only
        FROM ends e GROUP BY e.part, e.at WINDOW by_time AS (ORDER BY e.part)),
    levels AS MATERIALIZED (SELECT generate_series(0, ceil(log(2, count(*) + 1))::integer) AS level FROM parts),
    -- The whole blocks of each level within a window, from low to high - 1. A block that is half of another one in the same
    -- window is not marked, so at most the first and the last of a level are.
    blocks AS (
        SELECT w.position, l.level, (w.low + (1::bigint << l.level) - 1) >> l.level AS low, w.high >> l.level AS high
        FROM (SELECT position, min(part) AS low, max(part) AS high FROM ends GROUP BY position) w CROSS JOIN levels l
        WHERE (w.low + (1::bigint << l.level) - 1) >> l.level < w.high >> l.level),
    marks AS (
        SELECT b.level, b.low AS block, b.position, NULL::bigint AS since, NULL::bigint AS until FROM blocks b WHERE b.low % 2 = 1
        UNION ALL
        SELECT b.level, b.high - 1, b.position, NULL, NULL FROM blocks b WHERE b.high % 2 = 1
        UNION ALL
        SELECT l.level, p.part >> l.level, NULL, p.since, p.until FROM parts p CROSS JOIN levels l WHERE p.windows > 1),
    decided AS (
        SELECT p.since, p.until, p.only::bigint AS position FROM parts p WHERE p.windows = 1
        UNION ALL
        SELECT m.since, m.until, max(m.position)
        FROM (SELECT since, until, max(position) OVER (PARTITION BY level, block) AS position FROM marks) m
        WHERE m.since IS NOT NULL GROUP BY m.since, m.until)
    SELECT lower(w.window) AS since, upper(w.window) - 1 AS until, g.detail, g.recorded_at
    FROM (SELECT position, range_agg(int8range(since, until)) AS seconds FROM decided GROUP BY position) d
    JOIN sync_log g ON g.position = d.position AND g.outcome = 'gap'
    CROSS JOIN LATERAL unnest(d.seconds) AS w ("window")) k
WHERE EXISTS (SELECT FROM sync_log g WHERE g.relay = r.number AND g.outcome = 'gap');

-- A second that a window proved is proven unless a gap was recorded later; then it is a known gap.
CREATE OR REPLACE VIEW proven_windows AS
SELECT r.url AS relay_url, lower(w.window) AS since, upper(w.window) - 1 AS until
FROM relays r
CROSS JOIN LATERAL unnest(
    (SELECT range_agg(int8range(s.since, s.until, '[]')) FROM sync_log s WHERE s.relay = r.number AND s.outcome = 'complete')
    - coalesce((SELECT range_agg(int8range(k.since, k.until, '[]')) FROM known_gaps k WHERE k.relay_url = r.url), '{}')) AS w ("window");
