//! A commit whose answer was lost is not applied twice, and its callers get the true answer.

use std::time::Duration;

use quipu::base::nostr_event::Refusal;
use quipu::base::{Refusals, RelayUrl};
use quipu::services::archive::command::{CandidateBounds, RelayCommand, SnapshotCommand, WindowCommand};
use quipu::services::archive::event::{Snapshot, Window, WindowOutcome};
use quipu::services::archive::{
    Finding, MetadataJournal, RelayAnswer, RelayJournal, SyncJournal, WindowAnswer,
};
use quipu::store::append::RetryLimits;
use quipu::store::ingest::IngestPage;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::kit::{Kit, add, ingest_journal, number, page, sample};
use crate::support::database::TestDatabase;
use crate::support::proxy::{Fault, Proxy};

/// A short timeout of one attempt, and a long time for all attempts.
const SHORT_LIMITS: RetryLimits =
    RetryLimits { attempt: Duration::from_millis(400), total: Duration::from_mins(1) };

/// Faults after which the outcome of an attempt is unknown to the writer.
fn faults() -> Vec<(&'static str, Fault)> {
    let done = CancellationToken::new();
    done.cancel();
    vec![
        ("the answer is swallowed", Fault::SwallowAnswer),
        ("the connection is reset", Fault::ResetAfter(done)),
        ("nobody answers", Fault::Silence),
        ("the server's half is closed", Fault::HalfClose),
    ]
}

async fn proxied() -> (Kit, Proxy) {
    let database = TestDatabase::new().await;
    let direct = database.urls().write;
    let proxy = Proxy::before(&direct).await;
    let through = proxy.url(&direct);
    (Kit::through(database, through), proxy)
}

#[tokio::test]
async fn events_are_stored_once_and_counted_right_when_the_answer_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer_with_limits(ingest_journal(), SHORT_LIMITS);
    let events = sample(11, 80);
    for (turn, (name, fault)) in faults().into_iter().enumerate() {
        let offered = &events[turn * 20..turn * 20 + 20];
        proxy.strike("insert_event_batch", fault);
        let told = writer.append(page(Some(relay), offered)).await.unwrap();
        assert_eq!(told.stored, 20, "{name}");
        assert_eq!(proxy.struck(), turn + 1, "{name}");
        // The same page again, without a fault: nothing is new.
        assert_eq!(writer.append(page(Some(relay), offered)).await.unwrap().stored, 0, "{name}");
    }
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM events").await, 80);
    assert_eq!(number(&owner, "SELECT count(*) FROM sightings").await, 80);
    assert_eq!(number(&owner, "SELECT sum(stored) FROM ingest_log").await, 80);
    assert_eq!(number(&owner, "SELECT count(*) FROM ingest_log").await, 4);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn refusals_are_recorded_once_when_the_answer_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let writer = kit.writer_with_limits(ingest_journal(), SHORT_LIMITS);
    let events = sample(44, 4);
    for (turn, (name, fault)) in faults().into_iter().enumerate() {
        let mut refused = Refusals::default();
        refused.add(Refusal::BadSignature);
        proxy.strike("insert_event_batch", fault);
        let offered = IngestPage { refused, ..page(None, &events[turn..=turn]) };
        assert_eq!(writer.append(offered).await.unwrap().stored, 1, "{name}");
    }
    let owner = kit.database.owner().await;
    let sum = "SELECT sum((refused ->> 'bad_signature')::bigint)::bigint FROM ingest_log";
    assert_eq!(number(&owner, sum).await, 4);
}

#[tokio::test]
async fn a_relay_is_added_once_and_its_first_caller_is_told_so_when_the_answer_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let writer = kit.writer_with_limits(RelayJournal, SHORT_LIMITS);
    for (turn, (name, fault)) in faults().into_iter().enumerate() {
        proxy.strike("insert_relay_batch", fault);
        let told = writer.append(add(&format!("relay{turn}"))).await.unwrap();
        assert!(matches!(told, RelayAnswer::Known { is_new: true, .. }), "{name}: {told:?}");
        let again = writer.append(add(&format!("relay{turn}"))).await.unwrap();
        assert!(matches!(again, RelayAnswer::Known { is_new: false, .. }), "{name}: {again:?}");
    }
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'added'").await, 4);
    assert_eq!(number(&owner, "SELECT count(*) FROM relays").await, 4);
}

