-- Jobs: a queue in which every transition is an entry.
--
-- A job's entries are numbered: the row of `jobs` is step 0, and each entry of `job_log` is the next step. The
-- primary key (job, step) decides every race: of two transitions that start from the same step, one is
-- inserted. An entry repeats the state after it, so the last entry of a job is its state. No row is updated:
-- a long-running query of an analyst does not slow the queue down.

CREATE SEQUENCE job_number AS bigint;
COMMENT ON SEQUENCE job_number IS 'numbers of jobs; a process draws several at a time, so numbers can be missing';
GRANT USAGE, SELECT ON SEQUENCE job_number TO quipu;

CREATE TABLE jobs (
    job          bigint      PRIMARY KEY,
    position     bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    type         text        NOT NULL CONSTRAINT jobs_type CHECK (type <> ''),
    status       text        NOT NULL CONSTRAINT jobs_status CHECK (status IN ('pending', 'waiting')),
    priority     smallint    NOT NULL CONSTRAINT jobs_priority CHECK (priority BETWEEN 1 AND 5),
    ready_at     timestamptz NOT NULL,
    attempts_max integer     NOT NULL CONSTRAINT jobs_attempts_max CHECK (attempts_max > 0),
    unique_key   bytea       CONSTRAINT jobs_unique_key CHECK (octet_length(unique_key) = 32),
    source_hash  text,
    source_path  text,
    source_size  bigint,
    tags         jsonb,
    metadata     jsonb,
    depends_on   bigint[]    CONSTRAINT jobs_depends_on CHECK (cardinality(depends_on) > 0),
    actor        text        NOT NULL
) PARTITION BY RANGE (job);
COMMENT ON TABLE jobs IS 'journal: jobs as they were submitted, step 0 of each; one partition for each million of job numbers';
COMMENT ON COLUMN jobs.job IS 'number of the job, the id that clients see';
COMMENT ON COLUMN jobs.position IS 'place in the order of all journals';
COMMENT ON COLUMN jobs.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN jobs.recorded_at IS 'database clock';
COMMENT ON COLUMN jobs.type IS 'type of the job: workers claim by type';
COMMENT ON COLUMN jobs.status IS 'pending, or waiting: for the jobs in depends_on';
COMMENT ON COLUMN jobs.priority IS '1 (first) to 5 (last)';
COMMENT ON COLUMN jobs.ready_at IS 'the job is not claimed before this time of the database clock';
COMMENT ON COLUMN jobs.attempts_max IS 'attempts that may fail before the job is dead';
COMMENT ON COLUMN jobs.unique_key IS 'SHA-256 of what makes the job unique, NULL when it may be submitted again: see job_keys';
COMMENT ON COLUMN jobs.source_hash IS 'hash of the source object, as the submitter states it';
COMMENT ON COLUMN jobs.source_path IS 'path of the source where it was submitted, for people';
COMMENT ON COLUMN jobs.source_size IS 'size of the source in bytes, as the submitter states it';
COMMENT ON COLUMN jobs.tags IS 'the submitter''s tags';
COMMENT ON COLUMN jobs.metadata IS 'the submitter''s data for the worker';
COMMENT ON COLUMN jobs.depends_on IS 'jobs that have to be completed first';
COMMENT ON COLUMN jobs.actor IS 'who submitted it: token:NAME, user:EMAIL, schedule:NAME, sql:ROLE, local (a program on this machine) or quipu';
CREATE INDEX jobs_position ON jobs (position);
CREATE INDEX jobs_xid ON jobs (xid);
CREATE INDEX jobs_depends_on_xid ON jobs (xid) WHERE depends_on IS NOT NULL;
CREATE INDEX jobs_depends_on ON jobs USING gin (depends_on) WHERE depends_on IS NOT NULL;
CREATE INDEX jobs_of_sql ON jobs (xid) WHERE actor LIKE 'sql:%';
SELECT quipu_make_journal('jobs');

