"""Blobs: are uploads stored and downloads served, which upstream fails, and does repair catch up."""

from panels import BAD_ABOVE_0, dashboard, graph, instance_variable, rising, stat
from queries import EVERYWHERE, INSTANCE, or_zero, quantile, rate, total

JOURNAL = f'{INSTANCE},journal="blob_log"'
LISTENER = f'{INSTANCE},listener="blossom"'


def ended(*outcomes):
    return f'{INSTANCE},outcome=~"{"|".join(outcomes)}"'


def kind(*kinds):
    return f'{INSTANCE},kind=~"{"|".join(kinds)}"'


def state(of):
    return f'state="{of}"'


DASHBOARD = dashboard(
    "quipu-blossom",
    "Quipu: blobs",
    "Whether uploads are stored and downloads served, which upstream fails, and whether repair catches up.",
    [instance_variable()],
    [
        [
            stat(
                "Kept",
                total("quipu_blossom_kept_blobs", where=EVERYWHERE),
                "Blobs that have an owner.",
            ),
            stat(
                "Their size",
                total("quipu_blossom_kept_bytes", where=EVERYWHERE),
                "Bytes of the kept blobs, each counted once whatever the number of its copies.",
                unit="bytes",
            ),
            stat(
                "Too few copies",
                or_zero("max(quipu_blossom_under_replicated_blobs)"),
                "Kept blobs with fewer copies than `services.blossom.replicas_target`. It falls while repair works;"
                " section QuipuBlobsUnderReplicated of docs/alerts.md.",
                steps=rising(1, 1000),
                decimals=0,
            ),
            stat(
                "Readable nowhere",
                or_zero("max(quipu_blossom_unavailable_blobs)"),
                "Kept blobs without any readable or accepted copy; section QuipuBlobsUnavailable of"
                " docs/alerts.md.",
                steps=BAD_ABOVE_0,
                decimals=0,
            ),
            stat(
                "Not read back",
                or_zero("max(quipu_blossom_oldest_unverified_seconds)"),
                "Age of the oldest copy that an upstream accepted and that was not read back yet. Minutes are"
                " normal; section QuipuBlobsNotVerified of docs/alerts.md.",
                unit="s",
                steps=rising(600, 3600),
                decimals=0,
            ),
            stat(
                "Upstreams that fail",
                or_zero(f"count(min by (upstream) (quipu_blossom_upstream_healthy{{{INSTANCE}}}) == 0)"),
                "Upstreams to which nothing is sent after repeated failures; section QuipuBlobsUpstreamDown of"
                " docs/alerts.md.",
                steps=BAD_ABOVE_0,
                decimals=0,
            ),
            stat(
                "Stored",
                rate("quipu_blossom_uploads_total", where=ended("stored", "known")),
                "Uploads stored a second.",
                decimals=1,
            ),
            stat(
                "Served",
                rate("quipu_blossom_downloads_total", where=ended("redirected", "streamed", "not_modified")),
                "Requests for a blob that were answered with a redirect, with bytes, or with “not modified”, a"
                " second.",
                decimals=1,
            ),
        ],
        [
            graph(
                "Uploads",
                [("{{how}}: {{outcome}}", rate("quipu_blossom_uploads_total", "how, outcome"))],
                "Requests to store a blob, a second, by how they ended. `no_quorum`: too few upstreams took it;"
                " `failed`: the database or the built-in store; section QuipuBlobsUploadsFailing of docs/alerts.md."
                " `aborted` and `refused`: the clients.",
            ),
            graph(
                "Downloads",
                [("{{outcome}}", rate("quipu_blossom_downloads_total", "outcome"))],
                "Requests for a blob, a second, by how they ended. `unavailable`: it is known, and no copy can be"
                " read. `broken_off`: an upstream stopped in the middle.",
            ),
        ],
        [
            graph(
                "Bytes",
                [
                    ("from clients", rate("quipu_blossom_received_bytes_total")),
                    ("to upstreams", rate("quipu_blossom_upstream_sent_bytes_total")),
                    ("from upstreams", rate("quipu_blossom_upstream_received_bytes_total")),
                    ("to clients", rate("quipu_blossom_sent_bytes_total")),
                ],
                "Bytes of blobs a second. Those of redirected downloads do not pass through here.",
                unit="Bps",
            ),
            graph(
                "Time of an upload",
                [
                    ("p50", quantile(0.5, "quipu_blossom_upload_seconds")),
                    ("p99", quantile(0.99, "quipu_blossom_upload_seconds")),
                ],
                "Time from the request to the answer of uploads that stored a blob, with the transfer of its bytes.",
                unit="s",
            ),
        ],
        [
            graph(
                "Requests that fail at an upstream",
                [
                    (
                        "{{upstream}} {{operation}}",
                        rate(
                            "quipu_blossom_upstream_requests_total",
                            "upstream, operation",
                            ended("failed", "too_slow"),
                        ),
                    )
                ],
                "Failed requests a second, by upstream and what was asked. What lies with a client (its token, its"
                " broken connection) is not among them.",
            ),
            graph(
                "Time until an upstream answers",
                [
                    (
                        "{{upstream}}, p50",
                        quantile(0.5, "quipu_blossom_upstream_answer_seconds", "upstream"),
                    ),
                    (
                        "{{upstream}}, p99",
                        quantile(0.99, "quipu_blossom_upstream_answer_seconds", "upstream"),
                    ),
                ],
                "Time until an upstream answered a HEAD, or began its answer to a GET.",
                unit="s",
            ),
            graph(
                "Health of upstreams",
                [("{{upstream}}", f"min by (upstream) (quipu_blossom_upstream_healthy{{{INSTANCE}}})")],
                "1: requests are sent to it. 0: after repeated failures only a probe is, now and then.",
            ),
        ],
        [
            graph(
                "What happened to copies",
                [("{{kind}}", rate("quipu_blossom_replica_entries_total", "kind"))],
                "Entries of `blob_log` about copies, a second. `readable` follows `accepted` within about a minute."
                " `lost`: the upstream had the blob, see section QuipuBlobsLost of docs/alerts.md. `not_deleted`: it"
                " refused a deletion.",
            ),
            graph(
                "Copies that wait, or are not there",
                [
                    (
                        "{{upstream}} " + word,
                        total("quipu_blossom_recorded_replicas", "upstream", where=state(word)),
                    )
                    for word in ("accepted", "failed", "lost")
                ],
                "Copies by upstream that are not known to be readable. Accepted: they are read back within about a"
                " minute. Failed and lost: repair makes them again, unless other upstreams have enough.",
            ),
            graph(
                "Readable copies",
                [
                    (
                        "{{upstream}}",
                        total("quipu_blossom_recorded_replicas", "upstream", where=state("readable")),
                    )
                ],
                "Copies by upstream that were read back.",
            ),
        ],
        [
            graph(
                "Repair",
                [("{{outcome}}", rate("quipu_blossom_repairs_total", "outcome"))],
                "Attempts a second to make another copy of a blob that has too few. `no_source`: no copy can be"
                " read. `failed`: the upstream refused or failed.",
            ),
            graph(
                "Too few copies",
                [
                    ("too few", or_zero("max(quipu_blossom_under_replicated_blobs)")),
                    ("none", or_zero("max(quipu_blossom_unavailable_blobs)")),
                ],
                "Kept blobs with fewer copies than wanted, and without any. After an upstream has failed it rises;"
                " then it falls to 0.",
            ),
            graph(
                "Adopted",
                [("{{outcome}}", rate("quipu_blossom_adoptions_total", "outcome"))],
                "Attempts a second to adopt a blob to which an event of a followed key refers. `missed`: it was"
                " found nowhere. `other_bytes`: the server named gave another file.",
            ),
        ],
        [
            graph(
                "Refused",
                [("{{reason}}", rate("quipu_blossom_refusals_total", "reason"))],
                "Requests refused, a second, by reason. Tokens, hashes and types: the clients. `over_bytes`,"
                " `over_blobs`, `too_many`: limits in the settings. `store_busy`, `store_broken`, `no_space`: the"
                " database or the disk.",
            ),
            graph(
                "Look-ups",
                [("{{how}}", rate("quipu_blossom_lookups_total", "how"))],
                "Look-ups of the copies of a blob, a second, by where they ended. Many `asked`: blobs that were not"
                " uploaded through here. Many `absent`: clients that ask for what does not exist.",
            ),
            graph(
                "In progress",
                [
                    ("uploads", total("quipu_blossom_upload_requests")),
                    ("to upstreams after the answer", total("quipu_blossom_background_requests")),
                    ("connections", total("quipu_http_connections", where=LISTENER)),
                ],
                "Uploads, requests to upstreams that go on after their upload was answered, and connections of the"
                " listener now.",
            ),
            graph(
                "Duration of a commit",
                [
                    ("p50", quantile(0.5, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                    ("p99", quantile(0.99, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                ],
                "Time of a group commit of blobs. An upload waits for one. Above 0.1 s: the disk of PostgreSQL.",
                unit="s",
            ),
        ],
    ],
)