#[tokio::test]
async fn observations_and_windows_are_recorded_once_when_the_answer_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let relay = kit.relays(&["one"]).await[0];
    let relays = kit.writer_with_limits(RelayJournal, SHORT_LIMITS);
    let windows = kit.writer_with_limits(SyncJournal, SHORT_LIMITS);
    let fence = kit.fence(relay).await;
    for (turn, (name, fault)) in (0_i64..).zip(faults()) {
        proxy.strike("quipu_record_relay_facts", fault.clone());
        let observed = RelayCommand::Observe { relay, detail: json!({ "what": name }) };
        assert_eq!(relays.append(observed).await.unwrap(), RelayAnswer::Recorded, "{name}");
        proxy.strike("INSERT INTO sync_log", fault);
        let window = Window::new(turn * 100, turn * 100 + 99).unwrap();
        let outcome = WindowOutcome::Complete;
        let command = WindowCommand { relay, window, outcome, events: 1, requests: 1, asked_at: 0, fence };
        assert_eq!(windows.append(command).await.unwrap(), WindowAnswer::Recorded, "{name}");
    }
    let owner = kit.database.owner().await;
    assert_eq!(proxy.struck(), 8);
    let observed = "SELECT count(*) FROM relay_log WHERE kind = 'observed'";
    assert_eq!(number(&owner, observed).await, 4);
    assert_eq!(
        number(&owner, "SELECT count(DISTINCT detail) FROM relay_log WHERE kind = 'observed'").await,
        4
    );
    assert_eq!(number(&owner, "SELECT count(*) FROM sync_log").await, 4);
}

#[tokio::test]
async fn a_snapshot_is_recorded_once_when_the_answer_is_lost_and_its_document_and_result_once_for_all() {
    let (mut kit, proxy) = proxied().await;
    let writer = kit.writer_with_limits(MetadataJournal, SHORT_LIMITS);
    for (generated_at, (name, fault)) in (1_i64..).zip(faults()) {
        proxy.strike("insert_relay_metadata_batch", fault);
        let nip11 = json!({ "name": "one", "supported_nips": [1, 11] }).as_object().cloned();
        // The times differ, the result does not.
        let rtt_open = i32::try_from(generated_at).ok();
        let snapshot = Snapshot { generated_at, nip11, is_openable: true, rtt_open, ..Snapshot::default() };
        let url = RelayUrl::parse("wss://one.example.com").unwrap();
        writer.append(SnapshotCommand { url, snapshot }).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert_eq!(proxy.struck(), 4);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_metadata").await, 4);
    assert_eq!(number(&owner, "SELECT count(DISTINCT rtt_open) FROM relay_metadata").await, 4);
    assert_eq!(number(&owner, "SELECT count(*) FROM nip11").await, 1);
    assert_eq!(number(&owner, "SELECT count(*) FROM nip66").await, 1);
}

#[tokio::test]
async fn a_batch_of_additions_and_observations_is_one_commit_even_when_its_commit_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let relay = kit.relays(&["one"]).await[0];
    let writer = kit.writer_with_limits(RelayJournal, SHORT_LIMITS);
    proxy.strike("COMMIT", Fault::SwallowAnswer);
    let mut callers = JoinSet::new();
    for n in 0..6 {
        let observation = RelayCommand::Observe { relay, detail: json!({ "what": "seen", "n": n }) };
        for command in [add(&format!("many{n}")), observation] {
            let writer = writer.clone();
            callers.spawn(async move { writer.append(command).await.unwrap() });
        }
    }
    let told = callers.join_all().await;
    let new = told.iter().filter(|told| matches!(told, RelayAnswer::Known { is_new: true, .. })).count();
    assert_eq!(new, 6, "{told:?}");
    assert_eq!(proxy.struck(), 1);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'added'").await, 7);
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'observed'").await, 6);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_candidate_is_found_and_given_up_once_when_the_answer_is_lost() {
    let (mut kit, proxy) = proxied().await;
    let writer = kit.writer_with_limits(RelayJournal, SHORT_LIMITS);
    let bounds = CandidateBounds { waiting_max: 10, domain_max: 10, day_max: 10, domain_day_max: 10 };
    for (turn, (name, fault)) in faults().into_iter().enumerate() {
        let url = RelayUrl::parse(&format!("wss://candidate{turn}.example.com")).unwrap();
        let detail = json!({ "source": "event" });
        proxy.strike("quipu_find_candidates", fault.clone());
        let told =
            writer.append(RelayCommand::Find { url: url.clone(), detail: detail.clone(), bounds }).await;
        assert_eq!(told.unwrap(), RelayAnswer::Found(Finding::New), "{name}");
        let again = writer.append(RelayCommand::Find { url: url.clone(), detail, bounds }).await;
        assert_eq!(again.unwrap(), RelayAnswer::Found(Finding::Known), "{name}");
        proxy.strike("quipu_drop_candidates", fault);
        let dropped = RelayCommand::Drop { url: url.to_string(), detail: json!({ "reason": "silent" }) };
        assert_eq!(writer.append(dropped).await.unwrap(), RelayAnswer::Recorded, "{name}");
    }
    assert_eq!(proxy.struck(), 8);
    let owner = kit.database.owner().await;
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'found'").await, 4);
    assert_eq!(number(&owner, "SELECT count(*) FROM relay_log WHERE kind = 'dropped'").await, 4);
    assert_eq!(number(&owner, "SELECT count(*) FROM candidates").await, 0);
    assert_eq!(kit.problems().await, Vec::<String>::new());
}

