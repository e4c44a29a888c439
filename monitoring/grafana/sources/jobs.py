"""Jobs: are they claimed, completed or failed, and what waits for which worker."""

from panels import BAD_ABOVE_0, dashboard, graph, instance_variable, rising, stat
from queries import INSTANCE, or_zero, quantile, rate, total

JOURNAL = f'{INSTANCE},journal="job_log"'
LISTENER = f'{INSTANCE},listener="jobs"'


def state(of):
    return f'state="{of}"'


def step(kind):
    return f'{INSTANCE},kind="{kind}"'


DASHBOARD = dashboard(
    "quipu-jobs",
    "Quipu: jobs",
    "Whether jobs are claimed and completed, what fails, and what waits for which worker.",
    [instance_variable()],
    [
        [
            stat(
                "Pending",
                total("quipu_jobs_stored_jobs", where=state("pending")),
                "Jobs that wait for a worker, or for their time.",
            ),
            stat(
                "Oldest ready",
                or_zero("max(quipu_jobs_oldest_ready_seconds)"),
                "Time for which the oldest job that could be claimed has been ready. Minutes are normal in a"
                " burst; section QuipuJobsWaitTooLong of docs/alerts.md.",
                unit="s",
                steps=rising(600, 3600),
                decimals=0,
            ),
            stat(
                "Running",
                total("quipu_jobs_stored_jobs", where=state("running")),
                "Jobs that are leased to a worker.",
            ),
            stat(
                "Workers online",
                total("quipu_jobs_known_workers", where=state("online")),
                "Registered workers that were heard of within `services.jobs.worker_timeout_s`. Workers that only"
                " claim are not counted.",
            ),
            stat(
                "Types without worker",
                or_zero("max(quipu_jobs_unserved_types)"),
                "Types that have a job to be claimed, no worker online and no job running. The page /jobs of the"
                " listener of jobs names them; section QuipuJobsNoWorker of docs/alerts.md.",
                steps=BAD_ABOVE_0,
                decimals=0,
            ),
            stat(
                "Completed",
                rate("quipu_jobs_steps_total", where=step("completed")),
                "Jobs completed a second. 0 while jobs wait: section QuipuJobsNotCompleted of docs/alerts.md.",
                decimals=1,
            ),
            stat(
                "Tried again",
                total("quipu_jobs_stored_jobs", where=state("failed")),
                "Jobs whose last attempt failed and that wait for the next one.",
            ),
            stat(
                "Dead",
                total("quipu_jobs_stored_jobs", where=state("dead")),
                "Jobs all of whose attempts failed. They stay until a person retries them; section QuipuJobsDead"
                " of docs/alerts.md.",
                steps=[(None, "green"), (1, "yellow")],
                decimals=0,
            ),
        ],
        [
            graph(
                "Jobs",
                [
                    ("submitted", rate("quipu_jobs_submitted_total")),
                    ("leased", rate("quipu_jobs_leased_total")),
                    ("completed", rate("quipu_jobs_steps_total", where=step("completed"))),
                ],
                "Jobs a second. Completed follows submitted, or the queue grows. Leased above completed: attempts"
                " fail, or jobs take long.",
            ),
            graph(
                "Attempts that failed",
                [
                    ("failed", rate("quipu_jobs_steps_total", where=step("failed"))),
                    ("lease expired", rate("quipu_jobs_steps_total", where=step("expired"))),
                    ("released", rate("quipu_jobs_steps_total", where=step("released"))),
                ],
                "Attempts a second that ended otherwise. Expired: the worker gave no answer, see section"
                " QuipuJobsLeasesExpire of docs/alerts.md. Released: the worker gave the job back, which counts"
                " no attempt.",
            ),
        ],
        [
            graph(
                "Open jobs",
                [
                    (word, total("quipu_jobs_stored_jobs", where=state(word)))
                    for word in ("pending", "waiting", "running", "failed")
                ],
                "Jobs by status. Waiting: for other jobs. Failed: for the next attempt.",
                stacked=True,
            ),
            graph(
                "Age of the oldest",
                [("oldest ready", or_zero("max(quipu_jobs_oldest_ready_seconds)"))],
                "Time for which the oldest job that could be claimed has been ready. A line that rises with the"
                " clock: nothing claims its type.",
                unit="s",
            ),
            graph(
                "Workers",
                [
                    (word, total("quipu_jobs_known_workers", where=state(word)))
                    for word in ("online", "draining", "suspended", "offline")
                ],
                "Registered workers by state. A fall of online: their machine, or the listener of jobs.",
                stacked=True,
            ),
        ],
        [
            graph(
                "Time from submission to the first lease",
                [
                    ("p50", quantile(0.5, "quipu_jobs_wait_seconds")),
                    ("p99", quantile(0.99, "quipu_jobs_wait_seconds")),
                ],
                "With an idle worker that waits, milliseconds. More: workers are busy, too few, or claim without"
                " `wait_s`.",
                unit="s",
            ),
            graph(
                "Duration of a commit",
                [
                    ("p50", quantile(0.5, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                    ("p99", quantile(0.99, "quipu_store_commit_duration_seconds", where=JOURNAL)),
                ],
                "Time of a group commit of jobs. Each step of a job waits for one or two of them. Above 0.1 s: the"
                " disk of PostgreSQL.",
                unit="s",
            ),
            graph(
                "The writer's queue",
                [
                    ("waiting", f"sum(quipu_store_queue_commands{{{JOURNAL}}}) or on() vector(0)"),
                    ("limit", f"sum(quipu_store_queue_limit_commands{{{JOURNAL}}}) or on() vector(0)"),
                ],
                "Commands that wait for a commit. At the limit requests are refused (`store_busy`).",
            ),
        ],
        [
            graph(
                "Refused",
                [("{{reason}}", rate("quipu_jobs_refusals_total", "reason"))],
                "Requests refused, a second, by the field at fault or the reason. `lease_expired`, `other_worker`:"
                " workers that answer too late. `unauthorized`, `forbidden`: a wrong token. `no_space`: the disk;"
                " `store_busy`, `store_broken`: the database.",
            ),
            graph(
                "Requests that wait",
                [
                    ("claims", total("quipu_jobs_waiting_requests")),
                    ("streams of events", total("quipu_jobs_stream_connections")),
                    ("connections", total("quipu_http_connections", where=LISTENER)),
                ],
                "Claims that wait for a job, streams of events, and connections of the listener now. The bound of"
                " streams is `services.jobs.streams_max`.",
            ),
            graph(
                "Claimed in vain",
                [("candidates", rate("quipu_jobs_claim_conflicts_total"))],
                "Ready jobs that were tried to claim and that another process had claimed, a second. Many: several"
                " processes compete for few jobs.",
            ),
        ],
    ],
)
