//! Migrations: one process at a time, never backwards, one implementation per database.

use std::fs;

use quipu::config::Implementation;
use quipu::store::owner::{self, MigrateError, Migrated, Procedures};

use super::kit::{Kit, ingest_journal, number, page, sample, texts};
use crate::support::database::{TestDatabase, procedures};

#[tokio::test]
async fn when_two_processes_migrate_at_once_both_succeed_and_one_applies_the_migrations() {
    let database = TestDatabase::empty().await;
    let owner = database.urls().owner.unwrap();
    let bigbrotr = procedures("bigbrotr");
    let (one, two) = tokio::join!(owner::migrate(&owner, &bigbrotr), owner::migrate(&owner, &bigbrotr));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (first, second) = if one.applied.is_empty() { (two, one) } else { (one, two) };
    assert!(first.applied.len() >= 8 && first.procedures_applied && !first.needs_rebase, "{first:?}");
    assert_eq!(second, Migrated { applied: Vec::new(), procedures_applied: false, needs_rebase: false });
}

#[tokio::test]
async fn a_schema_that_needs_a_newer_binary_is_refused() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    let newer = "CREATE OR REPLACE FUNCTION quipu_oldest_binary() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 999'";
    client.batch_execute(newer).await.unwrap();
    let refused =
        owner::migrate(database.urls().owner().unwrap(), &procedures("bigbrotr")).await.unwrap_err();
    assert!(matches!(refused, MigrateError::BinaryTooOld { needed: 999, .. }), "{refused}");
    assert!(refused.to_string().contains("run a newer Quipu"), "{refused}");
}

#[tokio::test]
async fn a_schema_with_a_newer_migration_is_used_when_it_supports_this_binary() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 SELECT 998, 'from_the_future', applied_on, '1' FROM refinery_schema_history LIMIT 1";
    client.batch_execute(newer).await.unwrap();
    let mut changed = procedures("bigbrotr");
    changed.sql.push_str("\n-- another text\n");
    let migrated = owner::migrate(database.urls().owner().unwrap(), &changed).await.unwrap();
    assert_eq!(
        migrated,
        Migrated { applied: Vec::new(), procedures_applied: false, needs_rebase: false },
        "the functions and procedures of the newer binary stay"
    );
}

#[tokio::test]
async fn another_implementation_is_refused_and_changes_nothing() {
    let database = TestDatabase::new().await;
    let client = database.owner().await;
    let source = "SELECT md5(prosrc) FROM pg_proc WHERE proname = 'insert_event_batch'";
    let before = texts(&client, source).await;
    let refused =
        owner::migrate(database.urls().owner().unwrap(), &procedures("lilbrotr")).await.unwrap_err();
    assert!(
        matches!(&refused, MigrateError::OtherImplementation { there, asked } if there == "bigbrotr" && asked == "lilbrotr"),
        "{refused}"
    );
    assert_eq!(texts(&client, source).await, before);
}

#[tokio::test]
async fn procedures_are_applied_when_they_changed_and_only_then() {
    let database = TestDatabase::new().await;
    let (client, owner) = (database.owner().await, database.urls().owner.unwrap());
    let applied = "SELECT count(*) FROM implementation_log";
    assert!(!owner::migrate(&owner, &procedures("bigbrotr")).await.unwrap().procedures_applied);
    assert_eq!(number(&client, applied).await, 1);
    let mut changed = procedures("bigbrotr");
    changed
        .sql
        .push_str("\nCREATE OR REPLACE FUNCTION added_later() RETURNS integer LANGUAGE sql AS 'SELECT 7';\n");
    assert!(owner::migrate(&owner, &changed).await.unwrap().procedures_applied);
    assert_eq!(number(&client, "SELECT added_later()::bigint").await, 7);
    assert!(!owner::migrate(&owner, &changed).await.unwrap().procedures_applied);
    assert_eq!(number(&client, applied).await, 2);
    // Invalid procedures change nothing.
    let broken = Procedures {
        sql: format!("{}; DROP FUNCTION added_later(); SELECT no_such()", changed.sql),
        ..changed
    };
    assert!(owner::migrate(&owner, &broken).await.is_err());
    assert_eq!(number(&client, "SELECT added_later()::bigint").await, 7);
    assert_eq!(number(&client, applied).await, 2);
}

