//! Journals are append-only: UPDATE, DELETE and TRUNCATE fail on each journal and each partition, empty and
//! full.

use quipu::store::registry::{TABLES, TableKind};
use tokio_postgres::Client;

use super::kit::{Kit, number, texts};

/// Inserts one row into every month of `events` and `sightings`, and into every other journal.
const FILL: &str = "
    INSERT INTO events (created_at, number, kind, id, pubkey, sig)
    SELECT at, quipu_event_number(at, row_number() OVER ()), 1, sha256(at::text::bytea), sha256('author'), sha256('a') || sha256('b')
    FROM (SELECT 0::bigint AS at UNION ALL SELECT 4102444800
          UNION ALL SELECT extract(epoch FROM m)::bigint FROM generate_series('2020-11-15'::timestamp, '2026-12-15', '1 month') m) t;
    INSERT INTO sightings (event, relay, seen) SELECT number, 1, 1 FROM events;
    INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts)
    SELECT 1, gen_random_uuid(), 'import', n, n, n, '{1}', ARRAY[n], '{1}', ARRAY[n] FROM (SELECT count(*)::integer AS n FROM events) e;
    INSERT INTO relay_log (batch, slot, relay, kind, url, network) VALUES (gen_random_uuid(), 0, 1, 'added', 'wss://one.example.com', 'clearnet');
    INSERT INTO sync_log (batch, slot, relay, outcome, since, until, events, requests) VALUES (gen_random_uuid(), 0, 1, 'complete', 0, 1, 0, 1);
    INSERT INTO nip11 (id) VALUES (sha256('nip11'));
    INSERT INTO nip66 (id, openable, readable, writable) VALUES (sha256('nip66'), true, true, true);
    INSERT INTO relay_metadata (relay_url, generated_at, nip11_id, nip66_id) VALUES ('wss://one.example.com', 0, sha256('nip11'), sha256('nip66'));
    INSERT INTO vanish_requests (request, pubkey, created_at, relays, batch) VALUES (sha256('request'), sha256('author'), 0, '{}', 1);
    INSERT INTO erasure (kind, event_id, reason) VALUES ('event', sha256('gone'), 'a test');
    SELECT quipu_ensure_message_hours(extract(epoch FROM now())::bigint + 7200);
    SELECT quipu_append_messages(ARRAY[gen_random_uuid()], '{a}', '{b}', '{NULL}', '{60}', '{60}', ARRAY[sha256('hello')], '{5}', '{1}', '{hello}',
                                 '{}', '{}', '{}', '{}', '{}', '{}', '{}');
    INSERT INTO message_tokens (kind, token_sha256, wayfarer_id) VALUES ('created', sha256('token'), 'a');
    INSERT INTO jobs (job, type, status, priority, ready_at, attempts_max, actor)
    SELECT n * 1000000, 'pdf', 'pending', 3, now(), 3, 'test' FROM generate_series(0, 2) n;
    INSERT INTO job_log (job, step, kind, was, status, type, priority, attempt, failures, worker, claim, lease_s, expires_at, actor)
    SELECT n * 1000000, 1, 'leased', 'pending', 'running', 'pdf', 3, 1, 0, 'w', gen_random_uuid(), 60, now(), 'test' FROM generate_series(0, 2) n;
    INSERT INTO job_worker_log (worker, step, kind, status, is_enabled, type, actor) VALUES ('w', 1, 'registered', 'online', true, 'pdf', 'test');
    INSERT INTO job_files (id, kind, key, is_bound, actor) VALUES (gen_random_uuid(), 'announced', 'sources/a', false, 'test');
    INSERT INTO job_user_log (kind, session, issuer, subject, label, groups, is_admin, actor) VALUES ('login', gen_random_uuid(), 'i', 's', 's', '{}', false, 'test');
    INSERT INTO job_credentials (kind, secret_sha256, name, is_admin, scopes, actor) VALUES ('created', sha256('secret'), 'a', true, '{}', 'test');
    INSERT INTO job_schedules (name, step, kind, cron, type, priority, attempts_max, actor) VALUES ('s', 1, 'set', '* * * * *', 'pdf', 3, 3, 'test');
    INSERT INTO blobs (sha256, size, type, actor) VALUES (sha256('blob'), 4, 'image/png', 'test');
    INSERT INTO blob_log (sha256, kind, upstream, state, actor) VALUES (sha256('blob'), 'accepted', 'https://blobs.example.com', 'accepted', 'test');
    INSERT INTO blob_reports (event_id, reporter, sha256, kind, content, event) VALUES (sha256('r'), sha256('k'), sha256('blob'), 'spam', '', '{}');
    INSERT INTO blob_follows (pubkey, is_on, actor) VALUES (sha256('k'), true, 'test');
    INSERT INTO blob_wanted (sha256, owner, event_id) VALUES (sha256('wanted'), sha256('k'), sha256('e'));";