#[tokio::test]
async fn callers_get_an_error_when_postgresql_stays_unreachable() {
    let (mut kit, proxy) = proxied().await;
    let short = RetryLimits { attempt: Duration::from_secs(1), total: Duration::from_secs(3) };
    let writer = kit.writer_with_limits(ingest_journal(), short);
    for _ in 0..20 {
        proxy.strike("$", Fault::Silence);
    }
    let told = writer.append(page(None, &sample(12, 1))).await;
    assert!(matches!(told, Err(quipu::store::Error::Unavailable(_))), "{told:?}");
    assert!(proxy.struck() >= 1, "the writer reached the proxy");
}

#[tokio::test]
async fn a_window_is_recorded_only_while_its_lease_is_held_and_other_windows_of_the_batch_are_recorded() {
    let mut kit = Kit::new().await;
    let relays = kit.relays(&["one", "two", "three"]).await;
    let windows = kit.writer(SyncJournal);
    let fences = [kit.fence(relays[0]).await, kit.fence(relays[1]).await, kit.fence(relays[2]).await];
    // The second relay's lease goes to another process, and the third relay's lease expires.
    kit.fence(relays[1]).await;
    let owner = kit.database.owner().await;
    let ends = format!("UPDATE lease SET expires_at = now() WHERE name = 'synchronizer/{}'", relays[2].0);
    owner.batch_execute(&ends).await.unwrap();

    let mut callers = JoinSet::new();
    for (place, relay) in relays.into_iter().enumerate() {
        let (windows, fence) = (windows.clone(), fences[place]);
        let (window, outcome) = (Window::new(0, 9).unwrap(), WindowOutcome::Complete);
        let command = WindowCommand { relay, window, outcome, events: 1, requests: 1, asked_at: 0, fence };
        callers.spawn(async move { (place, windows.append(command).await.unwrap()) });
    }
    let mut told = callers.join_all().await;
    told.sort_unstable_by_key(|answer| answer.0);
    let told: Vec<WindowAnswer> = told.into_iter().map(|answer| answer.1).collect();
    assert_eq!(told, [WindowAnswer::Recorded, WindowAnswer::LeaseLost, WindowAnswer::LeaseLost]);
    assert_eq!(number(&owner, "SELECT count(*) FROM sync_log").await, 1);
}
