"""Overview: is anything wrong, what is it, and which dashboard or page says what to do."""

from panels import (
    BAD_ABOVE_0,
    GOOD_AT_1,
    PLAIN,
    dashboard,
    falling,
    graph,
    instance_variable,
    rising,
    stat,
    table,
)
from queries import DISK_FULL_DAYS, EVERYWHERE, INSTANCE, or_zero, quantile, rate, total

ALERTS = 'ALERTS{alertstate="firing"}'

DASHBOARD = dashboard(
    "quipu-overview",
    "Quipu: overview",
    "Is anything wrong, what is it, what to do. Red numbers above, the alerts with their pages below them,"
    " causes at the end.",
    [instance_variable()],
    [
        [
            stat(
                "Alerts",
                or_zero(f"count({ALERTS})"),
                "Alerts that fire now. Above 0: the table below names them; each has a section in"
                " docs/alerts.md.",
                steps=BAD_ABOVE_0,
            ),
            stat(
                "Processes down",
                or_zero('count(up{job="quipu"} == 0)'),
                "Processes of Quipu that Prometheus cannot reach. Above 0: look at the log of that process,"
                " then start it again.",
                steps=BAD_ABOVE_0,
            ),
            stat(
                "Services failing",
                or_zero(f"count(quipu_service_healthy{{{INSTANCE}}} == 0)"),
                "Services whose last cycle failed. Above 0: `/readyz` on the ops address says which, and"
                " why.",
                steps=BAD_ABOVE_0,
            ),
            stat(
                "Database",
                "clamp_max(" + or_zero("count(quipu_postgresql_info)") + ", 1)",
                "Whether the service `observer` reads the database. Unreachable: is PostgreSQL up, is"
                " PgBouncer, does a process run `observer`? Section QuipuDatabaseDown of docs/alerts.md.",
                steps=GOOD_AT_1,
                names={0: "unreachable", 1: "reachable"},
            ),
            stat(
                "Disk full in",
                DISK_FULL_DAYS,
                "Days until the free space falls to the reserve, at the speed of the last day, known after an"
                " hour; at most ten years. Below 30: plan more space. Below the reserve nothing is accepted. Free space is"
                " unknown with a database of your own.",
                unit="d",
                steps=falling(7, 30),
                decimals=0,
                empty="not measured",
            ),
            stat(
                "Verify",
                "max(quipu_store_verify_problems)",
                "Differences that the newest `quipu verify` found. Above 0: its output names the table and"
                " what recreates it.",
                steps=BAD_ABOVE_0,
                empty="never run",
            ),
        ],
        [
            stat(
                "Events stored",
                rate("quipu_ingest_stored_events_total"),
                "Events stored a second. 0 for long while relays are readable: look at the sessions in the"
                " dashboard Archive.",
                unit="short",
                decimals=1,
            ),
            stat(
                "Live lag",
                quantile(0.5, "quipu_archive_live_lag_seconds", window="1h"),
                "Median time from an event's `created_at` to its commit, of live events of the last hour. It"
                " includes the relay's own delay. Minutes: the database or the network is slow.",
                unit="s",
                steps=rising(30, 300),
                decimals=1,
            ),
            stat(
                "Events",
                total("quipu_archive_stored_events", where=EVERYWHERE),
                "Events in the archive.",
                steps=PLAIN,
            ),
            stat(
                "Relays live",
                total("quipu_archive_live_relays"),
                "Relays that are caught up and send new events at once. It should approach the number of"
                " readable relays.",
            ),
            stat(
                "Messages pending",
                total("quipu_messages_pending_messages", where=EVERYWHERE),
                "Messages that no device has acknowledged, of the 10,000 that expire soonest. They wait for"
                " their recipients.",
            ),
            stat(
                "Panics",
                or_zero(f"sum(increase(quipu_panics_total{{{INSTANCE}}}[1d]))"),
                "Units of work that ended with a panic in the last day. Above 0: a bug. The log has the"
                " cause; report it.",
                steps=BAD_ABOVE_0,
                decimals=0,
            ),
        ],
        [
            table(
                "What is wrong",
                f'{ALERTS} or on() label_replace(vector(0), "alertname", "nothing", "", "")',
                "The alerts that fire. Each name is a heading in docs/alerts.md: what it means, how to find"
                " the cause, what to do.",
                hide=("Value", "alertstate", "__name__"),
                rename={"alertname": "alert"},
            ),
            table(
                "Services",
                f"quipu_service_healthy{{{INSTANCE}}}",
                "Each service of each process: 1 unless its last cycle failed. 0: `/readyz` of that process"
                " has the reason.",
                rename={"Value": "healthy"},
            ),
        ],
        [
            graph(
                "Events",
                [
                    ("offered", rate("quipu_ingest_offered_events_total")),
                    ("stored", rate("quipu_ingest_stored_events_total")),
                    ("refused: {{reason}}", rate("quipu_ingest_refused_events_total", "reason")),
                ],
                "Events a second. Many offered and few stored: they are known already, which is normal. Many"
                " refused: a relay sends invalid events; the dashboard Relays shows which.",
                unit="short",
            ),
            graph(
                "Failures",
                [
                    ("{{service}}: failed cycles", rate("quipu_service_failures_total", "service")),
                    ("{{unit}}: panics", rate("quipu_panics_total", "unit")),
                    ("{{unit}}: set aside", rate("quipu_set_aside_total", "unit")),
                    ("{{journal}}: commits", rate("quipu_store_commit_failures_total", "journal")),
                    ("messages: store errors", rate("store_errors_total")),
                    ("reading {{read}}", rate("quipu_observer_read_failures_total", "read", EVERYWHERE)),
                ],
                "What failed, a second. All lines should stay at 0. The log names the subject and the"
                " reason.",
            ),
        ],
        [
            graph(
                "HTTP",
                [
                    (
                        "{{listener}} {{class}} {{code}}",
                        rate("quipu_http_errors_total", "listener, class, code"),
                    ),
                    (
                        "{{listener}} refused: {{reason}}",
                        rate("quipu_http_connections_refused_total", "listener, reason"),
                    ),
                    (
                        "{{listener}} closed: {{reason}}",
                        rate("quipu_http_connections_closed_total", "listener, reason"),
                    ),
                ],
                "Requests that failed and connections that were refused or closed, a second. Class `broken`"
                " is a fault of Quipu, `busy` an overload, `rejected` a client's mistake. Refused: a bound in"
                " the section `http` of the settings.",
            ),
            graph(
                "Connections of clients",
                [("{{listener}}", total("quipu_http_connections", "listener"))],
                "Open connections of each listener. Near `http.connections_max` further ones are refused.",
            ),
        ],
        [
            graph(
                "Memory",
                [("{{instance}}", f"process_resident_memory_bytes{{{INSTANCE}}}")],
                "Resident memory of each process. It should level off; growth without end is a bug.",
                unit="bytes",
            ),
            graph(
                "Processors",
                [("{{instance}}", f"rate(process_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval])")],
                "Processors that each process uses. At the number of processors signatures are the limit.",
            ),
            graph(
                "Files and sockets",
                [
                    ("{{instance}} open", f"process_open_fds{{{INSTANCE}}}"),
                    ("{{instance}} limit", f"process_max_fds{{{INSTANCE}}}"),
                ],
                "Open descriptors and their limit. Near the limit: raise `LimitNOFILE`, or lower"
                " `networks.*.relays_at_once`.",
            ),
        ],
        [
            graph(
                "Readings of the database",
                [
                    ("{{read}}", "max by (read) (quipu_observer_read_duration_seconds)"),
                ],
                "How long the service `observer` took for each group of metrics. A reading that fails or"
                " takes too long leaves its metrics out, and alerts on them cannot fire.",
                unit="s",
            ),
            graph(
                "Leases taken over",
                [("{{kind}}", rate("quipu_store_leases_taken_over_total", "kind"))],
                "Leases that a process took after another had let them expire, a second. A burst follows a"
                " crash. Without one: processes cannot renew in time, because the database or the machine is"
                " overloaded.",
            ),
        ],
    ],
)