/// Tries every change on every table of the list. Reports changes that were allowed or failed for another
/// reason.
const TRY_ALL: &str = "
    DO $$
    DECLARE journal text; change text; tried integer := 0;
    BEGIN
        CREATE TEMP TABLE allowed (what text);
        FOR journal IN SELECT unnest(string_to_array(current_setting('test.journals'), ',')) LOOP
            FOR change IN SELECT format(c, journal, (SELECT attname FROM pg_attribute WHERE attrelid = journal::regclass AND attnum = 1))
                          FROM unnest(ARRAY['UPDATE %1$s SET %2$I = %2$I', 'UPDATE %1$s SET %2$I = %2$I WHERE false',
                                            'DELETE FROM %1$s', 'TRUNCATE %1$s', 'TRUNCATE %1$s CASCADE',
                                            'MERGE INTO %1$s USING (SELECT 1) o ON true WHEN MATCHED THEN DELETE']) c LOOP
                tried := tried + 1;
                BEGIN
                    EXECUTE change;
                    RAISE EXCEPTION USING ERRCODE = 'QT000';
                EXCEPTION
                    WHEN insufficient_privilege THEN NULL;
                    WHEN SQLSTATE 'QT000' THEN INSERT INTO allowed VALUES (change);
                    WHEN OTHERS THEN
                        -- TRUNCATE of a referenced table is refused even earlier.
                        IF NOT (SQLSTATE = '0A000' AND change LIKE 'TRUNCATE nip%') THEN
                            INSERT INTO allowed VALUES (change || ': ' || SQLERRM);
                        END IF;
                END;
            END LOOP;
        END LOOP;
        INSERT INTO allowed SELECT 'tried ' || tried;
    END $$";

