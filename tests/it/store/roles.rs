//! Privileges of each role: analysts read for a limited time, services append and read, and only the owner
//! creates tables.

use quipu::store::embedded::SharedRole;
use quipu::store::registry::{TABLES, TableKind};
use tokio_postgres::error::SqlState;

use super::kit::{Kit, texts};

/// Tables that only services read.
const SERVICES: [&str; 6] =
    ["message_challenge_key", "job_credentials", "job_lease_key", "job_logins", "job_ready", "job_sessions"];

#[tokio::test]
async fn an_analyst_reads_everything_but_messages_for_a_limited_time_and_writes_nothing() {
    let kit = Kit::new().await;
    let reader = quipu::store::owner::connect(&kit.database.reader_url()).await.unwrap();
    let messages = quipu::store::owner::connect(&kit.database.shared_role_url(SharedRole::MessagesReader))
        .await
        .unwrap();
    for (table, kind) in TABLES.iter().filter(|(_, kind)| *kind != TableKind::Schema) {
        let query = format!("SELECT * FROM {table} LIMIT 1");
        let read = messages.query(&query, &[]).await;
        let is_services = SERVICES.contains(table);
        if is_services {
            // Secrets of the service, and a table whose readers would delay its truncation.
            assert_eq!(read.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
        } else {
            read.unwrap_or_else(|e| panic!("{table} ({kind:?}): {e}"));
        }
        let told = reader.query(&query, &[]).await;
        if table.starts_with("message_") || is_services {
            assert_eq!(told.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{table}");
        } else {
            told.unwrap_or_else(|e| panic!("{table} ({kind:?}): {e}"));
        }
    }
    let private = "SELECT relname::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace) AND relname LIKE 'message%'
                   AND relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(oid, 'SELECT')";
    assert_eq!(texts(&reader, private).await, Vec::<String>::new());
    for view in
        ["journal", "events_relays", "relay_last_event_timestamp", "relay_metadata_latest", "readable_relays"]
    {
        reader.query(&format!("SELECT * FROM {view} LIMIT 1"), &[]).await.unwrap();
    }
    assert_eq!(texts(&reader, "SHOW statement_timeout").await, ["1min"]);
    assert_eq!(texts(&reader, "SHOW idle_in_transaction_session_timeout").await, ["1min"]);
    assert_eq!(texts(&reader, "SHOW default_transaction_read_only").await, ["on"]);
    let write =
        "INSERT INTO lease (name, holder, token, expires_at) VALUES ('x', gen_random_uuid(), 1, now())";
    assert_eq!(
        reader.batch_execute(write).await.unwrap_err().code(),
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    );
    // PostgreSQL allows these in read-only transactions, and what they write stays.
    for call in [
        "lo_create(0)",
        "lo_from_bytea(0, 'x')",
        "lo_put(1, 0, 'x')",
        "pg_logical_emit_message(false, 'a', 'b')",
    ] {
        let told = reader.batch_execute(&format!("SELECT {call}")).await;
        assert_eq!(told.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{call}");
    }
    // An analyst may change that setting, but still has no grant.
    reader.batch_execute("SET default_transaction_read_only = off").await.unwrap();
    let writable = "SELECT relname::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace) AND relkind IN ('r', 'p')
                    AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')";
    assert_eq!(texts(&reader, writable).await, Vec::<String>::new());
    assert_eq!(
        reader.batch_execute(write).await.unwrap_err().code(),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE)
    );
}

/// Functions of PostgreSQL that would let a role hold up the services, and that the current role may call.
const HOLDING: &str = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
    AND (proname LIKE 'pg\\_advisory%' OR proname LIKE 'pg\\_try\\_advisory%' OR proname = 'pg_export_snapshot')
    AND has_function_privilege(oid, 'EXECUTE')";

/// Advisory locks stop writers, and 400,000 of them fill the table of locks of the whole server.
#[tokio::test]
async fn only_the_services_take_advisory_locks_and_export_snapshots() {
    let kit = Kit::new().await;
    for person in [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer] {
        let client = quipu::store::owner::connect(&kit.database.shared_role_url(person)).await.unwrap();
        assert_eq!(texts(&client, HOLDING).await, Vec::<String>::new(), "{person:?}");
        let fill = "SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 400000) i";
        let told = client.batch_execute(fill).await.unwrap_err();
        assert_eq!(told.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{person:?}");
    }
    for client in [kit.database.service().await, kit.database.owner().await] {
        assert!(texts(&client, HOLDING).await.len() >= 22);
    }
}

/// In a loop with COMMIT these functions use up 60,000 ids a second, and PostgreSQL stops at 2^31.
#[tokio::test]
async fn only_the_services_use_up_transaction_ids_by_a_function() {
    let kit = Kit::new().await;
    let (service, owner) = (kit.database.service().await, kit.database.owner().await);
    for call in ["SELECT pg_current_xact_id()::text", "SELECT txid_current()::text"] {
        for person in [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer] {
            let client = quipu::store::owner::connect(&kit.database.shared_role_url(person)).await.unwrap();
            let told = client.batch_execute(call).await.unwrap_err();
            assert_eq!(told.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{person:?}: {call}");
        }
        for client in [&service, &owner] {
            client.batch_execute(call).await.unwrap();
        }
    }
}

/// These functions wait for a lock on the table before they look at privileges, and PostgreSQL cancels the
/// autovacuum of a table for which a session waits.
#[tokio::test]
async fn no_role_for_people_maintains_an_index_by_a_function() {
    let kit = Kit::new().await;
    for person in [SharedRole::Reader, SharedRole::MessagesReader, SharedRole::Writer] {
        let client = quipu::store::owner::connect(&kit.database.shared_role_url(person)).await.unwrap();
        for call in [
            "brin_summarize_new_values('events_pkey')",
            "brin_summarize_range('events_pkey', 0)",
            "brin_desummarize_range('events_pkey', 0)",
            "gin_clean_pending_list('events_pkey')",
        ] {
            let told = client.batch_execute(&format!("SELECT {call}")).await.unwrap_err();
            let said = told.as_db_error().expect("an answer of the database");
            assert_eq!(said.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{person:?}: {call}");
            assert!(said.message().contains("function"), "refused before a lock: {}", said.message());
        }
    }
}

#[tokio::test]
async fn a_service_appends_and_reads_and_makes_or_drops_nothing() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    for ddl in [
        "CREATE TABLE mine (n integer)",
        "CREATE TABLE partitions.mine (n integer)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE events",
        "DROP TABLE lease",
        "DROP TABLE partitions.events_y2024m01",
        "DROP FUNCTION insert_event_batch",
        "ALTER TABLE events DISABLE TRIGGER refuse_delete",
        "ALTER TABLE ingest_log DISABLE TRIGGER ALL",
        "ALTER TABLE events DETACH PARTITION partitions.events_y2024m01",
        "CREATE TRIGGER mine BEFORE INSERT ON events EXECUTE FUNCTION quipu_refuse_change()",
        "SELECT quipu_make_changeable('events')",
        "SELECT quipu_attach_partition('x', '1970-01-01', '1970-02-01')",
        "SET session_replication_role = replica",
        "SET ROLE quipu_owner",
        "INSERT INTO erasure (kind, event_id, reason) VALUES ('event', sha256('x'), 'mine')",
        "INSERT INTO era (number, system_identifier, floor) VALUES (2, 1, 1)",
        "INSERT INTO implementation_log (name, procedures_sha256) VALUES ('mine', 'x')",
        "INSERT INTO refinery_schema_history VALUES (99, 'x', 'x', 'x')",
        "SELECT setval('journal_position', 1)",
        "SELECT setval('lease_token', 1)",
    ] {
        let told = service.batch_execute(ddl).await;
        let refused = told.as_ref().err().and_then(tokio_postgres::Error::code)
            == Some(&SqlState::INSUFFICIENT_PRIVILEGE);
        assert!(refused, "{ddl}: {told:?}");
    }
}

#[tokio::test]
async fn a_service_changes_only_projections_and_working_tables() {
    let kit = Kit::new().await;
    let service = kit.database.service().await;
    let changeable = "SELECT relname::text FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'partitions'::regnamespace) AND relkind IN ('r', 'p')
                      AND has_table_privilege(oid, 'UPDATE, DELETE, TRUNCATE') ORDER BY 1";
    let expected: Vec<&str> = TABLES
        .iter()
        .filter(|(_, kind)| matches!(kind, TableKind::Projection | TableKind::Working))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(texts(&service, changeable).await, expected);
}
