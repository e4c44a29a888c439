//! Projections: rebuilt from their journals and verified against them, whatever was done to their rows.

use std::collections::BTreeSet;

use nostr_sdk::{EventBuilder, Keys, Kind, Tag, Timestamp};
use quipu::app::registry;
use quipu::base::RelayUrl;
use quipu::services::archive::RelayJournal;
use quipu::services::archive::command::{CandidateBounds, RelayCommand};
use quipu::store::projection::Upkeep;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, ingest_journal, number, page, projection, sample, texts, totals};
use crate::support::proxy::eventually;

/// An archive of some relays and events, a job and blobs; one relay is retired twice at once.
async fn archive() -> Kit {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two", "three"]).await;
    let writer = kit.writer(ingest_journal());
    for (turn, events) in sample(50, 120).chunks(20).enumerate() {
        writer.append(page(Some(relays[turn % 2]), events)).await.unwrap();
    }
    let writer = kit.writer(RelayJournal);
    let retire = || {
        writer.append(RelayCommand::Retire {
            relay: relays[2],
            detail: serde_json::json!({ "reason": "gone" }),
        })
    };
    let (one, two, three) = tokio::join!(retire(), retire(), retire());
    one.and(two).and(three).unwrap();
    let url = RelayUrl::parse("wss://candidate.example.com").unwrap();
    let bounds = CandidateBounds { waiting_max: 1, domain_max: 1, day_max: 1, domain_day_max: 1 };
    let detail = serde_json::json!({ "source": "list" });
    writer.append(RelayCommand::Find { url, detail, bounds }).await.unwrap();
    let keys = Keys::generate();
    let request = |kind: u16, tag: [&str; 2]| {
        let tagged = EventBuilder::new(Kind::from(kind), "").tags([Tag::parse(tag).unwrap()]);
        tagged.custom_created_at(Timestamp::from_secs(1_700_000_000)).sign_with_keys(&keys).unwrap()
    };
    let requests = [request(5, ["e", &"ab".repeat(32)]), request(1, ["expiration", "4000000000"])];
    let writer = kit.writer(ingest_journal());
    writer.append(page(Some(relays[0]), &requests)).await.unwrap();
    let job = "SELECT quipu_submit_job('pdf', source_hash => 'abc')";
    kit.database.owner().await.batch_execute(job).await.unwrap();
    kit.database.owner().await.batch_execute(BLOBS).await.unwrap();
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
    kit
}

/// One blob with an owner and copies in several states, one whose owner has deleted it, one that is banned, and one that
/// was erased.
const BLOBS: &str = r#"
    SELECT quipu_append_blobs(gen_random_uuid(), jsonb_build_array(
        b || '{"do": "store", "size": 4, "type": "image/png", "results": [
               {"upstream": "https://a.example.com", "kind": "accepted"}, {"upstream": "https://b.example.com", "kind": "accepted"},
               {"upstream": "https://c.example.com", "kind": "failed", "why": "503"}]}',
        d || '{"do": "store", "size": 9, "type": "image/png", "results": [{"upstream": "https://a.example.com", "kind": "accepted"}]}',
        jsonb_build_object('do', 'ban', 'sha256', encode(sha256('banned'), 'hex'), 'why', 'spam', 'actor', 'test')))
    FROM (SELECT jsonb_build_object('owner', encode(sha256('key'), 'hex'), 'how', 'uploaded', 'actor', 'test') AS owner) o
    CROSS JOIN LATERAL (SELECT owner || jsonb_build_object('sha256', encode(sha256('blob'), 'hex')) AS b,
                               owner || jsonb_build_object('sha256', encode(sha256('deleted'), 'hex')) AS d) x;
    SELECT quipu_append_blobs(gen_random_uuid(), jsonb_build_array(
        jsonb_build_object('do', 'replicas', 'sha256', encode(sha256('blob'), 'hex'), 'actor', 'test', 'results',
            '[{"upstream": "https://a.example.com", "kind": "readable"}, {"upstream": "https://a.example.com", "kind": "proven", "why": "head"},
              {"upstream": "https://b.example.com", "kind": "lost", "why": "404"}, {"upstream": "https://b.example.com", "kind": "accepted"},
              {"upstream": "https://a.example.com", "kind": "failed"}]'::jsonb),
        jsonb_build_object('do', 'disown', 'sha256', encode(sha256('deleted'), 'hex'), 'owner', encode(sha256('key'), 'hex'), 'actor', 'test')));
    INSERT INTO erasure (kind, sha256, reason) VALUES ('blob', sha256('erased'), 'a test');
    INSERT INTO blob_bans SELECT sha256, 'erased', recorded_at, true FROM erasure WHERE kind = 'blob'"#;

/// Events in the archive of [`archive`].
const EVENTS: i64 = 122;

