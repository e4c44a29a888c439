//! Relays that claim by NIP-77 events that they do not hold.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use nostr_sdk::EventId;
use quipu::app::Parts;
use quipu::base::RelayUrl;
use quipu::config::Settings;
use quipu::lifecycle::Lifecycle;
use quipu::services::archive::command::RelayCommand;
use quipu::services::archive::decide::sample_size;
use quipu::services::archive::{RelayAnswer, RelayJournal};
use quipu::telemetry::Metrics;
use serde_json::json;

use super::hostile::{crawled, number};
use crate::support::database::TestDatabase;
use crate::support::farm::truth::{archived, false_proofs};
use crate::support::farm::{Character, Corpus, Extent, Farm, Plan};

/// Number of events. One relay sends all of them.
const EVENTS: usize = 2_000;
const SHOWS_ALL: Plan = Plan {
    relays: 1,
    character: Character::honest,
    extent: Extent { seed: 81, events: 2_000 },
    events_each: EVENTS,
    port: 0,
};

/// Creates a database in which all events are archived from the honest relay.
async fn archive(corpus: &Corpus) -> TestDatabase {
    let database = TestDatabase::new().await;
    let honest = Farm::with(&SHOWS_ALL, corpus).await.unwrap();
    crawled(&database, &[honest.relays()[0].url()]).await;
    assert_eq!(number(&database, "SELECT count(*) FROM events").await, 2_000);
    database
}

const FALSE_CLAIMS: &str =
    "SELECT count(*) FROM relay_log WHERE kind = 'observed' AND detail ->> 'what' = 'false_comparison'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_77_what_a_relay_claims_and_does_not_show_is_not_recorded_and_it_is_read_by_pages() {
    let corpus = Corpus::new(SHOWS_ALL.extent);
    let database = archive(&corpus).await;
    let lacking_some = Plan {
        relays: 2,
        character: |number| if number == 0 { Character::Agrees } else { Character::Overclaims },
        events_each: EVENTS * 95 / 100,
        ..SHOWS_ALL
    };
    let liars = Farm::with(&lacking_some, &corpus).await.unwrap();
    let urls: Vec<String> = liars.relays().iter().map(|relay| relay.url()).collect();
    crawled(&database, &urls).await;

    assert_eq!(number(&database, FALSE_CLAIMS).await, 2);
    assert_eq!(number(&database, "SELECT count(*) FROM events_relays WHERE how = 'compared'").await, 0);
    let client = database.owner().await;
    let seen = archived(&client).await;
    for relay in liars.relays() {
        let held: BTreeSet<EventId> = relay.sound(u64::MAX).collect();
        assert!(seen[&relay.url()] == held, "{:?} is seen with other events", relay.character());
    }
    assert_eq!(false_proofs(&client, &liars).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_77_what_an_honest_relay_claims_is_recorded_as_compared_once_a_sample_is_shown() {
    let corpus = Corpus::new(SHOWS_ALL.extent);
    let database = archive(&corpus).await;
    let plan = Plan { character: Character::negentropy, ..SHOWS_ALL };
    let farm = Farm::with(&plan, &corpus).await.unwrap();
    crawled(&database, &[farm.relays()[0].url()]).await;

    assert_eq!(number(&database, FALSE_CLAIMS).await, 0);
    let of = format!("SELECT count(*) FROM events_relays WHERE relay_url = '{}'", farm.relays()[0].url());
    assert_eq!(number(&database, &of).await, 2_000);
    let shown = i64::try_from(sample_size(EVENTS)).unwrap();
    assert_eq!(number(&database, &format!("{of} AND how = 'shown'")).await, shown);
    assert_eq!(false_proofs(&database.owner().await, &farm).await, Vec::<String>::new());
}

/// Records a false claim, as a process that detected one does.
async fn note_false_claim(database: &TestDatabase, url: &str) {
    let lifecycle = Lifecycle::new(std::time::Duration::from_secs(5));
    let parts =
        Parts::open(&database.urls(), Settings::default(), lifecycle.clone(), Metrics::new("test")).unwrap();
    let relays = parts.writer(RelayJournal);
    let url = RelayUrl::parse(url).unwrap();
    let known = relays.append(RelayCommand::Add { url, source: "operator" }).await.unwrap();
    let RelayAnswer::Known { relay, .. } = known else { panic!("{known:?}") };
    let detail = json!({ "what": "false_comparison" });
    relays.append(RelayCommand::Observe { relay, detail }).await.unwrap();
    drop((relays, parts));
    lifecycle.drain();
    lifecycle.run_until_stopped(futures_util::stream::pending::<&str>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_77_a_relay_with_a_false_claim_is_not_compared_with_by_later_processes_either() {
    let corpus = Corpus::new(SHOWS_ALL.extent);
    let database = archive(&corpus).await;
    let plan = Plan { relays: 2, character: Character::negentropy, ..SHOWS_ALL };
    let farm = Farm::with(&plan, &corpus).await.unwrap();
    let [trusted, caught] = farm.relays() else { panic!("two relays") };
    note_false_claim(&database, &caught.url()).await;
    crawled(&database, &[trusted.url(), caught.url()]).await;

    let compared =
        |relay: &crate::support::farm::Relay| relay.counts().reconciliations.load(Ordering::Relaxed);
    assert!(compared(trusted) > 0);
    assert_eq!(compared(caught), 0);
    let of =
        format!("SELECT count(*) FROM events_relays WHERE how = 'shown' AND relay_url = '{}'", caught.url());
    assert_eq!(number(&database, &of).await, 2_000);
}