/// A hash over all rows of all journals.
const CONTENT: &str = "
    SELECT md5(string_agg(t || (xpath('/row/h/text()', query_to_xml(
        format('SELECT md5(coalesce(string_agg(x::text, chr(10) ORDER BY x::text), '''')) AS h FROM %s x', t), false, true, '')))[1]::text, ',' ORDER BY t))
    FROM unnest(string_to_array(current_setting('test.journals'), ',')) t";

/// The name of every journal and of its partitions.
async fn journals(client: &Client) -> Vec<String> {
    let families: Vec<&str> =
        TABLES.iter().filter(|(_, kind)| *kind == TableKind::Journal).map(|(name, _)| *name).collect();
    let sql = "SELECT c.oid::regclass::text FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
               WHERE c.relkind IN ('r', 'p') AND c.relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace)
                 AND coalesce(i.inhparent, c.oid) IN (SELECT unnest($1::text[])::regclass) ORDER BY 1";
    let rows = client.query(sql, &[&families]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn name_journals(client: &Client, journals: &[String]) {
    client.execute("SELECT set_config('test.journals', $1, false)", &[&journals.join(",")]).await.unwrap();
}

/// Asserts that `client` can change none of `journals`.
async fn assert_refused(who: &str, client: &Client, journals: &[String]) {
    name_journals(client, journals).await;
    client.batch_execute(TRY_ALL).await.unwrap();
    let told = texts(client, "SELECT what FROM allowed").await;
    client.batch_execute("DROP TABLE allowed").await.unwrap();
    assert_eq!(told, [format!("tried {}", 6 * journals.len())], "{who}");
}

/// Tries as the service, as the owner, and as the owner with ordinary triggers disabled.
async fn assert_no_role_changes(kit: &Kit, filling: &str) {
    let (service, owner, replica) =
        (kit.database.service().await, kit.database.owner().await, kit.superuser().await);
    let journals = journals(&owner).await;
    assert!(journals.len() > 150, "{} journals and partitions", journals.len());
    name_journals(&owner, &journals).await;
    let before = texts(&owner, CONTENT).await;
    replica.batch_execute("SET session_replication_role = replica; SET ROLE quipu_owner").await.unwrap();
    assert_refused(&format!("the service, {filling}"), &service, &journals).await;
    assert_refused(&format!("the owner, {filling}"), &owner, &journals).await;
    assert_refused(&format!("the owner without ordinary triggers, {filling}"), &replica, &journals).await;
    assert_eq!(texts(&owner, CONTENT).await, before, "{filling}");
}

#[tokio::test]
async fn no_role_updates_deletes_or_truncates_an_empty_journal() {
    assert_no_role_changes(&Kit::new().await, "empty").await;
}

#[tokio::test]
async fn nobody_updates_deletes_or_truncates_a_full_journal_or_any_month_of_it() {
    let kit = Kit::new().await;
    let owner = kit.database.owner().await;
    owner.batch_execute(FILL).await.unwrap();
    let empty = "SELECT count(*) FROM pg_inherits i WHERE i.inhparent IN ('events'::regclass, 'sightings'::regclass)
                 AND NOT (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) > 0 AS n FROM %s', i.inhrelid::regclass), false, true, '')))[1]::text::boolean";
    assert_eq!(number(&owner, empty).await, 0, "every month has rows");
    assert_no_role_changes(&kit, "full").await;
}

#[tokio::test]
async fn a_month_made_later_is_guarded_like_the_others() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    assert!(
        service.query_one("SELECT quipu_ensure_months(1830297600)", &[]).await.unwrap().get::<_, i32>(0) > 0
    );
    let owner = kit.database.owner().await;
    assert_eq!(quipu::store::registry::problems(&owner).await.unwrap(), Vec::<String>::new());
    let months = ["events_y2029m12", "sightings_y2029m12", "events_future", "sightings_future"]
        .map(|name| format!("partitions.{name}"));
    assert_refused("the owner, new months", &owner, &months).await;
    assert_refused("the service, new months", &service, &months).await;

    // A guard that was switched off is noticed, and the remedy that is named puts it back.
    owner.batch_execute("ALTER TABLE relay_log DISABLE TRIGGER refuse_change").await.unwrap();
    let told = quipu::store::registry::problems(&owner).await.unwrap();
    let [told] = &told[..] else { panic!("{told:?}") };
    let (_, remedy) = told.split_once("; as its owner run: ").unwrap();
    owner.batch_execute(remedy).await.unwrap();
    assert_eq!(quipu::store::registry::problems(&owner).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_row_cannot_be_changed_while_it_is_inserted() {
    let kit = Kit::new().await;
    let owner = kit.database.owner().await;
    owner.batch_execute(FILL).await.unwrap();
    let upsert =
        "INSERT INTO nip11 (id) VALUES (sha256('nip11')) ON CONFLICT (id) DO UPDATE SET name = 'another'";
    let refused = owner.batch_execute(upsert).await.unwrap_err();
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test]
async fn a_row_leaves_only_with_an_erasure_of_its_own_in_the_same_transaction() {
    let kit = Kit::new().await;
    let owner = kit.database.owner().await;
    owner.batch_execute(FILL).await.unwrap();
    let earlier = "INSERT INTO erasure (kind, event_id, reason) SELECT 'event', id, 'a test' FROM events WHERE created_at = 0";
    owner.batch_execute(earlier).await.unwrap();
    for (name, attempt) in [
        ("an erasure of an earlier transaction", "DELETE FROM sightings WHERE event IN (SELECT number FROM events WHERE created_at = 0)".to_owned()),
        ("an erasure of another event", format!("{earlier}; DELETE FROM sightings WHERE event IN (SELECT number FROM events WHERE created_at > 0)")),
        ("more than was erased", format!("{earlier}; DELETE FROM sightings; DELETE FROM events")),
        ("a month's record", "INSERT INTO erasure (kind, month, reason) VALUES ('month', '2020-11-01', 'a test');
                              DELETE FROM events WHERE created_at < 1606780800".to_owned()),
        ("a temporary table called erasure", "CREATE TEMP TABLE erasure AS SELECT pg_current_xact_id() AS xid, 'event'::text AS kind,
                              id AS event_id, NULL::bytea AS pubkey, NULL::bigint AS until FROM events; DELETE FROM sightings".to_owned()),
    ] {
        let refused = owner.batch_execute(&format!("BEGIN; {attempt}")).await.unwrap_err();
        assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE), "{name}: {refused}");
        owner.batch_execute("ROLLBACK").await.unwrap();
    }
    let lawful = format!(
        "BEGIN; {earlier}; DELETE FROM sightings WHERE event IN (SELECT number FROM events WHERE created_at = 0); DELETE FROM events WHERE created_at = 0; COMMIT"
    );
    owner.batch_execute(&lawful).await.unwrap();
}