/// The tables of each projection, and ways to corrupt each.
const TABLES: [(&str, &str, &str, &str); 15] = [
    (
        "relays",
        "relays",
        "UPDATE relays SET network = 'tor' WHERE number = (SELECT min(number) FROM relays)",
        "INSERT INTO relays VALUES (99, 'wss://x.example.com', 'clearnet', now())",
    ),
    (
        "candidates",
        "candidates",
        "UPDATE candidates SET network = 'tor'",
        "INSERT INTO candidates VALUES ('wss://y.example.com', 'clearnet', now(), 'event', 'example.com')",
    ),
    (
        "relay_progress",
        "relay_progress",
        "UPDATE relay_progress SET last_created_at = 1 WHERE relay = (SELECT min(relay) FROM relay_progress)",
        "INSERT INTO relay_progress VALUES (99, 1)",
    ),
    (
        "requests",
        "deletions",
        "UPDATE deletions SET created_at = created_at + 1 WHERE ctid = (SELECT min(ctid) FROM deletions)",
        "INSERT INTO deletions VALUES (sha256('target'), 99, 1, sha256('pubkey'), false)",
    ),
    (
        "requests",
        "expirations",
        "UPDATE expirations SET expires_at = expires_at + 1 WHERE ctid = (SELECT min(ctid) FROM expirations)",
        "INSERT INTO expirations VALUES (99, 1)",
    ),
    (
        "totals",
        "kind_totals",
        "UPDATE kind_totals SET events = events + 1 WHERE kind = (SELECT min(kind) FROM kind_totals)",
        "INSERT INTO kind_totals VALUES (-9, 1)",
    ),
    (
        "totals",
        "relay_totals",
        "UPDATE relay_totals SET sightings = 0 WHERE relay = (SELECT min(relay) FROM relay_totals)",
        "INSERT INTO relay_totals VALUES (99, 1)",
    ),
    (
        "totals",
        "minute_totals",
        "UPDATE minute_totals SET stored = stored - 1 WHERE minute = (SELECT min(minute) FROM minute_totals)",
        "INSERT INTO minute_totals VALUES ('2001-01-01', 1, 1, 1)",
    ),
    (
        "job_keys",
        "job_keys",
        "UPDATE job_keys SET job = job + 1",
        "INSERT INTO job_keys VALUES (sha256('another'), 99)",
    ),
    (
        "job_totals",
        "job_totals",
        "UPDATE job_totals SET jobs = jobs + 1",
        "INSERT INTO job_totals VALUES ('pdf', 'dead', 1)",
    ),
    (
        "blob_replicas",
        "blob_replicas",
        "UPDATE blob_replicas SET state = 'lost' WHERE state = 'readable'",
        "INSERT INTO blob_replicas VALUES (sha256('another'), 'https://a.example.com', 'readable', now(), NULL)",
    ),
    (
        "blob_owners",
        "blob_owners",
        "UPDATE blob_owners SET uploaded = uploaded - 1",
        "INSERT INTO blob_owners VALUES (sha256('key'), sha256('another'), 1)",
    ),
    (
        "blob_owners",
        "blob_usage",
        "UPDATE blob_usage SET bytes = bytes + 1",
        "INSERT INTO blob_usage VALUES (sha256('another'), 1, 1)",
    ),
    (
        "blob_copies",
        "blob_copies",
        "UPDATE blob_copies SET copies = copies - 1 WHERE copies = 2",
        "INSERT INTO blob_copies VALUES (sha256('another'), 1, 1, 1)",
    ),
    (
        "blob_bans",
        "blob_bans",
        "UPDATE blob_bans SET why = 'another' WHERE NOT is_erased",
        "INSERT INTO blob_bans VALUES (sha256('another'), 'spam', now(), false)",
    ),
];

#[tokio::test]
async fn a_wrong_unexpected_or_missing_row_is_found_and_a_rebuild_corrects_it() {
    let corrupted: BTreeSet<_> = TABLES.iter().map(|(name, table, ..)| (*name, *table)).collect();
    let projected: BTreeSet<_> = registry::projections()
        .flat_map(|projection| projection.tables.iter().map(move |table| (projection.name, *table)))
        .collect();
    assert_eq!(corrupted, projected, "every table of every projection is corrupted here");
    let kit = archive().await;
    let mut owner = kit.database.owner().await;
    for (name, table, wrong, unexpected) in TABLES {
        let content = format!("SELECT t::text FROM {table} t ORDER BY 1");
        let before = texts(&owner, &content).await;
        assert!(!before.is_empty(), "{table}");
        let missing = format!("DELETE FROM {table} WHERE ctid = (SELECT min(ctid) FROM {table})");
        for (what, planted, found) in
            [("wrong", wrong, (1, 1)), ("unexpected", unexpected, (1, 0)), ("missing", &missing, (0, 1))]
        {
            assert_eq!(owner.execute(planted, &[]).await.unwrap(), 1, "{table}: {what}");
            let differences = projection(name).verify(&mut owner).await.unwrap();
            let told: Vec<_> = differences.iter().map(|d| (d.table, (d.unexpected, d.missing))).collect();
            assert_eq!(told, [(table, found)], "{what}");
            assert_eq!(kit.problems().await.len(), 1, "{table}: {what}");

            projection(name).rebuild(&mut owner).await.unwrap();
            if projection(name).upkeep == Upkeep::Ticks {
                assert!(projection(name).catch_up(&kit.pools.write).await.unwrap());
            }
            assert_eq!(kit.problems().await, Vec::<String>::new(), "{table}: {what}");
            assert_eq!(texts(&owner, &content).await, before, "{table}: {what}");
        }
    }
}

