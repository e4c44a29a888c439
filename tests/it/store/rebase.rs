//! A logical restore keeps the rows, but their transaction ids are meaningless in the new cluster.

use quipu::store::tick::Ticker;
use quipu::store::{Error, owner};

use super::kit::{Kit, ingest_journal, number, page, sample, texts, totals};
use crate::support::proxy::eventually;

/// Makes the database look as if it came from another cluster, whose transaction ids were far ahead.
const RESTORED: &str = "
    BEGIN;
    ALTER TABLE era DISABLE TRIGGER ALL;
    UPDATE era SET system_identifier = system_identifier + 1;
    ALTER TABLE era ENABLE ALWAYS TRIGGER refuse_change;
    ALTER TABLE era ENABLE ALWAYS TRIGGER refuse_truncate;
    ALTER TABLE ingest_log DISABLE TRIGGER ALL;
    UPDATE ingest_log SET xid = (xid::text::bigint + 1000000000000)::text::xid8;
    ALTER TABLE ingest_log ENABLE ALWAYS TRIGGER refuse_change;
    ALTER TABLE ingest_log ENABLE ALWAYS TRIGGER refuse_truncate;
    COMMIT;";

#[tokio::test]
async fn after_a_restore_consumers_wait_for_a_rebase_and_are_exact_after_it() {
    let mut kit = Kit::new().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer(ingest_journal());
    let events = sample(90, 60);
    writer.append(page(Some(relay), &events[..20])).await.unwrap();
    kit.project().await;
    assert_eq!(
        owner::rebase(kit.database.urls().owner().unwrap()).await.unwrap(),
        None,
        "nothing was restored"
    );
    writer.append(page(Some(relay), &events[20..30])).await.unwrap();

    kit.superuser().await.batch_execute(RESTORED).await.unwrap();
    let refused = Ticker::new(kit.pools.write.clone()).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Inconsistent { table: "era", .. })
            && refused.to_string().contains("quipu rebase"),
        "{refused}"
    );
    let procedures = crate::support::database::procedures("bigbrotr");
    assert!(owner::migrate(kit.database.urls().owner().unwrap(), &procedures).await.unwrap().needs_rebase);

    assert_eq!(owner::rebase(kit.database.urls().owner().unwrap()).await.unwrap(), Some(2));
    kit.project().await;
    let client = kit.database.owner().await;
    let counted = "SELECT coalesce(sum(events), 0)::bigint FROM kind_totals";
    assert_eq!(number(&client, counted).await, 30);
    for chunk in events[30..].chunks(10) {
        writer.append(page(Some(relay), chunk)).await.unwrap();
        let ticker = kit.ticker().await;
        eventually("a tick", || async { ticker.take().await.unwrap().is_some() }).await;
        totals().catch_up(&kit.pools.write).await.unwrap();
    }
    assert_eq!(number(&client, counted).await, 60);
    assert_eq!(kit.problems().await, Vec::<String>::new());
    assert_eq!(texts(&client, "SELECT number::text FROM era ORDER BY number").await, ["1", "2"]);
    assert_eq!(owner::rebase(kit.database.urls().owner().unwrap()).await.unwrap(), None);
}

/// An entry that commits after the floor was read would never be seen: its position lies below the floor.
#[tokio::test]
async fn a_new_era_waits_for_the_writers_of_every_journal_with_positions() {
    let kit = Kit::new().await;
    let (urls, session) = (kit.database.urls(), kit.database.owner().await);
    let positioned = "SELECT c.relname::text FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
                      WHERE pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%journal_position%' AND NOT c.relispartition ORDER BY 1";
    let journals = texts(&session, positioned).await;
    for journal in ["ingest_log", "job_log", "jobs", "message_log", "message_tokens"] {
        assert!(journals.iter().any(|name| name == journal), "{journal} in {journals:?}");
    }
    for journal in &journals {
        kit.superuser().await.batch_execute(RESTORED).await.unwrap();
        // The lock that an INSERT takes.
        let locks = format!("BEGIN; LOCK TABLE {journal} IN ROW EXCLUSIVE MODE");
        session.batch_execute(&locks).await.unwrap();
        let finishing = async {
            kit.waiting(1).await;
            session.batch_execute("COMMIT").await.unwrap();
        };
        let (era, ()) = tokio::join!(owner::rebase(urls.owner().unwrap()), finishing);
        assert!(era.unwrap().is_some(), "{journal}");
    }
}

#[tokio::test]
async fn an_uncommitted_entry_is_counted_when_a_new_era_opens() {
    let kit = Kit::new().await;
    kit.superuser().await.batch_execute(RESTORED).await.unwrap();
    let (late, watcher) = (kit.database.service().await, kit.superuser().await);
    late.batch_execute(
        "BEGIN; INSERT INTO ingest_log (batch, command, source, offered, stored, sighted, kinds, kind_counts, relays, relay_counts)
         VALUES (quipu_draw_slots(1), gen_random_uuid(), 'relay', 1, 1, 0, '{1}', '{1}', '{}', '{}')",
    )
    .await
    .unwrap();
    let urls = kit.database.urls();
    let finishing = async {
        kit.waiting(1).await;
        late.batch_execute("COMMIT").await.unwrap();
    };
    let (era, ()) = tokio::join!(owner::rebase(urls.owner().unwrap()), finishing);
    assert_eq!(era.unwrap(), Some(2));
    kit.project().await;
    assert_eq!(number(&watcher, "SELECT coalesce(sum(events), 0)::bigint FROM kind_totals").await, 1);
}