/// A database that an earlier binary has left after its migrations, or with an older text of its functions.
#[tokio::test]
async fn older_functions_are_replaced() {
    let database = TestDatabase::new().await;
    let (client, owner) = (database.owner().await, database.urls().owner.unwrap());
    let source = "SELECT md5(prosrc) FROM pg_proc WHERE proname IN ('quipu_close_batch', 'quipu_drop_message_hour') ORDER BY proname";
    let current = texts(&client, source).await;
    let older = "DROP FUNCTION quipu_close_batch;
                 CREATE OR REPLACE FUNCTION quipu_drop_message_hour() RETURNS bigint LANGUAGE sql AS 'SELECT NULL::bigint';
                 INSERT INTO implementation_log (name, procedures_sha256) VALUES ('bigbrotr', sha256('older'))";
    client.batch_execute(older).await.unwrap();
    assert!(owner::migrate(&owner, &procedures("bigbrotr")).await.unwrap().procedures_applied);
    assert_eq!(texts(&client, source).await, current);
    let granted = "SELECT count(*) FROM pg_proc WHERE proname = 'quipu_close_batch'
                   AND has_function_privilege('quipu', oid, 'EXECUTE') AND NOT has_function_privilege('quipu_reader', oid, 'EXECUTE')";
    assert_eq!(number(&client, granted).await, 1);
}

#[tokio::test]
async fn lilbrotr_keeps_keys_and_times_but_neither_tags_nor_content() {
    let database = TestDatabase::empty().await;
    owner::migrate(database.urls().owner().unwrap(), &procedures("lilbrotr")).await.unwrap();
    let mut kit = Kit { pools: database.pools(), tasks: tokio::task::JoinSet::new(), database };
    let relay = kit.relays(&["one"]).await[0];
    let events = sample(80, 60);
    let told = kit.writer(ingest_journal()).append(page(Some(relay), &events)).await.unwrap();
    assert_eq!(told.stored, 60);
    let client = kit.database.owner().await;
    let kept = "SELECT count(*) FROM events WHERE tags IS NOT NULL OR content IS NOT NULL OR tagvalues IS NOT NULL OR raw IS NOT NULL";
    assert_eq!(number(&client, kept).await, 0);
    assert_eq!(number(&client, "SELECT count(*) FROM events WHERE octet_length(sig) = 64").await, 60);
    assert_eq!(number(&client, "SELECT count(*) FROM events_relays").await, 60);
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_third_implementation_needs_a_folder_but_no_code() {
    let folder = tempfile::tempdir().unwrap();
    let third = folder.path().join("thirdbrotr");
    let init = third.join("config/postgres/init");
    fs::create_dir_all(&init).unwrap();
    fs::write(third.join("config/brotr.yaml"), "").unwrap();
    // This implementation keeps content but no tags.
    let sql =
        procedures("bigbrotr").sql.replace("o.tags::jsonb, o.content, o.raw\n", "NULL, o.content, o.raw\n");
    fs::write(init.join("05_procedures.sql"), sql).unwrap();
    let found = Implementation::find(third.to_str().unwrap()).unwrap();
    assert_eq!(found.name(), "thirdbrotr");
    let its = Procedures {
        implementation: found.name().to_owned(),
        sql: found.procedures_sql().unwrap().into_owned(),
    };
    let database = TestDatabase::empty().await;
    owner::migrate(database.urls().owner().unwrap(), &its).await.unwrap();
    let mut kit = Kit { pools: database.pools(), tasks: tokio::task::JoinSet::new(), database };
    kit.writer(ingest_journal()).append(page(None, &sample(81, 10))).await.unwrap();
    let client = kit.database.owner().await;
    assert_eq!(
        number(&client, "SELECT count(*) FROM events WHERE tags IS NULL AND content IS NOT NULL").await,
        10
    );
    assert_eq!(texts(&client, "SELECT name FROM implementation_log").await, ["thirdbrotr"]);
}