CREATE TABLE job_log (
    job         bigint      NOT NULL,
    step        integer     NOT NULL CONSTRAINT job_log_step CHECK (step > 0),
    position    bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text        NOT NULL,
    was         text        NOT NULL,
    status      text        NOT NULL,
    type        text        NOT NULL,
    priority    smallint    NOT NULL CONSTRAINT job_log_priority CHECK (priority BETWEEN 1 AND 5),
    attempt     integer     NOT NULL,
    failures    integer     NOT NULL,
    worker      text,
    claim       uuid,
    lease_s     integer     CONSTRAINT job_log_lease_s CHECK (lease_s > 0),
    expires_at  timestamptz,
    ready_at    timestamptz,
    actor       text        NOT NULL,
    why         text,
    detail      jsonb,
    PRIMARY KEY (job, step),
    CONSTRAINT job_log_kind CHECK (CASE kind
        WHEN 'leased' THEN was IN ('pending', 'failed') AND status = 'running'
        WHEN 'renewed' THEN was = 'running' AND status = 'running'
        WHEN 'progress' THEN was = 'running' AND status = 'running'
        WHEN 'completed' THEN was = 'running' AND status = 'completed'
        WHEN 'failed' THEN was = 'running' AND status IN ('failed', 'dead')
        WHEN 'expired' THEN was = 'running' AND status IN ('pending', 'dead')
        WHEN 'released' THEN was = 'running' AND status = 'pending'
        WHEN 'cancelled' THEN status = 'cancelled'
        WHEN 'reprioritized' THEN status = was
        WHEN 'retried' THEN was IN ('failed', 'dead', 'cancelled') AND status = 'pending'
        WHEN 'unblocked' THEN was = 'waiting' AND status = 'pending'
        WHEN 'imported' THEN was = 'pending' AND status IN ('pending', 'completed', 'dead', 'cancelled')
        ELSE false END),
    CONSTRAINT job_log_lease CHECK (CASE status WHEN 'running' THEN num_nulls(worker, claim, lease_s, expires_at) = 0
        ELSE num_nonnulls(claim, lease_s, expires_at) = 0 END),
    CONSTRAINT job_log_ready CHECK ((status IN ('pending', 'failed')) = (ready_at IS NOT NULL))
) PARTITION BY RANGE (job);
COMMENT ON TABLE job_log IS 'journal: what happened to jobs after they were submitted; the last step of a job holds its state; partitions as of jobs';
COMMENT ON COLUMN job_log.job IS 'number of the job';
COMMENT ON COLUMN job_log.step IS 'place among the entries of the job, from 1, without gaps';
COMMENT ON COLUMN job_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN job_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_log.recorded_at IS 'database clock';
COMMENT ON COLUMN job_log.kind IS 'leased, renewed, progress, completed, failed, expired (the lease), released, cancelled, reprioritized, retried, unblocked, imported (the state that it had in another queue)';
COMMENT ON COLUMN job_log.was IS 'status before the entry';
COMMENT ON COLUMN job_log.status IS 'status after the entry: pending, waiting (for other jobs), running, failed (waits for its next attempt), completed, dead, cancelled';
COMMENT ON COLUMN job_log.type IS 'as in jobs';
COMMENT ON COLUMN job_log.priority IS 'from now on, 1 (first) to 5 (last)';
COMMENT ON COLUMN job_log.attempt IS 'leases of the job so far';
COMMENT ON COLUMN job_log.failures IS 'attempts that count against attempts_max';
COMMENT ON COLUMN job_log.worker IS 'the worker that holds or held the lease';
COMMENT ON COLUMN job_log.claim IS 'the request by which the job was leased; NULL when no lease is held';
COMMENT ON COLUMN job_log.lease_s IS 'length of the lease in seconds; NULL when no lease is held';
COMMENT ON COLUMN job_log.expires_at IS 'end of the lease, database clock; NULL when no lease is held';
COMMENT ON COLUMN job_log.ready_at IS 'the job is not claimed before this time of the database clock; NULL when it is not to be claimed';
COMMENT ON COLUMN job_log.actor IS 'who caused it: worker:ID, token:NAME, user:EMAIL, local (a program on this machine) or quipu';
COMMENT ON COLUMN job_log.why IS 'the reason in words: the error of a failure, the comment of a person';
COMMENT ON COLUMN job_log.detail IS 'progress, result or context, as the worker stated it';
CREATE INDEX job_log_position ON job_log (position);
CREATE INDEX job_log_xid ON job_log (xid);
CREATE INDEX job_log_expires_at ON job_log (expires_at) WHERE expires_at IS NOT NULL;
-- A client that repeats a claim gets the jobs of the first one.
CREATE INDEX job_log_claim ON job_log (claim) WHERE kind = 'leased';
-- For lists of dead and cancelled jobs.
CREATE INDEX job_log_ended ON job_log (position) WHERE status IN ('dead', 'cancelled');
-- Searches for ready jobs may have gone past these: see quipu_late_jobs().
CREATE INDEX job_log_early ON job_log (xid) WHERE ready_at < recorded_at;
-- For job_audit.
CREATE INDEX job_log_managed ON job_log (position) WHERE kind IN ('cancelled', 'reprioritized', 'retried');
SELECT quipu_make_journal('job_log');

CREATE TABLE job_keys (
    key bytea  PRIMARY KEY CONSTRAINT job_keys_key CHECK (octet_length(key) = 32),
    job bigint NOT NULL
);
COMMENT ON TABLE job_keys IS 'projection of jobs, kept in the same commit: the job that was submitted under a unique key; a second one with the same key is not stored';
COMMENT ON COLUMN job_keys.key IS 'jobs.unique_key';
COMMENT ON COLUMN job_keys.job IS 'number of the job';
SELECT quipu_make_changeable('job_keys');

CREATE TABLE job_totals (
    type   text   NOT NULL,
    status text   NOT NULL,
    jobs   bigint NOT NULL,
    PRIMARY KEY (type, status)
) WITH (fillfactor = 50);
COMMENT ON TABLE job_totals IS 'projection of jobs and job_log by ticks: number of jobs by type and status; the view job_counts is exact';
COMMENT ON COLUMN job_totals.type IS 'as in jobs';
COMMENT ON COLUMN job_totals.status IS 'as in job_log';
COMMENT ON COLUMN job_totals.jobs IS 'number of jobs';
SELECT quipu_make_changeable('job_totals');