/// A projection of any room is reached: the commands and the projector iterate over the registry.
#[tokio::test]
async fn every_projection_is_verified_and_every_journal_that_ticks_follow_has_its_function() {
    let kit = Kit::new().await;
    let findings = registry::verify_tables(kit.database.urls().owner().unwrap()).await.unwrap();
    let owner = kit.database.owner().await;
    for projection in registry::projections() {
        let check = format!("projection {} equals a replay of its journals", projection.name);
        assert!(findings.iter().any(|finding| finding.check == check), "{check}");
        for journal in projection.journals.iter().filter(|_| projection.upkeep == Upkeep::Ticks) {
            let function = format!("{journal}_between(pg_snapshot, pg_snapshot)");
            let found = texts(&owner, &format!("SELECT to_regprocedure('{function}')::text")).await;
            assert_eq!(found.len(), 1, "{function}");
        }
    }
}

#[tokio::test]
async fn the_archive_verifies_clean_while_a_writer_and_a_projector_run() {
    let mut kit = archive().await;
    let relay = kit.relays(&["busy"]).await[0];
    let (writer, done) = (kit.writer(ingest_journal()), CancellationToken::new());
    let (ticker, pool, stop) = (kit.ticker().await, kit.pools.write.clone(), done.clone());
    let mut load = tokio::task::JoinSet::new();
    load.spawn(async move {
        while !stop.is_cancelled() {
            ticker.take().await.unwrap();
            totals().catch_up(&pool).await.unwrap();
        }
        0
    });
    let stop = done.clone();
    load.spawn(async move {
        let mut written = 0;
        for events in sample(51, 4_000).chunks(10) {
            if stop.is_cancelled() {
                break;
            }
            written += i64::from(writer.append(page(Some(relay), events)).await.unwrap().stored);
        }
        written
    });
    let mut owner = kit.database.owner().await;
    let mut seen = Vec::new();
    for round in 0..6 {
        assert_eq!(kit.problems().await, Vec::<String>::new(), "round {round}");
        seen.push(number(&owner, "SELECT count(*) FROM events").await);
        if round == 3 {
            // A rebuild while all of them run changes nothing either.
            for name in ["relays", "relay_progress", "totals"] {
                projection(name).rebuild(&mut owner).await.unwrap();
            }
        }
    }
    done.cancel();
    let written: i64 = load.join_all().await.iter().sum();
    assert!(seen.windows(2).any(|pair| pair[0] < pair[1]), "the writer ran meanwhile: {seen:?}");
    // The last tick of the load may have been taken between the number of the last entry and its commit; such
    // an entry is seen by a tick of the next second.
    eventually("all that was written is projected", async || {
        kit.project().await;
        number(&owner, "SELECT sum(events)::bigint FROM kind_totals").await == EVENTS + written
    })
    .await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuild_is_not_undone_by_a_projector_in_the_middle_of_a_batch() {
    let mut kit = archive().await;
    let mut owner = kit.database.owner().await;
    owner.batch_execute("UPDATE kind_totals SET events = 0").await.unwrap();
    // The projector has read its checkpoint and waits for the table, as it would for any lock of another
    // session.
    let blocker = kit.superuser().await;
    blocker.batch_execute("BEGIN; LOCK TABLE kind_totals IN EXCLUSIVE MODE").await.unwrap();
    let writer = kit.writer(ingest_journal());
    writer.append(page(None, &sample(52, 5))).await.unwrap();
    kit.ticker().await.take().await.unwrap();
    let pool = kit.pools.write.clone();
    let totals = totals();
    let catch_up = totals.catch_up(&pool);
    let rebuild = async {
        kit.waiting(1).await;
        totals.rebuild(&mut owner).await.unwrap();
    };
    let release = async {
        kit.waiting(2).await;
        blocker.batch_execute("COMMIT").await.unwrap();
    };
    let (caught_up, (), ()) = tokio::join!(catch_up, rebuild, release);
    caught_up.unwrap();
    kit.project().await;
    assert_eq!(kit.problems().await, Vec::<String>::new());
}
