"""Archive: how complete it is, how far behind, how fast it grows, and each network."""

from panels import (
    AGO,
    dashboard,
    falling,
    graph,
    instance_variable,
    network_variable,
    rising,
    sql_graph,
    sql_table,
    stat,
)
from queries import DISK_FULL_DAYS, EVERYWHERE, INSTANCE, NETWORK, or_zero, quantile, rate, total

# Of one network and one process.
HERE = f"{NETWORK},{INSTANCE}"
READABLE = f'quipu_archive_relays{{{NETWORK},state="active",readable="yes"}}'

DASHBOARD = dashboard(
    "quipu-archive",
    "Quipu: archive",
    "How complete the archive is, how far behind, how fast it grows, and what each network contributes.",
    [network_variable(), instance_variable()],
    [
        [
            stat(
                "Events",
                total("quipu_archive_stored_events", where=EVERYWHERE),
                "Events in the archive, minus erased ones.",
            ),
            stat(
                "Sightings",
                total("quipu_archive_recorded_sightings", where=EVERYWHERE),
                "Facts that a relay has an event. Several for each event: most events are on several relays.",
            ),
            stat(
                "Relays readable",
                or_zero(f"sum({READABLE})"),
                "Relays that the newest check could read. A sudden fall: your network or a proxy is down; see"
                " Checks below.",
            ),
            stat(
                "Relays with proven windows",
                or_zero(f"clamp_max(sum(quipu_archive_proven_relays{{{NETWORK}}}) / sum({READABLE}), 1)"),
                "Share of the readable relays of which at least one window is proven to be complete. It rises"
                " for days after the first start, then stays near 100 %.",
                unit="percentunit",
                steps=falling(0.5, 0.9),
                decimals=1,
            ),
            stat(
                "Known gaps",
                total("quipu_archive_known_gaps", where=EVERYWHERE),
                "Windows that are known to be incomplete, each with its reason: `quipu archive gaps`. They"
                " are asked for again after seven days.",
            ),
            stat(
                "Behind",
                or_zero(f'max(quipu_archive_oldest_open_window_seconds{{{NETWORK},share="0.5"}})'),
                "Age of the oldest second that no window settles yet, of the median relay. Minutes when it is"
                " caught up, years while histories are being read. If it rises: more places"
                " (`services.synchronizer.catching_up_max`).",
                unit="s",
                steps=rising(21600, 86400),
                decimals=1,
            ),
            stat(
                "Growth a day",
                total("quipu_archive_daily_growth_bytes", where=EVERYWHERE),
                "Bytes a day that events and sightings grow, mean of the last seven days. 0 in the first"
                " hour.",
                unit="bytes",
                decimals=1,
            ),
            stat(
                "Disk full in",
                DISK_FULL_DAYS,
                "Days until the free space falls to the reserve, at the speed of the last day, known after an"
                " hour; at most ten years. Below 30: plan more space. Free space is unknown with a database of your own.",
                unit="d",
                steps=falling(7, 30),
                decimals=0,
                empty="not measured",
            ),
        ],
        "Completeness",
        [
            graph(
                "Relays by how far they are",
                [
                    ("{{network}} proven", total("quipu_archive_proven_relays", "network", NETWORK)),
                    ("{{network}} open", total("quipu_archive_open_relays", "network", NETWORK)),
                    (
                        "{{network}} never visited",
                        total("quipu_archive_unvisited_relays", "network", NETWORK),
                    ),
                    ("{{network}} with gaps", total("quipu_archive_gap_relays", "network", NETWORK)),
                ],
                "Relays with a proven window; relays whose newest session left a window open; relays never"
                " visited; relays with a gap. Never visited should fall to 0: if it does not, their network"
                " is off or the places are too few.",
            ),
            graph(
                "Known gaps",
                [
                    ("{{reason}}", or_zero("sum by (reason) (quipu_archive_known_gaps)")),
                ],
                "Windows known to be incomplete, by reason. `crowded_second`: more events in one second than"
                " a relay answers with; `withheld`, `contradictory`, `unusable`: the relay misbehaves. A"
                " steep rise: `quipu archive gaps` names the relay.",
                stacked=True,
            ),
        ],
        [
            graph(
                "Windows settled",
                [
                    (
                        "{{network}} {{outcome}}",
                        rate("quipu_archive_windows_total", "network, outcome", HERE),
                    ),
                ],
                "Windows that were proven complete or recorded as a gap, a second. 0 for hours: no session"
                " gets to its end.",
            ),
            graph(
                "Relays known",
                [
                    (
                        "{{network}} {{state}}, readable: {{readable}}",
                        total("quipu_archive_relays", "network, state, readable", NETWORK),
                    ),
                ],
                "Known relays. Retired and refused ones are never dialled. Unchecked: the monitor has not"
                " come to them yet.",
            ),
        ],
        "Lag",
        [
            graph(
                "Oldest open window",
                [
                    ("{{network}} share {{share}}", f"quipu_archive_oldest_open_window_seconds{{{NETWORK}}}"),
                ],
                "How far behind: age of the oldest second that no window settles yet; share 0.9 of the relays"
                " is not further behind than the line says. A relay whose history is still being read is"
                " years behind. The median (0.5) should fall to minutes and stay there.",
                unit="s",
            ),
            graph(
                "Live lag",
                [
                    (
                        f"{{{{network}}}} p{share}",
                        quantile(share / 100, "quipu_archive_live_lag_seconds", "network", HERE),
                    )
                    for share in (50, 90, 99)
                ],
                "Time from an event's `created_at` to its commit, of live events. The median is the relays'"
                " own delay and a few milliseconds. If it rises: Commits in the dashboard PostgreSQL."
                " Backdated events raise the highest line only.",
                unit="s",
            ),
        ],
        "Growth",
        [
            graph(
                "Size on disk",
                [
                    ("{{journal}}", or_zero("sum by (journal) (quipu_store_journal_bytes)")),
                ],
                "Bytes of each journal, with indexes. Events and sightings should be nearly all of it.",
                unit="bytes",
                stacked=True,
            ),
            graph(
                "Free space",
                [
                    ("free", or_zero("min(quipu_store_space_free_bytes > 0)")),
                    ("reserve", or_zero("max(quipu_store_space_reserve_bytes)")),
                    ("whole database", or_zero("max(quipu_store_database_bytes)")),
                ],
                "Free space on the file system of the database, and the reserve: below it nothing is"
                " accepted. Make space before the lines meet: `quipu retention`, or a larger disk. 0 where"
                " Quipu cannot measure it.",
                unit="bytes",
            ),
        ],
        [
            sql_graph(
                "Events of each day, by kind",
                """SELECT to_timestamp(created_at - created_at % 86400) AS time,
       CASE WHEN kind IN (0, 1, 3, 4, 5, 6, 7, 1059, 9735, 10002) THEN kind::text ELSE 'other' END AS metric,
       count(*) AS value
FROM events
WHERE $__unixEpochFilter(created_at)
GROUP BY 1, 2 ORDER BY 1, 2""",
                "Events in the archive by the day of their `created_at` and their kind. It reads every event"
                " of the dashboard's time range: weeks are fine, years may pass the reader's limit of 60 s.",
            ),
            sql_graph(
                "Archived each hour",
                """SELECT date_trunc('hour', minute) AS time, sum(stored) AS events, sum(sightings) AS sightings
FROM minute_totals
WHERE $__timeFilter(minute)
GROUP BY 1 ORDER BY 1""",
                "Events and sightings by the hour in which they were stored, from the projection"
                " `minute_totals`. Hours at 0 while relays are readable: nothing is archived.",
                stacked=False,
            ),
        ],
        "Each network",
        [
            graph(
                "Received and new",
                [
                    ("{{network}} received", rate("quipu_archive_received_events_total", "network", HERE)),
                    ("{{network}} new", rate("quipu_archive_new_events_total", "network", HERE)),
                ],
                "Events a second from relays, and those that were new. About a fifth is new on the whole"
                " network. A network at 0 while its relays are readable is silent: see Sessions.",
            ),
            graph(
                "Bytes received",
                [
                    ("{{network}}", rate("quipu_archive_received_bytes_total", "network", HERE)),
                ],
                "Bytes of these events a second.",
                unit="Bps",
            ),
            graph(
                "Connected relays",
                [
                    ("{{network}} connected", total("quipu_archive_connected_relays", "network", HERE)),
                    ("{{network}} live", total("quipu_archive_live_relays", "network", HERE)),
                ],
                "Relays with a running session, and those that are caught up. Their bound is"
                " `networks.*.relays_at_once`.",
            ),
        ],
        [
            graph(
                "Sessions",
                [
                    (
                        "{{network}} {{outcome}}",
                        rate("quipu_archive_sessions_total", "network, outcome", HERE),
                    ),
                    ("place lost: {{reason}}", rate("quipu_archive_slots_lost_total", "reason")),
                ],
                "Ended sessions a second, and relays that lost their place in reading the past. If all"
                " sessions of a network fail, its proxy or your uplink is down.",
            ),
            graph(
                "Why sessions failed",
                [
                    (
                        "{{network}} {{reason}}",
                        rate("quipu_archive_session_failures_total", "network, reason", HERE),
                    ),
                ],
                "Sessions that ended with an error, a second. `proxy`: the SOCKS proxy; `dns`, `unreachable`:"
                " your uplink; `database`: PostgreSQL; `lease_lost`: overload. The rest are the relays' own.",
            ),
            graph(
                "Comparisons",
                [
                    (
                        "{{network}} saved",
                        rate("quipu_archive_comparison_saved_events_total", "network", HERE),
                    ),
                    (
                        "{{network}} fetched",
                        rate("quipu_archive_comparison_fetched_events_total", "network", HERE),
                    ),
                    ("given up: {{reason}}", rate("quipu_archive_comparisons_given_up_total", "reason")),
                    ("sampled", rate("quipu_archive_sampled_events_total")),
                ],
                "Events a second that comparisons (NIP-77) saved from being downloaded, and that they"
                " requested. Given up: a relay claimed what it does not show, and is read page by page.",
            ),
        ],
        "Finding and checking relays",
        [
            graph(
                "Checks",
                [
                    ("{{network}} {{outcome}}", rate("quipu_archive_checks_total", "network, outcome", HERE)),
                ],
                "Relays that the monitor checked, a second, by outcome. `ok` falls while others rise: your"
                " network or a proxy.",
            ),
            graph(
                "Duration of a check",
                [
                    (
                        "{{network}} p50",
                        quantile(0.5, "quipu_archive_check_duration_seconds", "network", HERE),
                    ),
                    (
                        "{{network}} p90",
                        quantile(0.9, "quipu_archive_check_duration_seconds", "network", HERE),
                    ),
                ],
                "Time that all checks of one relay took. At `services.monitor.relay_timeout_s` they are cut"
                " off.",
                unit="s",
            ),
            graph(
                "Waiting for a check",
                [
                    ("{{network}} due", total("quipu_archive_due_relays", "network", HERE)),
                    ("{{network}} being checked", total("quipu_archive_checking_relays", "network", HERE)),
                    (
                        "{{network}} certificates that end",
                        total("quipu_archive_expiring_certificate_relays", "network", NETWORK),
                    ),
                ],
                "Relays whose check is due, and relays whose certificate ends within seven days or has ended."
                " Due rises without end: more `networks.*.relays_at_once`. Certificates rise suddenly: check"
                " this machine's clock.",
            ),
        ],
        [
            graph(
                "Candidates",
                [
                    ("{{network}} {{state}}", total("quipu_archive_candidates", "network, state", NETWORK)),
                    ("limit of a network", "max(quipu_archive_limit_candidates) or on() vector(0)"),
                ],
                "URLs that have not proven to be relays. At the limit further ones are dropped"
                " (`services.finder.candidates_max`).",
            ),
            graph(
                "Candidates tried",
                [
                    ("{{network}} {{outcome}}", rate("quipu_archive_tries_total", "network, outcome", HERE)),
                ],
                "Candidates that the validator tried, a second. `uplink`: your own network was down, which is"
                " not counted.",
            ),
            graph(
                "URLs found",
                [
                    ("{{outcome}}", rate("quipu_archive_found_urls_total", "outcome")),
                    ("events read", rate("quipu_archive_searched_events_total")),
                    ("list: {{outcome}}", rate("quipu_archive_lists_total", "outcome")),
                    ("published: {{outcome}}", rate("quipu_archive_reports_total", "outcome")),
                ],
                "URLs that events and lists named, a second; events read for them; lists fetched; reports"
                " published (NIP-66).",
            ),
        ],
        "Relays",
        [
            sql_table(
                "Relays with most events",
                """SELECT r.url AS relay, r.network, t.sightings, t.compared
FROM relay_totals t JOIN relays r ON r.number = t.relay
WHERE r.network IN (${network:sqlstring})
ORDER BY t.sightings DESC LIMIT 50""",
                "Distinct events that each relay has, and how many of these were learnt by comparing ids.",
            ),
            sql_table(
                "Newest event of each relay",
                """SELECT l.relay_url AS relay, r.network, to_timestamp(least(l.last_event_timestamp, 253402300799)) AS newest
FROM relay_last_event_timestamp l JOIN relays r ON r.url = l.relay_url
WHERE r.network IN (${network:sqlstring})
ORDER BY l.last_event_timestamp DESC LIMIT 50""",
                "The greatest `created_at` that each relay has shown. An event may be dated in the future;"
                " that delays nothing.",
                columns={"newest": AGO},
            ),
            sql_table(
                "Why relays cannot be read",
                """SELECT network, coalesce(detail #>> '{failures,open,reason}', detail #>> '{failures,read,reason}', 'readable') AS reason,
       count(*) AS relays
FROM relay_metadata_latest
WHERE network IN (${network:sqlstring})
GROUP BY 1, 2 ORDER BY relays DESC LIMIT 50""",
                "The reason of each relay's newest check. One reason that grows in one network: your side"
                " of it.",
            ),
        ],
    ],
    since="now-7d",
)