-- Entries are never deleted one by one: when most of a segment is done, the service copies the rest into the
-- other segment and truncates the first.
CREATE TABLE job_ready (
    segment  smallint    NOT NULL,
    type     text        NOT NULL,
    priority smallint    NOT NULL,
    ready_at timestamptz NOT NULL,
    job      bigint      NOT NULL,
    step     integer     NOT NULL,
    status   text        NOT NULL,
    attempt  integer     NOT NULL,
    failures integer     NOT NULL
) PARTITION BY LIST (segment);
COMMENT ON TABLE job_ready IS 'working: steps after which a job could be claimed; done when the job has a later step. Job 0 marks a complete segment: without it the service fills the table again from the journals';
COMMENT ON COLUMN job_ready.segment IS '0 or 1: entries of two segments, of which one is written and the other is emptied';
COMMENT ON COLUMN job_ready.type IS 'as in jobs';
COMMENT ON COLUMN job_ready.priority IS 'as in job_log';
COMMENT ON COLUMN job_ready.ready_at IS 'as in job_log';
COMMENT ON COLUMN job_ready.job IS 'number of the job';
COMMENT ON COLUMN job_ready.step IS 'the step after which it could be claimed';
COMMENT ON COLUMN job_ready.status IS 'after that step: pending or failed';
COMMENT ON COLUMN job_ready.attempt IS 'as in job_log';
COMMENT ON COLUMN job_ready.failures IS 'as in job_log';
CREATE INDEX job_ready_order ON job_ready (type, priority, ready_at, job);
CREATE TABLE partitions.job_ready_0 PARTITION OF job_ready FOR VALUES IN (0);
CREATE TABLE partitions.job_ready_1 PARTITION OF job_ready FOR VALUES IN (1);
-- Internal: a reader's transaction would delay the truncation of a segment.
GRANT SELECT, INSERT, UPDATE, DELETE ON job_ready TO quipu;
INSERT INTO job_ready SELECT s, '', 1, '-infinity', 0, 0, '', 0, 0 FROM generate_series(0, 1) s;

CREATE TABLE job_slots (
    type    text    NOT NULL,
    slot    integer NOT NULL,
    turn    bigint  NOT NULL,
    job     bigint  NOT NULL,
    attempt integer NOT NULL,
    claim   uuid    NOT NULL,
    PRIMARY KEY (type, slot, turn)
);
COMMENT ON TABLE job_slots IS 'working: leases of types with a limit (services.jobs.limits), each in a slot of its own; without its rows more jobs than the limit can run until their leases end';
COMMENT ON COLUMN job_slots.type IS 'as in jobs';
COMMENT ON COLUMN job_slots.slot IS 'from 1 to the limit';
COMMENT ON COLUMN job_slots.turn IS 'uses of the slot, from 1: the key (type, slot, turn) decides who gets it';
COMMENT ON COLUMN job_slots.job IS 'number of the job';
COMMENT ON COLUMN job_slots.attempt IS 'the lease';
COMMENT ON COLUMN job_slots.claim IS 'as in job_log';
SELECT quipu_make_changeable('job_slots');

CREATE TABLE job_cursors (
    name       text        PRIMARY KEY,
    value      text        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);
COMMENT ON TABLE job_cursors IS 'working: how far loops of the service have come; without its row a loop begins at the start';
COMMENT ON COLUMN job_cursors.name IS 'segment: the one that is written. expiry: leases up to this time are settled, microseconds since 1970. dependencies, webhooks: the snapshot that was read. filled: when job_ready was filled from the journals, microseconds since 1970';
COMMENT ON COLUMN job_cursors.value IS 'see name';
COMMENT ON COLUMN job_cursors.updated_at IS 'database clock';
SELECT quipu_make_changeable('job_cursors');

