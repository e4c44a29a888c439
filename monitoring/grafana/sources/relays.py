"""Relays: one relay, from the archive's own tables: checks, certificate, reachability, latency, what it has, its gaps."""

from panels import (
    AGO,
    BAD_ABOVE_0,
    GOOD_AT_1,
    MILLISECONDS,
    ONE_ROW_HEIGHT,
    dashboard,
    falling,
    rising,
    sql_graph,
    sql_stat,
    sql_table,
    sql_variable,
)

RELAY = "${relay:sqlstring}"
NUMBER = f"(SELECT number FROM relays WHERE url = {RELAY})"
LATEST = f"FROM relay_metadata_latest WHERE relay_url = {RELAY}"
CHECKS = f"""FROM relay_metadata m JOIN nip66 n ON n.id = m.nip66_id
WHERE m.relay_url = {RELAY} AND $__unixEpochFilter(m.generated_at)"""
# A number that another program may have stored: NULL if it is none.
ENDS = (
    "CASE WHEN jsonb_typeof(detail #> '{tls,not_after}') = 'number' THEN (detail #>>"
    " '{tls,not_after}')::numeric END"
)

FACTS = f"""SELECT f.fact, left(f.value, 200) AS value
FROM relay_metadata_latest m
CROSS JOIN LATERAL (
    SELECT part || ': ' || entry.key, entry.value
    FROM unnest(ARRAY['tls', 'dns', 'net', 'geo', 'http']) part
    CROSS JOIN LATERAL jsonb_each_text(coalesce(m.detail -> part, '{{}}')) entry
    UNION ALL SELECT 'authentication', coalesce(m.auth, 'unknown')
) f (fact, value)
WHERE m.relay_url = {RELAY} ORDER BY 1"""

