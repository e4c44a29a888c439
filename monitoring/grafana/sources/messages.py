"""Messages: are they accepted, delivered and expired, and what waits."""

from panels import BAD_ABOVE_0, dashboard, falling, graph, instance_variable, rising, stat
from queries import EVERYWHERE, INSTANCE, or_zero, quantile, rate, total

JOURNAL = f'{INSTANCE},journal="message_log"'
LISTENERS = f'{INSTANCE},listener=~"messages.*"'

DASHBOARD = dashboard(
    "quipu-messages",
    "Quipu: messages",
    "Whether messages are accepted, delivered and expired, and what waits for its recipients.",
    [instance_variable()],
    [
        [
            stat(
                "Connections",
                total("connections_current"),
                "WebSocket connections now. A fall to 0: the listener, or the proxy in front of it.",
            ),
            stat(
                "Committed",
                rate("messages_persisted_total"),
                "Messages committed a second.",
                decimals=1,
            ),
            stat(
                "Acknowledged",
                rate("messages_delivered_total"),
                "Messages that a device acknowledged, a second. One message counts once for each device. 0"
                " while messages are committed: recipients are offline, or delivery fails; section"
                " QuipuMessagesNotDelivered of docs/alerts.md.",
                decimals=1,
            ),
            stat(
                "Pending",
                total("quipu_messages_pending_messages", where=EVERYWHERE),
                "Messages that no device has acknowledged, of the 10,000 that expire soonest.",
            ),
            stat(
                "Oldest pending",
                or_zero("max(quipu_messages_oldest_pending_seconds)"),
                "Age of the oldest of these. Days are normal for a recipient who is away.",
                unit="s",
                decimals=0,
            ),
            stat(
                "Next loss in",
                "max(quipu_messages_next_loss_seconds)",
                "Time until the first of these expires undelivered. Its sender chose that time"
                " (`ttl_seconds`).",
                unit="s",
                steps=falling(60, 3600),
                decimals=0,
                empty="none",
            ),
            stat(
                "Refused",
                rate("quipu_messages_refusals_total"),
                "Requests and frames refused, a second. Below is each reason.",
                steps=rising(1, 10),
                decimals=1,
            ),
            stat(
                "Store errors",
                or_zero(f"sum(increase(store_errors_total{{{INSTANCE}}}[1h]))"),
                "Requests that the store failed in the last hour. Above 0: the database; the log has the"
                " cause.",
                steps=BAD_ABOVE_0,
                decimals=0,
            ),
        ],
        [
            graph(
                "Messages",
                [
                    ("committed", rate("messages_persisted_total")),
                    ("acknowledged", rate("messages_delivered_total")),
                    ("expired", rate("messages_expired_total")),
                ],
                "Messages a second. Acknowledged follows committed, later for recipients who were away."
                " Expired counts payloads that were dropped after their time, delivered or not.",
            ),
            graph(
                "Frames",
                [
                    ("received", rate("messages_received_total")),
                    ("connections dropped", rate("messages_dropped_total")),
                ],
                "Frames a second, and connections that were closed because the client did not read in time.",
            ),
        ],
        [
            graph(
                "Refused",
                [("{{reason}}", rate("quipu_messages_refusals_total", "reason"))],
                "Requests and frames refused, a second, by the field at fault. `no_space`: the disk;"
                " `store_busy`, `store_broken`: the database; `sender`, `recipient`, `minute`: quotas; the"
                " rest: clients' mistakes.",
            ),
            graph(
                "Waiting",
                [
                    ("pending", total("quipu_messages_pending_messages", where=EVERYWHERE)),
                    ("payloads on disk", total("quipu_messages_stored_messages", where=EVERYWHERE)),
                ],
                "Messages that no device has acknowledged, of the 10,000 that expire soonest, and payloads on"
                " disk (an estimate).",
            ),
        ],
        [
            graph(
                "Duration of a commit",
                [
                    ("p50", quantile(0.5, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                    ("p99", quantile(0.99, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                ],
                "Time of a group commit of messages. A sender waits for one or two of them. Above 0.1 s: the"
                " disk of PostgreSQL.",
                unit="s",
            ),
            graph(
                "The writer's queue",
                [
                    ("waiting", f"sum(quipu_store_queue_commands{{{JOURNAL}}}) or on() vector(0)"),
                    ("limit", f"sum(quipu_store_queue_limit_commands{{{JOURNAL}}}) or on() vector(0)"),
                ],
                "Commands that wait for a commit. At the limit senders are refused (`store_busy`).",
            ),
        ],
        [
            graph(
                "Pending and loss",
                [
                    ("oldest pending", or_zero("max(quipu_messages_oldest_pending_seconds)")),
                    ("next loss in", or_zero("max(quipu_messages_next_loss_seconds)")),
                    (
                        "since the last sweep",
                        f"time() - min(quipu_messages_sweep_timestamp_seconds{{{INSTANCE}}})",
                    ),
                ],
                "Age of the oldest pending message, time until the next one expires undelivered, and time"
                " since expired messages were swept. A sweep that is hours old: expired payloads stay on"
                " disk; the log says why.",
                unit="s",
            ),
            graph(
                "Connections",
                [
                    ("WebSocket", total("connections_current")),
                    ("{{listener}}, all", total("quipu_http_connections", "listener", LISTENERS)),
                ],
                "Connections now. Their bounds are `services.messages.connections_max` and"
                " `.connections_per_address_max`.",
            ),
            graph(
                "Failed requests",
                [
                    (
                        "{{listener}} {{class}} {{code}}",
                        rate("quipu_http_errors_total", "listener, class, code", LISTENERS),
                    ),
                    (
                        "{{listener}} refused: {{reason}}",
                        rate("quipu_http_connections_refused_total", "listener, reason", LISTENERS),
                    ),
                ],
                "Requests that failed and connections that were refused, a second, of the two listeners.",
            ),
        ],
    ],
)