CREATE TABLE job_worker_log (
    worker      text        NOT NULL,
    step        integer     NOT NULL CONSTRAINT job_worker_log_step CHECK (step > 0),
    position    bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text        NOT NULL CONSTRAINT job_worker_log_kind CHECK (kind IN
        ('created', 'registered', 'unregistered', 'draining', 'suspended', 'resumed', 'enabled', 'disabled', 'lost', 'returned', 'removed')),
    status      text        NOT NULL CONSTRAINT job_worker_log_status CHECK (status IN ('online', 'offline', 'draining', 'suspended', 'removed')),
    is_enabled  boolean     NOT NULL,
    type        text        NOT NULL,
    name        text,
    metadata    jsonb,
    actor       text        NOT NULL,
    PRIMARY KEY (worker, step)
);
COMMENT ON TABLE job_worker_log IS 'journal: what happened to workers; the last step of a worker holds its state';
COMMENT ON COLUMN job_worker_log.worker IS 'id that the worker or its operator chose';
COMMENT ON COLUMN job_worker_log.step IS 'place among the entries of the worker, from 1, without gaps';
COMMENT ON COLUMN job_worker_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN job_worker_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_worker_log.recorded_at IS 'database clock';
COMMENT ON COLUMN job_worker_log.kind IS 'created by an operator, registered and unregistered by the worker, draining, suspended, resumed, enabled, disabled, lost (no heartbeat), returned, removed';
COMMENT ON COLUMN job_worker_log.status IS 'after the entry; only an online worker gets jobs';
COMMENT ON COLUMN job_worker_log.is_enabled IS 'whether the worker may log in and claim';
COMMENT ON COLUMN job_worker_log.type IS 'the type of jobs that it works on';
COMMENT ON COLUMN job_worker_log.name IS 'a name for people';
COMMENT ON COLUMN job_worker_log.metadata IS 'what the worker said of itself when it registered';
COMMENT ON COLUMN job_worker_log.actor IS 'as in job_log';
CREATE INDEX job_worker_log_position ON job_worker_log (position);
CREATE INDEX job_worker_log_xid ON job_worker_log (xid);
-- For job_audit.
CREATE INDEX job_worker_log_managed ON job_worker_log (position) WHERE kind NOT IN ('registered', 'unregistered', 'lost', 'returned');
SELECT quipu_make_journal('job_worker_log');