DASHBOARD = dashboard(
    "quipu-relays",
    "Quipu: one relay",
    "Everything about one relay, from the archive's own tables. The same on the command line: `quipu relays"
    " show URL`.",
    [
        sql_variable(
            "relay",
            "relay",
            """SELECT r.url FROM relays r LEFT JOIN relay_totals t ON t.relay = r.number
WHERE r.retired_at IS NULL AND r.refused_reason IS NULL
ORDER BY t.sightings DESC NULLS LAST, r.url LIMIT 10000""",
            "The relay, those with most events first. Type to search.",
        )
    ],
    [
        [
            sql_stat(
                "Readable",
                f"SELECT coalesce(bool_or(readable), false)::int AS readable {LATEST}",
                "Whether the newest check could read it. No: the table Checks below has the reason.",
                steps=GOOD_AT_1,
                names={0: "no", 1: "yes"},
            ),
            sql_stat(
                "Readable in this time",
                f"SELECT coalesce(avg(n.readable::int), 0) AS share {CHECKS}",
                "Share of the checks in the dashboard's time range that could read it.",
                unit="percentunit",
                steps=falling(0.5, 0.95),
                decimals=1,
            ),
            sql_stat(
                "Last check",
                f"SELECT extract(epoch FROM now())::bigint - max(generated_at) AS age {LATEST}",
                "Time since the newest check. Much over `services.monitor.interval_s` (4 hours): the monitor"
                " is behind or off.",
                unit="s",
                steps=rising(21600, 86400),
                decimals=0,
                empty="never checked",
            ),
            sql_stat(
                "Certificate ends in",
                f"SELECT max({ENDS}) - extract(epoch FROM now()) AS remaining {LATEST}",
                "Remaining time of its TLS certificate, by the newest check. Below zero it has ended: tell"
                " the relay's operator. None: the relay is not reached by TLS, or the check failed earlier.",
                unit="s",
                steps=falling(604800, 1814400),
                decimals=0,
                empty="none",
            ),
            sql_stat(
                "Events",
                f"SELECT coalesce(sum(sightings), 0) AS events FROM relay_totals WHERE relay = {NUMBER}",
                "Distinct events that it has.",
            ),
            sql_stat(
                "Known gaps",
                f"SELECT count(*) AS gaps FROM known_gaps WHERE relay_url = {RELAY}",
                "Windows of its time line that are known to be incomplete; below is each with its reason.",
                steps=BAD_ABOVE_0,
            ),
            sql_stat(
                "Newest event",
                f"""SELECT extract(epoch FROM now())::bigint - max(last_event_timestamp) AS age
FROM relay_last_event_timestamp WHERE relay_url = {RELAY}""",
                "Age of the newest event that it has shown. Below zero: an event dated in the future.",
                unit="s",
                decimals=0,
                empty="none",
            ),
        ],
        "Checks",
        [
            sql_graph(
                "Reachability",
                f"""SELECT to_timestamp(m.generated_at) AS time, n.openable::int AS opens, n.readable::int AS reads,
       (m.nip11_id IS NOT NULL)::int AS document, n.writable::int AS writes
{CHECKS} ORDER BY m.generated_at""",
                "1 when a check succeeded: the connection opened, a question was answered, the document"
                " (NIP-11) was read, an event was accepted (if `services.monitor.write_check` is on).",
                stacked=False,
                bars=False,
            ),
            sql_graph(
                "Latency",
                f"""SELECT to_timestamp(m.generated_at) AS time, m.rtt_open AS open, m.rtt_read AS read, m.rtt_write AS write
{CHECKS} ORDER BY m.generated_at""",
                "Time until the connection was open, a question answered, an event accepted. Onion relays"
                " take seconds.",
                unit="ms",
                stacked=False,
                bars=False,
            ),
        ],
        [
            sql_table(
                "Checks",
                f"""SELECT to_timestamp(m.generated_at) AS checked, n.openable AS opens, n.readable AS reads, m.rtt_open, m.rtt_read,
       coalesce(n.detail #>> '{{failures,open,reason}}', n.detail #>> '{{failures,read,reason}}') AS reason,
       coalesce(n.detail #>> '{{failures,open,message}}', n.detail #>> '{{failures,read,message}}') AS message
{CHECKS} ORDER BY m.generated_at DESC LIMIT 200""",
                "Each check in the dashboard's time range, with the reason when it failed.",
                columns={"rtt_open": MILLISECONDS, "rtt_read": MILLISECONDS},
            ),
            sql_table(
                "Certificate and place",
                FACTS,
                "What the newest check found: certificate, DNS, addresses, headers. Places need the"
                " operator's MaxMind files.",
            ),
        ],
        "What it says",
        [
            sql_table(
                "Document (NIP-11)",
                f"""SELECT nip11_success AS document_read, name, software, version, contact, supported_nips::text AS nips, max_limit, auth_required, payment_required,
       restricted_writes
{LATEST}""",
                "Its information document, as far as it was read. Empty columns: the document does not say.",
                height=ONE_ROW_HEIGHT,
            ),
        ],
        "What it has",
        [
            sql_table(
                "Newest session",
                f"""SELECT r.url, r.network, r.source, r.inserted_at AS known_since, v.began_at AS last_session, v.caught_up_at, v.outcome,
       to_timestamp(least(p.last_created_at, 253402300799)) AS newest_event
FROM relays r LEFT JOIN relay_visits v ON v.relay = r.number LEFT JOIN relay_progress p ON p.relay = r.number
WHERE r.url = {RELAY}""",
                "When it was crawled last, and how that ended: no outcome while the session runs.",
                columns={
                    name: AGO for name in ("known_since", "last_session", "caught_up_at", "newest_event")
                },
                height=ONE_ROW_HEIGHT,
            ),
        ],
        [
            sql_graph(
                "Events received in windows",
                f"""SELECT recorded_at AS time, events, requests FROM sync_log
WHERE relay = {NUMBER} AND $__timeFilter(recorded_at) ORDER BY recorded_at LIMIT 10000""",
                "Events and requests of each window that was settled, when it was settled. A line that ends:"
                " no session gets to its end; Newest session says how it ended.",
                stacked=False,
            ),
            sql_table(
                "Gaps",
                f"""SELECT to_timestamp(since) AS since, to_timestamp(until) AS until, reason, recorded_at
FROM known_gaps WHERE relay_url = {RELAY} ORDER BY since DESC LIMIT 200""",
                "Windows of `created_at` that are known to be incomplete, with the reason. They are asked for"
                " again after seven days.",
                columns={"recorded_at": AGO},
            ),
            sql_table(
                "Proven windows",
                f"""SELECT to_timestamp(since) AS since, to_timestamp(until) AS until, (until - since) / 86400 AS days
FROM proven_windows WHERE relay_url = {RELAY} ORDER BY since DESC LIMIT 200""",
                "Windows of `created_at` that are archived completely; neighbours are one row.",
            ),
        ],
    ],
    since="now-30d",
)