CREATE TABLE job_beats (
    worker  text        PRIMARY KEY,
    seen_at timestamptz NOT NULL,
    job     bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE job_beats IS 'working: when each worker was last heard of, accurate to five seconds; without its row a worker counts as heard of when it last registered';
COMMENT ON COLUMN job_beats.worker IS 'as in job_worker_log';
COMMENT ON COLUMN job_beats.seen_at IS 'database clock';
COMMENT ON COLUMN job_beats.job IS 'the job that it said it works on';
SELECT quipu_make_changeable('job_beats');

CREATE TABLE job_credentials (
    position      bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid           xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind          text        NOT NULL CONSTRAINT job_credentials_kind CHECK (kind IN ('created', 'revoked')),
    secret_sha256 bytea       NOT NULL CONSTRAINT job_credentials_sha256 CHECK (octet_length(secret_sha256) = 32),
    name          text        NOT NULL,
    worker        text,
    is_admin      boolean     NOT NULL,
    scopes        text[]      NOT NULL,
    expires_at    timestamptz,
    actor         text        NOT NULL,
    CONSTRAINT job_credentials_once UNIQUE (secret_sha256, kind)
);
COMMENT ON TABLE job_credentials IS 'journal: API tokens and secrets of workers, created and revoked; the secrets themselves are not stored';
COMMENT ON COLUMN job_credentials.position IS 'place in the order of all journals; that of a created entry is the id of the token';
COMMENT ON COLUMN job_credentials.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_credentials.recorded_at IS 'database clock';
COMMENT ON COLUMN job_credentials.kind IS 'created, or revoked: from then on it is refused';
COMMENT ON COLUMN job_credentials.secret_sha256 IS 'SHA-256 of the token or secret, 32 bytes';
COMMENT ON COLUMN job_credentials.name IS 'a name for people, and for the actor of entries';
COMMENT ON COLUMN job_credentials.worker IS 'the worker whose secret it is; NULL for an API token';
COMMENT ON COLUMN job_credentials.is_admin IS 'whether the token may do everything';
COMMENT ON COLUMN job_credentials.scopes IS 'what the token may do otherwise: read, submit, manage, work; empty for read, submit, manage and work';
COMMENT ON COLUMN job_credentials.expires_at IS 'from this time of the database clock it is refused; NULL for never';
COMMENT ON COLUMN job_credentials.actor IS 'as in job_log';
CREATE INDEX job_credentials_xid ON job_credentials (xid);
CREATE INDEX job_credentials_worker ON job_credentials (worker) WHERE worker IS NOT NULL;
SELECT quipu_make_journal('job_credentials');
-- Hashes of secrets are for the service alone.
REVOKE SELECT ON job_credentials FROM quipu_reader;

CREATE TABLE job_files (
    id           uuid        PRIMARY KEY,
    position     bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text        NOT NULL CONSTRAINT job_files_kind CHECK (kind IN ('announced', 'stored', 'verified', 'refused')),
    key          text        NOT NULL,
    job          bigint,
    attempt      integer,
    size         bigint      CONSTRAINT job_files_size CHECK (size >= 0),
    sha256       bytea       CONSTRAINT job_files_sha256 CHECK (octet_length(sha256) = 32),
    is_bound     boolean     NOT NULL,
    etag         text,
    content_type text,
    actor        text        NOT NULL,
    why          text,
    CONSTRAINT job_files_output CHECK ((key LIKE 'outputs/%') = (job IS NOT NULL) AND (job IS NULL) = (attempt IS NULL))
);
COMMENT ON TABLE job_files IS 'journal: sources and outputs of jobs: uploads that were allowed, arrived and checked; the contents are in the object storage';
COMMENT ON COLUMN job_files.id IS 'drawn before the entry is sent, so that it is stored once';
COMMENT ON COLUMN job_files.position IS 'place in the order of all journals';
COMMENT ON COLUMN job_files.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_files.recorded_at IS 'database clock';
COMMENT ON COLUMN job_files.kind IS 'announced: an upload URL was given. stored: Quipu received the content itself. verified: the content in the bucket is what its key says. refused: it is not, and was deleted';
COMMENT ON COLUMN job_files.key IS 'sources/SHA-256 or outputs/JOB/ATTEMPT/NAME';
COMMENT ON COLUMN job_files.job IS 'the job of an output';
COMMENT ON COLUMN job_files.attempt IS 'the lease of an output';
COMMENT ON COLUMN job_files.size IS 'bytes: stated when announced, measured otherwise; NULL when not stated';
COMMENT ON COLUMN job_files.sha256 IS 'stated when announced, computed otherwise; NULL when not stated';
COMMENT ON COLUMN job_files.is_bound IS 'whether the storage accepts no other content than that of sha256';
COMMENT ON COLUMN job_files.etag IS 'the bucket''s mark of the version that was checked';
COMMENT ON COLUMN job_files.content_type IS 'as the upload URL binds it';
COMMENT ON COLUMN job_files.actor IS 'as in job_log';
COMMENT ON COLUMN job_files.why IS 'what is wrong with a refused content';
CREATE INDEX job_files_key ON job_files (key, position);
CREATE INDEX job_files_position ON job_files (position);
CREATE INDEX job_files_xid ON job_files (xid);
SELECT quipu_make_journal('job_files');

-- That a person logged in, logged out or was logged out is a fact, and stays. The session itself is not: without its
-- row the person logs in again, so it is in a working table, and a session ends by the removal of its row.
CREATE TABLE job_user_log (
    position    bigint      PRIMARY KEY DEFAULT nextval('journal_position'),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text        NOT NULL CONSTRAINT job_user_log_kind CHECK (kind IN ('login', 'logout', 'revoked')),
    session     uuid        NOT NULL,
    issuer      text        NOT NULL,
    subject     text        NOT NULL,
    label       text        NOT NULL,
    name        text,
    email       text,
    groups      text[]      NOT NULL,
    is_admin    boolean     NOT NULL,
    actor       text        NOT NULL,
    CONSTRAINT job_user_log_once UNIQUE (session, kind)
);
COMMENT ON TABLE job_user_log IS 'journal: people who logged in by OpenID Connect, and how their sessions ended; a session without an end has expired or made room for a newer one of the same person';
COMMENT ON COLUMN job_user_log.position IS 'place in the order of all journals';
COMMENT ON COLUMN job_user_log.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_user_log.recorded_at IS 'database clock';
COMMENT ON COLUMN job_user_log.kind IS 'login, logout by the person, revoked by an administrator';
COMMENT ON COLUMN job_user_log.session IS 'id of the session, no secret';
COMMENT ON COLUMN job_user_log.issuer IS 'URL of the provider';
COMMENT ON COLUMN job_user_log.subject IS 'id of the person at the provider';
COMMENT ON COLUMN job_user_log.label IS 'the person in the actor of entries, after user: the verified email address, or the subject';
COMMENT ON COLUMN job_user_log.name IS 'the person''s name as the provider states it; people may be able to choose it';
COMMENT ON COLUMN job_user_log.email IS 'email address, if the provider has verified it';
COMMENT ON COLUMN job_user_log.groups IS 'the groups by which the login was allowed';
COMMENT ON COLUMN job_user_log.is_admin IS 'whether the session may do everything';
COMMENT ON COLUMN job_user_log.actor IS 'as in job_log';
CREATE INDEX job_user_log_xid ON job_user_log (xid);
CREATE INDEX job_user_log_subject ON job_user_log (issuer, subject, position);
SELECT quipu_make_journal('job_user_log');

CREATE TABLE job_sessions (
    secret_sha256 bytea       PRIMARY KEY CONSTRAINT job_sessions_sha256 CHECK (octet_length(secret_sha256) = 32),
    session       uuid        NOT NULL UNIQUE,
    issuer        text        NOT NULL,
    subject       text        NOT NULL,
    label         text        NOT NULL,
    name          text,
    email         text,
    groups        text[]      NOT NULL,
    is_admin      boolean     NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL
);
COMMENT ON TABLE job_sessions IS 'working: sessions of people who are logged in; without its row a person logs in again';
COMMENT ON COLUMN job_sessions.secret_sha256 IS 'SHA-256 of the cookie''s value, 32 bytes; the value itself is not stored';
COMMENT ON COLUMN job_sessions.session IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.issuer IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.subject IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.label IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.name IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.email IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.groups IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.is_admin IS 'as in job_user_log';
COMMENT ON COLUMN job_sessions.created_at IS 'database clock';
COMMENT ON COLUMN job_sessions.expires_at IS 'from this time of the database clock it is refused, whatever its use';
CREATE INDEX job_sessions_subject ON job_sessions (issuer, subject, created_at);
CREATE INDEX job_sessions_expires_at ON job_sessions (expires_at);
-- Hashes of secrets are for the service alone.
GRANT SELECT, INSERT, UPDATE, DELETE ON job_sessions TO quipu;

CREATE TABLE job_logins (
    state_sha256   bytea       PRIMARY KEY CONSTRAINT job_logins_state CHECK (octet_length(state_sha256) = 32),
    browser_sha256 bytea       NOT NULL CONSTRAINT job_logins_browser CHECK (octet_length(browser_sha256) = 32),
    nonce          text        NOT NULL,
    verifier       text        NOT NULL,
    return_to      text        NOT NULL,
    expires_at     timestamptz NOT NULL
);
COMMENT ON TABLE job_logins IS 'working: browsers on their way to the provider and back; without its row a person begins the login again';
COMMENT ON COLUMN job_logins.state_sha256 IS 'SHA-256 of the state that comes back with the browser; its row is removed when it does, so it counts once';
COMMENT ON COLUMN job_logins.browser_sha256 IS 'SHA-256 of the cookie that the browser was given';
COMMENT ON COLUMN job_logins.nonce IS 'comes back in the ID token';
COMMENT ON COLUMN job_logins.verifier IS 'code verifier (RFC 7636); secret';
COMMENT ON COLUMN job_logins.return_to IS 'path of this listener to which the browser goes after the login';
COMMENT ON COLUMN job_logins.expires_at IS 'from this time of the database clock it is refused';
CREATE INDEX job_logins_expires_at ON job_logins (expires_at);
-- Secrets, for the service alone.
GRANT SELECT, INSERT, UPDATE, DELETE ON job_logins TO quipu;

CREATE TABLE job_lease_key (
    is_only boolean     PRIMARY KEY DEFAULT true CONSTRAINT job_lease_key_only CHECK (is_only),
    key     bytea       NOT NULL CONSTRAINT job_lease_key_key CHECK (octet_length(key) = 32),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE job_lease_key IS 'working: the secret with which all processes make and check lease tokens; when it is missing, a new one is drawn, and the leases of before end by their expiry';
COMMENT ON COLUMN job_lease_key.is_only IS 'always true, so that there is only one row';
COMMENT ON COLUMN job_lease_key.key IS 'HMAC-SHA-256 key, 32 random bytes; secret';
COMMENT ON COLUMN job_lease_key.made_at IS 'database clock';
GRANT SELECT, INSERT, UPDATE, DELETE ON job_lease_key TO quipu;

CREATE TABLE job_schedules (
    name         text        NOT NULL,
    step         integer     NOT NULL CONSTRAINT job_schedules_step CHECK (step > 0),
    position     bigint      NOT NULL DEFAULT nextval('journal_position'),
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text        NOT NULL CONSTRAINT job_schedules_kind CHECK (kind IN ('set', 'removed')),
    cron         text        NOT NULL,
    type         text        NOT NULL,
    priority     smallint    NOT NULL CONSTRAINT job_schedules_priority CHECK (priority BETWEEN 1 AND 5),
    attempts_max integer     NOT NULL CONSTRAINT job_schedules_attempts_max CHECK (attempts_max > 0),
    tags         jsonb,
    metadata     jsonb,
    actor        text        NOT NULL,
    PRIMARY KEY (name, step)
);
COMMENT ON TABLE job_schedules IS 'journal: schedules of recurring jobs; the last step of a schedule is in force';
COMMENT ON COLUMN job_schedules.name IS 'name of the schedule';
COMMENT ON COLUMN job_schedules.step IS 'place among the entries of the schedule, from 1, without gaps';
COMMENT ON COLUMN job_schedules.position IS 'place in the order of all journals';
COMMENT ON COLUMN job_schedules.xid IS 'transaction that wrote the row';
COMMENT ON COLUMN job_schedules.recorded_at IS 'database clock';
COMMENT ON COLUMN job_schedules.kind IS 'set: created or changed. removed';
COMMENT ON COLUMN job_schedules.cron IS 'times in UTC, as a cron expression of five or six fields';
COMMENT ON COLUMN job_schedules.type IS 'as in jobs';
COMMENT ON COLUMN job_schedules.priority IS 'as in jobs';
COMMENT ON COLUMN job_schedules.attempts_max IS 'as in jobs';
COMMENT ON COLUMN job_schedules.tags IS 'as in jobs';
COMMENT ON COLUMN job_schedules.metadata IS 'as in jobs';
COMMENT ON COLUMN job_schedules.actor IS 'as in job_log';
CREATE INDEX job_schedules_xid ON job_schedules (xid);
CREATE INDEX job_schedules_position ON job_schedules (position);
SELECT quipu_make_journal('job_schedules');

-- The conditions on `xid` are those of jobs_between() and job_log_between(), up to the snapshot of the query.
CREATE VIEW job_counts AS
WITH reached AS MATERIALIZED (
    SELECT (SELECT c.snapshot FROM checkpoint c WHERE c.projection = 'job_totals') AS snapshot, (SELECT max(e.floor) FROM era e) AS floor),
later (type, status, was) AS (
    SELECT n.* FROM reached r CROSS JOIN LATERAL (
        SELECT j.type, j.status, NULL::text FROM jobs j WHERE r.snapshot IS NULL
        UNION ALL
        SELECT j.type, j.status, NULL FROM jobs j WHERE j.xid >= pg_snapshot_xmax(r.snapshot) AND j.position > r.floor
        UNION ALL
        SELECT j.type, j.status, NULL FROM jobs j WHERE j.xid = ANY (quipu_in_progress(r.snapshot)) AND j.position > r.floor
        UNION ALL
        SELECT l.type, l.status, l.was FROM job_log l WHERE r.snapshot IS NULL AND l.status <> l.was
        UNION ALL
        SELECT l.type, l.status, l.was FROM job_log l
        WHERE l.xid >= pg_snapshot_xmax(r.snapshot) AND l.position > r.floor AND l.status <> l.was
        UNION ALL
        SELECT l.type, l.status, l.was FROM job_log l
        WHERE l.xid = ANY (quipu_in_progress(r.snapshot)) AND l.position > r.floor AND l.status <> l.was) n)
SELECT d.type, d.status, sum(d.jobs)::bigint AS jobs FROM (
    SELECT t.type, t.status, t.jobs FROM job_totals t, reached r WHERE r.snapshot IS NOT NULL
    UNION ALL
    SELECT l.type, s.status, s.jobs FROM later l CROSS JOIN LATERAL (VALUES (l.status, 1), (l.was, -1)) AS s (status, jobs)
    WHERE s.status IS NOT NULL) d
GROUP BY d.type, d.status HAVING sum(d.jobs) <> 0;
COMMENT ON VIEW job_counts IS 'number of jobs by type and status: job_totals and the entries since then';

CREATE VIEW job_states AS
SELECT j.job, j.type, coalesce(l.status, j.status) AS status, coalesce(l.priority, j.priority) AS priority,
       coalesce(l.attempt, 0) AS attempt, coalesce(l.failures, 0) AS failures, j.attempts_max, l.worker, l.expires_at,
       CASE WHEN l.job IS NULL THEN j.ready_at ELSE l.ready_at END AS ready_at, j.source_hash, j.source_path, j.source_size,
       j.tags, j.metadata, j.depends_on, j.recorded_at AS created_at, coalesce(l.recorded_at, j.recorded_at) AS updated_at
FROM jobs j LEFT JOIN LATERAL (SELECT * FROM job_log l WHERE l.job = j.job ORDER BY l.step DESC LIMIT 1) l ON true;
COMMENT ON VIEW job_states IS 'each job with its present state, by one index lookup per job: a condition on job keeps a query small';

CREATE VIEW job_history AS
SELECT job, 0 AS step, position, recorded_at, 'submitted' AS kind, NULL::text AS was, status, priority, 0 AS attempt, 0 AS failures,
       NULL::text AS worker, NULL::timestamptz AS expires_at, ready_at, actor, NULL::text AS why, NULL::jsonb AS detail
FROM jobs
UNION ALL
SELECT job, step, position, recorded_at, kind, was, status, priority, attempt, failures, worker, expires_at, ready_at, actor, why, detail
FROM job_log;
COMMENT ON VIEW job_history IS 'every entry of every job; a condition on job keeps a query small';

-- The list of ids is walked from index entry to index entry: each worker has many steps.
CREATE VIEW job_workers AS
WITH RECURSIVE ids AS (
    (SELECT worker FROM job_worker_log ORDER BY worker LIMIT 1)
    UNION ALL
    SELECT (SELECT l.worker FROM job_worker_log l WHERE l.worker > i.worker ORDER BY l.worker LIMIT 1)
    FROM ids i WHERE i.worker IS NOT NULL)
SELECT l.worker, l.type, l.name, l.status, l.is_enabled, l.recorded_at AS updated_at
FROM ids i CROSS JOIN LATERAL (SELECT * FROM job_worker_log x WHERE x.worker = i.worker ORDER BY x.step DESC LIMIT 1) l
WHERE l.status <> 'removed';
COMMENT ON VIEW job_workers IS 'each worker that is not removed, with its present state';

-- As before, and for job_totals the entries of its own journals. The conditions on `xid` are those of
-- jobs_between() and job_log_between().
CREATE OR REPLACE VIEW projection_lag AS
SELECT c.projection, n.number AS newest_tick, c.tick AS projected_tick, b.batches,
       CASE WHEN b.batches = 0 THEN 0 ELSE n.number - c.tick END AS ticks,
       greatest(coalesce(extract(epoch FROM clock_timestamp() - b.oldest), 0), 0)::double precision AS seconds
FROM checkpoint c
CROSS JOIN (SELECT number, snapshot FROM tick ORDER BY number DESC LIMIT 1) n
CROSS JOIN (SELECT max(floor) AS floor FROM era) f
CROSS JOIN LATERAL (
    SELECT count(*) AS batches, min(l.recorded_at) AS oldest
    FROM (
        SELECT u.recorded_at FROM (
            SELECT i.recorded_at FROM ingest_log_between(c.snapshot, n.snapshot) i WHERE c.projection <> 'job_totals'
            UNION ALL
            SELECT j.recorded_at FROM jobs j
            WHERE c.projection = 'job_totals' AND j.xid >= pg_snapshot_xmax(c.snapshot) AND j.xid < pg_snapshot_xmax(n.snapshot)
              AND pg_visible_in_snapshot(j.xid, n.snapshot) AND j.position > f.floor
            UNION ALL
            SELECT j.recorded_at FROM jobs j
            WHERE c.projection = 'job_totals' AND j.xid = ANY (quipu_in_progress(c.snapshot))
              AND pg_visible_in_snapshot(j.xid, n.snapshot) AND j.position > f.floor
            UNION ALL
            SELECT l.recorded_at FROM job_log l
            WHERE c.projection = 'job_totals' AND l.xid >= pg_snapshot_xmax(c.snapshot) AND l.xid < pg_snapshot_xmax(n.snapshot)
              AND pg_visible_in_snapshot(l.xid, n.snapshot) AND l.position > f.floor
            UNION ALL
            SELECT l.recorded_at FROM job_log l
            WHERE c.projection = 'job_totals' AND l.xid = ANY (quipu_in_progress(c.snapshot))
              AND pg_visible_in_snapshot(l.xid, n.snapshot) AND l.position > f.floor) u
        LIMIT 1000) l) b;
COMMENT ON VIEW projection_lag IS 'how far each projection is behind its journals: unread batches (of job_totals: entries; counted up to 1,000), ticks, and the age in seconds of the oldest unread one. A projection that is being built has no row';

-- Each part has an index by position with its condition, so a page of the newest entries reads little.
CREATE VIEW job_audit AS
SELECT position, recorded_at, actor, 'job_' || kind AS action, job::text AS subject,
       jsonb_strip_nulls(jsonb_build_object('type', type, 'was', was, 'status', status, 'priority', priority, 'why', left(why, 200))) AS detail
FROM job_log WHERE kind IN ('cancelled', 'reprioritized', 'retried')
UNION ALL
SELECT position, recorded_at, actor, 'worker_' || kind, worker, jsonb_strip_nulls(jsonb_build_object('type', type, 'status', status, 'name', name))
FROM job_worker_log WHERE kind NOT IN ('registered', 'unregistered', 'lost', 'returned')
UNION ALL
SELECT position, recorded_at, actor, CASE WHEN worker IS NULL THEN 'token_' ELSE 'secret_' END || kind, coalesce(worker, name),
       jsonb_strip_nulls(jsonb_build_object('is_admin', is_admin, 'scopes', scopes, 'expires_at', expires_at))
FROM job_credentials
UNION ALL
SELECT position, recorded_at, actor, 'schedule_' || kind, name, jsonb_build_object('cron', cron, 'type', type) FROM job_schedules
UNION ALL
SELECT position, recorded_at, actor, 'user_' || kind, label,
       jsonb_strip_nulls(jsonb_build_object('session', session, 'issuer', issuer, 'subject', subject, 'is_admin', is_admin, 'groups', groups))
FROM job_user_log;
COMMENT ON VIEW job_audit IS 'who did what to jobs, workers, credentials, schedules and sessions, apart from submitting and working; the newest entries have the highest positions';
GRANT SELECT ON job_counts, job_states, job_history, job_workers, job_audit TO quipu, quipu_reader;

-- The view of all journals as it is, and the journals of jobs.
DO $$ BEGIN
    EXECUTE 'CREATE OR REPLACE VIEW journal AS ' || rtrim(pg_get_viewdef('journal'), E'; \n') || '
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''job_submitted'', job::text,
           jsonb_build_object(''type'', type, ''priority'', priority, ''status'', status, ''actor'', actor)
    FROM jobs
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''job_'' || kind, job::text,
           jsonb_strip_nulls(jsonb_build_object(''type'', type, ''was'', was, ''status'', status, ''attempt'', attempt, ''worker'', worker,
                                                ''actor'', actor, ''why'', left(why, 200)))
    FROM job_log
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''worker_'' || kind, worker, jsonb_build_object(''type'', type, ''status'', status, ''actor'', actor)
    FROM job_worker_log
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''credential_'' || kind, coalesce(worker, name), jsonb_build_object(''is_admin'', is_admin, ''actor'', actor)
    FROM job_credentials
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''file_'' || kind, key,
           jsonb_strip_nulls(jsonb_build_object(''size'', size, ''actor'', actor, ''why'', left(why, 200)))
    FROM job_files
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''schedule_'' || kind, name, jsonb_build_object(''cron'', cron, ''type'', type, ''actor'', actor)
    FROM job_schedules
    UNION ALL
    SELECT position, xid, recorded_at, ''jobs'', ''user_'' || kind, label, jsonb_build_object(''is_admin'', is_admin, ''session'', session, ''actor'', actor)
    FROM job_user_log';
END $$;
